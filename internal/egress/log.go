package egress

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"bawn.dev/bawn/internal/policy"
)

// The audit log is JSON lines in a file of bounded size and one older file
// beside it (NAME.1). A guest that floods must not push out what it did before:
// beyond a burst, entries that look alike are counted and written as one.

const (
	// LogBytes bounds the current file; the older one is as long. In bytes.
	LogBytes = 8 << 20
	// logBurst and logRate bound single entries: at a burst, and each second.
	logBurst = 500
	logRate  = 10
	// logKeys bounds the different entries that are counted at a time.
	logKeys = 32
	// logFlush is how often counted entries are written.
	logFlush = 2 * time.Second
	// maxLogLine bounds a line read back, in bytes.
	maxLogLine = 64 << 10
	// followPoll is how often a follower looks for more.
	followPoll = 100 * time.Millisecond
)

// Verdicts and events of an Entry.
const (
	Allowed = "allow"
	Denied  = "deny"

	EventOpen  = "open"  // a connection begins
	EventClose = "close" // it ended: bytes and duration are known
)

// Entry is one line of the audit log.
type Entry struct {
	Time    time.Time     `json:"time"`
	Verdict string        `json:"verdict"`         // Allowed or Denied
	Event   string        `json:"event,omitempty"` // EventOpen, EventClose; empty for a single decision
	Flow    uint64        `json:"flow,omitempty"`  // joins the open and the close of a connection
	Proto   string        `json:"proto,omitempty"` // tcp, udp, icmp, dns, link
	App     string        `json:"app,omitempty"`   // tls, http, http2, or the type of a DNS query
	Name    string        `json:"name,omitempty"`
	Addr    netip.Addr    `json:"addr,omitzero"` // dialled; for a denial the one the guest asked for
	Port    uint16        `json:"port,omitempty"`
	Rule    string        `json:"rule,omitempty"`    // that decided; empty is the default denial
	Reason  string        `json:"reason,omitempty"`  // of a denial, or of an end that was not the peers' own
	Suggest string        `json:"suggest,omitempty"` // the rule that would allow it
	Sent    int64         `json:"sent,omitempty"`    // bytes from the guest
	Got     int64         `json:"got,omitempty"`     // bytes to the guest
	Lasted  time.Duration `json:"lasted_ns,omitempty"`
	Process string        `json:"process,omitempty"` // name and number, as the guest tells: it may lie
	Count   int           `json:"count,omitempty"`   // how many alike, if more than one
}

// entryOf is what a flow and the decision about it tell a line of the log.
func entryOf(to policy.Flow, d policy.Decision) Entry {
	e := Entry{Proto: string(to.Proto), Name: to.Name, Port: to.Port, Rule: d.RuleText()}
	if to.Name == "" {
		e.Addr = to.Addr
	}
	return e
}

// denied makes the entry one of a denial. suggest is the rule that would allow the
// flow, or empty.
func (e Entry) denied(d policy.Decision, suggest string) Entry {
	e.Verdict, e.Reason, e.Rule, e.Suggest = Denied, d.Reason, d.RuleText(), suggest
	return e
}

// WantsHost says whether the guest connected, or asked for a host's address in
// order to. Names of services (_http._tcp.example.org, RFC 2782) and questions
// for other records lead to no connection: a rule would not help.
func (e Entry) WantsHost() bool {
	if e.Proto != "dns" {
		return true
	}
	address := e.App == dns.TypeToString[dns.TypeA] || e.App == dns.TypeToString[dns.TypeAAAA]
	return address && !strings.HasPrefix(e.Name, "_") && !strings.Contains(e.Name, "._")
}

// Heading goes above lines made by Text.
var Heading = fmt.Sprintf("%-12s %-7s %-5s %-*s %s", "TIME", "VERDICT", "PROTO", processWidth, "PROCESS", "TARGET")

// processWidth holds the longest name that Linux keeps (15 bytes) and a number.
const processWidth = 20

// Text is an entry as one line for people, safe to print: the guest chose
// parts of it.
func (e Entry) Text() string { return e.text(true) }

func (e Entry) text(process bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-7s %-5s", e.Time.Local().Format("15:04:05.000"), e.Verdict, e.Proto)
	if process {
		fmt.Fprintf(&b, " %-*s", processWidth, cmp.Or(e.Process, "-"))
	}
	target := e.Name
	if target == "" && e.Addr.IsValid() {
		target = e.Addr.String()
	}
	if e.Port != 0 {
		target = fmt.Sprintf("%s:%d", target, e.Port)
	}
	fmt.Fprintf(&b, " %s", target)
	for _, part := range []string{e.App, e.Event, e.Reason} {
		if part != "" {
			fmt.Fprintf(&b, " %s", part)
		}
	}
	if e.Rule != "" {
		fmt.Fprintf(&b, " [%s]", e.Rule)
	}
	if e.Event == EventClose {
		fmt.Fprintf(&b, " sent %d got %d in %s", e.Sent, e.Got, e.Lasted.Round(time.Millisecond))
	}
	if e.Verdict == Denied && e.Suggest != "" {
		fmt.Fprintf(&b, " (bawn policy allow %s)", e.Suggest)
	}
	if e.Count > 1 {
		fmt.Fprintf(&b, " x%d", e.Count)
	}
	return printable(b.String())
}

// printable replaces what could steer a terminal, or hide: control characters,
// those that turn the direction of writing, those without a width.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// Log writes the audit log. Safe for concurrent use. A full disk loses entries,
// never a decision: how many were lost is written when there is room again.
type Log struct {
	path string
	max  int64

	mu      sync.Mutex
	file    *os.File
	size    int64
	lost    int
	bucket  *rate.Limiter
	counted map[Entry]int
	timer   *time.Timer
	closed  bool
	notify  func(Entry) // may be nil
}

