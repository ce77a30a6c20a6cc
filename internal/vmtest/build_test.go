//go:build vm

package vmtest

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBuildKilled is attack 20 on the first start, which fetches and builds for
// minutes: whatever builds ends with brig, nothing half-built is taken for an
// image, and the next start begins anew, without what the last one left.
func TestBuildKilled(t *testing.T) {
	dir := project(t, "building")
	cache := filepath.Join(base, "cache")
	if err := os.MkdirAll(filepath.Join(cache, "brig", "current"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"kernel", "current/kernel", "initramfs"} { // they are not what is tested
		from, to := filepath.Join(os.Getenv("BRIG_TEST_CACHE"), "brig", part), filepath.Join(cache, "brig", part)
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Logf("it will be fetched: %v: %s", err, out)
		}
	}
	env := append(environment(), "XDG_CACHE_HOME="+cache)
	var before string // what the first round left
	for range 2 {
		c := command(t.Context(), dir, "run", "--", "true")
		c.Env = env
		stderr, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		said := ""
		for lines := bufio.NewScanner(stderr); !strings.Contains(said, "Fetching the base system") && lines.Scan(); {
			said += lines.Text() + "\n"
		}
		works, pids := builders(t, cache)
		if len(pids) == 0 {
			t.Fatalf("nothing builds: %s", said)
		}
		t.Cleanup(func() { removeWork(t, works) })
		kill9(t, c.Process.Pid)
		_ = c.Wait()
		wait(t, "the end of what builds", func() bool { _, pids := builders(t, cache); return len(pids) == 0 })
		if made, _ := filepath.Glob(filepath.Join(cache, "brig", "image", "*")); len(made) != 0 {
			t.Errorf("an image: %q", made)
		}
		left, _ := filepath.Glob(filepath.Join(cache, "brig", "tmp", "*"))
		if len(left) != 1 || left[0] == before {
			t.Errorf("left: %q, and before: %q", left, before)
			break
		}
		before = left[0]
	}
	if r := brigAt(t.Context(), dir, nil, []string{"XDG_CACHE_HOME=" + cache}, "image", "ls", "--json"); r.code != 0 || strings.TrimSpace(r.out) != "[]" {
		t.Errorf("%+v", r)
	}
}

// builders are the processes that build for a cache, and the folders that they work in.
func builders(t *testing.T, cache string) (works []string, pids []string) {
	t.Helper()
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range environs {
		b, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(b, []byte("XDG_CACHE_HOME="+cache+"\x00")) {
			continue
		}
		if i := bytes.Index(b, []byte("TMPDIR=/")); i >= 0 {
			work, _, _ := strings.Cut(string(b[i+len("TMPDIR="):]), "\x00")
			if strings.Contains(work, "brig-build-") {
				works, pids = append(works, work), append(pids, filepath.Base(filepath.Dir(f)))
			}
		}
	}
	return works, pids
}

// removeWork removes what the next build would have removed: as its owner, which
// may be a subordinate user.
func removeWork(t *testing.T, works []string) {
	for _, w := range works {
		if os.RemoveAll(w) != nil {
			if out, err := exec.Command("mmdebstrap", "--unshare-helper", "rm", "-rf", "--one-file-system", w).CombinedOutput(); err != nil {
				t.Logf("%s stays: %v: %s", w, err, out)
			}
		}
	}
}
