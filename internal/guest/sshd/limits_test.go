package sshd

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// TestUmaskIsTheClients: each command has its own, also several at once, and the agent and
// other clients' commands keep theirs.
func TestUmaskIsTheClients(t *testing.T) {
	skipWithoutUnshare(t)
	b := newBench(t)
	own, err := b.session().Output("umask")
	must(t, err)
	masks := map[uint32]string{0: "0000", 0o002: "0002", 0o027: "0027", 0o077: "0077", 0o777: "0777"}
	outs := make(chan [2]string)
	for mask, want := range masks {
		for _, job := range []bool{false, true} {
			go func() {
				r := sh("umask")
				r.Umask, r.JobControl = &mask, job
				s, err := b.client().NewSession()
				if err != nil {
					outs <- [2]string{err.Error(), want}
					return
				}
				out, _ := s.Output(wire.ExecCommand(r)) // compared below
				outs <- [2]string{string(out), want}
			}()
		}
	}
	for range 2 * len(masks) {
		if o := <-outs; o[0] != o[1]+"\n" {
			t.Errorf("umask %q, want %q", o[0], o[1])
		}
	}
	if out, _, err := b.run(sh("umask"), nil); err != nil || out != string(own) {
		t.Errorf("a later command has %q, %v, want %q", out, err, own)
	}
	file := t.TempDir() + "/made"
	must(t, os.WriteFile(file, nil, 0o666))
	if out, _, err := b.run(sh("touch "+file+"-too; stat -c %a "+file+" "+file+"-too | uniq | wc -l"), nil); err != nil || strings.TrimSpace(out) != "1" {
		t.Errorf("the agent's files and its commands' differ: %q, %v", out, err)
	}
}

// TestUmaskOfTheConnection holds for commands that ask for none, and for SFTP.
func TestUmaskOfTheConnection(t *testing.T) {
	skipWithoutUnshare(t)
	b := newBench(t)
	mask, other := uint32(0o027), uint32(0o002)
	client, err := b.dialWith(b.user, b.key, &mask)
	must(t, err)
	defer client.Close()
	asking := sh("umask")
	asking.Umask = &other
	for command, want := range map[string]string{"umask": "0027\n", wire.ExecCommand(sh("umask")): "0027\n", wire.ExecCommand(asking): "0002\n"} {
		s, err := client.NewSession()
		must(t, err)
		if out, err := s.Output(command); err != nil || string(out) != want {
			t.Errorf("%q: %q, %v, want %q", command, out, err, want)
		}
	}
	c, err := sftp.NewClient(client)
	must(t, err)
	defer c.Close()
	f, err := c.Create("made")
	must(t, err)
	must(t, f.Close())
	must(t, c.Mkdir("made-too"))
	for name, want := range map[string]os.FileMode{"made": 0o640, "made-too": 0o750 | os.ModeDir} {
		if fi, err := os.Stat(filepath.Join(b.home, name)); err != nil || fi.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, fi, err, want)
		}
	}
}

func TestMaskedCommandFailsAsAnyOther(t *testing.T) {
	skipWithoutUnshare(t)
	b := newBench(t)
	mask := uint32(0o027)
	_, _, err := b.run(wire.ExecRequest{Argv: []string{"no-such-command"}, Umask: &mask}, nil)
	wantStatus(t, err, 127)
	_, _, err = b.run(wire.ExecRequest{Argv: []string{"/etc/passwd"}, Umask: &mask}, nil)
	wantStatus(t, err, 126)
}

// TestOpenFilesAreAtLeastTheClients: a higher limit is taken on, a lower one is not.
func TestOpenFilesAreAtLeastTheClients(t *testing.T) {
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	if was.Max < 2000 {
		t.Skip("the hard limit is low")
	}
	low := unix.Rlimit{Cur: 1000, Max: was.Max}
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	t.Cleanup(func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was)) })
	b := newBench(t)
	for _, c := range []struct {
		ask  uint64
		want string
	}{{0, "1000"}, {500, "1000"}, {2000, "2000"}, {1000, "2000"}} {
		r := sh("ulimit -Sn")
		r.OpenFiles = c.ask
		if out, _, err := b.run(r, nil); err != nil || out != c.want+"\n" {
			t.Errorf("%d: %q, %v, want %s", c.ask, out, err, c.want)
		}
	}
	r := sh(`test "$(ulimit -Sn)" = "$(ulimit -Hn)"`)
	r.OpenFiles = 1 << 62
	if _, _, err := b.run(r, nil); err != nil {
		t.Errorf("more than the hard limit: %v", err)
	}
}

func skipWithoutUnshare(t *testing.T) {
	t.Helper()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends here
		failed <- unix.Unshare(unix.CLONE_FS)
	}()
	if err := <-failed; err != nil {
		t.Skipf("unshare: %v", err)
	}
}
