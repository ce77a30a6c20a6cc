package watch

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"reflect"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/lines"
	"bawn.dev/bawn/internal/wire"
)

// The kernel does not tell what is watched, so the agent looks for it. A look costs a millisecond
// with some hundred processes, and some 4 microseconds for each watched file. So the agent looks only
// when a probe in the kernel announces a new watch (announce.go), which costs nothing where nothing
// happens.
//
// A kernel that has no such probe announces none. There the agent looks after signs of life: a process
// or thread was born, or a request went to a share, as when a path is looked up to be watched. It reads
// two small files for that, once a second.
const (
	lookOften = time.Second      // for signs of life
	lookMost  = 4 * time.Second  // between two looks while there are signs or announced watches
	lookAtAll = 60 * time.Second // between two looks in any case
	// wholeOften is the time between two looks at all descriptors, where there are looks.
	wholeOften = 10 * time.Second
	// lookSoon is the time that a watcher gets to add more, after the first one is announced.
	lookSoon = 100 * time.Millisecond
	// Looks take this part of a processor's time: a fiftieth while there are signs (but for
	// lookMost), else a four-hundredth.
	lookFactor  = 50
	atAllFactor = 400
)

// due reports whether it is time for a look, so long after one that took so much processor
// time.
func due(since, took time.Duration, signs bool) bool {
	if signs {
		return since >= lookPause(took)
	}
	return since >= max(lookAtAll, atAllFactor*took)
}

// lookPause returns the time between two looks while there are signs, of which the last took so much
// processor time.
func lookPause(took time.Duration) time.Duration {
	return min(max(lookOften, lookFactor*took), lookMost)
}

// threadTime returns the processor time of the calling thread.
func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// maxBatch bounds a line from the host, in bytes.
const maxBatch = 8 << 20

// Streams serves streams of the kind wire.StreamWatch, one at a time. The zero value is ready. Its
// methods may be called concurrently.
type Streams struct {
	marks marks
	// one is held by Serve: the share's servers know one thread that plays events, and would carry out
	// what another one asks for.
	one sync.Mutex
}

// Begin makes the kernel announce watches. Without it, and where the kernel cannot do that, streams look
// for signs of life. A failure is only logged.
func (o *Streams) Begin() { o.marks.begin() }

// Serve serves a stream until the host closes it, after the one before it has ended. roots are
// the directories where the shares are mounted, by tag.
func (o *Streams) Serve(c net.Conn, roots map[string]string) {
	o.one.Lock()
	defer o.one.Unlock()
	s := &server{
		conn: c, roots: roots, scanner: newScanner("/proc", roots), player: newPlayer(),
		soon: make(chan struct{}, 1), closed: make(chan struct{}), marks: &o.marks,
	}
	defer s.player.close()
	looking := make(chan struct{})
	go func() {
		defer close(looking)
		s.report()
	}()
	_ = s.serve() // the host has closed it
	close(s.closed)
	c.Close()
	<-looking
}

// server is one stream.
type server struct {
	conn    net.Conn
	roots   map[string]string
	scanner *scanner
	player  *player
	soon    chan struct{} // look again: a directory was made
	marks   *marks
	// announced gets the time of the first new watch since the last receipt; nil where the kernel
	// announces none, or not yet.
	announced <-chan time.Time
	// marked are the times of the first announced watch before the last look, and before the one before
	// that; zero where none was announced.
	marked [2]time.Time
	calm   bool // there were no signs of life before the last look; used by report
	closed chan struct{}

	mu sync.Mutex // of writes
}

// write sends one line.
func (s *server) write(r wire.WatchReply) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = s.conn.Write(append(line, '\n'))
	return err
}

// serve plays the batches that the host sends.
func (s *server) serve() error {
	in := bufio.NewReader(s.conn)
	for {
		line, err := lines.Read(in, maxBatch)
		if err != nil {
			return err
		}
		var b wire.WatchBatch
		if err := json.Unmarshal(line, &b); err != nil {
			return fmt.Errorf("malformed batch: %w", err)
		}
		if root, ok := s.roots[b.Tag]; ok {
			_ = s.player.play(root, b.Events) // it is unmounted
		}
		for _, e := range b.Events {
			if e.Type == unix.S_IFDIR {
				select {
				case s.soon <- struct{}{}:
				default:
				}
				break
			}
		}
		if err := s.write(wire.WatchReply{Done: true}); err != nil {
			return err
		}
	}
}

