package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/socketpair"
)

// monitor is the other end of a QMP connection: a stand-in for QEMU.
type monitor struct {
	t    *testing.T
	conn *net.UnixConn
	in   *bufio.Reader
}

// newMonitor connects a QMP to a stand-in, which has greeted it.
func newMonitor(t *testing.T) (*QMP, *monitor) {
	t.Helper()
	ours, file, err := socketpair.New()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := socketpair.Conn(file)
	if err != nil {
		t.Fatal(err)
	}
	m := &monitor{t, theirs, bufio.NewReader(theirs)}
	t.Cleanup(func() { theirs.Close() })
	done := make(chan error, 1)
	go func() {
		m.send(`{"QMP": {"version": {}}}`)
		c, err := m.next()
		if err == nil && c.Execute != "qmp_capabilities" {
			err = fmt.Errorf("the first command is %s", c.Execute)
		}
		m.send(fmt.Sprintf(`{"return": {}, "id": %d}`, c.ID))
		done <- err
	}()
	q, err := newQMP(t.Context(), ours)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return q, m
}

type command struct {
	Execute   string
	Arguments json.RawMessage
	ID        uint64
}

// next reads a command.
func (m *monitor) next() (c command, err error) {
	line, err := m.in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &c)
	}
	return c, err
}

// send sends a line. An error shows in the test as an answer that does not come.
func (m *monitor) send(line string) { _, _ = io.WriteString(m.conn, line+"\n") }

// answer answers the next command with a line, in which ID stands for its number.
func (m *monitor) answer(line string) {
	go func() {
		if c, err := m.next(); err == nil {
			m.send(strings.ReplaceAll(line, "ID", fmt.Sprint(c.ID)))
		}
	}()
}

// TestAnswers: an answer is decoded, a refusal is an *Error without control characters,
// and neither ends the connection.
func TestAnswers(t *testing.T) {
	q, m := newMonitor(t)
	var out struct{ Status string }
	m.answer(`{"return": {"status": "paused"}, "id": ID}`)
	if err := q.Execute(t.Context(), "query-status", nil, &out); err != nil || out.Status != "paused" {
		t.Errorf("got %+v, %v", out, err)
	}
	m.answer(`{"error": {"class": "GenericError", "desc": "no\u001b[2Jroom"}, "id": ID}`)
	var refused *Error
	err := q.Execute(t.Context(), "cont", nil, nil)
	if !errors.As(err, &refused) || refused.Command != "cont" || strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), "room") {
		t.Errorf("a refusal is %v", err)
	}
	m.answer(`{"return": [1, 2], "id": ID}`)
	if err := q.Execute(t.Context(), "query-status", nil, &out); err == nil {
		t.Error("an answer of another type was decoded")
	}
	m.answer(`{"return": {}, "id": ID}`)
	if err := q.Execute(t.Context(), "stop", nil, nil); err != nil {
		t.Error(err)
	}
}

// TestMessagesOfNoQEMU: a message that no QEMU sends ends the connection, and every
// command after it fails.
func TestMessagesOfNoQEMU(t *testing.T) {
	for name, line := range map[string]string{
		"no JSON":            `}{`,
		"no known message":   `{"other": 1}`,
		"no number":          `{"return": {}}`,
		"an error for none":  `{"error": {"desc": "x"}}`,
		"a number not given": `{"return": {}, "id": 99}`,
		"a negative number":  `{"return": {}, "id": -1}`,
		"too long":           `{"return": "` + strings.Repeat("x", maxAnswer) + `", "id": 1}`,
	} {
		t.Run(name, func(t *testing.T) {
			q, m := newMonitor(t)
			go m.send(line)
			if err := q.Execute(t.Context(), "stop", nil, nil); err == nil {
				t.Error("the command succeeded")
			}
			<-q.Closed()
			if err := q.Execute(t.Context(), "stop", nil, nil); err == nil {
				t.Error("the next command succeeded")
			}
		})
	}
}

