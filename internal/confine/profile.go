// Package confine takes rights away from a process for good, before it reads
// hostile input: QEMU and the share servers run under it.
//
// # Theory of operation
//
// Two kernel features work together, because neither restricts everything.
// Landlock decides which files may be opened and for what; it also keeps
// signals, abstract sockets and (from ABI 4) TCP from reaching outside. A
// seccomp filter allows the system calls that a process of its role makes, and so
// refuses what Landlock does not restrict: sockets of every kind, connecting to a
// Unix socket by path (a session bus, an SSH agent, Docker's socket), shared memory
// and limits of the user's other processes, and most of the kernel's interfaces. As
// root, the process has no capabilities, or few (KeepCapabilities).
//
// A parent describes the rights in a Profile and makes the child with Command,
// which runs this same program as `bawn __confine PROFILE -- argv...`; Main is
// the body of that verb: it applies the Profile to itself and then executes argv.
// The parent starts it with proc.Spawner, so that the child dies with the parent.
//
// # Not safe
//
// Files that were open before Apply stay usable, and so do the descriptors
// passed on purpose. Paths can still be probed for existence (stat is not
// restricted). A kernel without Landlock gives no file protection at all:
// Level reports that, and the caller must tell the user.
package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Profile lists the rights that a process keeps; it loses all others. Paths must be
// absolute; each names one file, or a directory with everything beneath it. A path
// that does not exist grants nothing and is no error. Symbolic links are followed
// when the profile is applied, and the rights belong to their targets.
type Profile struct {
	// Role decides which system calls the process may make. It must be set. No role may make
	// new sockets of any family, use io_uring, start processes, or reach other processes;
	// sockets that were passed in work on.
	Role Role `json:"role"`

	Read     []string `json:"read,omitempty"`     // read files, list directories
	ReadExec []string `json:"readExec,omitempty"` // as Read, and execute or map as code
	// Write grants reading and writing; on a directory also making, renaming
	// and removing files of every kind but devices beneath it.
	Write   []string `json:"write,omitempty"`
	Devices []string `json:"devices,omitempty"` // device nodes: read, write, ioctl

	// Refer allows renames and links from one directory to another, where both
	// are beneath Write. Landlock ABI 1 cannot grant it: there such renames
	// fail with EXDEV.
	Refer bool `json:"refer,omitempty"`

	// NoAttributes refuses a FileServer to change mode, owner, times and extended
	// attributes of any file; Landlock does not restrict these. An Emulator never may.
	NoAttributes bool `json:"noAttributes,omitempty"`
}

// Level says how much of a Profile this kernel enforces.
type Level struct {
	ABI     int      // Landlock ABI in force; 0 is none
	Missing []string // what is therefore not enforced, as text for the user
}

// Full reports whether everything is enforced.
func (l Level) Full() bool { return len(l.Missing) == 0 }

// String is one line for a log or `bawn doctor`.
func (l Level) String() string {
	s := fmt.Sprintf("Landlock ABI %d", l.ABI)
	if l.ABI == 0 {
		s = "no Landlock"
	}
	if !l.Full() {
		s += ": " + strings.Join(l.Missing, "; ")
	}
	return s
}

// gaps lists what is missing below each ABI (landlock(7), "VERSIONS", and the
// kernel's userspace-api/landlock.rst).
var gaps = []struct {
	below  int
	text   string
	needed func(Profile) bool
}{
	{1, "files are not restricted: boot a kernel with Landlock (5.13 or later, lsm=landlock,...)", nil},
	{2, "renaming from one directory to another is refused", func(p Profile) bool { return p.Refer }},
	{3, "truncating a file that may be opened is not restricted", nil},
	{5, "ioctl on devices that may be opened is not restricted", nil},
	{6, "signals to the user's other processes are not restricted", nil},
}

// Probe returns the Level that a Profile would get here, without applying it. A
// parent uses it to report on the children that it starts.
func Probe(p Profile) Level {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		abi = 0 // ENOSYS, or EOPNOTSUPP: built in but not enabled
	}
	return levelFor(abi, p)
}

func levelFor(abi int, p Profile) Level {
	l := Level{ABI: abi}
	for _, g := range gaps {
		if abi < g.below && (g.needed == nil || g.needed(p)) {
			l.Missing = append(l.Missing, g.text)
		}
		if abi == 0 {
			break // the first gap includes the others
		}
	}
	return l
}

// Landlock rights (landlock(7)); a rule on a file may hold file rights only.
const (
	fileRead  = ll.AccessFSReadFile
	fileWrite = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate
	dirRead   = fileRead | ll.AccessFSReadDir
	dirWrite  = fileWrite | ll.AccessFSReadDir | ll.AccessFSMakeDir | ll.AccessFSMakeReg |
		ll.AccessFSMakeSym | ll.AccessFSMakeFifo | ll.AccessFSMakeSock |
		ll.AccessFSRemoveDir | ll.AccessFSRemoveFile
	device = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSIoctlDev
)

// Apply restricts the current process, all its threads and all that it starts,
// for good: no_new_privs, no core dumps, Landlock, seccomp. Restrictions that the
// kernel's Landlock lacks are left out and listed in the Level. If another one cannot
// be applied, Apply returns an error; the process is then in an unknown state and must
// end.
func Apply(p Profile) (Level, error) {
	// A core limit of 1 stops dumps into a file and, unlike 0, into a
	// core_pattern pipe too (core(5); fs/coredump.c treats 1 as special). A
	// dump would hold the guest's memory.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}); err != nil && !errors.Is(err, unix.EPERM) {
		return Level{}, fmt.Errorf("forbid core dumps: %w", err)
	}
	level := Probe(p)
	rules, err := p.rules(level.ABI)
	if err != nil {
		return Level{}, err
	}
	if level.ABI > 0 {
		if err := restrictFiles(rules); err != nil {
			return Level{}, fmt.Errorf("restrict with Landlock: %w", err)
		}
	}
	if err := filterSyscalls(p); err != nil {
		return Level{}, err
	}
	return level, nil
}

func restrictFiles(rules []landlock.Rule) error {
	return landlock.V11.BestEffort().Restrict(rules...)
}

// rules turns the paths into Landlock rules.
func (p Profile) rules(abi int) ([]landlock.Rule, error) {
	write := landlock.AccessFSSet(dirWrite)
	if p.Refer && abi >= 2 {
		write |= ll.AccessFSRefer
	}
	var rules []landlock.Rule
	for _, g := range []struct {
		paths     []string
		file, dir landlock.AccessFSSet
	}{
		{p.Read, fileRead, dirRead},
		{p.ReadExec, fileRead | ll.AccessFSExecute, dirRead | ll.AccessFSExecute},
		{p.Write, fileWrite, write},
		{p.Devices, device, device},
	} {
		for _, path := range g.paths {
			if !filepath.IsAbs(path) {
				return nil, fmt.Errorf("confine: %q is not an absolute path", path)
			}
			info, err := os.Stat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("confine: %w", err)
			}
			rights := g.file
			if info.IsDir() {
				rights = g.dir
			}
			rules = append(rules, landlock.PathAccess(rights, path).IgnoreIfMissing())
		}
	}
	return rules, nil
}
