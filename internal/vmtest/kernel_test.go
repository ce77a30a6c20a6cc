//go:build vm

package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/cache"
)

// TestKernelIsFinished: neither the first container nor the first connections make the kernel
// patch its own code, where that could end in a panic (docs/adr/0013).
func TestKernelIsFinished(t *testing.T) {
	dir := project(t, "kernel-is-finished") // a machine in which nothing was done yet
	must(t, dir, "run", "--memory", "1G", "--", "true")
	if !strings.Contains(sh(t, dir, "cat /proc/cmdline"), "maxcpus=1") {
		t.Skip("not under software emulation")
	}
	if got := strings.TrimSpace(sh(t, dir, "nproc")); got != "2" {
		t.Errorf("%s CPUs", got)
	}
	got := sh(t, dir, `sudo bash -ec '
		trace=$(mktemp -d)
		mount -t tracefs tracefs "$trace"
		count() { awk "\$1 == \"rewrite\" {print \$2}" "$trace/kprobe_profile"; }
		echo p:rewrite text_poke_bp_batch >>"$trace/kprobe_events"
		echo 1 >"$trace/events/kprobes/rewrite/enable"
		echo before $(count)
		for proto in tcp udp; do
			for address in 127.0.0.1 ::1; do
				(echo >/dev/$proto/$address/9) 2>/dev/null || :
			done
		done
		ping -c 1 127.0.0.1 >/dev/null || :
		curl -s http://bawn.internal/ >/dev/null
		sleep 1
		echo connections $(count)
		mkdir -p /sys/fs/cgroup/first
		echo +memory +cpuset >/sys/fs/cgroup/first/cgroup.subtree_control
		mkdir -p /sys/fs/cgroup/first/container
		echo containers $(count)
		rmdir /sys/fs/cgroup/first/container /sys/fs/cgroup/first
		echo 1 >"$trace/events/kmem/kmem_cache_free/enable"
		echo 0 >"$trace/events/kmem/kmem_cache_free/enable"
		[ $(count) -gt 0 ] && echo counted
		echo 0 >"$trace/events/kprobes/rewrite/enable"
		echo -:rewrite >>"$trace/kprobe_events"
		umount "$trace"'`)
	if want := "before 0\nconnections 0\ncontainers 0\ncounted\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestNewerKernel: when there is a newer kernel, a suspended sandbox is resumed with its
// own, and a stopped one starts with the newer one.
func TestNewerKernel(t *testing.T) {
	own := t.TempDir()
	if out, err := exec.Command("sh", "-euc", `
mkdir "$2/bawn"
for kind in "$1"/*; do
	case $kind in
	*/kernel | */current) cp -a "$kind" "$2/bawn";;
	*) ln -s "$kind" "$2/bawn";;
	esac
done`, "sh", filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn"), own).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir := project(t, "newer-kernel")
	run := func(args ...string) result {
		t.Helper()
		r := bawnAt(t.Context(), dir, nil, []string{"XDG_CACHE_HOME=" + own, "BAWN_TEMPLATES=off"}, args...)
		if r.code != 0 {
			t.Fatalf("bawn %q: %+v", args, r)
		}
		return r
	}
	run("run", "--memory", "1G", "--", "sh", "-c", "sleep 10000 >/dev/null 2>&1 </dev/null &")
	run("suspend")

	kernels := cache.Open(filepath.Join(own, "bawn"))
	pointer, in := map[string]string{}, "kernel-"+runtime.GOARCH
	if err := kernels.Pointer("kernel", in, &pointer); err != nil {
		t.Fatal(err)
	}
	older, err := kernels.Lookup("kernel", pointer["key"])
	if err != nil {
		t.Fatal(err)
	}
	made := t.TempDir()
	for name := range older.Files {
		if out, err := exec.Command("install", "-D", older.File(name), filepath.Join(made, name)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	newer, err := kernels.Commit("kernel", pointer["key"]+"-newer", made, older.Meta)
	if err != nil {
		t.Fatal(err)
	}
	pointer["key"] = newer.Key
	if err := kernels.Point("kernel", in, pointer); err != nil {
		t.Fatal(err)
	}

	run("run", "--", "pgrep", "-x", "sleep")
	if r := run("inspect"); strings.Contains(r.out, newer.Key+"/") {
		t.Errorf("it went on with %s", r.out)
	}
	run("stop")
	run("run", "--", "true")
	if r := run("inspect"); !strings.Contains(r.out, newer.Key+"/") {
		t.Errorf("the stopped one started with %s", r.out)
	}
}
