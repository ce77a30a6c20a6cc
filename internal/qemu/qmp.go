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

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/lines"
	"bawn.dev/bawn/internal/sys/text"
)

// maxAnswer bounds one line from QEMU, in bytes. The longest asked for here
// (query-migrate) has about 1,000.
const maxAnswer = 1 << 20

// eventBacklog is how many matching events a Watch holds. Further ones are dropped: a
// flood must cost no memory, and must not delay the answers.
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

// Event is a message that QEMU sends on its own. Data may hold anything.
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

// newQMP opens a QMP session on conn, which the QMP owns from now on.
func newQMP(ctx context.Context, conn *net.UnixConn) (*QMP, error) {
	q := &QMP{
		conn:    conn,
		waiting: map[uint64]chan answer{},
		watches: map[*watch]struct{}{},
		closed:  make(chan struct{}),
	}
	go q.read()
	// There is no need to wait for the greeting: QEMU reads the command after it.
	if err := q.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

// Close ends the connection. QEMU runs on.
func (q *QMP) Close() { q.end(net.ErrClosed) }

// Closed returns a channel that is closed when the connection has ended: with QEMU, or
// because of a message that no QEMU sends.
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
		line, err := lines.Read(r, maxAnswer)
		if err == nil {
			err = q.take(line)
		}
		if err != nil {
			q.end(err)
			return
		}
	}
}

// take handles one line. An error means that no QEMU would have sent it.
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
	return errors.New("a message is neither an answer nor an event")
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
	switch {
	case m.ID == nil && a.err != nil: // QEMU could not read a command
		return fmt.Errorf("an error without a command: %s", a.err.Desc)
	case m.ID == nil:
		return errors.New("an answer to no command")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if *m.ID > q.lastID {
		return errors.New("an answer to a command that was never sent")
	}
	if ch, ok := q.waiting[*m.ID]; ok { // else its caller gave up
		delete(q.waiting, *m.ID)
		ch <- a
	}
	return nil
}

// maxWords bounds how much text from QEMU is shown, in characters.
const maxWords = 500

// clean returns text from QEMU as one line that is safe for a terminal and a log.
func clean(s string) string { return text.Short(strings.Join(strings.Fields(s), " "), maxWords) }

// Watch collects the events that match, from now until stop is called. match
// runs on the reader's goroutine and must neither block nor call methods of the QMP.
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
// A refusal is an *Error. When ctx ends first, its cause is the error, and QEMU may
// still carry the command out.
func (q *QMP) Execute(ctx context.Context, command string, args, out any) error {
	return q.execute(ctx, command, args, nil, out)
}

// ExecuteFile is Execute with a descriptor beside the command (getfd, add-fd).
// The file stays the caller's.
func (q *QMP) ExecuteFile(ctx context.Context, command string, args any, file *os.File, out any) error {
	return q.execute(ctx, command, args, file, out)
}

// execute runs a command and decodes its answer.
func (q *QMP) execute(ctx context.Context, command string, args any, file *os.File, out any) error {
	a, err := q.ask(ctx, command, args, file)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
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
}

// ask sends a command and returns its answer.
func (q *QMP) ask(ctx context.Context, command string, args any, file *os.File) (answer, error) {
	if err := context.Cause(ctx); err != nil {
		return answer{}, err
	}
	id, answers, err := q.expect()
	if err != nil {
		return answer{}, err
	}
	defer q.forget(id)
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, args, id})
	if err != nil {
		return answer{}, err
	}
	sent := make(chan error, 1)
	go func() { sent <- q.send(append(line, '\n'), file) }() // a QEMU that hangs reads nothing
	for {
		select {
		case err := <-sent:
			if err != nil {
				return answer{}, err
			}
			sent = nil
		case a := <-answers:
			return a, nil
		case <-q.closed:
			return answer{}, q.err
		case <-ctx.Done():
			return answer{}, context.Cause(ctx)
		}
	}
}

// expect gives a command its ID, and the channel on which its answer will come.
func (q *QMP) expect() (id uint64, answers <-chan answer, err error) {
	ch := make(chan answer, 1)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return 0, nil, q.err
	}
	q.lastID++
	q.waiting[q.lastID] = ch
	return q.lastID, ch, nil
}

// forget drops the answer of a command, if it has not come yet.
func (q *QMP) forget(id uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiting, id)
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
