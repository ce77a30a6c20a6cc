package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/progress"
)

// # How the default image is built
//
// mmdebstrap installs the packages of recipe/packages.txt into a folder, runs
// recipe/customize.sh there, and writes the result as a tar stream to its
// standard output, which is turned into ext4 as it comes: nothing is kept twice.
// For an ordinary user it works in a user namespace with the subordinate ids of
// /etc/subuid; for root, where the machine allows, without one.
//
// The folder lies under /var/tmp: the subordinate user must be able to reach
// it, which a cache below a private home would not allow, and /tmp is memory on
// many machines. Its name is fixed for each cache, so that what a killed build
// left behind is found and removed by the next.
//
// A watcher process in mmdebstrap's process group ends the group when bawn is
// gone, however it went: its end of a pipe tells it.
//
// With the same packages the result is the same to the byte (SOURCE_DATE_EPOCH
// is the date of the mirror's release files): a damaged image can be made again
// under the digest that sandboxes know, as long as the mirror has not moved on.

//go:embed recipe/packages.txt
var packagesFile string

//go:embed recipe/customize.sh
var customize string

// recipeVersion changes with whatever else decides what the image is.
const recipeVersion = "1"

// maxDefault bounds the default image, in bytes. It is about 1.1 GB.
const maxDefault = 16 << 30

// pathExcludes are kept out of the image, and of what is installed in it later:
// nobody reads manuals there, and only English is spoken.
var pathExcludes = []string{
	"path-exclude=/usr/share/doc/*",
	"path-include=/usr/share/doc/*/copyright",
	"path-exclude=/usr/share/man/*",
	"path-exclude=/usr/share/info/*",
	"path-exclude=/usr/share/locale/*",
	"path-include=/usr/share/locale/locale.alias",
	"path-exclude=/usr/share/lintian/*",
}

// packages are the lines of packages.txt without comments.
func packages() []string {
	var names []string
	for line := range strings.Lines(packagesFile) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			names = append(names, line)
		}
	}
	return names
}

// recipeDigest changes when this bawn would build another default image. The
// mirror is no part of it: every mirror has the same Debian.
func recipeDigest() string {
	h := sha256.New()
	for _, s := range [][]string{{recipeVersion, debian.Suite, debian.Arch(), customize}, packages(), pathExcludes} {
		fmt.Fprintf(h, "%q\n", s)
	}
	return "recipe:" + hex.EncodeToString(h.Sum(nil))
}

// build makes the default image in dir.
func (s *Store) build(ctx context.Context, dir, ref string, r progress.Reporter) (*meta, error) {
	m, err := debian.Host(ctx)
	if err != nil {
		return nil, fmt.Errorf("default image: %w", err)
	}
	mode, err := buildMode()
	if err != nil {
		return nil, fmt.Errorf("default image: %w", err)
	}
	conf, err := debian.HostConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("default image: %w", err)
	}
	epoch, err := releaseDate(ctx, filepath.Join(dir, "apt"), m, r)
	if err != nil {
		return nil, fmt.Errorf("default image: %w", err)
	}
	work, err := newWorkFolder(ctx, s.cache.Path(), mode)
	if err != nil {
		return nil, fmt.Errorf("default image: %w", err)
	}
	defer removeWorkFolder(context.WithoutCancel(ctx), work, mode)
	cmd := mmdebstrap(ctx, mode, m, conf)
	cmd.Env = append(os.Environ(), "TMPDIR="+work, "LC_ALL=C", "SOURCE_DATE_EPOCH="+strconv.FormatInt(epoch.Unix(), 10),
		"BAWN_SOURCES="+debian.SourcesFile(m.Sources()), "BAWN_APT_CONF="+guestAptConf(conf))
	if err := buildTo(ctx, cmd, filepath.Join(dir, imageFile), r); err != nil {
		return nil, fmt.Errorf("default image: %w", err)
	}
	return &meta{Ref: ref, Source: recipeDigest(), Created: time.Now().UTC()}, os.RemoveAll(filepath.Join(dir, "apt"))
}

