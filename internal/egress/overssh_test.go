package egress

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/egress/gitssh"
	"bawn.dev/bawn/internal/egress/gitssh/gitsshtest"
	"bawn.dev/bawn/internal/egress/sshlogin"
	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
	"bawn.dev/bawn/internal/sys/relay"
)

// sshLab is a gateway between the host's git and ssh, as a guest has them, and a server of SSH at
// example.com:22 that runs git's own programs, as sshd does. The person's ssh-agent has the key that the
// server takes.
type sshLab struct {
	*gitLab
	hosts  string // the guest's known hosts
	ssh    *gitsshtest.Server
	config string // of the guest's ssh
	home   string // the person's
}

// seen returns what the server was asked to run, one a line.
func (g *sshLab) seen() string {
	commands, _, _ := g.ssh.Seen()
	return commands
}

// newSSHLab serves what newGitLab does, over SSH.
func newSSHLab(t *testing.T, rules ...string) *sshLab {
	t.Helper()
	return newSSHLabOn(t, func(*Config) {}, rules...)
}

// newSSHLabOn is newSSHLab on a host that differs.
func newSSHLabOn(t *testing.T, change func(*Config), rules ...string) *sshLab {
	t.Helper()
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("ssh is not installed")
	}
	g := &sshLab{gitLab: newRepositories(t), home: t.TempDir()}
	state := t.TempDir()
	authority, err := gitssh.OpenAuthority(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	g.lab = newLab(t, nil, change, func(c *Config) {
		c.SSH = gitssh.New(func(ctx context.Context) (*gitssh.Authority, error) { return gitssh.OpenAuthority(ctx, state) }, sshlogin.Config)
	})
	g.SetPolicy(rulesFrom(t, rules...))
	g.person(t)
	g.serve("example.com", "203.0.113.7:22", g.ssh.Listen.Addr().String())
	g.serve("example.com", "203.0.113.7:443", g.ssh.Listen.Addr().String())
	g.hosts = filepath.Join(t.TempDir(), "known_hosts")
	g.write(t, g.hosts, "@cert-authority * "+string(authority.PublicKey()))
	g.config = g.reach(t, 22)
	g.local(t, g.work, "remote", "set-url", "origin", "git@example.com:own/app.git")
	return g
}

func (g *sshLab) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// person sets the host's side up: a server, its key in known_hosts, and an ssh-agent with the person's key.
func (g *sshLab) person(t *testing.T) {
	t.Helper()
	hostKey, _ := gitsshtest.NewKey(t)
	signer, key := gitsshtest.NewKey(t)
	var l net.ListenConfig
	listen, err := l.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listen.Close() })
	g.ssh = &gitsshtest.Server{Root: g.root, Key: signer.PublicKey(), Host: hostKey, Listen: listen, Env: gitEnv()}
	go g.ssh.Serve(t)
	t.Setenv("HOME", g.home)
	g.write(t, filepath.Join(g.home, ".ssh/known_hosts"), knownhosts.Line([]string{"example.com"}, hostKey.PublicKey())+"\n"+knownhosts.Line([]string{"[example.com]:443"}, hostKey.PublicKey())+"\n")
	t.Setenv("SSH_AUTH_SOCK", gitsshtest.Agent(t, key))
}

// reach returns the configuration by which the guest's ssh reaches example.com at a port through the gateway.
func (g *sshLab) reach(t *testing.T, port uint16) string {
	t.Helper()
	_, at, _ := net.SplitHostPort(tunneltest.Serve(t, func(c net.Conn) {
		if up, err := g.dialName("example.com", port); err == nil {
			relay.Both(c, up)
		}
	}))
	file := filepath.Join(t.TempDir(), "config")
	g.write(t, file, fmt.Sprintf("Host example.com\n HostName 127.0.0.1\n Port %s\n HostKeyAlias example.com\n GlobalKnownHostsFile %s\n UserKnownHostsFile none\n StrictHostKeyChecking yes\n IdentityAgent none\n IdentityFile none\n LogLevel ERROR\n SendEnv *\n", at, g.hosts))
	return file
}

// git runs git as the guest does.
func (g *sshLab) git(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=guest", "-c", "user.email=guest@example.com"}, args...)...)
	c.Dir, c.Env = g.work, append(gitEnv(), "GIT_SSH_COMMAND=ssh -F "+g.config)
	out, err := c.CombinedOutput()
	return string(out), err
}

