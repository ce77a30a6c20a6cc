package session

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/sandbox/store"
)

// serveUnstarted is a guest that answers whether it is there, and every request up to that kind
// ("channel" is the opening of the session), but that one never. It tells when it got that.
func serveUnstarted(t *testing.T, d store.Dir, until string, got chan<- struct{}) func(net.Conn) {
	return serveChannels(t, d, func(channel ssh.NewChannel) {
		if until == "channel" {
			got <- struct{}{}
			return
		}
		_, requests, err := channel.Accept()
		if err != nil {
			return
		}
		for r := range requests {
			if r.Type == until {
				got <- struct{}{}
				continue
			}
			_ = r.Reply(true, nil)
		}
	})
}

// TestAGuestThatStartsNoCommandHoldsNobody: it answers that it is there, and so looks alive. One
// Ctrl-C ends the wait after a while, a second one at once.
func TestAGuestThatStartsNoCommandHoldsNobody(t *testing.T) {
	for _, until := range []string{"channel", "pty-req", "exec"} {
		for name, c := range map[string]struct {
			signals []os.Signal
			limit   time.Duration
		}{
			"one signal":  {[]os.Signal{syscall.SIGINT}, 10 * time.Millisecond},
			"two signals": {[]os.Signal{syscall.SIGTERM, syscall.SIGINT}, time.Hour},
		} {
			t.Run(until+", "+name, func(t *testing.T) {
				d := sandboxDir(t)
				got := make(chan struct{}, 1)
				listen(t, d, serveUnstarted(t, d, until, got))
				client, err := Dial(t.Context(), d, "me")
				must(t, err)
				defer client.Close()
				client.answerLimit = c.limit
				p := newPerson(t)
				cmd := p.command("true")
				signals := make(chan os.Signal, len(c.signals))
				cmd.Signals = signals
				go func() {
					<-got
					if p.raw(t) {
						t.Error("Ctrl-C is no signal: the terminal is in raw mode, and nobody reads its keys")
					}
					for _, s := range c.signals {
						signals <- s
					}
				}()
				_, err = client.Run(t.Context(), cmd)
				var still StillError
				if !errors.As(err, &still) {
					t.Errorf("got %v", err)
				}
				if p.raw(t) {
					t.Error("the person's terminal is in raw mode")
				}
			})
		}
	}
}
