package attack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/bounded"
)

// spec is what the probe is told: a file in the project, which holds no token.
type spec struct {
	Nonce                 string         `json:"nonce"` // in each request, so that servers count no stranger
	Addr                  string         `json:"addr"`
	Allowed, Denied, Loop string         // names
	Ports                 map[string]int `json:"ports"` // by server; 0 or missing: there is none here
	TLS, HTTP             int            // ports of the allowed servers
	Secret, Key, Target   string         // paths outside the project
	Socket, Abstract      string         // Unix sockets
	Victim                string         `json:"victim"` // is in the command line of a process of the host
	LoopbackOnly          bool           // see Config.loopbackOnly
}

// tokens are random words that are outside of the sandbox only.
type tokens struct{ secret, key, dotenv, environment string }

// host is the host's side of one run. Its methods are called by one goroutine.
type host struct {
	Config
	spec
	base, project string // base has the baits, and the project in it
	tokens        tokens
	counts        counts
	victim        *exec.Cmd
	victimEnd     chan struct{} // closed when the victim has ended
	closers       []func() error
}

// names of files of a run, in the project or beside it.
const (
	programName = "bawn"
	specName    = "attack.json"
	swapName    = "swap"
	canary      = "ATTACK_CANARY"
	untouched   = "untouched\n"
)

// newHost makes the baits and starts the servers. The caller closes it.
func newHost(c Config) (*host, error) {
	base, err := os.MkdirTemp(c.Home, "attack-")
	if err != nil {
		return nil, err
	}
	h := &host{Config: c, base: base, project: filepath.Join(base, "project")}
	h.closers = append(h.closers, func() error { return os.RemoveAll(base) })
	for _, step := range []func() error{h.makeFiles, h.startServers, h.startVictim, h.startSwap, h.makeProgram} {
		if err := step(); err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	return h, nil
}

// close ends what was started, in the opposite order, and removes the directories.
func (h *host) close() error {
	var errs []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		errs = append(errs, h.closers[i]())
	}
	h.closers = nil
	return errors.Join(errs...)
}

// makeFiles makes the project and the baits around it.
func (h *host) makeFiles() error {
	h.LoopbackOnly = h.loopbackOnly
	h.Nonce, h.Victim = strings.ToLower(rand.Text()), rand.Text()
	h.tokens = tokens{rand.Text(), rand.Text(), rand.Text(), rand.Text()}
	in := func(name string) string { return filepath.Join(h.base, name) }
	h.Secret, h.Key, h.Target, h.Socket = in("secret"), in(".ssh/id_ed25519"), in("target"), in("engine.sock")
	h.Abstract = "@attack-" + h.Nonce
	h.Allowed, h.Denied, h.Loop = "allowed."+h.Nonce+".test", "denied."+h.Nonce+".test", "loop."+h.Nonce+".test"
	for _, f := range []struct{ name, text string }{
		{"secret", h.tokens.secret}, {".ssh/id_ed25519", h.tokens.key}, {"target", untouched},
		{"project/.env", "PASSWORD=" + h.tokens.dotenv}, {"project/.git/config", untouched}, {"project/.git/hooks/README", untouched},
		{"project/" + swapName + "/dir/secret", untouched},
	} {
		if err := os.MkdirAll(filepath.Dir(in(f.name)), 0o755); err != nil { //nolint:gosec // the sandbox's user may be another one
			return err
		}
		if err := os.WriteFile(in(f.name), []byte(f.text), 0o644); err != nil { //nolint:gosec // as above: what holds shall not be its mode
			return err
		}
	}
	// A user of the sandbox with another number writes in the project, as in a real one.
	return errors.Join(os.Chmod(h.base, 0o755), os.Chmod(h.project, 0o777), os.Symlink(h.base, filepath.Join(h.project, swapName, "link"))) //nolint:gosec // as above
}

// startVictim starts a process that waits for the end of its standard input.
func (h *host) startVictim() error {
	h.victim = exec.CommandContext(context.Background(), "/bin/sh", "-c", "read wait", h.Victim)
	in, err := h.victim.StdinPipe()
	if err != nil {
		return err
	}
	if err := h.victim.Start(); err != nil {
		return err
	}
	h.victimEnd = make(chan struct{})
	go func() { _ = h.victim.Wait(); close(h.victimEnd) }()
	h.closers = append(h.closers, func() error {
		_ = in.Close() // it may have been killed
		<-h.victimEnd
		return nil
	})
	return nil
}

