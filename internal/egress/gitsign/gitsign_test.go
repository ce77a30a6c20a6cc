package gitsign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"bawn.dev/bawn/internal/egress/gitssh/gitsshtest"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/proc/proctest"
)

var object = []byte("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor Ada <ada@example.org> 1796006693 +0000\ncommitter Ada <ada@example.org> 1796006693 +0000\n\nx\n")

// person is a home directory with git's configuration.
type person struct {
	*testing.T
	home, dir string
	project   string // in which conditional includes count; empty: in no repository
}

// newPerson makes one that has no key, no agent and no other settings.
func newPerson(t *testing.T, programs ...string) *person {
	t.Helper()
	for _, p := range append(programs, "git") {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
	home, err := os.MkdirTemp("", "p") // short: gpg-agent has a socket in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	for _, k := range append([]string{"GIT_DIR", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_COUNT"}, passed...) {
		t.Setenv(k, "")
		os.Unsetenv(k)
	}
	t.Setenv("HOME", home)
	return &person{T: t, home: home, dir: filepath.Join(home, "sign")}
}

func (p *person) write(name, text string, mode os.FileMode) string {
	p.Helper()
	path := filepath.Join(p.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		p.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		p.Fatal(err)
	}
	return path
}

// set sets values of git's configuration, and removes all others.
func (p *person) set(values ...string) {
	p.Helper()
	_ = os.Remove(filepath.Join(p.home, ".gitconfig"))
	for i := 0; i < len(values); i += 2 {
		p.run("", "git", "config", "--global", values[i], values[i+1])
	}
}

func (p *person) run(in, name string, args ...string) string {
	p.Helper()
	c := exec.CommandContext(p.Context(), name, args...)
	c.Stdin, c.Dir = strings.NewReader(in), "/"
	out, err := c.CombinedOutput()
	if err != nil {
		p.Fatalf("%s %q: %s, %v", name, args, out, err)
	}
	return strings.TrimSpace(string(out))
}

func (p *person) sign() string {
	p.Helper()
	b, err := Sign(p.Context(), p.project, p.dir, object)
	if err != nil {
		p.Fatal(err)
	}
	if _, err := os.Stat(p.dir); err == nil {
		p.Error("files are left")
	}
	return string(b)
}

// refused wants no signature, and no name of the host in the reason that the guest gets.
func (p *person) refused(want string) {
	p.Helper()
	b, err := Sign(p.Context(), p.project, p.dir, object)
	var failed *Error
	if !errors.As(err, &failed) || !strings.Contains(failed.Error(), want) || b != nil {
		p.Errorf("%q, %v; want an error with %q", b, err, want)
		return
	}
	if strings.Contains(failed.Reason, p.home) || strings.Contains(failed.Reason, "/") {
		p.Errorf("the guest reads %q", failed.Reason)
	}
	if _, err := os.Stat(p.dir); err == nil {
		p.Error("files are left")
	}
}

