package qemu

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestEnding: why a machine ended, from what is known of it.
func TestEnding(t *testing.T) {
	dies := func(signal string) error { return exec.Command("sh", "-c", "kill -"+signal+" $$").Run() }
	for name, c := range map[string]struct {
		err            error
		killed         bool
		reason, output string
		want           string // empty: in order
		is             error
	}{
		"powered off":          {reason: guestShutdown},
		"killed":               {err: dies("KILL"), killed: true},
		"reset":                {reason: guestReset, want: "panicked", is: ErrReset},
		"another reason":       {reason: "guest-panic", want: "guest-panic"},
		"no reason":            {want: "without a reason"},
		"killed by the system": {err: dies("KILL"), output: "words", want: "QEMU was killed (signal 9)"},
		"crashed":              {err: dies("SEGV"), output: "words", want: "segmentation fault", is: ErrCrashed},
		"aborted":              {err: dies("ABRT"), output: "assertion", want: "assertion", is: ErrCrashed},
		"failed":               {err: exec.Command("false").Run(), output: "no such device", want: "no such device"},
	} {
		err := ending(c.err, c.killed, c.reason, c.output)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		for _, kind := range []error{ErrReset, ErrCrashed} {
			if errors.Is(err, kind) != errors.Is(c.is, kind) {
				t.Errorf("%s: %v is %v", name, err, kind)
			}
		}
	}
}
