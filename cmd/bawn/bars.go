package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/size"
	"bawn.dev/bawn/internal/sys/text"
)

// bars shows the engine's events on standard error. Notices are printed at once. Tasks
// are drawn on a terminal as one line that is drawn over, elsewhere as a line at the
// start and the end of each. A task that is over within the quiet time is never shown.
type bars struct {
	out *os.File
	tty bool

	mu    sync.Mutex
	tasks []*bar
	drawn bool
	raw   bool          // lines end in "\r\n" (setRaw)
	stop  chan struct{} // closed to stop the drawing; nil while there is no task
	done  chan struct{} // closed when the drawing has stopped
}

// bar is one task.
type bar struct {
	engine.TaskStarted
	at       int64
	detail   string
	reported bool // its start was printed
}

// quiet is how long work may take before it shows; below, a line would only
// flicker.
const quiet = 300 * time.Millisecond

func newBars(out *os.File) *bars { return &bars{out: out, tty: isTerminal(out)} }

// openEngine opens the user's sandboxes. What happens is shown on standard error.
func openEngine() (*engine.Engine, *bars, error) {
	b := newBars(os.Stderr)
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	e, err := engine.Open(engine.Options{
		Version: version(), Events: b.show,
		SSHProxy: func(name string) string { return proxyCommand(self, name) },
	})
	return e, b, err
}

// show shows one event (engine.Options.Events).
func (b *bars) show(ev engine.Event) {
	switch ev := ev.(type) {
	case engine.TaskStarted:
		b.begin(ev)
	case engine.TaskAdvanced:
		b.advance(ev)
	case engine.TaskEnded:
		b.end(ev)
	case engine.Notice:
		b.around(func() { b.notice(ev) })
	}
}

func (b *bars) begin(ev engine.TaskStarted) {
	ev.Label = text.Line(ev.Label) // names of directories and of images, of whoever chose these
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tasks = append(b.tasks, &bar{TaskStarted: ev})
	if b.stop == nil {
		b.stop, b.done = make(chan struct{}), make(chan struct{})
		go b.loop(b.stop, b.done)
	}
}

func (b *bars) advance(ev engine.TaskAdvanced) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.tasks {
		if t.Task == ev.Task {
			t.at, t.detail = ev.Done, ev.Detail
		}
	}
}

// end removes a task. After the last one the drawing stops and its line is wiped.
func (b *bars) end(ev engine.TaskEnded) {
	b.mu.Lock()
	for i, t := range b.tasks {
		if t.Task != ev.Task {
			continue
		}
		b.tasks = append(b.tasks[:i:i], b.tasks[i+1:]...)
		if took := time.Since(t.At); ev.Err == nil && took >= time.Second {
			b.wipe()
			fmt.Fprintf(b.out, "bawn: %s: done in %s\n", t.Label, took.Round(100*time.Millisecond))
		}
		break
	}
	var done chan struct{}
	if len(b.tasks) == 0 && b.stop != nil {
		close(b.stop)
		done, b.stop = b.done, nil
	}
	b.mu.Unlock()
	if done == nil {
		return
	}
	<-done
	b.around(func() {})
}

// around runs f, which writes to the terminal, with no bar drawn.
func (b *bars) around(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wipe()
	f()
}

// setRaw sets whether a command in the guest has the terminal in raw mode: then lines end
// in "\r\n".
func (b *bars) setRaw(raw bool) { b.around(func() { b.raw = raw }) }

// notice prints a notice.
func (b *bars) notice(n engine.Notice) {
	if n.Reason == engine.SoftwareEmulation || n.Reason == engine.KVMUnsettled {
		noticeEmulation(n)
		return
	}
	msg, step := noticeWords(n)
	msg = "bawn: " + msg + "\n"
	if step != "" {
		msg += "  try: " + step + "\n"
	}
	if b.raw {
		msg = strings.ReplaceAll(msg, "\n", "\r\n")
	}
	fmt.Fprint(b.out, msg)
}

func (b *bars) loop(stop, done chan struct{}) {
	defer close(done)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-stop:
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
		if time.Since(t.At) < quiet {
			continue
		}
		if !b.tty {
			if !t.reported && time.Since(t.At) > time.Second {
				t.reported = true
				fmt.Fprintf(b.out, "bawn: %s...\n", t.Label)
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

// line returns the task in at most width columns.
func (t *bar) line(n, width int) string {
	s := spinner[n%len(spinner)] + " " + t.Label
	if t.Total > 0 {
		full := int(min(t.at, t.Total) * barWidth / t.Total)
		s += fmt.Sprintf("  %s%s %3d%%", strings.Repeat("━", full), strings.Repeat("─", barWidth-full), min(t.at, t.Total)*100/t.Total)
		if t.Unit == progress.Bytes {
			s += " of " + size.Format(t.Total)
		}
	} else if t.Unit == progress.Bytes && t.at > 0 {
		s += "  " + size.Format(t.at)
	}
	s += fmt.Sprintf("  %ds", int(time.Since(t.At).Seconds()))
	if t.detail != "" {
		s += "  " + text.Line(t.detail) // names, the guest's among them
	}
	if r := []rune(s); len(r) > width {
		s = string(r[:width])
	}
	return s
}
