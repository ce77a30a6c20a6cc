package attrib

import (
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// A connection that is denied is gone before anyone can look for its socket in
// /proc. So the kernel notes who connects and who sends, as it happens: probes
// on three of its functions write to a ring of memory (Documentation/trace/
// fprobetrace.rst), which is read only when the host asks. That also tells
// containers apart, and costs less than a walk through /proc.
//
// Not every kernel can do it: /proc is asked then.

const (
	// traceRing is the ring's size for each CPU, in KiB: some thousand sends.
	traceRing = "64"
	// traceAge is how long a note stands for its port. The question follows the
	// first packet at once; later the port may be another's.
	traceAge = 10 * time.Second
	// traceNotes bounds the notes kept.
	traceNotes = 8192
	// traceSweep is how often old notes are thrown away.
	traceSweep = time.Second
	// taskAge is how long the process of a thread is believed to stay what it
	// was: /proc tells it slowly, and a busy thread connects again and again.
	taskAge = time.Second
	// maxTasks bounds the threads whose process is kept.
	maxTasks = 256
)

// traceProbes are the functions, in whose context the caller's process runs and
// the socket has its port already.
var traceProbes = []struct{ event, function string }{
	{"tcp", "tcp_connect"}, {"udp", "udp_sendmsg"}, {"udp6", "udpv6_sendmsg"},
}

// trace is the kernel's notes of who used which port.
type trace struct {
	once   sync.Once
	mu     sync.Mutex
	rings  []int // the ring of each CPU, to read from
	events map[uint16]layout
	page   []byte
	notes  map[tracedPort]note
	swept  time.Duration // when old notes were thrown away
	tasks  map[tracedTask]known
}

// tracedTask is a thread by its name too: one that runs another program has
// another.
type tracedTask struct {
	task int
	name string
}

// known is a thread's process.
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

// begin starts the notes, unless that was done. Without them /proc is asked.
func (t *trace) begin() {
	t.once.Do(func() {
		if err := t.start(); err != nil {
			log.Print(err)
		}
	})
}

// start sets the probes. The file system that it takes is mounted nowhere.
func (t *trace) start() error {
	root, err := mountTracefs()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(root) }()
	const dir = "instances/bawn"
	type setting struct{ file, value string }
	list := []setting{{"options/record-cmd", "0"}} // or each switch of tasks costs
	for _, p := range traceProbes {
		list = append(list, setting{"dynamic_events", fmt.Sprintf("f:bawn/%s %s port=sk->__sk_common.skc_num:u16 comm=$comm:string", p.event, p.function)})
	}
	for _, s := range list {
		if err := writeAt(root, s.file, s.value); err != nil {
			return err
		}
	}
	if err := unix.Mkdirat(root, dir, 0o700); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	list = []setting{{dir + "/buffer_size_kb", traceRing}, {dir + "/trace_clock", "mono"}}
	for _, p := range traceProbes {
		list = append(list, setting{dir + "/events/bawn/" + p.event + "/enable", "1"})
	}
	for _, s := range list {
		if err := writeAt(root, s.file, s.value); err != nil {
			return err
		}
	}
	events, err := readLayouts(root, dir)
	if err != nil {
		return err
	}
	rings, err := openRings(root, dir+"/per_cpu")
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rings, t.events, t.notes = rings, events, map[tracedPort]note{}
	t.page = make([]byte, os.Getpagesize())
	return nil
}

// readLayouts asks what the events look like, by their numbers.
func readLayouts(root int, dir string) (map[uint16]layout, error) {
	events := map[uint16]layout{}
	for _, p := range traceProbes {
		folder := dir + "/events/bawn/" + p.event
		text, err := readAt(root, folder+"/id")
		if err != nil {
			return nil, err
		}
		id, err := parseID(text)
		if err != nil {
			return nil, err
		}
		if text, err = readAt(root, folder+"/format"); err != nil {
			return nil, err
		}
		// udp6 is UDP as well.
		if events[id], err = parseLayout(strings.TrimSuffix(p.event, "6"), text); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// openRings opens the ring of each CPU. They are bare descriptors, as an os.File's
// reads would wait for more.
func openRings(root int, dir string) (rings []int, err error) {
	fd, err := unix.Openat(root, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	for _, n := range names {
		ring, err := unix.Openat(fd, n+"/trace_pipe_raw", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			for _, r := range rings {
				_ = unix.Close(r)
			}
			return nil, fmt.Errorf("trace: %w", err)
		}
		rings = append(rings, ring)
	}
	return rings, nil
}

func mountTracefs() (int, error) {
	fs, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("trace: %w", err)
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("trace: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("trace: %w", err)
	}
	return root, nil
}

// writeAt writes a setting below a folder; a file of events takes another line.
func writeAt(root int, file, value string) error {
	fd, err := unix.Openat(root, file, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("trace: %s: %w", file, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("trace: %s: %q: %w", file, value, err)
	}
	return nil
}

// readAt reads a file below a folder.
func readAt(root int, file string) (string, error) {
	fd, err := unix.Openat(root, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("trace: %s: %w", file, err)
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", fmt.Errorf("trace: %w", err)
	}
	return string(b), nil
}

// user is who used a port last, if that was lately; PID 0 is not known.
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

// process is a thread's process by /proc, or by what /proc said just now.
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

// drain takes the rings' contents in and forgets what is old, now and then. It
// returns the time on the notes' clock.
func (t *trace) drain() time.Duration {
	for _, ring := range t.rings {
		for range 1 << 10 { // senders may be as quick as this
			n, err := unix.Read(ring, t.page)
			if err != nil || n <= 0 {
				break
			}
			eachEvent(t.page[:n], t.take)
		}
	}
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

// take keeps an event as a note, unless a later one of that port, from another
// CPU's ring, is there.
func (t *trace) take(at time.Duration, data []byte) {
	id, _ := eventID(data)
	l, ok := t.events[id]
	if !ok {
		return // the kernel's own
	}
	k, n, ok := l.note(at, data)
	if ok && len(t.notes) < traceNotes && t.notes[k].at <= at {
		t.notes[k] = n
	}
}

func (t *trace) forget(now time.Duration) {
	for k, n := range t.notes {
		if now-n.at > traceAge {
			delete(t.notes, k)
		}
	}
}

// process gives the process of a thread, and its name; the thread's own where it
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
