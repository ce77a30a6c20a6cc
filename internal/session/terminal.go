package session

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/term"
)

// Terminal is the person's terminal.
type Terminal struct {
	In, Out *os.File
	Type    string // $TERM
}

// attach asks for a terminal in the guest of the same size and type, sets the
// person's to raw mode and keeps the sizes equal. What it returns undoes that.
func (t *Terminal) attach(ctx context.Context, s *ssh.Session) (restore func(), err error) {
	w, h, err := term.GetSize(int(t.Out.Fd()))
	if err != nil {
		w, h = 80, 24 // a terminal that has no size: VT100's
	}
	if err := s.RequestPty(t.Type, h, w, ssh.TerminalModes{}); err != nil {
		return nil, fmt.Errorf("guest: terminal: %w", err)
	}
	was, err := term.MakeRaw(int(t.In.Fd()))
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-resized:
				if w, h, err := term.GetSize(int(t.Out.Fd())); err == nil {
					_ = s.WindowChange(h, w)
				}
			case <-done:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(resized)
		close(done)
		_ = term.Restore(int(t.In.Fd()), was)
	}, nil
}