// report reports what is watched, at once and at each change, until the stream ends.
func (s *server) report() {
	runtime.LockOSThread() // its processor time is measured
	defer runtime.UnlockOSThread()
	var last []wire.WatchedShare
	full, fullTook := time.Time{}, time.Duration(0)
	for first := true; ; first = false {
		start := time.Now()
		all := start.Sub(full) >= s.wholePause(fullTook)
		cpu := threadTime()
		now := s.scanner.look(all)
		took := threadTime() - cpu
		if all {
			full, fullTook = start, took
		}
		if first || !reflect.DeepEqual(now, last) {
			r := wire.WatchReply{Thread: s.player.thread, Shares: now}
			if !first {
				r.Looked = s.since()
				r.Since = time.Since(r.Looked).Milliseconds() + 1
			}
			if s.write(r) != nil {
				return
			}
			last = now
		}
		if !s.wait(took) {
			return
		}
	}
}

// wholePause returns the time between two looks at all descriptors, of which the last took so much
// processor time. What was announced is looked for among all of them once more.
func (s *server) wholePause(took time.Duration) time.Duration {
	if s.marked[0].IsZero() && !s.marked[1].IsZero() {
		return max(lookOften, lookFactor*took)
	}
	return max(wholeOften, atAllFactor*took)
}

// since returns from when on what the last look found may have been watched: from when the look before did
// not find it, and not before it was announced.
func (s *server) since() time.Time {
	since := s.scanner.since
	first := s.marked[0]
	if before := s.marked[1]; first.IsZero() || !before.IsZero() && before.Before(first) {
		first = before
	}
	if first.After(since) { // not if it is zero
		return first
	}
	return since
}

// wait waits for the next look, after one that took so much processor time. It reports false
// when the stream has ended.
func (s *server) wait(took time.Duration) bool {
	s.marked = [2]time.Time{1: s.marked[0]}
	if s.announced == nil {
		s.announced = s.marks.listen()
	}
	if s.announced == nil {
		return s.waitForSigns(took)
	}
	start, pause := time.Now(), max(lookAtAll, atAllFactor*took)
	followed := !s.marked[1].IsZero()
	if followed { // a watch is announced before it is added: look once more
		pause = lookPause(took)
	}
	select {
	case <-s.closed:
		return false
	case <-s.soon:
		return s.sleep(lookSoon) // give the watcher the time to add the directory
	case at, ok := <-s.announced:
		if !ok {
			s.announced = nil
			return true
		}
		pause = lookSoon
		if followed {
			pause = max(lookSoon, lookPause(took)-time.Since(start))
		}
		if !s.sleep(pause) {
			return false
		}
		s.marked[0] = at
		return true
	case <-time.After(pause):
		return true
	}
}

// sleep waits so long. It reports false when the stream has ended.
func (s *server) sleep(pause time.Duration) bool {
	select {
	case <-s.closed:
		return false
	case <-time.After(pause):
		return true
	}
}

// waitForSigns is wait where no watch is announced.
func (s *server) waitForSigns(took time.Duration) bool {
	start := time.Now()
	// What was looked up just before the look may be watched after it without a request: a look
	// that followed signs of life at once is followed by another.
	// The same holds for a process that starts, which may take longer.
	live := !s.calm || s.scanner.young
	for last := s.scanner.signs(); ; {
		select {
		case <-s.closed:
			return false
		case <-s.soon:
			s.calm = false
			return s.sleep(lookSoon) // give the watcher the time to add the directory
		case <-time.After(lookOften):
		}
		if s.announced = s.marks.listen(); s.announced != nil {
			return true // what was added before is not announced
		}
		now := s.scanner.signs()
		s.calm = now == last
		live = live || !s.calm
		if due(time.Since(start), took, live) {
			return true
		}
		last = now
	}
}
