package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/sys/unix"
)

// maxAnswer bounds one line from QEMU, in bytes. The longest asked for here
// (query-migrate) has about 1,000.
const maxAnswer = 1 << 20

// eventBacklog is how many matching events a Watch holds. More are dropped: a
// flood must cost no memory, and must not stop the answers.
const eventBacklog = 16

// QMP is a connection to QEMU's monitor (QEMU Machine Protocol specification).
// Its methods may be called by several goroutines at once.
type QMP struct {
	conn *net.UnixConn

	sending sync.Mutex // keeps a command and its descriptor together

	mu      sync.Mutex
	lastID  uint64
	waiting map[uint64]chan answer // each holds one
	watches map[*watch]struct{}
	err     error         // why the connection ended
	closed  chan struct{} // closed once err is set
}

// Event is what QEMU reports unasked. Data may hold anything.
type Event struct {
	Name string
	Data json.RawMessage
}

// Error is QEMU's refusal of a command.
type Error struct {
	Command string
	Class   string
	Desc    string
}

func (e *Error) Error() string {
	return fmt.Sprintf("QEMU refused %s: %s", e.Command, e.Desc)
}

type answer struct {
	body json.RawMessage
	err  *Error
}

type watch struct {
	match func(Event) bool
	ch    chan Event
}

// message is any line from QEMU. Exactly one of QMP, Return, Error and Event
// counts.
type message struct {
	QMP    json.RawMessage `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
	ID    *uint64         `json:"id"`
}

// newQMP greets QEMU on conn, which it owns from now on.
func newQMP(ctx context.Context, conn *net.UnixConn) (*QMP, error) {
	q := &QMP{
		conn:    conn,
		waiting: map[uint64]chan answer{},
		watches: map[*watch]struct{}{},
		closed:  make(chan struct{}),
	}
	go q.read()
	// The greeting needs no waiting for: QEMU reads the command after it.
	if err := q.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

// Close ends the connection. QEMU runs on.
func (q *QMP) Close() { q.end(net.ErrClosed) }

// Closed is closed when the connection has ended: with QEMU, or over an answer
// that no QEMU gives.
func (q *QMP) Closed() <-chan struct{} { return q.closed }

func (q *QMP) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return
	}
	q.err = fmt.Errorf("QEMU's monitor: %w", err)
	close(q.closed)
	q.conn.Close()
}

// read takes lines until the connection ends.
func (q *QMP) read() {
	r := bufio.NewReaderSize(q.conn, 16<<10)
	for {
		line, err := readLine(r, maxAnswer)
		if err == nil {
			err = q.take(line)
		}
		if err != nil {
			q.end(err)
			return
		}
	}
}

// readLine reads up to and including a newline, and at most limit bytes.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, fmt.Errorf("a line of more than %d bytes", limit)
		}
		line = append(line, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return line, err
	}
}

// take deals with one line. An error means that no QEMU would have sent it.
func (q *QMP) take(line []byte) error {
	if line = bytes.TrimSpace(line); len(line) == 0 {
		return nil
	}
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return fmt.Errorf("an answer that is not QMP: %s", clean(err.Error()))
	}
	switch {
	case m.Event != "":
		q.deliver(Event{Name: m.Event, Data: m.Data})
		return nil
	case m.Error != nil || m.Return != nil:
		return q.reply(m)
	case m.QMP != nil:
		return nil
	}
	return errors.New("a message that is neither answer nor event")
}

func (q *QMP) deliver(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for w := range q.watches {
		if w.match(e) {
			select {
			case w.ch <- e:
			default:
			}
		}
	}
}

func (q *QMP) reply(m message) error {
	a := answer{body: m.Return}
	if m.Error != nil {
		a.err = &Error{Class: clean(m.Error.Class), Desc: clean(m.Error.Desc)}
	}
	if m.ID == nil {
		return fmt.Errorf("an answer to no command: %w", a.err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if *m.ID > q.lastID {
		return errors.New("an answer to a command never given")
	}
	if ch, ok := q.waiting[*m.ID]; ok { // else its caller gave up
		delete(q.waiting, *m.ID)
		ch <- a
	}
	return nil
}

// maxWords bounds what of QEMU's words is shown, in characters.
const maxWords = 500

// clean makes words from QEMU fit for a terminal and a log.
func clean(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxWords {
			b.WriteString("...")
			break
		}
		if !unicode.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

// Watch collects the events that match, from now until stop is called. match
// runs on the reader's goroutine and must neither block nor call the QMP.
func (q *QMP) Watch(match func(Event) bool) (events <-chan Event, stop func()) {
	w := &watch{match: match, ch: make(chan Event, eventBacklog)}
	q.mu.Lock()
	q.watches[w] = struct{}{}
	q.mu.Unlock()
	return w.ch, func() {
		q.mu.Lock()
		delete(q.watches, w)
		q.mu.Unlock()
	}
}

// Execute runs a command and decodes its answer into out, unless that is nil.
// A refusal is an *Error. When ctx ends first, the command may still be carried
// out.
func (q *QMP) Execute(ctx context.Context, command string, args, out any) error {
	return q.execute(ctx, command, args, nil, out)
}

// ExecuteFile is Execute with a descriptor beside the command (getfd, add-fd).
// The file stays the caller's.
func (q *QMP) ExecuteFile(ctx context.Context, command string, args any, file *os.File, out any) error {
	return q.execute(ctx, command, args, file, out)
}

func (q *QMP) execute(ctx context.Context, command string, args any, file *os.File, out any) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	ch := make(chan answer, 1)
	q.mu.Lock()
	if q.err != nil {
		q.mu.Unlock()
		return fmt.Errorf("%s: %w", command, q.err)
	}
	q.lastID++
	id := q.lastID
	q.waiting[id] = ch
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.waiting, id)
		q.mu.Unlock()
	}()

	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, args, id})
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	sent := make(chan error, 1)
	go func() { sent <- q.send(append(line, '\n'), file) }()
	for {
		select {
		case err := <-sent:
			if err != nil {
				return fmt.Errorf("%s: %w", command, err)
			}
			sent = nil
		case a := <-ch:
			if a.err != nil {
				a.err.Command = command
				return a.err
			}
			if out == nil {
				return nil
			}
			if err := json.Unmarshal(a.body, out); err != nil {
				return fmt.Errorf("%s: an unexpected answer: %s", command, clean(err.Error()))
			}
			return nil
		case <-q.closed:
			return fmt.Errorf("%s: %w", command, q.err)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", command, context.Cause(ctx))
		}
	}
}

// send writes one line, with a descriptor beside its first byte.
func (q *QMP) send(line []byte, file *os.File) error {
	q.sending.Lock()
	defer q.sending.Unlock()
	if file == nil {
		_, err := q.conn.Write(line)
		return err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var sendErr error
	if err := raw.Control(func(fd uintptr) {
		n, _, sendErr = q.conn.WriteMsgUnix(line, unix.UnixRights(int(fd)), nil)
	}); err != nil {
		return err
	}
	if sendErr != nil {
		return sendErr
	}
	if n < len(line) {
		_, err = q.conn.Write(line[n:])
	}
	return err
}
