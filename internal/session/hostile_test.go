package session

import (
	"bytes"
	"io"
	"math"
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/wire"
)

// serveLiar is a guest that starts a command and, when it was given input, reports that so
// many bytes of it were read, and ends.
func serveLiar(t *testing.T, d store.Dir, read uint64) func(net.Conn) {
	return serveChannels(t, d, func(channel ssh.NewChannel) {
		ch, requests, err := channel.Accept()
		if err != nil {
			return
		}
		for r := range requests {
			_ = r.Reply(true, nil) // does nothing where no reply is wanted
			if r.Type == "exec" {
				break
			}
		}
		go ssh.DiscardRequests(requests)
		_, _ = io.ReadFull(ch, make([]byte, 1)) // ends with the input, or with a first byte of it
		_, _ = ch.SendRequest(wire.RequestConsumed, false, ssh.Marshal(wire.Consumed{Bytes: read, Unread: true}))
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
		ch.Close()
	})
}

// TestAGuestThatLiesAboutWhatItRead: the host's script gets back each byte that the guest
// was not given, and none a second time.
func TestAGuestThatLiesAboutWhatItRead(t *testing.T) {
	const size, behind = 512 << 10, 1000
	data := bytes.Repeat([]byte("line of a script\n"), size/17)
	for name, lie := range map[string]uint64{"all": math.MaxUint64 / 2, "more than there is": math.MaxUint64, "less than nothing": math.MaxUint64 - behind/2} {
		d := sandboxDir(t)
		listen(t, d, serveLiar(t, d, lie))
		run := func(in *os.File) {
			c, err := Dial(t.Context(), d, "me")
			must(t, err)
			defer c.Close()
			cmd, _, _ := sh("cat")
			cmd.Stdin = in
			_, err = c.Run(t.Context(), cmd)
			must(t, err)
		}
		t.Run(name+" of a file", func(t *testing.T) {
			in := fileOf(t, data)
			_, err := in.Seek(behind, io.SeekStart)
			must(t, err)
			run(in)
			if at, err := in.Seek(0, io.SeekCurrent); err != nil || at < behind || at > int64(len(data)) {
				t.Errorf("the file is at %d of %d, %v: it was at %d", at, len(data), err, behind)
			}
		})
		t.Run(name+" of a pipe", func(t *testing.T) {
			r, w, err := os.Pipe()
			must(t, err)
			defer r.Close()
			if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 2*size); err != nil {
				t.Skip(err)
			}
			_, err = w.Write(data)
			must(t, err)
			must(t, w.Close())
			run(r)
			rest, err := io.ReadAll(r)
			if err != nil || len(rest) < len(data)-shown {
				t.Errorf("%d bytes of %d are left, %v", len(rest), len(data), err)
			}
		})
	}
}

// TestAGuestCannotStopItsCallersGroup: a program that runs many commands without a terminal
// goes on when a guest reports a stop of one.
func TestAGuestCannotStopItsCallersGroup(t *testing.T) {
	for _, c := range []struct {
		terminal *Terminal
		sig      syscall.Signal
		want     int
	}{
		{nil, syscall.SIGTSTP, os.Getpid()},
		{nil, syscall.SIGSTOP, os.Getpid()},
		{&Terminal{}, syscall.SIGSTOP, os.Getpid()},
		{&Terminal{}, syscall.SIGTSTP, 0}, // as Ctrl-Z on the host
	} {
		front := foreground{t: c.terminal}
		if got := front.stopTarget(c.sig); got != c.want {
			t.Errorf("terminal %v, %v: stops %d, want %d", c.terminal != nil, c.sig, got, c.want)
		}
	}
}

// TestAGuestCannotKillByAStopNotice: what it reports as the signal that stopped the command
// is sent to the host's process group.
func TestAGuestCannotKillByAStopNotice(t *testing.T) {
	for _, name := range []string{"KILL", "TERM", "HUP", "INT", "QUIT", "ABRT", "SEGV", "USR1", "CONT", "WINCH", "NONE", ""} {
		if sig, ok := stopSignal(name); ok {
			t.Errorf("%q: this process's group gets signal %d", name, sig)
		}
	}
	for _, name := range []string{"STOP", "TSTP"} {
		if _, ok := stopSignal(name); !ok {
			t.Errorf("%s does not stop this process", name)
		}
	}
}