// sshKey makes a key of SSH, and returns its public part.
func (p *person) sshKey(passphrase string) string {
	p.Helper()
	file := p.write(".ssh/x", "", 0o600)
	p.run("", "ssh-keygen", "-q", "-t", "ed25519", "-C", "ada", "-N", passphrase, "-f", filepath.Join(filepath.Dir(file), "id"))
	b, err := os.ReadFile(filepath.Join(p.home, ".ssh/id.pub"))
	if err != nil {
		p.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// verifySSH wants a signature of the object by that key, for git and for nothing else.
func (p *person) verifySSH(key, signature string) {
	p.Helper()
	sig, allowed := p.write("sig", signature, 0o600), p.write("allowed", "ada "+key+"\n", 0o600)
	p.run(string(object), "ssh-keygen", "-Y", "verify", "-n", "git", "-f", allowed, "-I", "ada", "-s", sig)
	c := exec.CommandContext(p.Context(), "ssh-keygen", "-Y", "verify", "-n", "file", "-f", allowed, "-I", "ada", "-s", sig)
	c.Stdin = bytes.NewReader(object)
	if out, err := c.CombinedOutput(); err == nil {
		p.Errorf("it counts for another namespace: %s", out)
	}
}

// TestSSHKeys: each form of a key that git takes, as people have it.
func TestSSHKeys(t *testing.T) {
	p := newPerson(t, "ssh-keygen")
	key := p.sshKey("")
	for _, value := range []string{"~/.ssh/id.pub", "~/.ssh/id", filepath.Join(p.home, ".ssh/id.pub")} {
		p.set("gpg.format", "ssh", "user.signingkey", value)
		p.verifySSH(key, p.sign())
	}
	signer, private := gitsshtest.NewKey(t)
	held := "ssh-ed25519 " + strings.Fields(string(sshLine(signer)))[1]
	t.Setenv("SSH_AUTH_SOCK", gitsshtest.Agent(t, private))
	for _, value := range []string{"key::" + held, held, held + " ada@laptop"} {
		p.set("gpg.format", "ssh", "user.signingkey", value)
		p.verifySSH(held, p.sign())
	}
	printer := p.write("bin/print-key", "#!/bin/sh\nprintf 'key::%s\\n' \"$1\"\n", 0o700)
	p.set("gpg.format", "ssh", "gpg.ssh.defaultKeyCommand", printer+" '"+held+"'")
	p.verifySSH(held, p.sign())
	if _, err := exec.LookPath("ssh-add"); err == nil {
		p.set("gpg.format", "ssh", "gpg.ssh.defaultKeyCommand", "ssh-add -L")
		p.verifySSH(held, p.sign())
	}
	// One in the agent of which the host has the public part in a file.
	p.write("held.pub", held+"\n", 0o600)
	p.set("gpg.format", "ssh", "user.signingkey", "~/held.pub")
	p.verifySSH(held, p.sign())
}

// TestGPGKeys: a key is named by its ID, its fingerprint or its owner's address.
func TestGPGKeys(t *testing.T) {
	p := newPerson(t, "gpg")
	fingerprint := p.gpgKey("")
	for _, value := range []string{fingerprint, fingerprint[24:], "ada@example.org"} {
		p.set("user.signingkey", value)
		p.verifyGPG(p.sign())
	}
	p.set("user.signingkey", fingerprint, "gpg.format", "openpgp", "gpg.openpgp.program", "gpg")
	p.verifyGPG(p.sign())
	p.set("user.signingkey", "0123456789ABCDEF")
	p.refused("does not have the secret part")
}

// gpgKey makes a key of GnuPG, and returns its fingerprint.
func (p *person) gpgKey(passphrase string) string {
	p.Helper()
	gnupg := filepath.Join(p.home, "g")
	if err := os.Mkdir(gnupg, 0o700); err != nil {
		p.Fatal(err)
	}
	p.Setenv("GNUPGHOME", gnupg)
	p.Cleanup(func() { _ = exec.Command("gpgconf", "--homedir", gnupg, "--kill", "all").Run() })
	p.run("", "gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", passphrase, "--quick-gen-key", "Ada <ada@example.org>", "ed25519", "sign", "never")
	for line := range strings.Lines(p.run("", "gpg", "--batch", "--with-colons", "--list-keys")) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			return f[9]
		}
	}
	p.Fatal("no key")
	return ""
}

func (p *person) verifyGPG(signature string) {
	p.Helper()
	if out := p.run(string(object), "gpg", "--batch", "--verify", p.write("sig", signature, 0o600), "-"); !strings.Contains(out, "Good signature") {
		p.Error(out)
	}
}

// TestX509: gpgsm is spoken to as gpg is.
func TestX509(t *testing.T) {
	p := newPerson(t)
	program := p.write("bin/smime", "#!/bin/sh\n[ \"$*\" = '--status-fd=2 -bsau 0xAB' ] || exit 1\ncat >/dev/null\necho '[GNUPG:] SIG_CREATED S' >&2\nprintf -- '-----BEGIN SIGNED MESSAGE-----\\nMIIA\\n-----END SIGNED MESSAGE-----\\n'\n", 0o700)
	p.set("gpg.format", "x509", "user.signingkey", "0xAB", "gpg.x509.program", program)
	if got := p.sign(); got != "-----BEGIN SIGNED MESSAGE-----\nMIIA\n-----END SIGNED MESSAGE-----\n" {
		t.Errorf("%q", got)
	}
}

