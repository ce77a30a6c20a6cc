package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/confine"
	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/kernel"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/size"
	"bawn.dev/bawn/internal/sys/xdg"
)

// finding is what a check found. Remedy is empty when all is well.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Fatal  bool   `json:"fatal"` // bawn cannot work without it
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
	Said   string `json:"said,omitempty"` // by another program, word for word
}

func doctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check this host and name a remedy for what is missing",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			found := examine(c.Context())
			if asJSON {
				if err := printJSON(c.OutOrStdout(), found); err != nil {
					return err
				}
			} else if err := showFindings(c.OutOrStdout(), found); err != nil {
				return err
			}
			for _, f := range found {
				if !f.OK && f.Fatal {
					return errors.New("bawn cannot run here yet; see the remedies above")
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func showFindings(w io.Writer, found []finding) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range found {
		mark := "ok"
		switch {
		case !f.OK && f.Fatal:
			mark = "FAIL"
		case !f.OK:
			mark = "note"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", mark, f.Check, f.Detail)
		if f.Remedy != "" {
			fmt.Fprintf(tw, "\t\t-> %s\n", f.Remedy)
		}
	}
	return tw.Flush()
}

// examine runs all checks.
func examine(ctx context.Context) []finding {
	found := []finding{checkQEMU(ctx), checkAccel(ctx), checkKernel(), checkLandlock(), checkMemory()}
	found = append(found, checkState()...)
	cache, err := xdg.Cache()
	if err == nil {
		err = os.MkdirAll(cache, 0o700)
	}
	if err != nil {
		return append(found, finding{Check: "cache", Fatal: true, Detail: err.Error(), Remedy: "set XDG_CACHE_HOME to a folder of yours"})
	}
	found = append(found, checkSpace("cache", cache, 4<<30), checkCached(cache))
	return append(found, checkTools(cache)...)
}

// checkTools looks for what fetches and builds what machines boot from. Without
// it bawn still works on what is in the cache.
func checkTools(folder string) []finding {
	hasKernel, hasImage := kernel.Open(folder).Has(), image.Open(folder).HasDefault()
	found := []finding{
		checkTool("mke2fs", "e2fsprogs", "formats the sandbox's disk", true),
		checkTool("depmod", "kmod", "indexes the guest's kernel modules", !hasKernel),
		checkTool("apt-get", "apt", "fetches and verifies the guest's kernel", !hasKernel || !hasImage),
	}
	for _, n := range image.Needs() {
		f := finding{Check: n.What, OK: n.OK, Fatal: !hasImage, Detail: n.Detail}
		if !n.OK {
			f.Detail, f.Remedy = n.Detail+": the default image cannot be built", n.Remedy
		}
		found = append(found, f)
	}
	return found
}

func checkQEMU(ctx context.Context) finding {
	f := finding{Check: "qemu", Fatal: true}
	v, err := qemu.Find(ctx, "") // asked anew
	if err != nil {
		f.Detail, f.Remedy = err.Error(), "sudo apt-get install "+qemu.Package()
		return f
	}
	f.OK, f.Detail = true, v.String()
	return f
}

func checkAccel(ctx context.Context) finding {
	f := finding{Check: "kvm"}
	cache, err := xdg.Cache()
	if err != nil {
		f.Detail, f.Remedy = err.Error(), "set XDG_CACHE_HOME to a folder of yours"
		return f
	}
	a, err := qemu.Accelerator(ctx, cache)
	if err != nil {
		f.Detail, f.Remedy = err.Error(), "mend what it says"
		if errors.Is(err, qemu.ErrMissing) {
			f.Detail, f.Remedy = "not tried without QEMU", "see qemu"
		}
		return f
	}
	if a.OK() {
		f.OK, f.Detail = true, "works"
		return f
	}
	f.Detail, f.Remedy, f.Said = a.Reason+"; "+slower, a.Remedy, a.Said
	return f
}

func checkLandlock() finding {
	l := confine.Probe(confine.Profile{})
	f := finding{Check: "landlock", OK: l.Full(), Fatal: l.ABI == 0, Detail: l.String()}
	if !f.OK {
		f.Remedy = "boot a newer kernel, with landlock among the lsm= modules"
	}
	return f
}

func checkTool(tool, pkg, why string, fatal bool) finding {
	f := finding{Check: tool, Fatal: fatal}
	for _, p := range append(strings.Split(os.Getenv("PATH"), ":"), "/usr/sbin", "/sbin") {
		if _, err := exec.LookPath(p + "/" + tool); err == nil {
			f.OK, f.Detail = true, p+"/"+tool
			return f
		}
	}
	f.Detail = "not found; it " + why
	f.Remedy = "sudo apt-get install " + pkg
	if pkg == "apt" {
		f.Remedy = "run bawn on Debian or Ubuntu"
	}
	return f
}

// checkState looks at the folder of the sandboxes: room, and whether its file
// system holds sockets, which some network file systems do not.
func checkState() []finding {
	const elsewhere = "set XDG_STATE_HOME to a folder of yours on a local disk"
	sandboxes, err := store.Open()
	if err != nil {
		return []finding{{Check: "state", Fatal: true, Detail: err.Error(), Remedy: elsewhere}}
	}
	f := finding{Check: "sockets", Fatal: true}
	if f.Detail, err = trySocket(sandboxes.Root()); err != nil {
		f.Detail, f.Remedy = err.Error(), elsewhere
	}
	f.OK = err == nil
	return []finding{checkSpace("state", sandboxes.Root(), 1<<30), f}
}

// trySocket makes a socket where those of a sandbox would be and reaches it: a
// path may be longer than an address of a socket holds.
func trySocket(root string) (string, error) {
	dir, err := os.MkdirTemp(root, ".doctor-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	d := store.Dir{Path: dir}
	l, err := d.Listen(store.ControlSocket)
	if err != nil {
		return "", fmt.Errorf("%s holds no sockets: %w", root, err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := d.Dial(ctx, store.ControlSocket)
	if err != nil {
		return "", fmt.Errorf("a socket in %s cannot be reached: %w", root, err)
	}
	c.Close()
	return fmt.Sprintf("work in %s", root), nil
}

// oldestKernel is the first with Landlock (landlock(7)).
const oldestKernel = "5.13"

func checkKernel() finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding{Check: "kernel", Detail: err.Error(), Remedy: "run bawn on Linux"}
	}
	release := unix.ByteSliceToString(u.Release[:])
	f := finding{Check: "kernel", OK: !olderThan(release, oldestKernel), Detail: "Linux " + release}
	if !f.OK {
		f.Remedy = "boot Linux " + oldestKernel + " or later"
	}
	return f
}

// olderThan compares the first two numbers of kernel releases.
func olderThan(a, b string) bool {
	var x, y [2]int
	_, _ = fmt.Sscanf(a, "%d.%d", &x[0], &x[1]) // what is no number counts as 0
	_, _ = fmt.Sscanf(b, "%d.%d", &y[0], &y[1])
	return x[0] < y[0] || x[0] == y[0] && x[1] < y[1]
}

// checkCached says what the next start need not fetch or build.
func checkCached(folder string) finding {
	f := finding{Check: "cached"}
	items, err := cache.Open(folder).Items()
	if err != nil {
		f.Detail, f.Remedy = err.Error(), "rm -r "+pathArgument(folder)+", while no sandbox runs"
		return f
	}
	f.OK, f.Detail = true, cachedWords(items)
	if old := defaultAge(folder); old > staleAfter {
		f.Detail += fmt.Sprintf("; the default image is of %d days ago", int(old.Hours()/24))
		f.Remedy = "bawn image update, for the packages and the kernel of today"
	}
	return f
}

// staleAfter is when security updates that new sandboxes lack are worth a word.
const staleAfter = 30 * 24 * time.Hour

// defaultAge is how long ago the default image was built, 0 if it was not.
func defaultAge(folder string) time.Duration {
	list, err := image.Open(folder).List()
	if err != nil {
		return 0
	}
	for _, i := range list {
		if i.Ref == image.DefaultRef && !i.Superseded {
			return time.Since(i.Created)
		}
	}
	return 0
}

// cachedWords counts what is in the cache: "1 kernel (60 MiB), 2 images (2 GiB)".
func cachedWords(items []cache.Item) string {
	count, bytes := map[string]int{}, map[string]int64{}
	for _, i := range items {
		count[i.Kind]++
		bytes[i.Kind] += i.Size
	}
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		what := kind
		if count[kind] > 1 && !strings.HasSuffix(kind, "s") {
			what += "s"
		}
		words = append(words, fmt.Sprintf("%d %s (%s)", count[kind], what, size.Format(bytes[kind])))
	}
	if len(words) == 0 {
		return "nothing yet: the first start fetches and builds for some minutes"
	}
	return strings.Join(words, ", ")
}

func checkMemory() finding {
	total := totalMemory()
	if total == 0 {
		return finding{Check: "memory", Detail: "not known", Remedy: "say how much a guest gets: --memory 2g"}
	}
	f := finding{Check: "memory", OK: total >= 2<<30, Detail: fmt.Sprintf("%s, %d CPUs", size.Format(total), runtime.NumCPU())}
	if !f.OK {
		f.Remedy = "give sandboxes less: --memory 512m"
	}
	return f
}

func checkSpace(what, dir string, want int64) finding {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return finding{Check: what, Detail: err.Error(), Remedy: "put it on another file system"}
	}
	free := int64(st.Bavail) * st.Bsize
	f := finding{Check: what, OK: free >= want, Detail: fmt.Sprintf("%s (%s free)", dir, size.Format(free))}
	if !f.OK {
		f.Remedy = fmt.Sprintf("free some space there: %s is wanted", size.Format(want))
	}
	return f
}
