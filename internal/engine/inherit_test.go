package engine

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUmaskAndLimitOfThisProcess starts this test again below shells with other settings.
func TestUmaskAndLimitOfThisProcess(t *testing.T) {
	if os.Getenv("TELL_INHERITED") != "" {
		mask := Umask()
		if mask == nil {
			t.Fatal("no umask")
		}
		_, _ = os.Stdout.WriteString("told " + strconv.FormatUint(uint64(*mask), 8) + " " + strconv.FormatUint(OpenFiles(), 10) + "\n")
		return
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Max < 70000 {
		t.Skipf("the hard limit of open files is %d, %v", l.Max, err)
	}
	for script, want := range map[string]string{
		"umask 0077; ulimit -Sn 1024":  "told 77 0",
		"umask 0002; ulimit -Sn 70000": "told 2 70000",
		"umask 0000; ulimit -Sn 65536": "told 0 0",
	} {
		c := exec.Command("/bin/sh", "-c", script+`; exec "$0" -test.run '^TestUmaskAndLimitOfThisProcess$'`, os.Args[0])
		c.Env = append(os.Environ(), "TELL_INHERITED=1")
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want+"\n") {
			t.Errorf("%s: %s, %v, want %s", script, out, err, want)
		}
	}
}

func TestLimitsOfAProcess(t *testing.T) {
	for text, want := range map[string]uint64{
		"Max processes  5 6 processes\nMax open files            1048576              1073741816           files\n": 1048576,
		"Max open files            unlimited unlimited files\n":                                                     0,
		"Max open files": 0,
		"":               0,
	} {
		if got := maxOpenFiles(text); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}