// releaseDate asks the mirror for its date, and so finds out early whether it
// can be reached and is Debian's.
func releaseDate(ctx context.Context, dir string, m debian.Mirror, r progress.Reporter) (_ time.Time, err error) {
	task := r.Start("Looking for Debian packages", 0, progress.Steps)
	defer func() { task.Done(err) }()
	apt, err := debian.NewApt(ctx, dir, debian.Arch(), m)
	if err != nil {
		return time.Time{}, err
	}
	return apt.ReleaseDate(ctx)
}

// guestAptConf is what of the host's apt settings belongs to its mirror rather
// than to the host's network: whether release files may be out of date.
func guestAptConf(conf []string) string {
	var b strings.Builder
	for _, l := range conf {
		if strings.HasPrefix(l, "Acquire::Check-") {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

// Modes of mmdebstrap(1).
const (
	modeRoot    = "root"
	modeUnshare = "unshare"
)

// buildMode picks the mode that works for this user. The error says what to do.
func buildMode() (string, error) {
	for _, n := range Needs() {
		if !n.OK {
			return "", fmt.Errorf("%s: %s: %s", n.What, n.Detail, n.Remedy)
		}
	}
	if os.Geteuid() == 0 && canMount() {
		return modeRoot, nil
	}
	return modeUnshare, nil
}

// Need is one thing that building the default image takes.
type Need struct {
	What   string
	OK     bool
	Detail string // what there is, or what is wrong
	Remedy string // what to do when it is not OK
}

// Needs is what building takes on this host, as this user, and what of it is
// there.
func Needs() []Need {
	list := []Need{
		program("mmdebstrap", "mmdebstrap"),
		{"keyring", exists(debian.Keyring), debian.Keyring, "sudo apt-get install debian-archive-keyring"},
	}
	if !list[1].OK {
		list[1].Detail += " is missing"
	}
	if os.Geteuid() == 0 && canMount() {
		return list
	}
	list = append(list, program("newuidmap", "uidmap"))
	list = append(list, subordinates("/etc/subuid"), subordinates("/etc/subgid"))
	n := Need{What: "user namespaces", OK: true, Detail: "ordinary users may make them"}
	if err := tryUserNamespace(); err != nil {
		n.OK, n.Detail = false, fmt.Sprintf("ordinary users may not make them (%v)", err)
		n.Remedy = userNamespaceRemedy()
	}
	return append(list, n)
}

func program(name, pkg string) Need {
	path, err := exec.LookPath(name)
	if err != nil {
		return Need{name, false, "not on the PATH", "sudo apt-get install " + pkg}
	}
	return Need{What: name, OK: true, Detail: path}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// subordinates says whether subuid(5) or subgid(5) gives this user enough ids.
func subordinates(file string) Need {
	n := Need{What: filepath.Base(file)}
	u, err := user.Current()
	if err != nil {
		n.Detail, n.Remedy = err.Error(), "give this user an entry in /etc/passwd"
		return n
	}
	if n.OK = hasSubordinates(file, u); n.OK {
		n.Detail = file + " has ids for " + u.Username
		return n
	}
	n.Detail = fmt.Sprintf("%s gives %s no %d subordinate ids", file, u.Username, minSubordinates)
	first := freeSubordinates("/etc/subuid", "/etc/subgid")
	last := first + subordinateRange - 1
	n.Remedy = fmt.Sprintf("sudo usermod --add-subuids %d-%d --add-subgids %d-%d %s", first, last, first, last, u.Username)
	return n
}

// canMount says whether root may make mount namespaces here: not so in most
// containers.
func canMount() bool {
	cmd := exec.Command("/bin/true") //nolint:noctx // over at once
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	return cmd.Run() == nil
}

// tryUserNamespace lets mmdebstrap try, if it is there: AppArmor may allow it what
// it does not allow bawn (Ubuntu 24.04 and later).
func tryUserNamespace() error {
	if path, err := exec.LookPath("mmdebstrap"); err == nil {
		return exec.Command(path, "--unshare-helper", "/bin/true").Run() //nolint:noctx // over at once
	}
	cmd := exec.Command("/bin/true") //nolint:noctx // over at once
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS}
	return cmd.Run()
}

// userNamespaceRemedy is the switch that this kernel has: Ubuntu's, or Debian's.
func userNamespaceRemedy() string {
	for _, s := range []struct{ file, set string }{
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "kernel.apparmor_restrict_unprivileged_userns=0"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone=1"},
	} {
		if exists(s.file) {
			return "sudo sysctl -w " + s.set + ", and the same in a file of /etc/sysctl.d to keep it so"
		}
	}
	return "raise user.max_user_namespaces (sysctl), or allow them in the container that bawn runs in"
}

// minSubordinates is what Debian's accounts need: ids up to nobody's, 65534.
const minSubordinates = 65535

const (
	subordinateStart = 100_000 // SUB_UID_MIN, login.defs(5)
	subordinateRange = 65_536  // SUB_UID_COUNT
)

// subordinateIDs are ids that subuid(5) gives to somebody.
type subordinateIDs struct {
	owner        string // by name or by number
	first, count int64
}

// readSubordinates reads what lines of the file make sense.
func readSubordinates(file string) (list []subordinateIDs) {
	b, _ := os.ReadFile(file) // none that can be read gives none away
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 {
			continue
		}
		first, err1 := strconv.ParseInt(f[1], 10, 64)
		count, err2 := strconv.ParseInt(f[2], 10, 64)
		if err1 == nil && err2 == nil {
			list = append(list, subordinateIDs{f[0], first, count})
		}
	}
	return list
}

// freeSubordinates is the first id behind all that the files give away.
func freeSubordinates(files ...string) int64 {
	free := int64(subordinateStart)
	for _, file := range files {
		for _, ids := range readSubordinates(file) {
			free = max(free, ids.first+ids.count)
		}
	}
	return free
}

// hasSubordinates says whether the file gives the user enough ids.
func hasSubordinates(file string, u *user.User) bool {
	return slices.ContainsFunc(readSubordinates(file), func(ids subordinateIDs) bool {
		return (ids.owner == u.Username || ids.owner == u.Uid) && ids.count >= minSubordinates
	})
}

// watcher starts mmdebstrap ("$@") beside a process that waits for the other
// end of the pipe at descriptor 3 to close, and then ends their process group:
// politely, and after five seconds by force, since mmdebstrap ignores signals
// between its steps. The watcher is of the group too, so its number stays ours.
const watcher = `(
	trap '' TERM
	cat <&3
	kill -TERM -$$
	for i in 0 1 2 3 4 5 6 7 8 9; do kill -0 $$ && sleep 0.5; done
	kill -KILL -$$
) >/dev/null 2>&1 &
exec "$@" 3<&-`

// mmdebstrap is the command that writes the system as a tar stream to its
// standard output and what it does to its standard error.
func mmdebstrap(ctx context.Context, mode string, m debian.Mirror, conf []string) *exec.Cmd {
	args := []string{
		"-c", watcher, "sh", "mmdebstrap",
		"--mode=" + mode, "--variant=minbase", "--format=tar", "--verbose",
		"--architectures=" + debian.Arch(), "--keyring=" + debian.Keyring,
		"--include=" + strings.Join(packages(), ","),
		"--customize-hook=" + customize,
	}
	for _, e := range pathExcludes {
		args = append(args, "--dpkgopt="+e)
	}
	for _, l := range conf {
		args = append(args, "--aptopt="+l)
	}
	args = append(args, debian.Suite, "-")
	for _, s := range m.Sources() {
		args = append(args, fmt.Sprintf("deb [signed-by=%s] %s %s main", debian.Keyring, s.URI, s.Suite))
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if mode == modeRoot {
		// What it mounts goes with it, even if it is killed, and a leftover folder
		// can be removed without walking into /sys. Go makes the mounts private.
		cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	}
	return cmd
}

// buildTo runs mmdebstrap and turns its output into the file out.
func buildTo(ctx context.Context, cmd *exec.Cmd, out string, r progress.Reporter) error {
	alive, watched, err := os.Pipe()
	if err != nil {
		return err
	}
	defer watched.Close()
	cmd.ExtraFiles = []*os.File{alive}
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return watched.Close() } // the watcher does the rest, and mmdebstrap cleans up
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	err = cmd.Start()
	alive.Close()
	if err != nil {
		return err
	}
	story := newStory(r)
	told := make(chan struct{})
	go func() {
		defer close(told)
		story.read(stderr)
	}()
	cerr := toExt4(io.TeeReader(stdout, counter{story}), out, maxDefault)
	_, _ = io.Copy(io.Discard, stdout) // mmdebstrap must be able to finish, also after an error here
	<-told
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err != nil:
		err = fmt.Errorf("mmdebstrap: %w:\n%s", err, story.complaint())
	default:
		err = cerr
	}
	story.done(err)
	return err
}

// toExt4 turns a tar stream that is trusted into an ext4 file.
func toExt4(r io.Reader, out string, limit int64) error {
	f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = tar2ext4.ConvertTarToExt4(r, f, tar2ext4.MaximumDiskSize(limit))
	return errors.Join(err, f.Close())
}

// workFolder is where builds for a cache happen: the same each time.
func workFolder(cache string) string {
	base := "/var/tmp"
	if fi, err := os.Stat(base); err != nil || !fi.IsDir() || unix.Access(base, unix.W_OK) != nil {
		base = os.TempDir()
	}
	sum := sha256.Sum256([]byte(cache))
	return filepath.Join(base, fmt.Sprintf("bawn-build-%d-%s", os.Getuid(), hex.EncodeToString(sum[:6])))
}

// newWorkFolder makes the folder for mmdebstrap, after removing what a killed
// build left there. The caller holds the lock on the default image.
func newWorkFolder(ctx context.Context, cache, mode string) (string, error) {
	path := workFolder(cache)
	err := os.Mkdir(path, 0o711) //nolint:gosec // passage, not reading
	if errors.Is(err, os.ErrExist) && ownFolder(path) {
		removeWorkFolder(ctx, path, mode)
		err = os.Mkdir(path, 0o711) //nolint:gosec // passage, not reading
	}
	if err != nil {
		// Somebody else's: work elsewhere, under a name nobody can foresee.
		if path, err = os.MkdirTemp(filepath.Dir(path), "bawn-build-*"); err != nil {
			return "", err
		}
	}
	// Whatever the umask: the subordinate user has to pass through.
	return path, os.Chmod(path, 0o711) //nolint:gosec // passage, not reading
}

// ownFolder says whether path is a folder of this user, and not a link.
func ownFolder(path string) bool {
	fi, err := os.Lstat(path)
	if err != nil || !fi.IsDir() {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid()
}

// removeWorkFolder removes the folder and what subordinate users own in it.
// What cannot be removed is tried again by the next build.
func removeWorkFolder(ctx context.Context, path, mode string) {
	if os.RemoveAll(path) == nil || mode != modeUnshare {
		return
	}
	_ = exec.CommandContext(ctx, "mmdebstrap", "--unshare-helper", "rm", "-rf", "--one-file-system", path).Run()
	_ = os.RemoveAll(path)
}

// story follows what mmdebstrap says and shows it as tasks with known totals.
//
// Its two runs of apt each announce how many packages they bring and how much
// room those take; each package is then fetched, unpacked and set up. The
// tarball, at last, is about as large as all the room.
type story struct {
	mu    sync.Mutex // the tarball and the story come by two pipes
	r     progress.Reporter
	task  progress.Task
	stage int
	runs  int   // of apt, with the present one
	count int64 // packages of the present one
	room  int64 // bytes that the packages of both runs take
	last  []string
}

const (
	stageStart = iota
	stageFetch
	stageInstall
	stageWrite
)

// keepLines is how many of mmdebstrap's last lines an error shows.
const keepLines = 15

// installSteps is how often a package is mentioned while it is installed.
const installSteps = 2

var (
	newlyInstalled = regexp.MustCompile(`^\d+ upgraded, (\d+) newly installed`)
	afterOperation = regexp.MustCompile(`^After this operation, ([\d.,]+) ([kMG]?B) of additional disk space`)
	fetching       = regexp.MustCompile(`^Get:\d+ \S+ \S+ \S+ (\S+) `)
	unpacking      = regexp.MustCompile(`^(?:Unpacking|Setting up) ([^\s:]+)`)
)

func newStory(r progress.Reporter) *story {
	s := &story{r: r}
	s.task = r.Start("Preparing the default image", 0, progress.Steps)
	return s
}

// begin ends the task under way and starts the next.
func (s *story) begin(stage int, label string, total int64, unit progress.Unit) {
	s.task.Done(nil)
	s.stage = stage
	s.task = s.r.Start(label, total, unit)
}

func (s *story) read(r io.Reader) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20) // dpkg's command lines are long
	for sc.Scan() {
		s.line(sc.Text())
	}
	_, _ = io.Copy(io.Discard, r)
}