// sshCommand runs the guest's ssh.
func (g *sshLab) sshCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "ssh", append([]string{"-F", g.config}, args...)...)
	c.Env = append(gitEnv(), "LD_PRELOAD_X=/evil.so", "GIT_PROTOCOL=version=2; touch /tmp/x")
	out, err := c.CombinedOutput()
	return string(out), err
}

// TestSSHFetch: clone, fetch and ls-remote pass in each version of git's protocol, in each form of the URL, and
// another repository does not.
func TestSSHFetch(t *testing.T) {
	g := newSSHLab(t, "allow git:example.com/own/app")
	for url, version := range map[string]string{"git@example.com:own/app": "0", "git@example.com:/own/app.git": "1", "ssh://git@example.com/own/app.git": "2", "git@example.com:own/app/": "2"} {
		if out, err := g.git(t, "-c", "protocol.version="+version, "clone", "-q", url, t.TempDir()); err != nil {
			t.Errorf("%s, version %s: %v\n%s", url, version, err, out)
		}
	}
	if _, _, got := g.ssh.Seen(); !strings.Contains(got, "GIT_PROTOCOL=version=2") || strings.Contains(got, "LC_ALL") {
		t.Errorf("environment: %s", got)
	}
	before := g.seen()
	for _, c := range []struct{ want, args string }{
		{"no rule allows to fetch from example.com/own/other", "fetch git@example.com:own/other.git"},
		{"no rule allows to fetch from example.com/own/app.wiki", "fetch git@example.com:own/app.wiki.git"},
		{"no rule allows pushes to example.com/own/app", "push origin HEAD:main"},
		{"no rule allows pushes", "push --force origin HEAD:main"},
		{`has the part ".."`, "fetch git@example.com:own/app/../other.git"},
		{"no rule allows to fetch from example.com/~root/own/app", "fetch ssh://git@example.com/~root/own/app"},
		{"which servers read in different ways", "fetch git@example.com:own/app'x"},
		{"git archive --remote over SSH is not included", "archive --remote=git@example.com:own/app HEAD"},
	} {
		out, err := g.git(t, strings.Fields(c.args)...)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("git %s: %v\n%s", c.args, err, out)
		}
	}
	if after := g.seen(); after != before {
		t.Errorf("the server got %s", strings.TrimPrefix(after, before))
	}
	if _, users, _ := g.ssh.Seen(); strings.Trim(users, "git\n") != "" {
		t.Errorf("the users %q", users)
	}
	g.Close()
	var methods []string
	for _, e := range readAll(t, g.path) {
		if e.Method != "" {
			methods = append(methods, e.Verdict+" "+e.Method+" "+e.Path)
		}
		if e.Event == audit.EventRequest && (e.Got == 0 || e.App != "ssh") {
			t.Errorf("%+v", e)
		}
	}
	for _, want := range []string{"allow fetch /own/app", "deny fetch /own/other.git", "deny push /own/app.git"} {
		if !slices.Contains(methods, want) {
			t.Errorf("the log lacks %q: %q", want, methods)
		}
	}
}

// TestSSHPush: pushes pass to the refs of the rule only, a refused one changes none of its refs, and git
// prints why.
func TestSSHPush(t *testing.T) {
	g := newSSHLab(t, "allow git:example.com/own/app:push=feature/*", "allow git:example.com/own/app:push=old:delete")
	g.commit(t, "second")
	for _, c := range []struct {
		args string
		want string // empty: it passes
	}{
		{"push origin HEAD:refs/heads/feature/a", ""},
		{"push origin HEAD:refs/heads/feature/a", ""}, // nothing to do
		{"push origin HEAD:main", "push to refs/heads/main is not allowed by the policy: no rule allows it"},
		{"push --force origin HEAD:main", "push to refs/heads/main is not allowed"},
		{"push origin HEAD:refs/heads/feature/b HEAD:main", "another ref of this push is not allowed"},
		{"push origin HEAD:refs/tags/v1", "creation of refs/tags/v1 is not allowed"},
		{"push origin :main", "deletion of refs/heads/main is not allowed"},
		{"push origin :feature/a", "no rule allows to delete it"},
		{"push origin :old", ""},
		{"-c push.gpgSign=false push -o merge_request.create origin HEAD:refs/heads/feature/c", "push options"},
	} {
		before := strings.Join(g.refs(t), " ") + g.local(t, filepath.Join(g.root, "own/app.git"), "rev-parse", "main")
		if strings.Contains(c.args, " -o ") {
			g.local(t, filepath.Join(g.root, "own/app.git"), "config", "receive.advertisePushOptions", "true")
		}
		out, err := g.git(t, strings.Fields(c.args)...)
		after := strings.Join(g.refs(t), " ") + g.local(t, filepath.Join(g.root, "own/app.git"), "rev-parse", "main")
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(out, c.want) || before != after) {
			t.Errorf("git %s: %v\n%s", c.args, err, out)
		}
	}
	if got := strings.Join(g.refs(t), " "); got != "refs/heads/feature/a refs/heads/main" {
		t.Errorf("the server has %s", got)
	}
}