// swapEvery is how long a name leads to a directory, and then to a link.
const swapEvery = 2 * time.Millisecond

// startSwap exchanges a directory and a link to the home directory, again and again.
func (h *host) startSwap() error {
	dir, link := filepath.Join(h.project, swapName, "dir"), filepath.Join(h.project, swapName, "link")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for t := time.NewTicker(swapEvery); ; {
			select {
			case <-stop:
				t.Stop()
				return
			case <-t.C: // where it fails the attack is one on a directory that stays
				_ = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	h.closers = append(h.closers, func() error { close(stop); <-done; return nil })
	return nil
}

// makeProgram copies the program and the specification into the project.
func (h *host) makeProgram() error {
	from, err := os.Open(h.Program)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(h.project, programName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755) //nolint:gosec // a program
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	b, err := json.Marshal(h.spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(h.project, specName), b, 0o644) //nolint:gosec // it has no secret
}

// answer is a line of the probe.
type answer struct {
	ID    string `json:"id"`
	Tried bool   `json:"tried"`
	Said  string `json:"said"`
}

// maxOutput bounds what is read of the adapter's output, in bytes.
const maxOutput = 1 << 20

// runProbe runs the probe in the sandbox and returns its answers by attack.
func (h *host) runProbe(ctx context.Context) (map[string]*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, h.Limit)
	defer cancel()
	c := exec.CommandContext(ctx, "/bin/sh", "-c", h.Adapter+` "$@"`, "sh", "./"+programName, Verb, specName)
	c.Dir, c.WaitDelay = h.project, time.Second
	c.Env = append(os.Environ(), "PWD="+h.project, canary+"="+h.tokens.environment, "ATTACK_DIR="+h.project, "ATTACK_ADDR="+h.spec.Addr,
		"ATTACK_ALLOWED="+h.Allowed, fmt.Sprintf("ATTACK_PORTS=%d,%d", h.TLS, h.HTTP), "ATTACK_DENIED="+h.Denied, "ATTACK_LOOP="+h.Loop)
	out, errs := &bounded.Writer{Max: maxOutput}, &bounded.Writer{Max: maxOutput}
	c.Stdout, c.Stderr = out, errs
	err := c.Run()
	answers := parseAnswers(out.Kept)
	if err != nil || len(answers) == 0 {
		return nil, fmt.Errorf("the adapter did not run the probe in the sandbox (%w); its standard error ends with: %q", errors.Join(err, context.Cause(ctx)), tail(errs.Kept))
	}
	return answers, nil
}

// parseAnswers reads the probe's lines, and passes over what is none of them.
func parseAnswers(out []byte) map[string]*answer {
	answers := map[string]*answer{}
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		var a answer
		if json.Unmarshal(s.Bytes(), &a) == nil && a.ID != "" {
			answers[a.ID] = &a
		}
	}
	return answers
}

func tail(b []byte) []byte { return b[max(0, len(b)-1000):] }

// outsideChanged compares the files outside the project.
func (h *host) outsideChanged(string) string {
	b, err := os.ReadFile(h.Target)
	if err != nil || string(b) != untouched {
		return fmt.Sprintf("%s changed", h.Target)
	}
	if _, err := os.Lstat(h.Target + newSuffix); err == nil {
		return fmt.Sprintf("%s was made", h.Target+newSuffix)
	}
	return ""
}

func (h *host) setuidMade(string) string {
	if st, err := os.Lstat(filepath.Join(h.project, setuidName)); err == nil && st.Mode()&os.ModeSetuid != 0 {
		return fmt.Sprintf("it has mode %v on the host", st.Mode())
	}
	return ""
}

func (h *host) deviceMade(string) string {
	if st, err := os.Lstat(filepath.Join(h.project, deviceName)); err == nil && st.Mode()&os.ModeDevice != 0 {
		return fmt.Sprintf("it has mode %v on the host", st.Mode())
	}
	return ""
}

func (h *host) victimEnded(string) string {
	select {
	case <-h.victimEnd:
		return "the process has ended"
	default:
		return ""
	}
}

// changed is the evidence of a file of the project that the probe wrote.
func changed(name string) func(*host, string) string {
	return func(h *host, _ string) string {
		b, err := os.ReadFile(filepath.Join(h.project, name))
		if err == nil && strings.Contains(string(b), h.Nonce) {
			return name + " was written"
		}
		return ""
	}
}
