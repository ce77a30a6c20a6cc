package secret

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sys/proc/proctest"
)

// unsafe checks that an error tells the person where a guest could have written, and the guest nothing of it.
func unsafe(t *testing.T, err error, shared string) {
	t.Helper()
	var u *UnsafeError
	if !errors.As(err, &u) || !strings.Contains(u.Why.Error(), "a guest can write to") || strings.Contains(err.Error(), shared) {
		t.Errorf("%v", err)
	}
}

// TestAttackAnIndexThatAGuestWrites: bawn's configuration lies in a project with the person's dotfiles. The list of
// secrets names commands that the host runs.
func TestAttackAnIndexThatAGuestWrites(t *testing.T) {
	s, _ := testStore(t)
	dots, mark := t.TempDir(), filepath.Join(t.TempDir(), "mark")
	sec := entry("EXAMPLE_KEY", "")
	sec.Command = "touch " + mark + "; echo the-value-of-the-secret"
	if _, err := s.Set(t.Context(), sec, ""); err != nil {
		t.Fatal(err)
	}
	kept, err := s.Set(t.Context(), entry("ANOTHER_KEY", ""), "the-value-of-another")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(s.config, filepath.Join(dots, "bawn")), os.Symlink(filepath.Join(dots, "bawn"), s.config)); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); len(list) != 2 || err != nil {
		t.Fatalf("%+v, %v", list, err)
	}
	proctest.Share(t, dots)
	if _, err := OpenAt(filepath.Join(dots, "new"), s.state).Set(t.Context(), entry("NEW_KEY", ""), "the-value-of-the-new"); err == nil {
		t.Error("a value is written where a guest reads it")
	}
	list, err := s.List()
	if len(list) != 0 {
		t.Errorf("%+v", list)
	}
	unsafe(t, err, dots)
	if _, err := s.Set(t.Context(), entry("THIRD_KEY", ""), "the-value-of-the-third"); err == nil {
		t.Error("the list of a guest is added to")
	}
	v, err := s.Value(t.Context(), &kept)
	if v != "" {
		t.Error(v)
	}
	unsafe(t, err, dots)

	if _, err := os.Stat(mark); err == nil {
		t.Error("the command ran")
	}
}

// TestAttackCommandsOfAGuest: a command runs a script, or takes its settings, from a project.
func TestAttackCommandsOfAGuest(t *testing.T) {
	s, _ := testStore(t)
	home, shared := t.TempDir(), t.TempDir()
	mark, script := filepath.Join(home, "mark"), filepath.Join(shared, "script")
	t.Setenv("HOME", home)
	for _, k := range folders {
		t.Setenv(k, "")
	}
	if err := errors.Join(os.WriteFile(script, []byte("#!/bin/sh\ntouch "+mark+"\necho the-value-of-the-secret\n"), 0o700), os.Mkdir(filepath.Join(shared, "gnupg"), 0o700),
		os.Mkdir(filepath.Join(home, "bin"), 0o700), os.Symlink(script, filepath.Join(home, "bin/helper"))); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", os.Getenv("PATH")+":"+filepath.Join(home, "bin"))
	value := func(command string) (string, error) {
		sec := entry("EXAMPLE_KEY", "")
		sec.Command = command
		sec, err := s.Set(t.Context(), sec, "")
		if err != nil {
			t.Fatal(err)
		}
		return s.Value(t.Context(), &sec)
	}
	if v, err := value("sh " + script); v != "the-value-of-the-secret" || err != nil {
		t.Fatalf("without a guest: %s, %v", v, err)
	}
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	proctest.Share(t, shared)
	for _, command := range []string{script, "sh " + script, "helper"} {
		v, err := value(command)
		if v != "" {
			t.Errorf("%s: %s", command, v)
		}
		unsafe(t, err, shared)
	}
	const own = "touch ~/mark; echo the-value-of-the-secret"
	for _, k := range folders {
		t.Setenv(k, filepath.Join(shared, "settings", ".."))
		v, err := value(own)
		if v != "" {
			t.Errorf("%s: %s", k, v)
		}
		unsafe(t, err, shared)
		t.Setenv(k, "")
	}
	if err := os.Symlink(filepath.Join(shared, "gnupg"), filepath.Join(home, ".gnupg")); err != nil {
		t.Fatal(err)
	}
	_, err := value(own)
	unsafe(t, err, shared)
	if _, err := os.Stat(mark); err == nil {
		t.Error("a command ran")
	}
	if err := os.Remove(filepath.Join(home, ".gnupg")); err != nil {
		t.Fatal(err)
	}
	if v, err := value(own); v != "the-value-of-the-secret" || err != nil {
		t.Errorf("%s, %v", v, err)
	}
}

// TestAttackTheSessionBusOfAGuest: the library of the keyring would run dbus-launch where it finds no bus.
func TestAttackTheSessionBusOfAGuest(t *testing.T) {
	shared, own := t.TempDir(), t.TempDir()
	for _, dir := range []string{shared, own} {
		l, err := net.Listen("unix", filepath.Join(dir, "bus"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	mark := filepath.Join(own, "mark")
	if err := os.WriteFile(filepath.Join(shared, "dbus-launch"), []byte("#!/bin/sh\ntouch "+mark+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", shared+":"+os.Getenv("PATH"))
	proctest.Share(t, shared)
	for _, c := range []struct{ address, runtime, want string }{
		{"", own, "unix:path=" + own + "/bus"},
		{"unix:path=" + own + "/bus,guid=00", "", "unix:path=" + own + "/bus,guid=00"},
		{"unix:abstract=/tmp/dbus-test", "", "unix:abstract=/tmp/dbus-test"},
		{"", "", ""},
		{"", shared, ""},
		{"", "relative", ""},
		{"", filepath.Join(own, "none"), ""},
		{"autolaunch:", own, ""},
		{"unixexec:path=/bin/true", own, ""},
		{"tcp:host=localhost,port=1", own, ""},
		{"unix:path=" + shared + "/bus", own, ""},
		{"unix:path=" + strings.ReplaceAll(shared, "/", "%2f") + "%2fbus", own, ""},
		{"unix:path=" + own + "/bus;autolaunch:", own, ""},
		{"unix:path=" + own + "/mark", own, ""},
	} {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", c.address)
		t.Setenv("XDG_RUNTIME_DIR", c.runtime)
		got, err := sessionBus()
		if got != c.want || (err == nil) != (c.want != "") || (desktop{}).Available() != (c.want != "") {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
		if c.want == "" {
			if _, err := (desktop{}).Get("id"); err == nil {
				t.Errorf("%+v: asked", c)
			}
		}
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("dbus-launch of the guest ran")
	}
}
