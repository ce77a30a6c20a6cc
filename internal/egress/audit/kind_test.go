package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// closed is the end of an allowed connection.
func closed(name string, sent int64) Entry {
	return Entry{Verdict: Allowed, Event: EventClose, Proto: "tcp", App: "tls", Name: name, Port: 443, Rule: "allow **.test", Sent: sent, Got: 100}
}

func write(t *testing.T, path string, entries ...Entry) {
	t.Helper()
	l, err := Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		l.Write(e)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDeniedQuestionsHideNoTransfer: 5 MB to an allowed host have a line with name and
// size, however many questions were denied before.
func TestDeniedQuestionsHideNoTransfer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.log")
	var list []Entry
	for i := range 700 {
		list = append(list, Entry{Verdict: Denied, Proto: "dns", App: "A", Name: fmt.Sprintf("x%d.evil.test", i), Reason: "no rule allows this name"})
	}
	write(t, path, append(list, closed("allowed.test", 5<<20))...)
	n, found := 0, false
	for _, e := range readAll(t, path) {
		if e.Proto == "dns" {
			n += max(1, e.Count)
		}
		found = found || e.Name == "allowed.test" && e.Sent == 5<<20
	}
	if !found || n != 700 {
		t.Errorf("the transfer is there: %v; %d of 700 denied questions are counted", found, n)
	}
}

// TestATransferKeepsItsNameAmongManyConnections: closes beyond the budget lose no
// byte of their sum, and the large ones keep their names.
func TestATransferKeepsItsNameAmongManyConnections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.log")
	var list []Entry
	for i := range 20_000 {
		if i == 10_000 {
			list = append(list, closed("large.test", 5<<20))
		}
		list = append(list, closed(fmt.Sprintf("x%d.test", i), 10))
	}
	write(t, path, list...)
	all := readAll(t, path)
	n, sent, large := 0, int64(0), int64(0)
	for _, e := range all {
		n += max(1, e.Count)
		sent += e.Sent
		if e.Name == "large.test" {
			large += e.Sent
		}
	}
	if n != 20_001 || sent != 5<<20+200_000 || large != 5<<20 {
		t.Errorf("%d connections with %d bytes, %d of them with the name", n, sent, large)
	}
	if len(all) > budgets[connections].lines+countedKeys+1000 { // a slow machine refills the budget meanwhile
		t.Errorf("%d lines", len(all))
	}
	last := all[len(all)-1]
	if last.Reason != budgets[connections].what || !strings.Contains(last.Text("allow"), fmt.Sprintf("x%d", last.Count)) {
		t.Errorf("the last line is %q", last.Text("allow"))
	}
}

// TestAFloodPushesNothingOut: a guest that floods every kind for forty minutes,
// with names as long as they may be, pushes out no line of before, and no kind takes
// more of the disk than its budget.
func TestAFloodPushesNothingOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.log")
	kept := map[string]bool{}
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		first := []Entry{
			closed("first-connection.test", 1),
			{Verdict: Denied, Proto: "tcp", Name: "first-denied.test", Port: 443},
			{Verdict: Denied, Proto: "icmp", Name: "first-packet.test"},
			{Verdict: Denied, Proto: "dns", App: "A", Name: "first-question.test"},
			{Verdict: Allowed, Proto: "dns", App: "A", Name: "first-lookup.test"},
		}
		for _, e := range first {
			l.Write(e)
			kept[e.Name] = false
		}
		flood(l, 40*time.Minute)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
	for _, e := range readAll(t, path) {
		if _, ok := kept[e.Name]; ok {
			kept[e.Name] = true
		}
	}
	for name, there := range kept {
		if !there {
			t.Errorf("%s was pushed out", name)
		}
	}
	for _, suffix := range suffixes {
		for _, name := range []string{path + suffix, path + suffix + ".1"} {
			if info, err := os.Stat(name); err == nil && info.Size() > LogBytes {
				t.Errorf("%s has %d bytes", name, info.Size())
			}
		}
	}
}

