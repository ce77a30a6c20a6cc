package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/size"
)

// bars draws progress on standard error: on a terminal one line that is drawn
// over, elsewhere a line at the start and the end of each task. A task that is
// over within the quiet time is never shown.
type bars struct {
	out *os.File
	tty bool

	mu    sync.Mutex
	tasks []*bar
	drawn bool
	stop  chan struct{}
	done  sync.WaitGroup
}

// quiet is how long work may take before it shows; below, a line would only
// flicker.
const quiet = 300 * time.Millisecond

func newBars(out *os.File) *bars {
	b := &bars{out: out, tty: isTerminal(out), stop: make(chan struct{})}
	b.done.Add(1)
	go b.loop()
	return b
}

// close ends the drawing and wipes the line.
func (b *bars) close() {
	close(b.stop)
	b.done.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wipe()
}

// showing shows that f is under way, if it takes long.
func showing(label string, f func() error) error {
	b := newBars(os.Stderr)
	defer b.close()
	task := b.Start(label, 0, progress.Steps)
	err := f()
	task.Done(err)
	return err
}

// around runs f, which writes to the terminal, with no bar drawn.
func (b *bars) around(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wipe()
	f()
}

type bar struct {
	all   *bars
	label string
	total int64
	unit  progress.Unit
	begun time.Time

	// guarded by all.mu
	at     int64
	detail string
	said   bool
}

// Start implements progress.Reporter.
func (b *bars) Start(label string, total int64, unit progress.Unit) progress.Task {
	t := &bar{all: b, label: label, total: total, unit: unit, begun: time.Now()}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tasks = append(b.tasks, t)
	return t
}

// Add implements progress.Task.
func (t *bar) Add(n int64) {
	t.all.mu.Lock()
	t.at += n
	t.all.mu.Unlock()
}

// Note implements progress.Task.
func (t *bar) Note(detail string) {
	t.all.mu.Lock()
	t.detail = detail
	t.all.mu.Unlock()
}

// Done implements progress.Task.
func (t *bar) Done(err error) {
	b := t.all
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, o := range b.tasks {
		if o == t {
			b.tasks = append(b.tasks[:i:i], b.tasks[i+1:]...)
		}
	}
	took := time.Since(t.begun)
	if err != nil || took < time.Second {
		return
	}
	b.wipe()
	fmt.Fprintf(b.out, "bawn: %s: done in %s\n", t.label, took.Round(100*time.Millisecond))
}

func (b *bars) loop() {
	defer b.done.Done()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-b.stop:
			return
		case <-tick.C:
		}
		b.mu.Lock()
		b.draw(n)
		b.mu.Unlock()
	}
}

// draw shows the youngest task that has run for long enough.
func (b *bars) draw(n int) {
	for i := len(b.tasks) - 1; i >= 0; i-- {
		t := b.tasks[i]
		if time.Since(t.begun) < quiet {
			continue
		}
		if !b.tty {
			if !t.said && time.Since(t.begun) > time.Second {
				t.said = true
				fmt.Fprintf(b.out, "bawn: %s...\n", t.label)
			}
			return
		}
		width, _, err := term.GetSize(int(b.out.Fd()))
		if err != nil || width < 20 {
			width = 80
		}
		fmt.Fprintf(b.out, "\r\x1b[K%s", t.line(n, width-1))
		b.drawn = true
		return
	}
}

func (b *bars) wipe() {
	if b.drawn {
		fmt.Fprint(b.out, "\r\x1b[K")
		b.drawn = false
	}
}

var spinner = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

const barWidth = 24 // columns

// line is the task in at most width columns.
func (t *bar) line(n, width int) string {
	s := spinner[n%len(spinner)] + " " + t.label
	if t.total > 0 {
		full := int(min(t.at, t.total) * barWidth / t.total)
		s += fmt.Sprintf("  %s%s %3d%%", strings.Repeat("━", full), strings.Repeat("─", barWidth-full), min(t.at, t.total)*100/t.total)
		if t.unit == progress.Bytes {
			s += " of " + size.Format(t.total)
		}
	} else if t.unit == progress.Bytes && t.at > 0 {
		s += "  " + size.Format(t.at)
	}
	s += fmt.Sprintf("  %ds", int(time.Since(t.begun).Seconds()))
	if t.detail != "" {
		s += "  " + strings.ReplaceAll(printable(t.detail), "\n", " ") // names, the guest's among them
	}
	if r := []rune(s); len(r) > width {
		s = string(r[:width])
	}
	return s
}
