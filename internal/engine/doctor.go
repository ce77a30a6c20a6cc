package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/confine"
	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/kernel"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/size"
	"bawn.dev/bawn/internal/sys/xdg"
)

// Finding is the result of one check of the host. Check and Remedy.Kind are for programs,
// Detail for people.
type Finding struct {
	Check  CheckID
	OK     bool
	Fatal  bool   // no sandbox can run here if it is not OK
	Detail string // what is there, or what is wrong
	Remedy Remedy // zero if nothing is to be done; also set where a good thing could be better
	Output string // of another program, word for word; may be empty
}

// CheckID names a check. Its value is stable. There are others than these: one for each
// program and right that builds the default image (image.Needs).
type CheckID string

// The checks.
const (
	CheckQEMU     CheckID = "qemu"
	CheckKVM      CheckID = "kvm"
	CheckKernel   CheckID = "kernel"
	CheckLandlock CheckID = "landlock"
	CheckMemory   CheckID = "memory"
	CheckProxy    CheckID = "proxy"   // only where one is set
	CheckState    CheckID = "state"   // the folder of the sandboxes
	CheckSockets  CheckID = "sockets" // in that folder
	CheckCache    CheckID = "cache"   // the folder with kernels and images
	CheckCached   CheckID = "cached"  // what is in it
	CheckMke2fs   CheckID = "mke2fs"
	CheckDepmod   CheckID = "depmod"
	CheckApt      CheckID = "apt-get"
)

// Remedy is an action by which the user can resolve a Finding.
type Remedy struct {
	Kind RemedyKind
	// Text is the remedy in words for RunThis, and the package, file, version or size that
	// the other kinds are about.
	Text string
}

// RemedyKind is a kind of Remedy, for which a front end has the text. Its value is stable.
type RemedyKind string

// The kinds of remedies, with what Text is.
const (
	RunThis       RemedyKind = "run"             // words or a command of the package that checked
	InstallDeb    RemedyKind = "install-package" // name of a Debian package
	UseDebian     RemedyKind = "use-debian"
	UseLinux      RemedyKind = "use-linux"
	UpdateKernel  RemedyKind = "update-kernel"         // the oldest release that will do
	EnableLSM     RemedyKind = "enable-landlock"       // in the kernel's command line
	MoveState     RemedyKind = "move-state-folder"     // to a local disk
	MoveCache     RemedyKind = "move-cache-folder"     //
	MoveFolder    RemedyKind = "move-folder"           // to another file system
	FreeSpace     RemedyKind = "free-disk-space"       // how much is wanted
	LessMemory    RemedyKind = "use-less-memory"       // for each sandbox
	GiveMemory    RemedyKind = "set-memory"            // explicitly: the host's is not known
	InstallQEMU   RemedyKind = "see-qemu"              // QEMU comes first
	FixAccel      RemedyKind = "fix-error"             // the error that Detail names
	FixProxy      RemedyKind = "fix-proxy"             // the variable that Detail names
	RemoveCache   RemedyKind = "remove-cache"          // its folder
	RefreshImages RemedyKind = "update-default-images" // the default image and the kernel
)

// Doctor checks whether this host can run sandboxes, and what their first start would
// have to fetch and build. It changes nothing, except that it creates bawn's folders.
func Doctor(ctx context.Context) []Finding {
	cacheFolder, cacheErr := xdg.Cache()
	state, usable := checkState()
	var found []Finding
	if usable {
		found = append(found, checkQEMU(ctx), checkKVM(ctx, cacheFolder, cacheErr))
	}
	found = append(found, checkKernel(), checkLandlock(), checkMemory())
	found = append(found, checkProxies(ctx)...)
	found = append(found, state...)
	if cacheErr == nil {
		cacheErr = os.MkdirAll(cacheFolder, 0o700)
	}
	if cacheErr != nil {
		return append(found, Finding{Check: CheckCache, Fatal: true, Detail: cacheErr.Error(), Remedy: Remedy{Kind: MoveCache}})
	}
	found = append(found, checkSpace(CheckCache, cacheFolder, 4<<30), checkCached(cacheFolder))
	if usable {
		found = append(found, checkTools(cacheFolder)...)
	}
	return found
}