// TestOtherPrograms: the program that the host's configuration names runs, with the arguments that git gives it.
func TestOtherPrograms(t *testing.T) {
	p := newPerson(t, "ssh-keygen")
	key := p.sshKey("")
	called := filepath.Join(p.home, "called")
	p.write("1Password/op-ssh-sign", "#!/bin/sh\necho \"$*\" >> "+called+"\nfor last; do :; done\nexec ssh-keygen -Y sign -n git -f "+p.home+"/.ssh/id \"$last\"\n", 0o700)
	p.set("gpg.format", "ssh", "user.signingkey", "key::"+key, "gpg.ssh.program", "~/1Password/op-ssh-sign")
	p.verifySSH(key, p.sign())
	want := fmt.Sprintf("-Y sign -n git -f %s/key.pub -U %s/object\n", p.dir, p.dir)
	if b, err := os.ReadFile(called); string(b) != want {
		t.Errorf("it was called with %q, %v", b, err)
	}
}

// TestNothingToSignWith: what is missing is an error that says what to set.
func TestNothingToSignWith(t *testing.T) {
	p := newPerson(t, "gpg", "ssh-keygen")
	p.sshKey("")
	empty := t.TempDir()
	for name, c := range map[string]struct {
		values []string
		want   string
	}{
		"nothing at all":           {nil, "git config --global user.signingkey"},
		"an empty key":             {[]string{"user.signingkey", ""}, "git config --global user.signingkey"},
		"an option as the key":     {[]string{"user.signingkey", "--output=/tmp/x"}, "begins with a hyphen"},
		"an unknown format":        {[]string{"gpg.format", "minisign", "user.signingkey", "x"}, `"minisign" of signatures (gpg.format) is not known`},
		"SSH without a key":        {[]string{"gpg.format", "ssh"}, "git config --global user.signingkey ~/.ssh/id_ed25519.pub"},
		"SSH and no file":          {[]string{"gpg.format", "ssh", "user.signingkey", "~/.ssh/none.pub"}, "cannot be read"},
		"SSH and a key ID":         {[]string{"gpg.format", "ssh", "user.signingkey", "0123456789ABCDEF"}, "no absolute path"},
		"SSH and another's home":   {[]string{"gpg.format", "ssh", "user.signingkey", "~eve/id"}, "no absolute path"},
		"no program":               {[]string{"user.signingkey", "x", "gpg.program", "/usr/local/bin/no-gpg"}, "git config --global --unset gpg.program"},
		"no 1Password":             {[]string{"gpg.format", "ssh", "user.signingkey", "~/.ssh/id.pub", "gpg.ssh.program", "/opt/1Password/op-ssh-sign"}, "/opt/1Password/op-ssh-sign"},
		"a program in no place":    {[]string{"user.signingkey", "x", "gpg.program", "./gpg"}, "no absolute path"},
		"a program that is none":   {[]string{"user.signingkey", "x", "gpg.program", p.write("text", "x", 0o600)}, "is not a program"},
		"a folder as the program":  {[]string{"user.signingkey", "x", "gpg.program", empty}, "is not a program"},
		"a command without a key":  {[]string{"gpg.format", "ssh", "gpg.ssh.defaultKeyCommand", "true"}, "printed none"},
		"a command that fails":     {[]string{"gpg.format", "ssh", "gpg.ssh.defaultKeyCommand", "false"}, "failed"},
		"a command that is none":   {[]string{"gpg.format", "ssh", "gpg.ssh.defaultKeyCommand", "no-such-command"}, "no-such-command"},
		"a command that is broken": {[]string{"gpg.format", "ssh", "gpg.ssh.defaultKeyCommand", "'"}, "cannot be read"},
	} {
		p.set(c.values...)
		if s, err := Read(t.Context(), p.project); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v; want an error with %q", name, s, err, c.want)
		}
	}
	p.write(".gitconfig", "[user\n", 0o600)
	if _, err := Read(t.Context(), p.project); err == nil || !strings.Contains(err.Error(), "bad config line 1") {
		t.Errorf("a broken file: %v", err)
	}
	t.Setenv("PATH", empty)
	var missing *SetupError
	if _, err := Read(t.Context(), p.project); !errors.As(err, &missing) || !strings.Contains(err.Error(), "git") {
		t.Logf("without git on the PATH: %v", err) // it may be in /usr/bin, which is searched anyway
	}
}

