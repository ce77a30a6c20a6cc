package share

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"bawn.dev/bawn/internal/sys/socketpair"
	"bawn.dev/bawn/internal/undo"
)

// Serve serves the share to one QEMU after the other, as the supervisor names them on
// the control socket, and answers its other orders. The file is closed. It returns
// nil when the supervisor has ended, or when a QEMU has hung up and no other is named; an
// error when a QEMU or its guest breaks the protocol; and ctx's error when ctx ends.
func (p *Prepared) Serve(ctx context.Context, control *os.File) error {
	conn, err := socketpair.Conn(control)
	if err != nil {
		return fmt.Errorf("control of a share: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	next := make(chan *os.File, 1)
	go p.serveOrders(conn, next) // ends when conn is closed
	for socket := range next {
		if err := p.serve(ctx, socket); err != nil {
			return err
		}
		p.device.Resumed = true // the next QEMU continues where this one stopped
	}
	return ctx.Err()
}

// serveOrders answers orders until the connection ends, and then closes next.
func (p *Prepared) serveOrders(c *net.UnixConn, next chan<- *os.File) {
	defer close(next)
	for {
		var o order
		f, err := receive(c, &o)
		if err != nil {
			return
		}
		a, err := p.carryOut(o, f, next)
		if err != nil {
			a = answer{Error: err.Error()}
		}
		if err := send(c, a, nil); err != nil {
			return
		}
	}
}

// carryOut does what an order says and returns the answer.
func (p *Prepared) carryOut(o order, f *os.File, next chan<- *os.File) (answer, error) {
	if f != nil && o.Verb != verbServe {
		f.Close()
	}
	switch o.Verb {
	case verbSave:
		p.fs.leftAll() // the next server begins a restore point
		state, err := p.marshal()
		return answer{State: state}, err
	case verbMark:
		if p.fs.undo != nil {
			p.fs.leftAll()
			p.fs.undo.Mark(undo.WhySession)
		}
		return answer{}, nil
	case verbLoad:
		return answer{}, p.unmarshal(o.State, o.Moved)
	case verbWatched:
		return answer{Dirs: p.fs.watchedDirs(o.Nodes)}, nil
	case verbAnnounce:
		return answer{Events: p.fs.announce(o.Thread, o.Changes)}, nil
	case verbServe:
		if f == nil {
			return answer{}, errors.New("no socket was received")
		}
		select {
		case next <- f:
			return answer{}, nil
		default:
			f.Close()
			return answer{}, errors.New("another QEMU is already waiting")
		}
	}
	return answer{}, fmt.Errorf("unknown order %q", o.Verb)
}