func checkQEMU(ctx context.Context) Finding {
	f := Finding{Check: CheckQEMU, Fatal: true}
	v, err := qemu.Find(ctx, "") // without the cache: it may have been replaced
	if err != nil {
		f.Detail, f.Remedy = err.Error(), Remedy{InstallDeb, qemu.Package()}
		return f
	}
	f.OK, f.Detail = true, v.String()
	return f
}

func checkKVM(ctx context.Context, cacheFolder string, cacheErr error) Finding {
	f := Finding{Check: CheckKVM}
	if cacheErr != nil {
		f.Detail, f.Remedy = cacheErr.Error(), Remedy{Kind: MoveCache}
		return f
	}
	a, err := qemu.AcceleratorAnew(ctx, cacheFolder)
	switch {
	case errors.Is(err, qemu.ErrMissing):
		f.Detail, f.Remedy = "not tested, because QEMU is missing", Remedy{Kind: InstallQEMU}
	case err != nil:
		f.Detail, f.Remedy = err.Error(), Remedy{Kind: FixAccel}
	case a.OK():
		f.OK, f.Detail = true, "works"
	default:
		f.Detail, f.Remedy, f.Output = a.Reason+"; "+SlowWithoutKVM, Remedy{RunThis, a.Remedy}, a.Output
	}
	return f
}

// SlowWithoutKVM tells the user the cost of software emulation.
const SlowWithoutKVM = "using software emulation, about 20 times slower"

// oldestKernel is the first Linux with Landlock (landlock(7)).
const oldestKernel = "5.13"

