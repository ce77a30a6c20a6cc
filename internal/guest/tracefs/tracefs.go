// Package tracefs sets probes on functions of the kernel and opens the ring buffers to which they write
// events, by way of a tracefs that is mounted nowhere (Documentation/trace/ftrace.rst and
// Documentation/trace/fprobetrace.rst).
package tracefs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxFile bounds what Read returns, in bytes.
const maxFile = 64 << 10

// FS is a tracefs. Its methods may be called concurrently. The caller closes it; probes and instances
// outlast it.
type FS struct{ root int }

// Setting is a value to write to a file of a tracefs. To a file with a list it adds a line.
type Setting struct{ File, Value string }

// Mount opens a tracefs.
func Mount() (FS, error) {
	fs, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return FS{}, fmt.Errorf("trace: %w", err)
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigCreate(fs); err != nil {
		return FS{}, fmt.Errorf("trace: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return FS{}, fmt.Errorf("trace: %w", err)
	}
	return FS{root}, nil
}

// Close closes it.
func (f FS) Close() { _ = unix.Close(f.root) }

// Instance is an instance of the tracer, with ring buffers of its own in which only its probes write.
type Instance struct {
	// Dir is its folder, "instances/NAME".
	Dir string
	// RingKiB is the size of the ring buffer for each CPU, in KiB.
	RingKiB int
	Probes  []Probe
}

// Probe is one at the beginning of a function of the kernel. Event is the name of its events, and Fields what they
// have besides the task and the time (Documentation/trace/fprobetrace.rst, FETCHARGS).
type Probe struct{ Event, Function, Fields string }

// group is that of all events of bawn.
const group = "bawn"

// EventDir returns the folder that an event has in the instance.
func (i Instance) EventDir(event string) string { return i.Dir + "/events/" + group + "/" + event }

// Start sets the probes of an instance, and makes the instance. Times of its events are those of the monotonic
// clock (Time).
func (f FS) Start(i Instance) error {
	// Else the kernel records every switch of tasks. An instance takes that over when it is made.
	if err := f.Write(Setting{"options/record-cmd", "0"}); err != nil {
		return err
	}
	for _, p := range i.Probes {
		if err := f.probe(strings.TrimSpace(fmt.Sprintf("%s/%s %s %s", group, p.Event, p.Function, p.Fields))); err != nil {
			return err
		}
	}
	if err := unix.Mkdirat(f.root, i.Dir, 0o700); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	if err := f.Write(Setting{i.Dir + "/buffer_size_kb", strconv.Itoa(i.RingKiB)}, Setting{i.Dir + "/trace_clock", "mono"}); err != nil {
		return err
	}
	for _, p := range i.Probes {
		if err := f.Write(Setting{i.EventDir(p.Event) + "/enable", "1"}); err != nil {
			return err
		}
	}
	return nil
}

// Write writes settings one after the other, up to the first that fails.
func (f FS) Write(list ...Setting) error {
	for _, s := range list {
		if err := f.write(s); err != nil {
			return err
		}
	}
	return nil
}

func (f FS) write(s Setting) error {
	fd, err := unix.Openat(f.root, s.File, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("trace: %s: %w", s.File, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.Write(fd, []byte(s.Value)); err != nil {
		return fmt.Errorf("trace: %s: %q: %w", s.File, s.Value, err)
	}
	return nil
}

// probe sets a probe, "GROUP/EVENT FUNCTION FIELDS": an fprobe, or a kprobe, which costs more, where there are no
// fprobes. Linux 6.12 has none on arm64, and calls them an invalid argument.
func (f FS) probe(definition string) error {
	err := f.write(Setting{probeFile, "f:" + definition})
	if errors.Is(err, unix.EINVAL) {
		err = f.write(Setting{probeFile, "p:" + definition})
	}
	return err
}

// probeFile has a line for each probe.
const probeFile = "dynamic_events"

// Read returns what a file holds, at most maxFile bytes of it.
func (f FS) Read(file string) (string, error) {
	fd, err := unix.Openat(f.root, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("trace: %s: %w", file, err)
	}
	r := os.NewFile(uintptr(fd), file)
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxFile))
	if err != nil {
		return "", fmt.Errorf("trace: %w", err)
	}
	return string(b), nil
}

// maxPages bounds the pages of a ring buffer that are read in one go, since events may come as fast as
// they are read.
const maxPages = 1 << 10

// Rings are the ring buffers of an instance, one for each CPU. Only one goroutine may use them at a time.
type Rings struct {
	fds  []int // bare descriptors, since reads of an os.File would wait for more
	page []byte
}

// Rings opens the ring buffers of an instance, for the CPUs that are there now. They are never closed.
func (f FS) Rings(i Instance) (*Rings, error) {
	dir := i.Dir + "/per_cpu"
	fd, err := unix.Openat(f.root, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	folder := os.NewFile(uintptr(fd), dir)
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	r := &Rings{page: make([]byte, os.Getpagesize())}
	for _, n := range names {
		ring, err := unix.Openat(fd, n+"/trace_pipe_raw", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			for _, fd := range r.fds {
				_ = unix.Close(fd)
			}
			return nil, fmt.Errorf("trace: %w", err)
		}
		r.fds = append(r.fds, ring)
	}
	return r, nil
}

// Drain takes the events out of the ring buffers and calls event with the time and data of each, as
// EachEvent does: those of one CPU in their order. data is valid until event returns.
func (r *Rings) Drain(event func(at time.Duration, data []byte)) {
	for _, fd := range r.fds {
		for range maxPages {
			n, err := unix.Read(fd, r.page)
			if err != nil || n <= 0 {
				break
			}
			EachEvent(r.page[:n], event)
		}
	}
}

// Wait waits until there is an event. It fails where a ring buffer cannot be waited for.
func (r *Rings) Wait() error {
	list := make([]unix.PollFd, 0, len(r.fds))
	for _, fd := range r.fds {
		list = append(list, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	for {
		_, err := unix.Poll(list, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("trace: poll: %w", err)
		}
		for _, p := range list {
			if p.Revents&^unix.POLLIN != 0 {
				return fmt.Errorf("trace: a ring buffer failed: poll says %#x", p.Revents)
			}
		}
		return nil
	}
}

// Time returns the time of an event of an instance.
func Time(at time.Duration) time.Time {
	now := time.Now()
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return now
	}
	return now.Add(min(0, at-time.Duration(ts.Nano())))
}
