package egress

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

func readAll(t *testing.T, path string) []Entry {
	t.Helper()
	var all []Entry
	if err := ReadLog(path, func(e Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestLogRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.log")
	const max = 4 << 10
	l, err := OpenLog(path, max)
	if err != nil {
		t.Fatal(err)
	}
	l.bucket = rate.NewLimiter(rate.Inf, 0)
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan Entry, 1000)
	followed := make(chan error, 1)
	go func() {
		followed <- FollowLog(ctx, path, func(e Entry) error { got <- e; return nil })
	}()
	for i := range 40 {
		l.Write(Entry{Verdict: Denied, Proto: "tcp", Name: fmt.Sprintf("n%d.example", i), Port: 443})
		for j := i - 7; i%8 == 7 && j <= i; j++ {
			if e := <-got; e.Name != fmt.Sprintf("n%d.example", j) || e.Time.IsZero() {
				t.Fatalf("the follower saw %+v for entry %d", e, j)
			}
		}
		if i%10 == 0 {
			// A torn line, as a crash leaves it.
			l.mu.Lock()
			_, _ = l.file.Write([]byte("{\"time\":\n"))
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
	again, err := OpenLog(path, max)
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
	l, err := OpenLog(path, 0)
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
	if all[0].Name != "first.example" || sum != n || len(all) > logBurst+1000 {
		t.Fatalf("%d lines for %d entries", len(all), sum)
	}
}

func TestLogDiskFull(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("needs /dev/full")
	}
	path := filepath.Join(t.TempDir(), "net.log")
	l, err := OpenLog(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	good := l.file
	if l.file, err = os.OpenFile("/dev/full", os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	l.Write(Entry{Verdict: Denied, Name: "a"})
	l.Write(Entry{Verdict: Denied, Name: "b"})
	l.file.Close()
	l.file = good
	l.Write(Entry{Verdict: Denied, Name: "c"})
	l.Close()
	all := readAll(t, path)
	if len(all) != 2 || all[0].Count < 2 || all[1].Name != "c" {
		t.Fatalf("%+v", all)
	}
}

func TestEntryText(t *testing.T) {
	e := Entry{Time: time.Now(), Verdict: Denied, Proto: "tcp", Name: "a\x1b[2Jb", Port: 8443, Reason: "no rule", Suggest: "a:8443", Count: 3}
	text := e.Text()
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
	l, err := OpenLog(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Write(Entry{Verdict: Denied, Name: "last.example"})
	l.Close()
	seen := make(chan string, 10)
	done := make(chan error, 1)
	go func() { done <- FollowLog(t.Context(), path, func(e Entry) error { seen <- e.Name; return nil }) }()
	if got := <-seen; got != "last.example" {
		t.Error(got)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrLogGone) {
		t.Error(err)
	}
}
