package signer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const hostAddress = "BAWN_TEST_HOST"

// TestMain is the program where git runs it by one of its names.
func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); slices.Contains(modes, name) {
		p := &program{name: name, in: os.Stdin, out: os.Stdout, err: os.Stderr, exec: execute, tellGit: tellGit}
		p.dial = func() (net.Conn, error) { return net.Dial("tcp", os.Getenv(hostAddress)) }
		os.Exit(p.run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

const signature = "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"

// lab is a repository of the guest, and a host that signs all or nothing.
type lab struct {
	*testing.T
	dir, programs string

	mu      sync.Mutex
	refuse  string
	objects []string
}

func newLab(t *testing.T) *lab {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip(err)
	}
	l := &lab{T: t, dir: t.TempDir(), programs: t.TempDir()}
	s := httptest.NewServer(http.HandlerFunc(l.serve))
	t.Cleanup(s.Close)
	t.Setenv(hostAddress, s.Listener.Addr().String())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range modes {
		if err := os.Symlink(self, filepath.Join(l.programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range l.settings() {
		k, v, _ := strings.Cut(s, "=")
		if out, err := exec.Command("git", "config", "-f", l.config(), k, v).CombinedOutput(); err != nil {
			t.Fatalf("%s, %v", out, err)
		}
	}
	l.git("init", "-q", "-b", "main")
	return l
}

func (l *lab) serve(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.URL.Path != "/sign" || r.Method != http.MethodPost || r.Host != "bawn.internal" {
		http.NotFound(w, r)
		return
	}
	if l.refuse != "" {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "bawn: not signed: %s\n", l.refuse)
		return
	}
	l.objects = append(l.objects, string(b))
	_, _ = io.WriteString(w, signature)
}

// asked returns the objects that the host signed.
func (l *lab) asked() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.objects)
}

// refuses makes the host sign nothing from now on.
func (l *lab) refuses(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = why
}

// settings are those that the agent writes.
func (l *lab) settings() []string {
	p := func(name string) string { return filepath.Join(l.programs, name) }
	return []string{
		"commit.gpgSign=true", "tag.forceSignAnnotated=true", "gpg.format=openpgp", "gpg.program=" + p(GPGMode), "gpg.openpgp.program=" + p(GPGMode),
		"gpg.ssh.program=" + p(SSHMode), "gpg.ssh.defaultKeyCommand=" + p(SSHMode) + " " + printKey, "gpg.x509.program=" + p(GPGSMMode),
		"user.name=Ada", "user.email=ada@example.org",
	}
}

func (l *lab) config() string { return filepath.Join(l.programs, "config") }

func (l *lab) command(args ...string) *exec.Cmd {
	c := exec.CommandContext(l.Context(), "git", args...)
	c.Dir, c.Env = l.dir, append(os.Environ(), "GIT_CONFIG_SYSTEM="+l.config(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_EDITOR=true")
	return c
}

func (l *lab) git(args ...string) string {
	l.Helper()
	out, err := l.command(args...).CombinedOutput()
	if err != nil {
		l.Fatalf("git %q: %s, %v", args, out, err)
	}
	return strings.TrimSpace(string(out))
}

func (l *lab) signed(name string) bool {
	return strings.Contains(l.git("cat-file", "-p", name), "-----BEGIN SSH SIGNATURE-----\n")
}

// TestGit: what git makes in the work of a day is signed, whatever a repository says of keys and formats; a stash is not,
// and a plain tag stays one.
func TestGit(t *testing.T) {
	for name, local := range map[string][][]string{
		"no settings":           nil,
		"a key ID":              {{"user.signingkey", "0123456789ABCDEF"}},
		"a key of SSH":          {{"gpg.format", "ssh"}, {"user.signingkey", "key::ssh-ed25519 AAAA"}},
		"a file of the host":    {{"gpg.format", "ssh"}, {"user.signingkey", "~/.ssh/id_ed25519.pub"}},
		"SSH, and no key":       {{"gpg.format", "ssh"}},
		"X.509":                 {{"gpg.format", "x509"}, {"user.signingkey", "0xAB"}},
		"the host's own format": {{"gpg.format", "openpgp"}, {"user.signingkey", "ada@example.org"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			for _, c := range local {
				l.git("config", c[0], c[1])
			}
			l.git("commit", "-q", "--allow-empty", "-m", "first")
			l.git("tag", "plain")
			l.git("tag", "-s", "-m", "v1", "v1")
			l.git("tag", "-m", "v2", "v2")
			for _, n := range []string{"HEAD", "v1", "v2"} {
				if !l.signed(n) {
					t.Errorf("%s is not signed", n)
				}
			}
			if got := l.git("cat-file", "-t", "plain"); got != "commit" {
				t.Errorf("a plain tag is a %s", got)
			}
			if err := os.WriteFile(filepath.Join(l.dir, "f"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			l.git("add", ".")
			before := len(l.asked())
			l.git("stash")
			if n := len(l.asked()) - before; n != 0 {
				t.Errorf("a stash asked for %d signatures", n)
			}
			l.git("stash", "pop")
			l.git("commit", "-q", "--no-gpg-sign", "-m", "plain")
			if l.signed("HEAD") {
				t.Error("signed against the command")
			}
			l.git("rebase", "-q", "--force-rebase", "--root")
			if !l.signed("HEAD") || !l.signed("HEAD~1") {
				t.Error("a rebase does not sign")
			}
			for _, o := range l.asked() {
				if !strings.HasPrefix(o, "tree ") && !strings.HasPrefix(o, "object ") {
					t.Errorf("the host got %q", o)
				}
			}
		})
	}
}

// TestRefusalsAreShown: git prints why the host does not sign, in each way to run a program, and makes no commit.
func TestRefusalsAreShown(t *testing.T) {
	for _, format := range []string{"openpgp", "ssh", "x509"} {
		l := newLab(t)
		l.refuses("its committer is Eve")
		l.git("config", "gpg.format", format)
		socket := func(c *exec.Cmd) string { // as Node gives it to what it runs
			ours, theirs := pair(t)
			c.Stderr = theirs
			err := c.Run()
			theirs.Close()
			b, _ := io.ReadAll(ours)
			return fmt.Sprintf("%s %v", b, err)
		}
		file := func(c *exec.Cmd) string {
			f, err := os.Create(filepath.Join(t.TempDir(), "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			_, _ = f.WriteString("what was there\n")
			c.Stderr = f
			err = c.Run()
			b, _ := os.ReadFile(f.Name())
			if !strings.HasPrefix(string(b), "what was there\n") {
				t.Errorf("%s: overwritten: %q", format, b)
			}
			return fmt.Sprintf("%s %v", b, err)
		}
		pipe := func(c *exec.Cmd) string {
			b, err := c.CombinedOutput()
			return fmt.Sprintf("%s %v", b, err)
		}
		for how, run := range map[string]func(*exec.Cmd) string{"socket": socket, "file": file, "pipe": pipe} {
			out := run(l.command("commit", "-q", "--allow-empty", "-m", "x"))
			if strings.Count(out, "bawn: not signed: its committer is Eve") != 1 || !strings.Contains(out, "exit status") {
				t.Errorf("%s, %s: %s", format, how, out)
			}
		}
		if err := l.command("rev-parse", "-q", "--verify", "HEAD").Run(); err == nil {
			t.Errorf("%s: there is a commit", format)
		}
	}
}

// run runs the program beside git.
func run(l *lab, name, in string, args ...string) (out, errs string, code int) {
	var o, e strings.Builder
	p := &program{name: name, in: strings.NewReader(in), out: &o, err: &e, tellGit: func(string) {}}
	p.dial = func() (net.Conn, error) { return net.Dial("tcp", os.Getenv(hostAddress)) }
	p.exec = func(name string, args []string) error {
		if name == "gpg" || name == "gpgsm" {
			return exec.ErrNotFound
		}
		fmt.Fprintf(&o, "%s %q", name, args)
		return nil
	}
	code = p.run(args)
	return o.String(), e.String(), code
}

// TestOtherUses: what is no signature of git's is for the guest's own programs, where it has them.
func TestOtherUses(t *testing.T) {
	l := newLab(t)
	if out, errs, code := run(l, GPGMode, "", "--status-fd=1", "--keyid-format=long", "--verify", "sig", "-"); code != 0 || out != `gpg2 ["--status-fd=1" "--keyid-format=long" "--verify" "sig" "-"]` {
		t.Errorf("%q, %q, %d", out, errs, code)
	}
	if out, errs, code := run(l, GPGMode, "", "--list-secret-keys", "--with-subkeys"); code != 0 || !strings.HasPrefix(out, "gpg2 ") {
		t.Errorf("%q, %q, %d", out, errs, code)
	}
	for _, verb := range []string{"verify", "find-principals", "check-novalidate"} {
		if out, errs, code := run(l, SSHMode, "", "-Y", verb, "-n", "git"); code != 0 || !strings.HasPrefix(out, "ssh-keygen ") {
			t.Errorf("%q, %q, %d", out, errs, code)
		}
	}
	if _, errs, code := run(l, GPGSMMode, "", "--verify", "sig", "-"); code != 1 || !strings.Contains(errs, "gpgsm is not installed in this sandbox") {
		t.Errorf("%q, %d", errs, code)
	}
	if asked := l.asked(); len(asked) != 0 {
		t.Errorf("the host was asked to sign %q", asked)
	}
}

// TestAHostThatDoesNotAnswer, or not as one: an error, and never an empty signature.
func TestAHostThatDoesNotAnswer(t *testing.T) {
	l := newLab(t)
	for answer, want := range map[string]string{
		"":                                    "cannot be asked",
		"SSH-2.0-x\r\n":                       "does not speak HTTP",
		"HTTP/1.0 200 OK\r\nContent-Le":       "cannot be asked",
		"HTTP/1.0 200 OK\r\n\r\n":             `answers with the status "200"`,
		"HTTP/1.0 404 Not Found\r\n\r\nx":     `answers with the status "404"`,
		"HTTP/1.0 403 F\r\n\r\nbawn: x: y.\n": "bawn: x: y.",
		"HTTP/1.0 403 F\r\nA: " + strings.Repeat("x", maxAnswer): "cannot be asked",
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, answer)
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}()
		t.Setenv(hostAddress, listener.Addr().String())
		if out, errs, code := run(l, GPGMode, "x", "--status-fd=2", "-bsau", "k"); code != 1 || out != "" || !strings.Contains(errs, want) || strings.Contains(errs, "SIG_CREATED") {
			t.Errorf("%.40q: %q, %q, %d", answer, out, errs, code)
		}
		listener.Close()
	}
	if _, errs, code := run(l, GPGMode, "x", "-bsau", "k"); code != 1 || !strings.Contains(errs, "cannot be asked") {
		t.Errorf("%q, %d", errs, code)
	}
	if _, errs, code := run(l, GPGMode, strings.Repeat("x", maxObject+1), "-bsau", "k"); code != 1 || !strings.Contains(errs, "more than 1048576 bytes") {
		t.Errorf("%q, %d", errs, code)
	}
	if _, errs, code := run(l, SSHMode, "", "-Y", "sign", "-n", "git", "-f", "k", filepath.Join(t.TempDir(), "none")); code != 1 || !strings.Contains(errs, "not signed") {
		t.Errorf("%q, %d", errs, code)
	}
}

// TestArrange mounts this program, for all users.
func TestArrange(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), "sign")
	for range 2 {
		if err := Arrange(folder, self); errors.Is(err, os.ErrPermission) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = exec.Command("umount", filepath.Join(folder, "program")).Run() })
	if out, err := exec.Command(filepath.Join(folder, SSHMode), printKey).Output(); string(out) != anyKey+"\n" {
		t.Errorf("%q, %v", out, err)
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Count(string(b), folder) != 1 {
		t.Errorf("mounted more than once, or not: %v", err)
	}
}

func pair(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
}
