package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"bawn.dev/bawn/internal/policy"
)

func readAll(t *testing.T, path string) []Entry {
	t.Helper()
	var all []Entry
	if err := Read(path, func(e Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestLogRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.log")
	const max = 4 << 10
	l, err := Open(path, max)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range l.meters {
		m.byteRate, m.lineRate = rate.NewLimiter(rate.Inf, 1<<40), rate.NewLimiter(rate.Inf, 1<<40)
	}
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan Entry, 1000)
	followed := make(chan error, 1)
	go func() {
		followed <- Follow(ctx, path, func(e Entry) error { got <- e; return nil })
	}()
	for i := range 40 {
		l.Write(Entry{Verdict: Allowed, Event: EventClose, Proto: "tcp", Name: fmt.Sprintf("n%d.example", i), Port: 443})
		for j := i - 7; i%8 == 7 && j <= i; j++ {
			if e := <-got; e.Name != fmt.Sprintf("n%d.example", j) || e.Time.IsZero() {
				t.Fatalf("the follower saw %+v for entry %d", e, j)
			}
		}
		if i%10 == 0 {
			// A torn line, as a crash leaves it.
			l.mu.Lock()
			_, _ = l.files[""].Write([]byte("{\"time\":\n"))
			l.mu.Unlock()
		}
	}
	cancel()
	if err := <-followed; err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + ".1"} {
		info, err := os.Stat(name)
		if err != nil || info.Size() > max || info.Mode().Perm() != 0o600 {
			t.Fatal(name, info, err)
		}
	}
	all := readAll(t, path)
	if len(all) < 10 || all[len(all)-1].Name != "n39.example" {
		t.Fatalf("%d entries, the last %+v", len(all), all[len(all)-1])
	}
	again, err := Open(path, max)
	if err != nil {
		t.Fatal(err)
	}
	again.Write(Entry{Verdict: Allowed, Name: "after"})
	again.Close()
	if all := readAll(t, path); all[len(all)-1].Name != "after" {
		t.Fatal("the log does not go on")
	}
}

func TestLogFlood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.log")
	l, err := Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Write(Entry{Verdict: Denied, Proto: "tcp", Name: "first.example"})
	const n = 20_000
	for i := range n {
		l.Write(Entry{Verdict: Denied, Proto: "dns", Name: fmt.Sprintf("x%d.example", i)})
	}
	l.Close()
	all := readAll(t, path)
	sum := 0
	for _, e := range all[1:] {
		sum += max(e.Count, 1)
	}
	if all[0].Name != "first.example" || sum != n || len(all) > linesAtOnce+1000 {
		t.Fatalf("%d lines for %d entries", len(all), sum)
	}
}

func TestLogDiskFull(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("needs /dev/full")
	}
	path := filepath.Join(t.TempDir(), "net.log")
	l, err := Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := l.files[fileDenied]
	good := f.WriteCloser
	if f.WriteCloser, err = os.OpenFile("/dev/full", os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	l.Write(Entry{Verdict: Denied, Name: "a"})
	l.Write(Entry{Verdict: Denied, Name: "b"})
	f.Close()
	f.WriteCloser = good
	l.Write(Entry{Verdict: Denied, Name: "c"})
	l.Close()
	all := readAll(t, path)
	if len(all) != 2 || all[0].Count < 2 || all[1].Name != "c" {
		t.Fatalf("%+v", all)
	}
}