// TestSSHRefusedPushOfManyObjects: git sends all objects before it reads the answer, and prints it then.
func TestSSHRefusedPushOfManyObjects(t *testing.T) {
	g := newSSHLab(t, "allow git:example.com/own/app:push=feature/*")
	big := make([]byte, 8<<20)
	_, _ = rand.Read(big)
	g.write(t, filepath.Join(g.work, "big"), string(big))
	g.local(t, g.work, "add", "big")
	g.commit(t, "big")
	out, err := g.git(t, "push", "origin", "HEAD:main")
	if err == nil || !strings.Contains(out, "push to refs/heads/main is not allowed") || !strings.Contains(out, "[remote rejected]") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := g.git(t, "push", "origin", "HEAD:feature/big"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestSSHDenyRules: deny rules about a repository win over SSH too; beside a rule that opens the port, only the
// repositories of allow rules are open.
func TestSSHDenyRules(t *testing.T) {
	g := newSSHLab(t, "allow example.com:22", "allow git:example.com/own/app:push=**", "deny git:example.com/Own/App:push=main", "allow git:example.com/own/other", "deny git:example.com/own/other")
	g.commit(t, "second")
	for args, want := range map[string]string{
		"fetch origin":                        "",
		"push origin HEAD:refs/heads/x":       "",
		"push origin HEAD:main":               "denies it",
		"fetch git@example.com:own/other":     "denies it",
		"fetch git@example.com:OWN/other.git": "denies it",
	} {
		out, err := g.git(t, strings.Fields(args)...)
		if (err == nil) != (want == "") || !strings.Contains(out, want) {
			t.Errorf("git %s: %v\n%s", args, err, out)
		}
	}
	g.SetPolicy(rulesFrom(t, "allow example.com:22", "allow git:example.com/own/app"))
	if out, err := g.git(t, "fetch", "origin"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := g.git(t, "fetch", "git@example.com:own/other"); err == nil || !strings.Contains(out, "no rule allows to fetch") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := g.sshCommand(t, "git@example.com", "id"); err == nil || !strings.Contains(out, "takes only git fetch and git push") {
		t.Errorf("%v\n%s", err, out)
	}
	// Without a rule about a repository, the port is open end to end, as ever: the guest sees the server's own key.
	g.SetPolicy(rulesFrom(t, "allow example.com:22"))
	if out, err := g.git(t, "fetch", "origin"); err == nil || !strings.Contains(out, "Host key verification failed") && !strings.Contains(out, "no hostkey alg") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAttackLoginWithoutAnAllowRule: a rule that opens the port does not lend the person's login, neither beside a
// deny rule about a repository, nor to a connection that is left from a rule that was taken back.
func TestAttackLoginWithoutAnAllowRule(t *testing.T) {
	g := newSSHLab(t, "allow example.com:22", "deny git:example.com/own/app:push=main")
	for _, args := range []string{"fetch origin", "fetch git@example.com:own/other", "push git@example.com:own/other HEAD:refs/heads/x"} {
		if out, err := g.git(t, strings.Fields(args)...); err == nil || !strings.Contains(out, "no rule allows") {
			t.Errorf("git %s: %v\n%s", args, err, out)
		}
	}
	g.SetPolicy(rulesFrom(t, "allow example.com:22", "allow git:example.com/own/app"))
	idle := g.guest(t)
	for _, rule := range []string{"allow example.com:22", "allow raw:example.com:22"} {
		g.SetPolicy(rulesFrom(t, rule))
		var s *ssh.Session
		waitFor(t, "a session", func() (ok bool) { // the one before is about to end
			var err error
			s, err = idle.NewSession()
			return err == nil
		})
		if out, err := s.CombinedOutput("git-receive-pack 'own/other'"); err == nil || !strings.Contains(string(out), "does not log in there") {
			t.Errorf("%s: %v\n%s", rule, err, out)
		}
	}
	if commands, users, _ := g.ssh.Seen(); commands != "" || users != "" {
		t.Errorf("the server got %s of %s", commands, users)
	}
	g.SetPolicy(rulesFrom(t, "allow example.com:22", "allow git:example.com/own/app"))
	g.ssh.Hang = true
	s, err := g.guest(t).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("git-upload-pack 'own/app'"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the command on the server", func() bool { return g.seen() != "" })
	g.SetPolicy(rulesFrom(t, "allow example.com:22"))
	if err := s.Wait(); err == nil {
		t.Error("the session goes on without its rule")
	}
}

// TestSSHAtAnotherPort: a rule is about SSH at its own port, told from TLS by the first bytes.
func TestSSHAtAnotherPort(t *testing.T) {
	g := newSSHLab(t, "allow git:example.com:443/own/app")
	g.config = g.reach(t, 443)
	if out, err := g.git(t, "fetch", "origin"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := g.git(t, "fetch", "git@example.com:own/other"); err == nil || !strings.Contains(out, "no rule allows to fetch from example.com/own/other") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestSSHHostKeys: a server whose key is not known, or another one, is asked nothing, and the message has
// the next step; nothing is learnt.
func TestSSHHostKeys(t *testing.T) {
	g := newSSHLab(t, "allow git:example.com/own/app")
	file := filepath.Join(g.home, ".ssh/known_hosts")
	other, _ := gitsshtest.NewKey(t)
	for text, want := range map[string]string{
		"": "is not known on the host",
		knownhosts.Line([]string{"other.example"}, g.ssh.Host.PublicKey()) + "\n":                                               "run `ssh git@example.com` on the host once",
		knownhosts.Line([]string{"example.com"}, other.PublicKey()) + "\n":                                                      "somebody may be in between",
		knownhosts.Line([]string{"example.com"}, g.ssh.Host.PublicKey()) + "\n@revoked * " + authorized(g.ssh.Host.PublicKey()): "is revoked",
		knownhosts.Line([]string{"example.com"}, g.ssh.Host.PublicKey()) + "\nexample.com what?\n":                              "correct or remove that line",
		"@cert-authority * " + authorized(g.ssh.Host.PublicKey()):                                                               "is not known on the host",
	} {
		g.write(t, file, text)
		out, err := g.git(t, "fetch", "origin")
		now, _ := os.ReadFile(file)
		if err == nil || !strings.Contains(out, want) || string(now) != text {
			t.Errorf("%q: %v\n%s", text, err, out)
		}
	}
	if commands, users, _ := g.ssh.Seen(); commands != "" || users != "" {
		t.Errorf("the server got %s of %s", commands, users)
	}
}

func authorized(k ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(k)) }

// TestSSHLogins: keys in files that the person's settings name; agents without keys and keys with a passphrase are
// refused with a reason, and other users than git or the person's.
func TestSSHLogins(t *testing.T) {
	g := newSSHLab(t, "allow git:example.com/own/app")
	signer, key := gitsshtest.NewKey(t)
	t.Setenv("SSH_AUTH_SOCK", gitsshtest.Agent(t))
	if out, err := g.git(t, "fetch", "origin"); err == nil || !strings.Contains(out, "the host's ssh-agent has no keys") || !strings.Contains(out, "run ssh-add on the host") {
		t.Errorf("no keys: %v\n%s", err, out)
	}
	t.Setenv("SSH_AUTH_SOCK", "/nonexistent/agent")
	if out, err := g.git(t, "fetch", "origin"); err == nil || !strings.Contains(out, "ssh-agent is not there any more") {
		t.Errorf("no agent: %v\n%s", err, out)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(g.home, ".ssh/work")
	g.write(t, file, string(pem.EncodeToMemory(locked)))
	g.write(t, filepath.Join(g.home, ".ssh/config"), "Host example.com\n User alice\n HostName 192.0.2.99\n ProxyCommand false\n IdentityFile ~/.ssh/work\n")
	if out, err := g.git(t, "fetch", "origin"); err == nil || !strings.Contains(out, "has a passphrase") {
		t.Errorf("a passphrase: %v\n%s", err, out)
	}
	open, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	g.write(t, file, string(pem.EncodeToMemory(open)))
	if out, err := g.git(t, "fetch", "origin"); err == nil || !strings.Contains(out, "no session could be opened there") {
		t.Errorf("a key that the server does not take: %v\n%s", err, out)
	}
	g.ssh.Key = signer.PublicKey()
	for user, ok := range map[string]bool{"git": true, "alice": true, "root": false, "bob": false} {
		out, err := g.git(t, "fetch", user+"@example.com:own/app")
		if (err == nil) != ok || !ok && !strings.Contains(out, "the user of the remote is") {
			t.Errorf("%s: %v\n%s", user, err, out)
		}
	}
}

// TestSSHOnlyGit: what else a client of SSH can ask for is refused, with a message where ssh shows one, and the
// server gets nothing of it.
func TestSSHOnlyGit(t *testing.T) {
	g := newSSHLab(t, "allow git:example.com/own/app:push=**")
	for _, c := range []struct{ want, args string }{
		{"takes only git fetch and git push", "git@example.com"},
		{"PTY allocation request failed", "-tt git@example.com"},
		{"takes only git fetch and git push", "-s git@example.com sftp"},
		{"takes only git fetch and git push", "git@example.com id"},
		{"takes only git fetch and git push", "git@example.com git-upload-pack --upload-pack=id 'own/app'"},
		{"begins like an option", "git@example.com git-upload-pack '--upload-pack=id'"},
		{"which servers read in different ways", "git@example.com git-upload-pack 'own/app' 'own/other'"},
		{"which servers read in different ways", "git@example.com git-upload-pack 'own/app';id'"},
		{"takes only git fetch and git push", "git@example.com git-upload-pack own/app"},
		{"takes only git fetch and git push", "git@example.com env LD_PRELOAD=x git-upload-pack 'own/app'"},
		{"Git LFS over SSH is not included", "git@example.com git-lfs-authenticate own/app download"},
		{"no rule allows this request", "git@example.com git-upload-pack 'own/app.git.git'"},
	} {
		options, _, _ := strings.Cut(c.args, "git@")
		out, err := g.sshCommand(t, strings.SplitN(c.args, " ", 2+strings.Count(options, " "))...)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("ssh %s: %v\n%s", c.args, err, out)
		}
	}
	if out, err := g.sshCommand(t, "-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "git@example.com"); err == nil || !strings.Contains(out, "forwarding failed") {
		t.Errorf("-R: %v\n%s", err, out)
	}
	if out, err := g.sshCommand(t, "-W", "127.0.0.1:22", "git@example.com"); err == nil || !strings.Contains(out, "stdio forwarding failed") {
		t.Errorf("-W: %v\n%s", err, out)
	}
	if got := g.seen(); got != "" {
		t.Errorf("the server got %s", got)
	}
}

// guest connects as a hostile guest, without authentication.
func (g *sshLab) guest(t *testing.T) *ssh.Client {
	t.Helper()
	c := g.mustDial("example.com", 22)
	sc, channels, requests, err := ssh.NewClientConn(c, "example.com:22", &ssh.ClientConfig{User: "git", HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
		if cert, ok := k.(*ssh.Certificate); !ok || cert.CertType != ssh.HostCert || !slices.Equal(cert.ValidPrincipals, []string{"example.com"}) {
			return fmt.Errorf("the host key %v", k)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sc.Close() })
	return ssh.NewClient(sc, channels, requests)
}

// TestSSHAttackSessions: a second command in a session, a second session beside one, an agent of the guest's, and
// variables are refused.
func TestSSHAttackSessions(t *testing.T) {
	g := newSSHLab(t, "allow git:example.com/own/app")
	g.ssh.Hang = true
	c := g.guest(t)
	ch, reqs, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(reqs)
	for _, r := range []struct {
		name    string
		payload []byte
		want    bool
	}{
		{"env", ssh.Marshal(struct{ N, V string }{"LD_PRELOAD", "/x.so"}), false},
		{"env", ssh.Marshal(struct{ N, V string }{"GIT_PROTOCOL", "version=2:x"}), false},
		{"env", ssh.Marshal(struct{ N, V string }{"GIT_PROTOCOL", "version=2"}), true},
		{"auth-agent-req@openssh.com", nil, false},
		{"x11-req", nil, false},
		{"exec", ssh.Marshal(struct{ C string }{"git-upload-pack 'own/app'"}), true},
		{"exec", ssh.Marshal(struct{ C string }{"git-upload-pack 'own/app'"}), false},
		{"exec", ssh.Marshal(struct{ C string }{"git-receive-pack 'own/app'"}), false},
		{"shell", nil, false},
	} {
		if ok, err := ch.SendRequest(r.name, true, r.payload); err != nil || ok != r.want {
			t.Errorf("%s %v: %v, %v", r.name, r.payload, ok, err)
		}
	}
	if _, _, err := c.OpenChannel("session", nil); err == nil || !strings.Contains(err.Error(), "one session at a time") {
		t.Errorf("a second session: %v", err)
	}
	waitFor(t, "the command on the server", func() bool { return g.seen() == "git-upload-pack 'own/app'" })
	// The rule is revoked: the session that runs ends.
	g.SetPolicy(rulesFrom(t, "allow git:example.com/own/other"))
	if _, err := ch.Read(make([]byte, 1)); err == nil {
		t.Error("the session goes on without its rule")
	}
}

// push starts a session that pushes to own/app, and sends what follows the list of the server's refs.
func (g *sshLab) push(t *testing.T, text string) (out, message string, status int) {
	t.Helper()
	s, err := g.guest(t).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var stdout, stderr strings.Builder
	s.Stdin, s.Stdout, s.Stderr = strings.NewReader(text), &stdout, &stderr
	err = s.Run("git-receive-pack 'own/app'")
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		status = exit.ExitStatus()
	} else if err != nil {
		t.Error(err)
	}
	return stdout.String(), stderr.String(), status
}

// TestAttackPushesOverSSH: what a hostile client sends in place of git's own push changes no ref that the rule does
// not name, and a byte of it reaches the server only with what was judged.
func TestAttackPushesOverSSH(t *testing.T) {
	g := newSSHLab(t, "allow git:example.com/own/app:push=old:delete")
	repository := filepath.Join(g.root, "own/app.git")
	main, zero := g.local(t, repository, "rev-parse", "main"), strings.Repeat("0", 40)
	const caps = "\x00report-status side-band-64k delete-refs"
	pkt := func(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }
	deleteMain := pkt(main + " " + zero + " refs/heads/main" + caps)
	deleteOld := pkt(main + " " + zero + " refs/heads/old" + caps)
	for name, text := range map[string]string{
		"another ref":                  deleteMain + "0000",
		"another ref behind the first": deleteOld + pkt(main+" "+zero+" refs/heads/main") + "0000",
		"without a report":             pkt(main+" "+zero+" refs/heads/main\x00delete-refs") + "0000",
		"options":                      pkt(main+" "+zero+" refs/heads/old"+caps+" push-options") + "0000" + pkt("x") + "0000",
		"a certificate":                pkt("push-cert"+caps) + pkt("certificate version 0.1\n") + "0000",
		"a ref twice":                  deleteOld + pkt(zero+" "+main+" refs/heads/old") + "0000PACK",
		"lines without end":            strings.Repeat(deleteOld, 5000),
		"no line at all":               "zzzz",
		"nothing":                      "",
	} {
		out, message, status := g.push(t, text)
		if (status == 0) != (strings.Contains(out, "unpack ")) || !strings.Contains(out+message, "bawn: forbidden") {
			t.Errorf("%s: status %d\n%q\n%q", name, status, out, message)
		}
		if got := strings.Join(g.refs(t), " "); got != "refs/heads/main refs/heads/old" {
			t.Fatalf("%s: the server has %s", name, got)
		}
	}
	// What follows a push that needs no objects is not sent on.
	if out, message, status := g.push(t, deleteOld+"0000"+deleteMain+"0000"+deleteMain+"0000PACK"); status != 0 || !strings.Contains(out, "ok refs/heads/old") {
		t.Errorf("status %d\n%q\n%q", status, out, message)
	}
	if got := strings.Join(g.refs(t), " "); got != "refs/heads/main" {
		t.Errorf("the server has %s", got)
	}
}

// TestAttackManySSHConnections: the sandbox has some at a time, and one that ends makes room.
func TestAttackManySSHConnections(t *testing.T) {
	g := newSSHLab(t, "allow git:example.com/own/app")
	var list []*ssh.Client
	for range maxSSH {
		list = append(list, g.guest(t))
	}
	c := g.mustDial("example.com", 22)
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes of one more", n)
	}
	list[0].Close()
	waitFor(t, "room for another", func() bool { return len(g.Gateway.ssh) < maxSSH })
	g.guest(t)
}

// TestSSHRulesCutConnections: a rule about a repository cuts what passed end to end before, and its end the
// connections without a session, too.
func TestSSHRulesCutConnections(t *testing.T) {
	g := newSSHLab(t, "allow example.com:22")
	c := g.mustDial("example.com", 22)
	if _, err := c.Read(make([]byte, 4)); err != nil { // the server's own version
		t.Fatal(err)
	}
	g.SetPolicy(rulesFrom(t, "allow example.com:22", "allow git:example.com/own/app"))
	if _, err := io.Copy(io.Discard, c); err == nil {
		t.Error("the connection end to end was not cut")
	}
	client := g.guest(t)
	g.SetPolicy(rulesFrom(t, "deny example.com:22", "allow git:example.com/own/app"))
	if err := client.Wait(); err == nil {
		t.Error("the connection was not cut")
	}
}

// TestAttackNotSSH: other protocols on port 22 of such a host get nowhere.
func TestAttackNotSSH(t *testing.T) {
	g := newSSHLab(t, "allow example.com:22", "allow git:example.com/own/app")
	c := g.mustDial("example.com", 22)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	_ = c.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, c)
	g.Close()
	for _, e := range readAll(t, g.path) {
		if e.Event == audit.EventOpen {
			t.Errorf("the server was dialled: %+v", e)
		}
	}
}

// TestSSHThroughAProxy: the server is reached through the host's proxy, by its name, and its key is that of the
// name.
func TestSSHThroughAProxy(t *testing.T) {
	kinds(t, func(t *testing.T, p *tunneltest.Proxy) {
		settings := p.Settings(t, "")
		g := newSSHLabOn(t, func(c *Config) { c.Proxies = settings }, "allow git:example.com/own/app")
		p.Route("example.com:22", g.ssh.Listen.Addr().String())
		g.mu.Lock()
		clear(g.route)
		g.mu.Unlock()
		if out, err := g.git(t, "fetch", "origin"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if got := p.Targets(); !slices.Equal(got, []string{"example.com:22"}) {
			t.Errorf("the proxy was asked for %q", got)
		}
	})
}

// TestSSHWithOpenSSHsAgent: the agent that people have.
func TestSSHWithOpenSSHsAgent(t *testing.T) {
	for _, program := range []string{"ssh-agent", "ssh-add"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	g := newSSHLab(t, "allow git:example.com/own/app")
	signer, key := gitsshtest.NewKey(t)
	g.ssh.Key = signer.PublicKey()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("SSH_AUTH_SOCK", filepath.Join(dir, "s"))
	server := exec.CommandContext(t.Context(), "ssh-agent", "-D", "-a", filepath.Join(dir, "s"))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	waitFor(t, "the agent", func() bool { _, err := os.Stat(filepath.Join(dir, "s")); return err == nil })
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	g.write(t, filepath.Join(dir, "key"), string(pem.EncodeToMemory(block)))
	if out, err := exec.CommandContext(t.Context(), "ssh-add", "-q", filepath.Join(dir, "key")).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if out, err := g.git(t, "fetch", "origin"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestSSHRulesCutPushes: a push under way ends when the rules no longer allow its refs, and one of other refs goes
// on.
func TestSSHRulesCutPushes(t *testing.T) {
	g := newSSHLab(t, "allow git:example.com/own/app:push=feature/*")
	g.ssh.Hang = true
	s, err := g.guest(t).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("git-receive-pack 'own/app'"); err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("0", 40) + " " + strings.Repeat("1", 40) + " refs/heads/feature/x\x00report-status"
	_, _ = fmt.Fprintf(in, "%04x%s0000PACK", len(line)+4, line)
	waitFor(t, "the push", func() bool {
		f := g.only(t)
		f.mu.Lock()
		defer f.mu.Unlock()
		for r := range f.requests {
			return len(r.changes) == 1
		}
		return false
	})
	g.SetPolicy(rulesFrom(t, "allow git:example.com/own/app:push=feature/x"))
	if n := g.open(); n != 1 {
		t.Errorf("%d flows are left", n)
	}
	g.SetPolicy(rulesFrom(t, "allow git:example.com/own/app:push=other"))
	if err := s.Wait(); err == nil {
		t.Error("the push goes on")
	}
}
