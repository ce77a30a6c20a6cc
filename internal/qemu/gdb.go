package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// gdbLimit bounds how long QEMU may take to attach a debugger.
const gdbLimit = 10 * time.Second

// ServeGDB connects debuggers to QEMU's gdb stub (QEMU documentation, "GDB usage"),
// until the machine ends. It then closes l, which it owns. A debugger that connects
// pauses the guest, and takes the place of one that was connected before. QEMU makes
// no socket of its own: it gets each connection as a descriptor over QMP. failed is
// called with the error of each connection that could not be handed over.
func (p *Process) ServeGDB(l *net.UnixListener, failed func(error)) {
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for n := 0; ; n++ {
			c, err := l.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				err = p.attachGDB(fmt.Sprintf("gdb%d", n), c)
			}
			if err != nil {
				failed(fmt.Errorf("attach a debugger: %w", err))
			}
		}
	}()
	<-p.done
	l.Close()
	<-accepting
}

// attachGDB makes the connection that of the gdb stub, through the chardev id.
// It closes c: QEMU has a descriptor of its own.
func (p *Process) attachGDB(id string, c *net.UnixConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), gdbLimit)
	defer cancel()
	f, err := c.File()
	c.Close()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.addSocket(ctx, id, f); err != nil {
		return err
	}
	// QMP has no command of its own for it. QEMU removes the previous chardev itself.
	var output string
	err = p.Execute(ctx, "human-monitor-command", map[string]any{"command-line": "gdbserver chardev:" + id}, &output)
	if err == nil && !strings.HasPrefix(output, "Waiting for gdb connection") {
		err = errors.New(clean(output))
	}
	if err != nil {
		_ = p.removeChardev(ctx, id)
	}
	return err
}
