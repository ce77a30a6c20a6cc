package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
)

// TestAttackNotification: the text of the guest is neither an option of the program nor markup.
func TestAttackNotification(t *testing.T) {
	args := notification("box", control.Access{Rule: "a.test:22", Reason: `\074b\076` + "--help <a href='x'>\x1b[2J\n" + strings.Repeat("x", 1000)})
	if len(args) != 4 || args[1] != "--" || !strings.HasPrefix(args[3], `It asks for a.test:22: &#92;074b&#92;076--help &lt;a href='x'&gt;&#92;x1b[2J&#92;n`) {
		t.Errorf("%q", args)
	}
	if len(args[3]) > 2*maxNotified || strings.ContainsAny(args[3], "\x1b<>\\") {
		t.Errorf("%q", args[3])
	}
}

// TestNotificationIsShown by the program that is found in PATH, and is not needed.
func TestNotificationIsShown(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/bus")
	var d desktop
	d.accessRequest("box", control.Access{Rule: "none.test"}) // no such program
	waitIdle(t, &d)
	out := filepath.Join(dir, "shown")
	if err := os.WriteFile(filepath.Join(dir, notifyProgram), []byte("#!/bin/sh\nprintf '%s|' \"$DBUS_SESSION_BUS_ADDRESS\" \"$@\" >'"+out+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.accessRequest("box", control.Access{Rule: "a.test:22", Reason: "to push"})
	waitIdle(t, &d)
	if b, err := os.ReadFile(out); err != nil || string(b) != "unix:path=/bus|--app-name=bawn|--|bawn: sandbox box|It asks for a.test:22: to push\nTo decide: bawn net ask --name box|" {
		t.Errorf("%q, %v", b, err)
	}
}

// waitIdle waits until no notification is being shown.
func waitIdle(t *testing.T, d *desktop) {
	t.Helper()
	for end := time.Now().Add(time.Minute); d.busy.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the notification takes a minute")
		}
	}
}
