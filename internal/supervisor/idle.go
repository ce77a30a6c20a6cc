package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"bawn.dev/bawn/internal/qemu"
)

// Suspending an idle sandbox. A sandbox is in use while somebody is attached, a published
// port has a connection, bytes pass between it and the network, or its processors work. One
// that was not in use for its idle time is suspended, as on a Suspend request.

const (
	idlePoll    = 5 * time.Second
	idlePollMin = 500 * time.Millisecond // for idle times that are short
	// idleWork is the share of one processor below which a machine counts as idle: under
	// software emulation an idle kernel takes some hundredths.
	idleWork = 0.15
)

// usage is one measurement of how much a sandbox is used.
type usage struct {
	at       time.Time
	attached bool
	traffic  int64         // bytes to and from the network so far
	work     time.Duration // processor time of the machine so far
}

func (s *supervisor) usage() (usage, error) {
	work, err := processorTime(s.machine.Pid())
	sent, got := s.network.gate.Traffic()
	return usage{
		at: time.Now(), attached: s.life.status().sessions > 0 || s.ports.Conns() > 0,
		traffic: sent + got, work: work,
	}, err
}

// busySince reports whether the sandbox was in use between before and u.
func (u usage) busySince(before usage) bool {
	return u.attached || u.traffic != before.traffic ||
		(u.work-before.work).Seconds() > idleWork*u.at.Sub(before.at).Seconds()
}

// watchIdle suspends the sandbox when it was idle for the time that its spec allows, which
// may change at any time. It returns when ctx ends or the sandbox is suspended.
func (s *supervisor) watchIdle(ctx context.Context) {
	if !qemu.CanDetachShares() {
		return
	}
	var last usage
	var since time.Time // of its last use
	for {
		limit := s.idleTime()
		now, err := s.usage()
		if err != nil {
			s.log.Warn("cannot find out whether the sandbox is idle: not suspending it", "error", err)
			return
		}
		if since.IsZero() || now.busySince(last) {
			since = now.at
		}
		last = now
		s.lastUse.Store(new(since))
		if limit > 0 && now.at.Sub(since) >= limit {
			s.log.Info("idle: suspending", "for", now.at.Sub(since).Round(time.Second))
			if err := s.Suspend(ctx, false); err == nil {
				return
			} else if ctx.Err() == nil {
				s.log.Warn("cannot suspend the idle sandbox", "error", err)
			}
			since = time.Time{}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(idlePollMin, min(idlePoll, limit/8))):
		}
	}
}

// idleTime returns the idle time in the spec on disk, or that of the start where the spec
// cannot be read; 0 is never.
func (s *supervisor) idleTime() time.Duration {
	if spec, err := s.dir.Spec(); err == nil {
		return spec.Idle
	}
	return s.spec.Idle
}

// tick is the unit of /proc/PID/stat, which is the same on all Linux (sysconf(3), _SC_CLK_TCK).
const tick = 10 * time.Millisecond

// processorTime returns how long a process has run so far, in user and kernel mode.
func processorTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// Its second field is a name in parentheses, which may hold anything
	// (proc_pid_stat(5)); utime and stime are the 14th and the 15th.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	var sum time.Duration
	for _, t := range f[11:13] {
		n, err := strconv.ParseInt(string(t), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}