// flood writes entries of every kind for some time: at the gateway's real limit, 500
// a second, until the bursts are used, and then as many as the budgets cannot hold.
func flood(l *Log, lasts time.Duration) {
	begun := time.Now()
	for i := 0; time.Since(begun) < lasts; i++ {
		n := 500
		if time.Since(begun) > time.Minute {
			n = 15 // more than linesPerSecond
		}
		for j := range n {
			name := fmt.Sprintf("x%d-%d.", i, j) + strings.Repeat("y.", 110) + "test"
			e := closed(name, 1)
			e.Flow = uint64(i*500 + j)
			l.Write(e)
			l.Write(Entry{Verdict: Denied, Proto: "tcp", Name: name, Port: 443, Reason: "no rule allows it", Suggest: name})
			l.Write(Entry{Verdict: Denied, Proto: "ethertype " + name, Reason: "neither IPv4, IPv6 nor ARP"})
			l.Write(Entry{Verdict: Denied, Proto: "dns", App: "A", Name: name, Reason: "no rule allows this name", Suggest: name})
			l.Write(Entry{Verdict: Allowed, Proto: "dns", App: "A", Name: name})
			l.Write(Entry{Verdict: Allowed, Event: EventRequest, Proto: "tcp", Name: name, Method: "GET", Path: "/" + name, Status: 200})
		}
		time.Sleep(time.Second)
	}
}

// TestWhatTheLogKeeps holds the hours that docs/limits.md promises.
func TestWhatTheLogKeeps(t *testing.T) {
	for suffix, want := range map[string]time.Duration{"": 3 * time.Hour, fileDenied: 3 * time.Hour, fileLookups: 3 * time.Hour, fileRequests: 3 * time.Hour} {
		if got := fullFor(suffix, LogBytes); got < want {
			t.Errorf("net.log%s holds everything for %v only", suffix, got)
		}
	}
}

// TestLongTextsAreShort: a long name keeps its begin and its domain, and a rule that
// would be half a rule is not suggested.
func TestLongTextsAreShort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.log")
	long := strings.Repeat("a.", 120) + "evil.test"
	write(t, path,
		Entry{Verdict: Denied, Proto: "dns", Name: long, Suggest: long + ":443," + long},
		Entry{Verdict: Denied, Proto: "dns", Name: "short.test", Suggest: "short.test"},
		closed(long, 1))
	all := readAll(t, path)
	if e := all[0]; len(e.Name) != maxText || !strings.HasPrefix(e.Name, "a.a.") || !strings.HasSuffix(e.Name, ".evil.test") || e.Suggest != "" {
		t.Errorf("%+v", e)
	}
	if all[1].Suggest != "short.test" || all[2].Name != long {
		t.Errorf("%+v", all[1:])
	}
}

// TestFilesAreReadAsOne: the entries come in the order of their times, from whatever
// file, also those that an older build wrote to one file.
func TestFilesAreReadAsOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.log")
	begun := time.Now().Add(-time.Hour)
	at := func(second int, e Entry) Entry { e.Time = begun.Add(time.Duration(second) * time.Second); return e }
	old := fmt.Sprintf(`{"time":%q,"verdict":"deny","proto":"dns","name":"0"}`+"\n", begun.Format(time.RFC3339Nano))
	if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, path,
		at(3, closed("3", 1)), at(1, Entry{Verdict: Denied, Proto: "dns", Name: "1"}), at(2, Entry{Verdict: Denied, Proto: "udp", Name: "2"}),
		at(4, Entry{Verdict: Denied, Proto: "udp", Name: "4"}), at(5, Entry{Verdict: Allowed, Proto: "dns", Name: "5"}), at(6, closed("6", 1)))
	all := readAll(t, path)
	if len(all) != 7 {
		t.Fatalf("%d entries", len(all))
	}
	for i, e := range all {
		if e.Name != fmt.Sprint(i) {
			t.Errorf("entry %d is %s", i, e.Name)
		}
	}
}
