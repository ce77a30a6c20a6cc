package share

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// asOther runs a test again as another user than root, whom the host's permissions hold.
func asOther(t *testing.T) {
	t.Helper()
	const other = 65534 // nobody, on all distributions
	dir, err := os.MkdirTemp("", "other")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, other, other); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), "TMPDIR="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("as user %d: %v\n%s", other, err, out)
	} else {
		t.Logf("%s", out)
	}
}