func (s *story) line(l string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.TrimSpace(l) != "" {
		s.last = append(s.last, l)
		s.last = s.last[max(0, len(s.last)-keepLines):]
	}
	if m := newlyInstalled.FindStringSubmatch(l); m != nil {
		s.count, _ = strconv.ParseInt(m[1], 10, 64)
		s.runs++
		s.begin(stageFetch, "Fetching "+s.what(), s.count, progress.Steps)
	} else if m := afterOperation.FindStringSubmatch(l); m != nil {
		s.room += parseSize(m[1], m[2])
	} else if m := fetching.FindStringSubmatch(l); m != nil && s.stage == stageFetch {
		s.task.Add(1)
		s.task.Note(m[1])
	} else if m := unpacking.FindStringSubmatch(l); m != nil {
		if s.stage != stageInstall {
			s.begin(stageInstall, "Installing "+s.what(), s.count*installSteps, progress.Steps)
		}
		s.task.Add(1)
		s.task.Note(m[1])
	} else if strings.HasPrefix(l, "I: creating tarball") {
		s.begin(stageWrite, "Writing the image", s.room, progress.Bytes)
	}
}

// what is what the present run of apt brings: first what installs the rest.
func (s *story) what() string {
	if s.runs == 1 {
		return "the base system"
	}
	return "packages"
}

// parseSize reads a size as apt writes it: "98.9 MB", "1,178 MB".
func parseSize(number, unit string) int64 {
	f, err := strconv.ParseFloat(strings.ReplaceAll(number, ",", ""), 64)
	if err != nil || f < 0 || f > 1e9 {
		return 0
	}
	scale := map[string]float64{"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
	return int64(f * scale)
}

// written tells how much of the tarball has come.
func (s *story) written(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage == stageWrite {
		s.task.Add(int64(n))
	}
}

func (s *story) done(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.task.Done(err)
}

// complaint is the end of what mmdebstrap said.
func (s *story) complaint() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.last, "\n")
}

// counter is a writer that tells a story how many bytes passed.
type counter struct{ s *story }

func (c counter) Write(p []byte) (int, error) {
	c.s.written(len(p))
	return len(p), nil
}