// TestAttackAProjectsConfiguration: a repository that the guest writes to does not choose the program, the key or
// the command, neither where bawn is run nor by what git reads from the environment, nor by a file that the person's own
// configuration includes.
func TestAttackAProjectsConfiguration(t *testing.T) {
	p := newPerson(t, "ssh-keygen")
	key := p.sshKey("")
	p.set("gpg.format", "ssh", "user.signingkey", "~/.ssh/id.pub")
	project := filepath.Join(p.home, "project")
	mark := filepath.Join(p.home, "mark")
	evil := p.write("project/evil", "#!/bin/sh\ntouch "+mark+"\n", 0o700)
	p.run("", "git", "init", "-q", project)
	for _, k := range []string{"gpg.program", "gpg.ssh.program", "gpg.openpgp.program", "gpg.ssh.defaultKeyCommand"} {
		p.run("", "git", "-C", project, "config", k, evil)
		t.Setenv("GIT_CONFIG_KEY_0", k)
	}
	p.run("", "git", "-C", project, "config", "user.signingkey", "key::ssh-ed25519 AAAA")
	t.Chdir(project)
	t.Setenv("GIT_DIR", filepath.Join(project, ".git"))
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_VALUE_0", evil)
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(project, ".git/config"))
	t.Setenv("GIT_CONFIG_SYSTEM", filepath.Join(project, ".git/config"))
	t.Setenv("GIT_CONFIG_PARAMETERS", "'gpg.ssh.program="+evil+"'")
	p.verifySSH(key, p.sign())

	proctest.Share(t, project)
	for name, values := range map[string][]string{
		"an included file":        {"user.signingkey", "~/.ssh/id.pub", "gpg.format", "ssh", "include.path", filepath.Join(project, ".git/config")},
		"the committer":           {"user.signingkey", "~/.ssh/id.pub", "gpg.format", "ssh", "include.path", p.write("project/who", "[user]\n\tname = Eve\n", 0o600)},
		"the program":             {"user.signingkey", "~/.ssh/id.pub", "gpg.format", "ssh", "gpg.ssh.program", evil},
		"a script for the key":    {"gpg.format", "ssh", "gpg.ssh.defaultKeyCommand", "sh " + evil},
		"the command for the key": {"gpg.format", "ssh", "gpg.ssh.defaultKeyCommand", evil},
		"the key":                 {"gpg.format", "ssh", "user.signingkey", p.write("project/other.pub", key, 0o600)},
		"a link to the key":       {"gpg.format", "ssh", "user.signingkey", p.link("other.pub", "project/other.pub")},
	} {
		for k := range map[string]bool{"GIT_DIR": true, "GIT_CONFIG_COUNT": true, "GIT_CONFIG_GLOBAL": true, "GIT_CONFIG_SYSTEM": true, "GIT_CONFIG_PARAMETERS": true} {
			os.Unsetenv(k)
		}
		p.set(values...)
		if _, err := Read(t.Context(), p.project); err == nil || !strings.Contains(err.Error(), "can write to "+project) {
			t.Errorf("%s: %v", name, err)
		}
		p.refused("can write to")
	}
	p.set("gpg.format", "ssh", "user.signingkey", "~/.ssh/id.pub")
	t.Setenv("GNUPGHOME", project)
	p.refused("GNUPGHOME is not used")
	if _, err := os.Stat(mark); err == nil {
		t.Error("the guest's program ran on the host")
	}
}

// TestKeyOfADirectory: who has one key for work and another for all else signs by the one in the directory that the
// condition names.
func TestKeyOfADirectory(t *testing.T) {
	p := newPerson(t, "ssh-keygen")
	key := p.sshKey("")
	p.set("gpg.format", "ssh", "user.signingkey", "key::ssh-ed25519 AAAA", "includeIf.gitdir:~/work/.path", "at-work")
	p.write("at-work", "[user]\n\tsigningkey = ~/.ssh/id.pub\n", 0o600)
	p.project = filepath.Join(p.home, "work", "project")
	p.run("", "git", "init", "-q", p.project)
	p.verifySSH(key, p.sign())
}

func (p *person) link(name, to string) string {
	p.Helper()
	path := filepath.Join(p.home, name)
	if err := os.Symlink(filepath.Join(p.home, to), path); err != nil {
		p.Fatal(err)
	}
	return path
}

