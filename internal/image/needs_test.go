package image

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemedyOfNoNewPrivileges: where newuidmap gets no rights, no sysctl is named, which would
// change nothing.
func TestRemedyOfNoNewPrivileges(t *testing.T) {
	if noNewPrivileges() {
		t.Skip("set for this test already")
	}
	if got := userNamespaceRemedy(); strings.Contains(got, "no_new_privs") {
		t.Errorf("it is not set: %s", got)
	}
	remedy := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, which cannot unset it, ends with the goroutine
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			remedy <- err.Error()
			return
		}
		remedy <- userNamespaceRemedy()
	}()
	if got := <-remedy; !strings.Contains(got, "NoNewPrivileges=no") || strings.Contains(got, "sysctl") {
		t.Errorf("it is set: %s", got)
	}
}
