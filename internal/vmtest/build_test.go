//go:build vm

package vmtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// TestBuildKilled is attack 20 on the first start, which fetches and builds for minutes.
// All processes that build end with bawn, nothing half-built is used as an image, and the
// next start builds again and removes what the last one left.
func TestBuildKilled(t *testing.T) {
	dir := project(t, "building")
	cache := filepath.Join(base, "cache")
	if err := os.MkdirAll(filepath.Join(cache, "bawn", "current"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"kernel", "current/kernel", "initramfs"} { // they are not what is tested
		from, to := filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn", part), filepath.Join(cache, "bawn", part)
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Logf("it will be fetched: %v: %s", err, out)
		}
	}
	env := append(environment(), "XDG_CACHE_HOME="+cache)
	var before string // what the first round left
	others, _ := builders(t, nil)
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
		works, pids := builders(t, others)
		if len(pids) == 0 {
			t.Fatalf("nothing builds: %s", said)
		}
		t.Cleanup(func() { removeWork(t, works) })
		kill9(t, c.Process.Pid)
		_ = c.Wait()
		wait(t, "the end of what builds", func() bool { _, pids := builders(t, others); return len(pids) == 0 })
		if made, _ := filepath.Glob(filepath.Join(cache, "bawn", "image", "*")); len(made) != 0 {
			t.Errorf("an image: %q", made)
		}
		left, _ := filepath.Glob(filepath.Join(cache, "bawn", "tmp", "*"))
		if len(left) != 1 || left[0] == before {
			t.Errorf("left: %q, and before: %q", left, before)
			break
		}
		before = left[0]
	}
	if r := bawnAt(t.Context(), dir, nil, []string{"XDG_CACHE_HOME=" + cache}, "image", "ls", "--json"); r.code != 0 || strings.TrimSpace(r.out) != "[]" {
		t.Errorf("%+v", r)
	}
}

// builders returns the processes that build an image, and their working folders, but for the
// builds in the folders of others.
func builders(t *testing.T, others []string) (works []string, pids []string) {
	t.Helper()
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range environs {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if i := bytes.Index(b, []byte("TMPDIR=/")); i >= 0 {
			work, _, _ := strings.Cut(string(b[i+len("TMPDIR="):]), "\x00")
			if strings.Contains(work, "bawn-build-") && !slices.Contains(others, work) {
				works, pids = append(works, work), append(pids, filepath.Base(filepath.Dir(f)))
			}
		}
	}
	return works, pids
}

// removeWork removes what the next build would remove, as its owner, which may be a
// subordinate user.
func removeWork(t *testing.T, works []string) {
	for _, w := range works {
		if os.RemoveAll(w) != nil {
			if out, err := exec.Command("mmdebstrap", "--unshare-helper", "rm", "-rf", "--one-file-system", w).CombinedOutput(); err != nil {
				t.Logf("%s stays: %v: %s", w, err, out)
			}
		}
	}
}

// tinyCacheEnv makes the test program mount a small file system over the folder
// that it names, and then run its arguments: in namespaces of its own.
const tinyCacheEnv = "BAWN_TEST_TINY_CACHE"

// tinyCache is that program.
func tinyCache(dir string) error {
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=4M,mode=0700"); err != nil {
		return err
	}
	c := exec.Command(os.Args[1], os.Args[2:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	var exit *exec.ExitError
	if err := c.Run(); !errors.As(err, &exit) {
		return fmt.Errorf("it did not fail: %w", err)
	}
	fmt.Println("exit status", exit.ExitCode())
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			fi, _ := d.Info()
			fmt.Println("left", p, fi.Size())
		}
		return err
	})
}

// TestBuildDiskFull: the cache's disk fills up while an image is built or fetched.
func TestBuildDiskFull(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"cache", "bin", "root"} {
		if err := os.Mkdir(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(at("root/large"), make([]byte, 32<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", at("root"), "-cf", at("tar"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	layer, err := tarball.LayerFromFile(at("tar"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("large:tag")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(at("saved.tar"), tag, img); err != nil {
		t.Fatal(err)
	}
	// What builds the default image is not what is tested: it writes a large one.
	script := "#!/bin/sh\ncase \"$*\" in *unshare-helper*) exec rm -rf \"$5\";; esac\nexec cat " + at("tar") + "\n"
	if err := os.WriteFile(at("bin/mmdebstrap"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"default", "docker-archive:" + at("saved.tar")} {
		c := exec.CommandContext(t.Context(), os.Args[0], os.Getenv("BAWN"), "image", "pull", ref)
		c.Env = append(environment(), "XDG_CACHE_HOME="+at("cache"), "PATH="+at("bin")+":"+os.Getenv("PATH"), tinyCacheEnv+"="+at("cache"))
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := c.CombinedOutput()
		if err != nil && len(out) == 0 {
			t.Skipf("no namespaces can be made here: %v", err)
		}
		got := string(out)
		for _, want := range []string{"no space left on device", "try: df -h", "exit status 125"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: it does not say %q:\n%s", ref, want, got)
			}
		}
		for l := range strings.Lines(got) {
			if strings.HasPrefix(l, "left ") && !strings.Contains(l, "/bawn/locks/") {
				t.Errorf("%s: %s", ref, l)
			}
		}
	}
}
