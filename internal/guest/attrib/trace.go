package attrib

import (
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/tracefs"
	"bawn.dev/bawn/internal/wire"
)

// A connection that is denied has ended before its socket can be looked for in /proc. So
// the kernel records each connect and each datagram when it happens: probes on three of its
// functions write an event to a ring buffer (Documentation/trace/fprobetrace.rst), which is
// read only when the host asks. That also works for containers, and costs less than a
// search of /proc. A kernel that lacks this has no ring buffer to read, and /proc is
// searched.
//
// Words: an event is what the kernel writes; a note is an event that was read, kept by
// protocol and local port; a task is a thread by its number and name.

const (
	// traceAge is how long a note is valid. The host asks right after the first packet;
	// later the port may be another process's.
	traceAge = 10 * time.Second
	// traceNotes bounds the notes that are kept.
	traceNotes = 8192
	// traceSweep is how often old notes are removed.
	traceSweep = time.Second
	// taskAge is how long the process of a task is kept: reading it from /proc is slow, and
	// a busy thread connects again and again.
	taskAge = time.Second
	// maxTasks bounds the tasks whose process is kept.
	maxTasks = 256
)

// instance is ours of the tracer. The functions run in the context of the calling process, and the socket has
// its port by then. A ring buffer holds some thousand events.
var instance = tracefs.Instance{
	Dir: "instances/bawn", RingKiB: 64,
	Probes: []tracefs.Probe{{Event: "tcp", Function: "tcp_connect", Fields: fields}, {Event: "udp", Function: "udp_sendmsg", Fields: fields}, {Event: "udp6", Function: "udpv6_sendmsg", Fields: fields}},
}

const fields = "port=sk->__sk_common.skc_num:u16 comm=$comm:string"

// trace keeps the kernel's notes of which task used which port. Its methods may be called
// concurrently.
type trace struct {
	once   sync.Once
	mu     sync.Mutex
	rings  *tracefs.Rings // nil before start
	events map[uint16]layout
	notes  map[tracedPort]note
	swept  time.Duration // when old notes were last removed
	tasks  map[tracedTask]known
}

// tracedTask is a thread by number and name. Its name changes when it runs another program.
type tracedTask struct {
	task int
	name string
}

// known is the process of a task, and when it was read.
type known struct {
	process wire.ProcessReply
	at      time.Time
}

type tracedPort struct {
	proto string
	port  uint16
}

type note struct {
	task int           // a thread of the process
	name string        // of the thread
	at   time.Duration // of the monotonic clock
}

// begin starts the notes, once. A failure is only logged: /proc is searched then.
func (t *trace) begin() {
	t.once.Do(func() {
		if err := t.start(); err != nil {
			log.Print(err)
		}
	})
}

// start sets the probes.
func (t *trace) start() error {
	fs, err := tracefs.Mount()
	if err != nil {
		return err
	}
	defer fs.Close()
	if err := fs.Start(instance); err != nil {
		return err
	}
	events, err := readLayouts(fs)
	if err != nil {
		return err
	}
	rings, err := fs.Rings(instance)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rings, t.events, t.notes = rings, events, map[tracedPort]note{}
	return nil
}

// readLayouts returns the layout of each kind of event, by its number.
func readLayouts(fs tracefs.FS) (map[uint16]layout, error) {
	events := map[uint16]layout{}
	for _, p := range instance.Probes {
		folder := instance.EventDir(p.Event)
		text, err := fs.Read(folder + "/id")
		if err != nil {
			return nil, err
		}
		id, err := parseID(text)
		if err != nil {
			return nil, err
		}
		if text, err = fs.Read(folder + "/format"); err != nil {
			return nil, err
		}
		// udp6 is UDP as well.
		if events[id], err = parseLayout(strings.TrimSuffix(p.Event, "6"), text); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// user returns the task that last used a port, not longer ago than traceAge; 0 if there is
// none.
func (t *trace) user(proto string, port uint16) (task int, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rings == nil {
		return 0, ""
	}
	now := t.drain()
	n := t.notes[tracedPort{proto, port}]
	if now-n.at > traceAge {
		return 0, ""
	}
	return n.task, n.name
}

// process returns a task's process from p, or as it was read less than taskAge ago.
func (t *trace) process(p procfs, task int, name string) wire.ProcessReply {
	key := tracedTask{task, name}
	t.mu.Lock()
	k, ok := t.tasks[key]
	t.mu.Unlock()
	if ok && time.Since(k.at) < taskAge {
		return k.process
	}
	k = known{p.process(task, name), time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tasks == nil || len(t.tasks) >= maxTasks {
		t.tasks = map[tracedTask]known{}
	}
	t.tasks[key] = k
	return k.process
}

// drain reads the ring buffers, and removes old notes now and then. It returns the time on
// the notes' clock.
func (t *trace) drain() time.Duration {
	t.rings.Drain(t.take)
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		clear(t.notes)
		return 0
	}
	at := time.Duration(now.Nano())
	if at-t.swept > traceSweep || len(t.notes) >= traceNotes {
		t.swept = at
		t.forget(at)
	}
	return at
}

// take keeps an event as a note, unless there is a later one for its port, from another
// CPU's ring buffer.
func (t *trace) take(at time.Duration, data []byte) {
	id, _ := eventID(data)
	l, ok := t.events[id]
	if !ok {
		return // not one of ours
	}
	k, n, ok := l.note(at, data)
	if ok && len(t.notes) < traceNotes && t.notes[k].at <= at {
		t.notes[k] = n
	}
}

// forget removes the notes that are too old.
func (t *trace) forget(now time.Duration) {
	for k, n := range t.notes {
		if now-n.at > traceAge {
			delete(t.notes, k)
		}
	}
}

// process returns the process of a task and its name; the task's own number and name if it
// has ended.
func (p procfs) process(task int, name string) wire.ProcessReply {
	b, _ := os.ReadFile(string(p) + "/" + strconv.Itoa(task) + "/status")
	_, rest, _ := strings.Cut(string(b), "\nTgid:")
	line, _, _ := strings.Cut(rest, "\n")
	if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
		if leader := p.name(pid); leader != "" {
			return wire.ProcessReply{PID: pid, Name: leader}
		}
	}
	return wire.ProcessReply{PID: task, Name: name}
}
