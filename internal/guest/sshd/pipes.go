package sshd

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/crypto/ssh"
)

// pipes are the standard streams of a command without a terminal: ours are our ends,
// theirs the command's, each in the order of the descriptors 0 to 2.
type pipes struct{ ours, theirs []*os.File }

func newPipes() (*pipes, error) {
	p := &pipes{}
	for fd := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			p.close()
			return nil, fmt.Errorf("pipe: %w", err)
		}
		if fd == 0 {
			r, w = w, r
		}
		p.ours, p.theirs = append(p.ours, r), append(p.theirs, w)
	}
	return p, nil
}

// close closes all ends. It may be called more than once, and while carry runs.
func (p *pipes) close() {
	for _, f := range slices.Concat(p.ours, p.theirs) {
		f.Close()
	}
}

// carry copies between the pipes and the channel until both outputs have ended.
func (p *pipes) carry(channel ssh.Channel) {
	go func() {
		_, _ = io.Copy(p.ours[0], channel)
		p.ours[0].Close()
	}()
	var outputs sync.WaitGroup
	for i, w := range []io.Writer{channel, channel.Stderr()} {
		outputs.Go(func() {
			_, _ = io.Copy(w, p.ours[1+i])
			// A process that still writes gets SIGPIPE: nobody reads any more.
			p.ours[1+i].Close()
		})
	}
	outputs.Wait()
}