// TestLockedKeys: where a key is locked, or the person says no, the guest learns which of it.
func TestLockedKeys(t *testing.T) {
	t.Run("a passphrase of SSH", func(t *testing.T) {
		p := newPerson(t, "ssh-keygen")
		p.sshKey("secret")
		p.set("gpg.format", "ssh", "user.signingkey", "~/.ssh/id")
		p.refused(whyLocked)
	})
	t.Run("an agent that refuses", func(t *testing.T) {
		p := newPerson(t, "ssh-keygen")
		key := p.sshKey("")
		if err := os.Remove(filepath.Join(p.home, ".ssh/id")); err != nil {
			t.Fatal(err)
		}
		p.set("gpg.format", "ssh", "user.signingkey", "key::"+key)
		t.Setenv("SSH_AUTH_SOCK", filepath.Join(p.home, "gone"))
		p.refused(whyNoAgent)
		t.Setenv("SSH_AUTH_SOCK", refusingAgent(t, p, key))
		p.refused(whyCancelled)
	})
	t.Run("a passphrase of GnuPG", func(t *testing.T) {
		p := newPerson(t, "gpg")
		fingerprint := p.gpgKey("secret")
		p.set("user.signingkey", fingerprint)
		p.pinentry("#!/bin/sh\nexit 1\n")
		p.refused(whyLocked)
		// The protocol of pinentry: the person presses Cancel.
		p.pinentry("#!/bin/sh\necho OK\nwhile read -r c x; do case $c in GETPIN) echo 'ERR 83886179 cancelled';; BYE) echo OK; exit;; *) echo OK;; esac; done\n")
		p.refused(whyCancelled)
		p.pinentry("#!/bin/sh\necho OK\nwhile read -r c x; do case $c in GETPIN) echo 'D wrong'; echo OK;; BYE) echo OK; exit;; *) echo OK;; esac; done\n")
		p.refused(whyWrong)
		p.pinentry("#!/bin/sh\necho OK\nwhile read -r c x; do case $c in GETPIN) echo 'D secret'; echo OK;; BYE) echo OK; exit;; *) echo OK;; esac; done\n")
		p.verifyGPG(p.sign())
	})
}

// pinentry makes a script the program by which gpg-agent asks the person.
func (p *person) pinentry(script string) {
	p.Helper()
	program := p.write("pinentry", script, 0o700)
	p.write("g/gpg-agent.conf", "pinentry-program "+program+"\n", 0o600)
	p.run("", "gpgconf", "--homedir", filepath.Join(p.home, "g"), "--kill", "gpg-agent")
}

// refusingAgent serves an ssh-agent that knows a key and answers every request to use it with a failure.
func refusingAgent(t *testing.T, p *person, key string) string {
	t.Helper()
	path := filepath.Join(p.home, "agent")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _ = agent.ServeAgent(&listed{line: key}, c) }()
		}
	}()
	return path
}

// TestHostilePrograms: a program that prints without end, prints no signature, or does not end is given up.
func TestHostilePrograms(t *testing.T) {
	p := newPerson(t)
	status := "cat >/dev/null; echo '[GNUPG:] SIG_CREATED D' >&2; "
	begin, end := "-----BEGIN PGP SIGNATURE-----", "-----END PGP SIGNATURE-----"
	for name, c := range map[string]struct{ script, want string }{
		"nothing":          {status, "no signature"},
		"endless":          {status + "head -c 300000 /dev/zero | tr '\\0' y", "more than 65536 bytes"},
		"endless stderr":   {"head -c 300000 /dev/zero | tr '\\0' y >&2; exit 7", "exit status 7"},
		"another format":   {status + "printf -- '-----BEGIN SSH SIGNATURE-----\\nA\\n-----END SSH SIGNATURE-----\\n'", "no signature of the format openpgp"},
		"two signatures":   {status + "printf -- '" + begin + "\\n" + end + "\\n" + begin + "\\n" + end + "\\n'", "more than one"},
		"a header":         {status + "printf -- '" + begin + "\\n" + end + "\\nevil\\n'", "no signature"},
		"a terminal's":     {status + "printf -- '" + begin + "\\n\\033[2J\\n" + end + "\\n'", "a character that none has"},
		"no status":        {"cat >/dev/null; printf -- '" + begin + "\\nA\\n" + end + "\\n'", "did not report"},
		"it fails":         {status + "printf -- '" + begin + "\\nA\\n" + end + "\\n'; exit 3", "exit status 3"},
		"it does not read": {"exit 1", "exit status 1"},
	} {
		t.Run(name, func(t *testing.T) {
			p.T = t
			p.set("user.signingkey", "x", "gpg.program", p.write("bin/program", "#!/bin/sh\n"+c.script+"\n", 0o700))
			p.refused(c.want)
		})
	}
}

