package handoff_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// pair connects a caller and a pool member.
func pair(t *testing.T) (caller, member *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "claim"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	caller, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	if member, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { caller.Close(); member.Close() })
	for _, c := range []*net.UnixConn{caller, member} {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	return caller, member
}

// TestClaim: the member gets the folder, the sandbox's own lock, which outlives the
// caller's, and the pipe that the caller reads events from.
func TestClaim(t *testing.T) {
	caller, member := pair(t)
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := lockfile.TryAcquire(path)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d := store.Dir{Path: "/sandboxes/with a space\n and a line"}
	if err := handoff.SendClaim(caller, d, w, lock); err != nil {
		t.Fatal(err)
	}
	got, events, theirs, err := handoff.ReceiveClaim(member)
	if err != nil || got != d {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := handoff.Agree(member); err != nil {
		t.Fatal(err)
	}
	if err := handoff.AwaitAgreement(caller); err != nil {
		t.Fatal(err)
	}
	w.Close()
	lock.Close()
	if l, err := lockfile.TryAcquire(path); err == nil {
		l.Close()
		t.Error("the member does not hold the lock")
	}
	report, done := handoff.EventWriter(events)
	report(handoff.StartEvent{Stage: "setting up"})
	done()
	if b, err := io.ReadAll(r); err != nil || string(b) != `{"stage":"setting up"}`+"\n" {
		t.Errorf("%q, %v", b, err)
	}
	theirs.Close()
	l, err := lockfile.TryAcquire(path)
	if err != nil {
		t.Errorf("the lock is held by nobody, and cannot be taken: %v", err)
	} else {
		l.Close()
	}
}

// TestMalformedClaims are refused, and leave no descriptor behind.
func TestMalformedClaims(t *testing.T) {
	file := func(t *testing.T) *os.File {
		f, err := os.CreateTemp(t.TempDir(), "file")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	for name, c := range map[string]struct {
		text string
		fds  int
		want string
	}{
		"no descriptor":     {`{"dir":"/a"}`, 0, "no file descriptors"},
		"one descriptor":    {`{"dir":"/a"}`, 1, "two file descriptors"},
		"no JSON":           {`dir`, 2, "invalid character"},
		"a relative folder": {`{"dir":"a"}`, 2, "is not a sandbox's folder"},
		"no folder":         {`{}`, 2, "is not a sandbox's folder"},
	} {
		t.Run(name, func(t *testing.T) {
			caller, member := pair(t)
			var rights []byte
			if c.fds > 0 {
				var fds []int
				for range c.fds {
					fds = append(fds, int(file(t).Fd()))
				}
				rights = unix.UnixRights(fds...)
			}
			before := descriptors(t)
			if _, _, err := caller.WriteMsgUnix([]byte(c.text+"\n"), rights, nil); err != nil {
				t.Fatal(err)
			}
			_, _, _, err := handoff.ReceiveClaim(member)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors are open, %d before", after, before)
			}
		})
	}
}

// descriptors counts the open ones.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestAwaitAgreement: only the word of agreement is one.
func TestAwaitAgreement(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(*net.UnixConn)
		want   string
	}{
		"another word": {func(c *net.UnixConn) { _, _ = c.Write([]byte("n")) }, "refused"},
		"hangs up":     {func(c *net.UnixConn) { c.Close() }, "EOF"},
	} {
		caller, member := pair(t)
		c.answer(member)
		if err := handoff.AwaitAgreement(caller); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	caller, _ := pair(t)
	_ = caller.SetDeadline(time.Now().Add(time.Millisecond))
	if err := handoff.AwaitAgreement(caller); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
}

// TestEnv: what names a place is passed on; secrets are not.
func TestEnv(t *testing.T) {
	for k, v := range map[string]string{"HOME": "/h", "XDG_STATE_HOME": "/s", "AWS_SECRET_ACCESS_KEY": "x", "LOCALDOMAIN": "test", "BAWN_TEMPLATES": "off"} {
		t.Setenv(k, v)
	}
	env := strings.Join(handoff.Env(), "\n") + "\n"
	for _, want := range []string{"HOME=/h\n", "XDG_STATE_HOME=/s\n", "BAWN_TEMPLATES=off\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, secret := range []string{"AWS_SECRET", "LOCALDOMAIN"} {
		if strings.Contains(env, secret) {
			t.Errorf("%s is passed on", secret)
		}
	}
	if handoff.TemplatesEnabled() {
		t.Error("templates are enabled")
	}
}