func TestEntryText(t *testing.T) {
	e := Entry{Time: time.Now(), Verdict: Denied, Proto: "tcp", Name: "a\x1b[2Jb", Port: 8443, Reason: "no rule", Suggest: "a:8443", Count: 3}
	text := e.Text("bawn policy allow")
	if strings.ContainsAny(text, "\x1b\n") || !strings.Contains(text, "bawn policy allow a:8443") || !strings.HasSuffix(text, "x3") {
		t.Fatalf("%q", text)
	}
	var nothing *Log
	nothing.Write(e)
	if err := nothing.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFollowEnds when the log's folder is removed: nothing more can come.
func TestFollowEnds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "box")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "net.log")
	l, err := Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Write(Entry{Verdict: Denied, Name: "last.example"})
	l.Close()
	seen := make(chan string, 10)
	done := make(chan error, 1)
	go func() { done <- Follow(t.Context(), path, func(e Entry) error { seen <- e.Name; return nil }) }()
	if got := <-seen; got != "last.example" {
		t.Error(got)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

func TestProcessColumn(t *testing.T) {
	e := Entry{Time: time.Now(), Verdict: Denied, Proto: "tcp", Name: "a.example", Port: 443, Process: "curl[7]"}
	at := strings.Index(Heading, "PROCESS")
	if text := e.Text("bawn policy allow"); !strings.HasPrefix(text[at:], "curl[7] ") || strings.Index(text, "a.example") != strings.Index(Heading, "TARGET") {
		t.Errorf("%s\n%s", Heading, text)
	}
	e.Process = ""
	if text := e.Text("bawn policy allow"); !strings.HasPrefix(text[at:], "- ") {
		t.Errorf("%s\n%s", Heading, text)
	}
}

// TestDecisionToEntry: what a policy decides is in the log as a reader gets it.
func TestDecisionToEntry(t *testing.T) {
	rules, err := policy.ParseFile("p", []byte("allow good.test:443\nallow 192.0.2.0/24:22\nallow host:5432\ndeny evil.test\n"))
	if err != nil {
		t.Fatal(err)
	}
	set := policy.Compile(rules)
	host := policy.Flow{Name: policy.HostName, Host: true, Port: 5432, Proto: policy.TCP}
	for _, c := range []struct {
		flow policy.Flow
		want Entry
	}{
		{policy.Flow{Name: "good.test", Port: 443, Proto: policy.TCP}, Entry{Verdict: Allowed, Proto: "tcp", Name: "good.test", Port: 443, Rule: "allow good.test:443"}},
		{policy.Flow{Addr: netip.MustParseAddr("192.0.2.7"), Port: 22, Proto: policy.TCP}, Entry{Verdict: Allowed, Proto: "tcp", Addr: netip.MustParseAddr("192.0.2.7"), Port: 22, Rule: "allow 192.0.2.0/24:22"}},
		{host, Entry{Verdict: Allowed, Proto: "tcp", Name: policy.HostName, Port: 5432, Rule: "allow host:5432"}},
		{policy.Flow{Name: "evil.test", Port: 443, Proto: policy.TCP}, Entry{Verdict: Denied, Proto: "tcp", Name: "evil.test", Port: 443, Rule: "deny evil.test", Reason: `the rule "deny evil.test" denies it`}},
		{policy.Flow{Name: "new.test", Port: 53, Proto: policy.UDP}, Entry{Verdict: Denied, Proto: "udp", Name: "new.test", Port: 53, Reason: "no rule allows it", Suggest: "udp:new.test:53"}},
	} {
		path := filepath.Join(t.TempDir(), "net.log")
		l, err := Open(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		d := set.Decide(c.flow)
		e := EntryOf(c.flow, d)
		if e.Verdict = Allowed; !d.Allow {
			e = e.Deny(d, set.Suggest(c.flow))
		}
		l.Write(e)
		l.Close()
		all := readAll(t, path)
		if len(all) != 1 {
			t.Fatalf("%+v", all)
		}
		got := all[0]
		if got.Time.IsZero() {
			t.Errorf("%v: no time", c.flow)
		}
		if got.Time = (time.Time{}); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.flow, got, c.want)
		}
	}
}

// TestLogAfterATornLine: a line that follows one that the disk had no room for stands on a line
// of its own.
func TestLogAfterATornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.log")
	l, err := Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := l.files[fileDenied]
	good := f.WriteCloser
	f.WriteCloser = half{good}
	l.Write(Entry{Verdict: Denied, Name: "torn"})
	f.WriteCloser = good
	l.Write(Entry{Verdict: Denied, Name: "whole"})
	l.Close()
	if all := readAll(t, path); len(all) != 2 || all[0].Count != 1 || all[1].Name != "whole" {
		t.Errorf("%+v", all)
	}
}

// half writes half of what it is given, as a disk does that becomes full.
type half struct{ io.WriteCloser }

func (h half) Write(b []byte) (int, error) {
	n, _ := h.WriteCloser.Write(b[:len(b)/2])
	return n, syscall.ENOSPC
}

// TestErrorOfTheCaller: it ends the reading and comes back as it is.
func TestErrorOfTheCaller(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.log")
	l, err := Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Write(Entry{Verdict: Denied, Name: "a.example"})
	l.Write(Entry{Verdict: Denied, Name: "b.example"})
	l.Close()
	stop := errors.New("stop")
	for name, read := range map[string]func(func(Entry) error) error{
		"Read":   func(each func(Entry) error) error { return Read(path, each) },
		"Follow": func(each func(Entry) error) error { return Follow(t.Context(), path, each) },
	} {
		n := 0
		if err := read(func(Entry) error { n++; return stop }); err != stop || n != 1 { //nolint:errorlint // as it is
			t.Errorf("%s: %v after %d entries", name, err, n)
		}
	}
}
