package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/supervisor/agent"
	"bawn.dev/bawn/internal/supervisor/hostwatch"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/wire"
)

// File events. The guest's agent tells which files of the shares programs in the guest watch. The share's
// server knows in which directories these are; hostwatch watches them here. What it sees goes
// to the server, which leaves out what the guest changed itself, and then to the agent,
// which makes the guest's kernel report it (package share, fileevents.go).

// Bounds on the inotify watches of a sandbox. Those of a user are fs.inotify.max_user_watches
// (inotify(7)).
const (
	maxHostWatches = 32768
	// watchesShare is the part of the user's watches that one sandbox may use.
	watchesShare = 4
)

// How long after an error file events are tried again.
const (
	eventsRetry    = 2 * time.Second
	eventsRetryMax = time.Minute
)

// reportPause is the least time between two reports of the guest on what is watched.
const reportPause = 50 * time.Millisecond

// watchFileEvents makes watchers in the guest see changes of the host, until ctx ends.
func (s *supervisor) watchFileEvents(ctx context.Context) {
	for pause := eventsRetry; ; pause = min(2*pause, eventsRetryMax) {
		err := s.fileEvents(ctx)
		if ctx.Err() != nil || s.life.status().phase != sandbox.Running {
			return
		}
		if errors.Is(err, errNoEvents) {
			s.log.Info("the sandbox's agent is of an older build: watchers in it see no changes of the host until it is stopped and started")
			return
		}
		s.log.Warn("watchers in the guest do not see changes of the host", "error", err, "again", pause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// errNoEvents means that the guest's agent knows no file events.
var errNoEvents = errors.New("the agent knows no file events")

// fileEvents is watchFileEvents until an error.
func (s *supervisor) fileEvents(ctx context.Context) error {
	var mounts []wire.Mount
	for _, sh := range s.shareServers() {
		mounts = append(mounts, sh.Plan.Mount)
	}
	stream, err := s.machine.agent.OpenWatch(ctx, mounts)
	if err != nil {
		return err
	}
	watch, err := hostwatch.New(hostWatches(), s.log)
	if err != nil {
		stream.Close()
		return err
	}
	if s.told.IsZero() {
		s.told = time.Now()
	}
	e := &eventStream{s: s, stream: stream, watch: watch, opened: s.told, played: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	told := make(chan struct{})
	go func() {
		defer close(told)
		cancel(e.tell(ctx))
	}()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		cancel(e.hear(ctx))
	}()
	<-ctx.Done()
	stream.Close()
	watch.Close()
	<-told
	<-heard
	return context.Cause(ctx)
}

// hostWatches returns how many directories of the host a sandbox may watch.
func hostWatches() int {
	b, err := os.ReadFile("/proc/sys/fs/inotify/max_user_watches")
	n, perr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || perr != nil {
		return maxHostWatches / watchesShare
	}
	return min(maxHostWatches, n/watchesShare)
}

// shareServers returns the servers of the shares as of now.
func (s *supervisor) shareServers() []*shareserver.Server {
	s.sharesMu.Lock()
	defer s.sharesMu.Unlock()
	return append([]*shareserver.Server(nil), s.shares...)
}

// moveLull is how long after a renamed directory its place is asked for anew: renames that follow each
// other are one.
const moveLull = 300 * time.Millisecond

// eventStream is one stream of file events. Orders to servers of shares end with the sandbox only: one
// that is given up ends the control of its server.
type eventStream struct {
	s      *supervisor
	stream *agent.Watch
	watch  *hostwatch.Watch
	opened time.Time     // from then on the guest is to be told what changes
	played chan struct{} // the guest has played a batch
	moved  chan struct{} // a directory was renamed, and the guest knows
	thread atomic.Uint32 // of the guest's agent
}

// report is what the guest watches.
type report struct {
	wire.WatchReply
	at time.Time // when it came
}

// hear reads what the guest says, until an error.
func (e *eventStream) hear(ctx context.Context) error {
	reports := make(chan report, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.follow(ctx, reports)
	}()
	defer func() {
		close(reports)
		<-done
	}()
	for first := true; ; first = false {
		r, err := e.stream.Read()
		if first && errors.Is(err, io.EOF) {
			return errNoEvents
		}
		if err != nil {
			return err
		}
		if r.Done {
			select {
			case e.played <- struct{}{}:
				continue
			default: // nobody waits for it
			}
		} else {
			select {
			case reports <- report{r, time.Now()}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select { // a guest that says more waits
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(reportPause):
		}
	}
}

// follow watches what the guest reports, until there are no more reports. The server names the
// directories, and the host may rename one before it is watched by that name, or before the guest
// knows. Then another directory, or none, was watched in its place, and the guest reports nothing
// anew. So after a rename that the guest knows of they are all named again, and what changed since
// they were named last is looked for.
func (e *eventStream) follow(ctx context.Context, reports <-chan report) {
	var last report
	var named time.Time
	var again <-chan time.Time
	for {
		since := time.Time{} // as the report says
		select {
		case r, ok := <-reports:
			if !ok {
				return
			}
			if e.thread.Swap(r.Thread) != r.Thread {
				e.setThread(r.Thread)
			}
			last = r
		case <-e.s.replaced: // the guest watches on, and the host has other directories
		case <-e.moved:
			if again == nil {
				again = time.After(moveLull)
			}
			continue
		case <-again:
			again, since = nil, named
		}
		if last.at.IsZero() {
			continue
		}
		named = time.Now()
		e.watched(ctx, last, since)
	}
}

// since returns from when on files that were changed on the host count as changed while they
// were watched: the guest's look before. Of the two times for that, one is late by the way of the report,
// and the other by what the guest's clock is ahead. A change that is told twice costs little, and one that is not
// told is lost: so clockError is taken off the earlier of them.
func (r report) since(opened time.Time) time.Time {
	since := r.at.Add(-time.Duration(min(max(r.Since, 0), maxSince.Milliseconds())) * time.Millisecond)
	if r.Looked.Before(since) && since.Sub(r.Looked) < maxSince {
		since = r.Looked
	}
	since = since.Add(-clockError)
	if r.Since == 0 || since.Before(opened) { // its first look
		return opened
	}
	return since
}

// clockError is by how much the guest's clock may be ahead: slewLimit in internal/guest/clock.go, and the error of
// the measurement.
const clockError = 300 * time.Millisecond

// setThread tells the servers which thread plays events, before it does.
func (e *eventStream) setThread(thread uint32) {
	for _, sh := range e.s.shareServers() {
		if _, err := sh.Announce(e.s.life.ctx, thread, nil); err != nil {
			e.s.log.Debug("file events", "root", sh.Plan.Options.Root, "error", err)
		}
	}
}

// watched watches the directories of the host that belong to what the guest watches. What changed
// since the report's time, or an earlier one if it is not zero, counts as changed meanwhile.
func (e *eventStream) watched(ctx context.Context, r report, earlier time.Time) {
	since := r.since(e.opened)
	if !earlier.IsZero() && earlier.Before(since) {
		since = earlier
	}
	nodes := map[string][]uint64{}
	for _, w := range r.Shares {
		nodes[w.Tag] = w.Nodes
	}
	for i, sh := range e.s.shareServers() {
		var dirs [][]byte
		var err error
		if list := nodes[sh.Plan.Mount.Tag]; len(list) > 0 {
			dirs, err = sh.Watched(e.s.life.ctx, list)
		}
		if err == nil {
			err = e.watch.Set(i, sh.Plan.Options.Root, dirs, since)
		}
		if err != nil && ctx.Err() == nil {
			e.s.log.Debug("file events", "root", sh.Plan.Options.Root, "error", err)
		}
	}
}

// maxSince bounds how far back changes count when the guest begins to watch a directory.
const maxSince = 2 * time.Minute

// tell tells the guest what changes on the host, until an error.
func (e *eventStream) tell(ctx context.Context) error {
	for {
		if told, all := e.watch.Drained(); all {
			e.s.told = told
		}
		i, changes, err := e.watch.Next()
		if err != nil {
			return err
		}
		servers := e.s.shareServers()
		if i >= len(servers) {
			return errors.New("the shares were removed")
		}
		events, err := servers[i].Announce(e.s.life.ctx, e.thread.Load(), changes)
		if err != nil { // such as of a server that is being replaced
			if ctx.Err() != nil {
				return ctx.Err()
			}
			e.s.log.Debug("file events", "error", err)
			continue
		}
		if len(events) > 0 {
			if err := e.play(ctx, wire.WatchBatch{Tag: servers[i].Plan.Mount.Tag, Events: events}); err != nil {
				return err
			}
		}
		if hostwatch.MovesDirectory(changes) {
			e.nameAgain()
		}
	}
}

// play sends a batch to the guest and waits until it has played it.
func (e *eventStream) play(ctx context.Context, batch wire.WatchBatch) error {
	if err := e.stream.Send(batch); err != nil {
		return fmt.Errorf("file events: %w", err)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-e.played:
		return nil
	}
}

// nameAgain has the watched directories named again.
func (e *eventStream) nameAgain() {
	select {
	case e.moved <- struct{}{}:
	default: // it is noted
	}
}