// OpenLog opens or makes the log at path; max bounds each of the two files
// (0 is LogBytes). Only the user may read it.
func OpenLog(path string, max int64) (*Log, error) {
	if max <= 0 {
		max = LogBytes
	}
	l := &Log{path: path, max: max, bucket: rate.NewLimiter(logRate, logBurst), counted: map[Entry]int{}}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	return l, nil
}

// Notify lets f be called for each line of the log from now on, one call at a time. f must
// not block, nor use the log.
func (l *Log) Notify(f func(Entry)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notify = f
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.size = f, info.Size()
	if l.size > 0 {
		// After a crash the last line may be torn; an empty line costs nothing.
		n, err := f.WriteString("\n")
		if l.size += int64(n); err != nil {
			l.lost++
		}
	}
	return nil
}

// Write adds an entry; Time is set if it is zero. A nil Log takes it and
// forgets it.
func (l *Log) Write(e Entry) {
	if l == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.bucket.Allow() {
		l.put(e)
		return
	}
	l.count(e)
}

// room says whether an entry would get a line of its own now.
func (l *Log) room() bool { return l != nil && l.bucket.Tokens() >= 1 }

// count adds an entry to those that look alike.
func (l *Log) count(e Entry) {
	// What differs from one connection to the next is left out.
	k := Entry{Verdict: e.Verdict, Proto: e.Proto, App: e.App, Name: e.Name, Addr: e.Addr, Port: e.Port, Rule: e.Rule, Reason: e.Reason, Suggest: e.Suggest}
	if _, ok := l.counted[k]; !ok && len(l.counted) >= logKeys {
		k = Entry{Verdict: e.Verdict, Proto: e.Proto, Reason: "many more of different kinds"}
	}
	l.counted[k]++
	if l.timer == nil {
		l.timer = time.AfterFunc(logFlush, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.flush()
		})
	}
}

// flush writes what was counted.
func (l *Log) flush() {
	now := time.Now()
	for e, n := range l.counted {
		e.Time, e.Count = now, n
		l.put(e)
	}
	clear(l.counted)
	l.timer = nil
}

// put writes one line and turns the files over when the current one is full.
func (l *Log) put(e Entry) {
	if l.notify != nil {
		l.notify(e)
	}
	if l.lost > 0 {
		n := l.lost
		l.lost = 0
		l.put(Entry{Time: e.Time, Verdict: e.Verdict, Reason: "entries were lost: the log could not be written", Count: n})
		if l.lost > 0 {
			l.lost += n
			return
		}
	}
	line, err := json.Marshal(e)
	if err != nil || l.file == nil {
		l.lost++
		return
	}
	line = append(line, '\n')
	if l.size+int64(len(line)) > l.max && l.size > 0 {
		l.turn()
		if l.file == nil {
			l.lost++
			return
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	if err != nil {
		l.lost++
	}
}

// turn makes the current file the older one.
func (l *Log) turn() {
	l.file.Close()
	l.file = nil
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		// Keep the bound all the same.
		_ = os.Truncate(l.path, 0)
	}
	_ = l.open() // a failure leaves file nil: entries count as lost
}

// Close writes what was counted and closes the file.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
		l.flush()
	}
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// ReadLog calls each for the entries of the log at path, the oldest first; no
// log is no entry. Lines that cannot be read are passed over.
func ReadLog(path string, each func(Entry) error) error {
	for _, name := range []string{path + ".1", path} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		t := tail{each: each}
		err = t.read(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
	}
	return nil
}

// ErrLogGone means that the folder of a log was removed.
var ErrLogGone = errors.New("the audit log is gone")

// FollowLog is ReadLog, and then waits for more until ctx is done, when it returns
// nil, or the log's folder is removed: ErrLogGone.
func FollowLog(ctx context.Context, path string, each func(Entry) error) error {
	t := tail{each: each}
	if f, err := os.Open(path + ".1"); err == nil {
		err = t.read(f)
		f.Close()
		if err != nil {
			return err
		}
	}
	var f *os.File
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	tick := time.NewTicker(followPoll)
	defer tick.Stop()
	for {
		if f == nil {
			var err error
			if f, err = os.Open(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("follow the audit log: %w", err)
			}
			t.part = nil
		}
		if f != nil {
			// Look first, read then: what was written before it was turned over
			// is read to its end.
			turned := turnedOver(f, path)
			if err := t.read(f); err != nil {
				return err
			}
			if turned {
				f.Close()
				f = nil
				continue
			}
		}
		if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
			return ErrLogGone
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// turnedOver says whether another file has taken the place of f.
func turnedOver(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return true
	}
	b, err := os.Stat(path)
	return err == nil && !os.SameFile(a, b)
}

// tail reads whole lines and keeps the last one until it is whole.
type tail struct {
	each func(Entry) error
	part []byte
}

func (t *tail) read(r io.Reader) error {
	br := bufio.NewReaderSize(r, maxLogLine)
	for {
		line, err := br.ReadSlice('\n')
		if len(t.part) > 0 || err != nil {
			t.part = append(t.part, line...)
			line = t.part
		}
		if err != nil {
			if errors.Is(err, bufio.ErrBufferFull) || len(t.part) > maxLogLine {
				t.part = t.part[:0]
				continue
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var e Entry
		if json.Unmarshal(bytes.TrimSpace(line), &e) == nil && !e.Time.IsZero() {
			if err := t.each(e); err != nil {
				return err
			}
		}
		t.part = t.part[:0]
	}
}