// TestHungQEMU: a QEMU that neither reads nor answers holds nobody up for longer than the
// context allows; an answer that comes late is not taken for another's.
func TestHungQEMU(t *testing.T) {
	q, m := newMonitor(t)
	cause := errors.New("it took too long")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause) // enough to encode it under the race detector
	defer cancel()
	large := strings.Repeat("x", 4<<20) // more than the socket's buffer holds
	if err := q.Execute(ctx, "first", large, nil); !errors.Is(err, cause) {
		t.Errorf("the command ended with %v, want %v", err, cause)
	}
	if err := q.Execute(ctx, "never sent", nil, nil); !errors.Is(err, cause) {
		t.Errorf("a command whose context has ended: %v, want %v", err, cause)
	}
	go func() {
		answers := map[string]int{"first": 1, "second": 2}
		for range answers {
			if c, err := m.next(); err == nil {
				m.send(fmt.Sprintf(`{"return": %d, "id": %d}`, answers[c.Execute], c.ID))
			}
		}
	}()
	var v int
	if err := q.Execute(t.Context(), "second", nil, &v); err != nil || v != 2 {
		t.Errorf("got the answer %d, %v", v, err)
	}
}

// TestEvents: a Watch gets the events that match until it is stopped, and a flood of them
// neither blocks the answers nor is kept.
func TestEvents(t *testing.T) {
	q, m := newMonitor(t)
	events, stop := q.Watch(func(e Event) bool { return e.Name == "STOP" })
	defer stop()
	go func() {
		for range 10 * eventBacklog {
			m.send(`{"event": "RESUME", "data": {}}`)
			m.send(`{"event": "STOP", "data": {"n": 1}}`)
		}
		m.answer(`{"return": {}, "id": ID}`)
	}()
	if err := q.Execute(t.Context(), "stop", nil, nil); err != nil {
		t.Fatal(err)
	}
	for range eventBacklog {
		if e := <-events; e.Name != "STOP" || string(e.Data) != `{"n": 1}` {
			t.Errorf("got %s %s", e.Name, e.Data)
		}
	}
	select {
	case e := <-events:
		t.Errorf("more than the backlog was kept: %+v", e)
	default:
	}
}

// TestFileBesideCommand: the descriptor comes with the command that it belongs to.
func TestFileBesideCommand(t *testing.T) {
	q, m := newMonitor(t)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make(chan error, 1)
	go func() {
		line, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := m.conn.ReadMsgUnix(line, oob)
		var c command
		if err == nil {
			err = json.Unmarshal(line[:n], &c)
		}
		if err == nil && (oobn == 0 || c.Execute != "getfd") {
			err = fmt.Errorf("%s came with %d bytes beside it", c.Execute, oobn)
		}
		m.send(fmt.Sprintf(`{"return": {}, "id": %d}`, c.ID))
		got <- err
	}()
	if err := q.ExecuteFile(t.Context(), "getfd", map[string]any{"fdname": "x"}, f, nil); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// TestClean: text from QEMU is one line of bounded length without control characters.
func TestClean(t *testing.T) {
	if got := clean(" two\nlines\twith \x1b[31mcolour\x07 "); strings.ContainsAny(got, "\n\t\x1b\x07") || !strings.HasPrefix(got, "two lines with ") {
		t.Errorf("got %q", got)
	}
	if got := clean(strings.Repeat("long ", maxWords)); len(got) > maxWords+len("...") || !strings.HasSuffix(got, "...") {
		t.Errorf("got %d characters: %q", len(got), got)
	}
}

// FuzzMonitor: whatever comes from QEMU, the connection ends or goes on, and nothing
// panics or hangs.
func FuzzMonitor(f *testing.F) {
	for _, s := range []string{`{"return": {}, "id": 1}`, `{"event": "STOP"}`, `{"error": {"desc": "x"}, "id": 1}`, "\n\n", `{`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := &QMP{waiting: map[uint64]chan answer{1: make(chan answer, 1)}, lastID: 1, watches: map[*watch]struct{}{}, closed: make(chan struct{})}
		events, stop := q.Watch(func(Event) bool { return true })
		defer stop()
		_ = q.take(b)
		_ = q.take(b)
		if len(events) > eventBacklog {
			t.Error("too many events are kept")
		}
	})
}