// TestAProgramThatDoesNotEnd is killed with its children when nobody waits any more.
func TestAProgramThatDoesNotEnd(t *testing.T) {
	p := newPerson(t)
	pids := filepath.Join(p.home, "pids")
	if err := syscall.Mkfifo(pids, 0o600); err != nil {
		t.Fatal(err)
	}
	p.set("user.signingkey", "x", "gpg.program", p.write("bin/program", "#!/bin/sh\nsleep 1000 &\necho $$ $! > "+pids+"\nwait\n", 0o700))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started := make(chan []byte, 1)
	go func() {
		b, _ := os.ReadFile(pids)
		started <- b
		cancel()
	}()
	if b, err := Sign(ctx, p.project, p.dir, object); err == nil || b != nil {
		t.Errorf("%q, %v", b, err)
	}
	list := strings.Fields(string(<-started))
	if len(list) != 2 {
		t.Fatalf("started: %q", list)
	}
	for _, s := range list {
		pid, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			state, _ := proc.Field(pid, "status", "State")
			if err := syscall.Kill(pid, 0); err != nil || strings.HasPrefix(state, "Z") {
				break
			}
			if time.Now().After(end) {
				t.Errorf("%d goes on: %s", pid, state)
				break
			}
		}
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	p.set("user.signingkey", "x", "gpg.program", p.write("bin/program", "#!/bin/sh\nexec sleep 1000\n", 0o700))
	var failed *Error
	if _, err := Sign(ctx, p.project, p.dir, object); !errors.As(err, &failed) {
		t.Errorf("%v", err)
	}
}

func sshLine(s gossh.Signer) []byte { return gossh.MarshalAuthorizedKey(s.PublicKey()) }

// listed is an agent with a key that it does not use.
type listed struct {
	agent.ExtendedAgent
	line string
}

func (l *listed) List() ([]*agent.Key, error) {
	key, comment, _, _, err := gossh.ParseAuthorizedKey([]byte(l.line))
	if err != nil {
		return nil, err
	}
	return []*agent.Key{{Format: key.Type(), Blob: key.Marshal(), Comment: comment}}, nil
}

func (l *listed) SignWithFlags(gossh.PublicKey, []byte, agent.SignatureFlags) (*gossh.Signature, error) {
	return nil, errors.New("the person said no")
}

func (l *listed) Sign(gossh.PublicKey, []byte) (*gossh.Signature, error) {
	return nil, errors.New("the person said no")
}

// TestAttackConfigurationOfGnuPG: GnuPG's own files of configuration name programs. One that lies in a directory that a
// guest can write to (a repository of dotfiles) is not read.
func TestAttackConfigurationOfGnuPG(t *testing.T) {
	p := newPerson(t, "gpg")
	fingerprint := p.gpgKey("")
	p.set("user.signingkey", fingerprint)
	p.verifyGPG(p.sign())
	project, mark := filepath.Join(p.home, "dotfiles"), filepath.Join(p.home, "mark")
	evil := p.write("dotfiles/evil", "#!/bin/sh\ntouch "+mark+"\nexit 1\n", 0o700)
	p.write("dotfiles/gnupg/gpg.conf", "agent-program "+evil+"\n", 0o600)
	p.write("dotfiles/gnupg/gpg-agent.conf", "pinentry-program "+evil+"\n", 0o600)
	proctest.Share(t, project)
	kill := func(home string) {
		p.run("", "gpgconf", "--homedir", home, "--kill", "all") // so that gpg starts an agent
	}
	for _, folder := range []string{"g", ".gnupg"} {
		home := filepath.Join(p.home, folder)
		if folder == ".gnupg" {
			kill(filepath.Join(p.home, "g"))
			if err := os.Rename(filepath.Join(p.home, "g"), home); err != nil {
				t.Fatal(err)
			}
			os.Unsetenv("GNUPGHOME")
		}
		for _, name := range []string{"gpg.conf", "gpg.conf-2", "gpg-agent.conf", "common.conf"} {
			target := "dotfiles/gnupg/" + strings.TrimSuffix(name, "-2")
			link := p.link(folder+"/"+name, target)
			kill(home)
			p.refused("can write to " + project)
			if err := os.Remove(link); err != nil {
				t.Fatal(err)
			}
		}
		kill(home)
		p.verifyGPG(p.sign())
	}
	home := filepath.Join(p.home, ".gnupg")
	kill(home)
	if err := os.Rename(home, filepath.Join(project, "all")); err != nil {
		t.Fatal(err)
	}
	p.link(".gnupg", "dotfiles/all")
	p.refused("can write to " + project)
	if _, err := os.Stat(mark); err == nil {
		t.Error("the guest's program ran on the host")
	}
}