func checkKernel() Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Finding{Check: CheckKernel, Detail: err.Error(), Remedy: Remedy{Kind: UseLinux}}
	}
	release := unix.ByteSliceToString(u.Release[:])
	f := Finding{Check: CheckKernel, OK: !olderThan(release, oldestKernel), Detail: "Linux " + release}
	if !f.OK {
		f.Remedy = Remedy{UpdateKernel, oldestKernel}
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

func checkLandlock() Finding {
	l := confine.Probe(confine.Profile{})
	f := Finding{Check: CheckLandlock, OK: l.Full(), Fatal: l.ABI == 0, Detail: l.String()}
	if !f.OK {
		f.Remedy = Remedy{Kind: EnableLSM}
	}
	return f
}

func checkMemory() Finding {
	total := HostMemory()
	if total == 0 {
		return Finding{Check: CheckMemory, Detail: "the host's memory is unknown", Remedy: Remedy{Kind: GiveMemory}}
	}
	f := Finding{Check: CheckMemory, OK: total >= 2<<30, Detail: fmt.Sprintf("%s, %d CPUs", size.Format(total), runtime.NumCPU())}
	if !f.OK {
		f.Remedy = Remedy{Kind: LessMemory}
	}
	return f
}

// checkState looks at the folder of the sandboxes: its room, and whether its file system
// can hold sockets, which some network file systems cannot. While the folder is not usable,
// no program of the host is found: what guests can write to, and so must not be run, is
// recorded there. To report these programs as missing would name the wrong remedy.
func checkState() (found []Finding, usable bool) {
	sandboxes, err := store.Open()
	if err == nil {
		_, err = sandboxes.Changeable()
	}
	if err != nil {
		return []Finding{{Check: CheckState, Fatal: true, Detail: err.Error(), Remedy: Remedy{Kind: MoveState}}}, false
	}
	f := Finding{Check: CheckSockets, Fatal: true, OK: true, Detail: "work in " + sandboxes.Root()}
	if err := trySocket(sandboxes.Root()); err != nil {
		f.OK, f.Detail, f.Remedy = false, err.Error(), Remedy{Kind: MoveState}
	}
	return []Finding{checkSpace(CheckState, sandboxes.Root(), 1<<30), f}, true
}

// trySocket connects to a socket in a folder as deep as a sandbox's: its path may be
// longer than a socket's address may be.
func trySocket(root string) error {
	dir, err := os.MkdirTemp(root, ".doctor-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := store.Dir{Path: dir}
	l, err := d.Listen(store.ControlSocket)
	if err != nil {
		return fmt.Errorf("%s: its file system does not support Unix sockets: %w", root, err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := d.Dial(ctx, store.ControlSocket)
	if err != nil {
		return fmt.Errorf("cannot connect to a socket in %s: %w", root, err)
	}
	return c.Close()
}

func checkSpace(check CheckID, dir string, want int64) Finding {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Finding{Check: check, Detail: err.Error(), Remedy: Remedy{Kind: MoveFolder}}
	}
	free := int64(st.Bavail) * st.Bsize
	f := Finding{Check: check, OK: free >= want, Detail: fmt.Sprintf("%s (%s free)", dir, size.Format(free))}
	if !f.OK {
		f.Remedy = Remedy{FreeSpace, size.Format(want)}
	}
	return f
}

// staleAfter is the age of the default image from which new sandboxes lack security
// updates that matter.
const staleAfter = 30 * 24 * time.Hour

// checkCached returns what the next start need not fetch or build.
func checkCached(folder string) Finding {
	f := Finding{Check: CheckCached}
	items, err := cache.Open(folder).Items()
	if err != nil {
		f.Detail, f.Remedy = err.Error(), Remedy{RemoveCache, folder}
		return f
	}
	f.OK, f.Detail = true, describeCache(items)
	if age := defaultAge(folder); age > staleAfter {
		f.Detail += fmt.Sprintf("; the default image is %d days old", int(age.Hours()/24))
		f.Remedy = Remedy{Kind: RefreshImages}
	}
	return f
}

// defaultAge returns how long ago the default image was built, 0 if it was not.
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

// describeCache counts the items of the cache: "1 kernel (60 MiB), 2 images (2 GiB)".
func describeCache(items []cache.Item) string {
	count, bytes := map[string]int{}, map[string]int64{}
	for _, i := range items {
		count[i.Kind]++
		bytes[i.Kind] += i.Size
	}
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		if kind == packagesFolder { // its folders are not entries
			words = append(words, "shared packages ("+size.Format(bytes[kind])+")")
			continue
		}
		what := kind
		if count[kind] > 1 && !strings.HasSuffix(kind, "s") {
			what += "s"
		}
		words = append(words, fmt.Sprintf("%d %s (%s)", count[kind], what, size.Format(bytes[kind])))
	}
	if len(words) == 0 {
		return "empty: the first start fetches and builds what it needs, which takes some minutes"
	}
	return strings.Join(words, ", ")
}

// checkTools looks for the programs that fetch and build what machines boot from. What is
// in the cache already is used without them.
func checkTools(folder string) []Finding {
	hasKernel, hasImage := kernel.Open(folder).Has(), image.Open(folder).HasDefault()
	found := []Finding{
		checkTool(CheckMke2fs, "e2fsprogs", "formats the sandbox's disk", true),
		checkTool(CheckDepmod, "kmod", "indexes the guest's kernel modules", !hasKernel),
		checkTool(CheckApt, "apt", "fetches and verifies the guest's kernel", !hasKernel || !hasImage),
	}
	for _, n := range image.Needs() {
		f := Finding{Check: CheckID(n.What), OK: n.OK, Fatal: !hasImage, Detail: n.Detail}
		if !n.OK {
			f.Detail, f.Remedy = n.Detail+": needed to build the default image", Remedy{RunThis, n.Remedy}
		}
		found = append(found, f)
	}
	return found
}

// checkTool looks for a program as all of bawn does.
func checkTool(tool CheckID, pkg, use string, fatal bool) Finding {
	f := Finding{Check: tool, Fatal: fatal}
	path, err := proc.Find(string(tool))
	if err == nil {
		f.OK, f.Detail = true, path
		return f
	}
	found := "not found"
	if failed := (*proc.NotFoundError)(nil); !errors.As(err, &failed) || len(failed.Skipped) > 0 {
		found = err.Error()
	}
	f.Detail, f.Remedy = found+"; bawn needs it: it "+use, Remedy{InstallDeb, pkg}
	if pkg == "apt" { // it is no use elsewhere
		f.Remedy = Remedy{Kind: UseDebian}
	}
	return f
}
