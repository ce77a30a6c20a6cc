package supervisor

import (
	"bytes"
	"io"
	"net"

	"bawn.dev/bawn/internal/sys/text"
)

// console copies what one machine prints on its console to the sandbox's log, and keeps
// the end of it in memory.
type console struct {
	last []byte        // read only after done
	done chan struct{} // closed when nothing more comes
}

// lastSize is how many bytes of a console are kept in memory: a panic with its
// trace is smaller.
const lastSize = 16 << 10

// keepConsole starts copying a console to log, until the machine ends. It owns from.
func keepConsole(from net.Conn, log io.Writer) *console {
	c := &console{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer from.Close()
		_, _ = io.Copy(io.MultiWriter(log, c), from) // it ends with the machine
	}()
	return c
}

// Write keeps the end of what was written.
func (c *console) Write(b []byte) (int, error) {
	c.last = append(c.last, b...)
	if extra := len(c.last) - lastSize; extra > 0 {
		c.last = append(c.last[:0], c.last[extra:]...)
	}
	return len(b), nil
}

// wait returns when the console has ended, with its machine.
func (c *console) wait() { <-c.done }

// panicLine returns the line in which the kernel of a machine that has ended says why it
// panicked (kernel/panic.c), or empty.
func (c *console) panicLine() string {
	c.wait()
	i := bytes.LastIndex(c.last, []byte("Kernel panic - "))
	if i < 0 {
		return ""
	}
	line, _, _ := bytes.Cut(c.last[i:], []byte("\n"))
	return text.Short(string(line), lastSize)
}
