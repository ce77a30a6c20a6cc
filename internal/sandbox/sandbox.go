// Package sandbox describes a sandbox: one VM for one directory. It has the settings that the
// user asked for (Spec) with their parts, the phase that a sandbox is in (Phase, State), and
// the rules that a spec must keep. It is pure: it reads no file and takes no lock. Where
// sandboxes are kept on disk is package store, beside it.
package sandbox

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"bawn.dev/bawn/internal/sys/size"
)

// Spec has the settings of a sandbox; it survives stops and crashes.
type Spec struct {
	ID   string `json:"id"`   // 12 hex digits, never reused
	Name string `json:"name"` // unique among the owner's sandboxes
	Dir  string `json:"dir"`  // the directory that the sandbox belongs to and is found by, absolute, symlinks resolved
	// Project is that directory as the guest sees it. Its path in the guest is the
	// same, except in a fork with a copy of the project, which has the path of the original.
	Project   Source    `json:"project"`
	Created   time.Time `json:"created"`
	Version   string    `json:"version"` // of bawn that made it
	Throwaway bool      `json:"throwaway,omitempty"`
	// Builder means that images are built in it. It is not the sandbox that commands in Dir use,
	// sees Dir read-only and has no secrets.
	Builder bool `json:"builder,omitempty"`
	// ForProject means that the Builder builds the image that the approved bawn.yaml of Dir
	// describes (build:), by the rules that are approved for that build.
	ForProject bool `json:"forProject,omitempty"`
	// Fresh means that no command has run yet: there is nothing on the disk that
	// could be lost.
	Fresh bool `json:"fresh,omitempty"`

	Image  string        `json:"image,omitempty"` // reference; empty is the default image
	CPUs   int           `json:"cpus"`            // virtual CPUs
	Memory int64         `json:"memory"`          // bytes of guest RAM
	Disk   int64         `json:"disk"`            // bytes of the sandbox's own disk, at most
	Rate   int64         `json:"rate,omitempty"`  // bytes a second to and from the network together; 0 is no limit
	Idle   time.Duration `json:"idle,omitempty"`  // suspended after that; 0 is never
	Mounts []Source      `json:"mounts"`          // beside the project directory
	// Volumes are in the order of SortVolumes.
	Volumes []Volume `json:"volumes,omitempty"`
	// LocalDirs are directories of the project, relative to it, whose files are on the sandbox's
	// own disk.
	LocalDirs []string `json:"localDirs,omitempty"`
	Caches    []Cache  `json:"caches,omitempty"` // kinds of packages that it shares with others
	Ports     []Port   `json:"ports"`            // published on Loopbacks
	Env       []string `json:"env,omitempty"`    // KEY=VALUE for every command
	Hosts     []Host   `json:"hosts,omitempty"`  // names that bawn resolves itself
	Agents    []Agent  `json:"agents,omitempty"`

	// Given are the keys of bawn.yaml that the user has set by a flag instead.
	Given []string `json:"given,omitempty"`
	// OwnAddress publishes ports on a loopback address of the sandbox's own, not on localhost.
	OwnAddress bool `json:"ownAddress,omitempty"`
	// NoProject ignores the project's bawn.yaml.
	NoProject bool `json:"noProject,omitempty"`
	// Devcontainer is the project's devcontainer.json that the sandbox is made from, relative to Dir;
	// empty is none.
	Devcontainer string `json:"devcontainer,omitempty"`
	// NoGitIdentity keeps the user's name and e-mail of git from the guest.
	NoGitIdentity bool `json:"noGitIdentity,omitempty"`
	// Sign lets the guest have commits and tags signed by the user's key, on the host.
	// See Signs.
	Sign bool `json:"sign,omitempty"`
	// NoShareGit keeps the git directory of a linked worktree or a submodule from the guest, and
	// the user is not asked about it.
	NoShareGit bool `json:"noShareGit,omitempty"`
	// What of the shares is guarded or hidden, beside the default rules (docs/guard.md).
	Patterns

	// Added is the part of the above that comes from the approved bawn.yaml.
	Added Added `json:"added,omitzero"`

	// Boot has the files of the last start; their paths lie in the cache.
	Boot Boot `json:"boot"`
}

// Sources returns all that the guest sees of the host: what the user shares, then the volumes,
// then the shared packages, then what belongs to the agents, which can be added to a running sandbox.
func (s *Spec) Sources() []Source {
	list := append(s.Shared(), s.volumeSources()...)
	list = append(list, s.Boot.Caches...)
	for _, a := range s.Agents {
		list = append(list, a.Sources()...)
	}
	return list
}

// Shared returns what the user shares with the guest: the project, then the mounts.
func (s *Spec) Shared() []Source { return append([]Source{s.Project}, s.Mounts...) }

// Patterns are patterns of gitignore(5) for paths of the shares, from their roots.
type Patterns struct {
	Guard   []string `json:"guard,omitempty"`   // the guest does not change them on the host
	NoGuard []string `json:"noGuard,omitempty"` // the guest changes them, whatever the other rules say
	Hide    []string `json:"hide,omitempty"`    // the guest does not see them
	Show    []string `json:"show,omitempty"`    // the guest sees them, whatever the other rules say
}

// AllPatterns returns the patterns of the user and of the approved bawn.yaml.
func (s *Spec) AllPatterns() Patterns {
	p := s.Patterns
	p.Guard = append(p.Guard[:len(p.Guard):len(p.Guard)], s.Added.Guard...)
	p.Hide = append(p.Hide[:len(p.Hide):len(p.Hide)], s.Added.Hide...)
	return p
}

// Signs reports whether the guest may have commits signed. A machine that builds an image makes none.
func (s *Spec) Signs() bool { return s.Sign && !s.Builder }

// ProjectCopy reports whether the sandbox is a fork with a copy of the project.
func (s *Spec) ProjectCopy() bool { return s.Project.Guest != s.Project.Host }

// Added has the settings that a project's bawn.yaml adds to a spec. Zero adds nothing.
type Added struct {
	Image     string   `json:"image,omitempty"`
	CPUs      int      `json:"cpus,omitempty"`
	Memory    int64    `json:"memory,omitempty"`
	Disk      int64    `json:"disk,omitempty"`
	Mounts    []Source `json:"mounts,omitempty"`
	Volumes   []Volume `json:"volumes,omitempty"`
	LocalDirs []string `json:"localDirs,omitempty"`
	Caches    []Cache  `json:"caches,omitempty"`
	Ports     []Port   `json:"ports,omitempty"`
	Guard     []string `json:"guard,omitempty"` // beside those of the spec itself
	Hide      []string `json:"hide,omitempty"`
}

// Boot names the files that a sandbox boots from, all shared and read-only.
type Boot struct {
	KernelVersion string   `json:"kernelVersion"`
	Kernel        string   `json:"kernel"`
	Initrd        string   `json:"initrd"`
	Modules       string   `json:"modules"`
	ImageDigest   string   `json:"imageDigest"` // pinned at the first start
	Image         string   `json:"image"`
	ImageEnv      []string `json:"imageEnv,omitempty"`
	Author        Author   `json:"author,omitzero"`   // whose commits git makes in the guest
	Volumes       string   `json:"volumes,omitempty"` // folder with the folders of the volumes; empty before a start has found them
	Caches        []Source `json:"caches,omitempty"`  // the packages of Spec.Caches, as of the last start
}

// Author is an identity in git. What is not known is empty.
type Author struct {
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
}

// Source is a directory or file of the host that the guest sees, live.
type Source struct {
	Host  string `json:"host"`  // absolute path on the host
	Guest string `json:"guest"` // absolute path in the guest
	Mode  Mode   `json:"mode,omitempty"`
	// Git means that it is the git directory of the project, which lies outside of it, and
	// Worktree names the project among its linked worktrees; empty for a submodule.
	Git      bool   `json:"git,omitempty"`
	Worktree string `json:"worktree,omitempty"`
	// Over, when set, is a directory of the guest that shows the contents of the source, and to which
	// the guest can write: what it writes there is on its own disk.
	Over string `json:"over,omitempty"`
}

// Mode is the access that the guest has to a Source.
type Mode string

// The modes. The zero value is ReadWrite.
const (
	ReadWrite Mode = ""
	ReadOnly  Mode = "read-only"
)

// ReadOnly reports whether the guest may only read the source.
func (m Source) ReadOnly() bool { return m.Mode == ReadOnly }

func (m Source) String() string {
	s := m.Host
	if m.Guest != m.Host {
		s += ":" + m.Guest
	}
	if m.ReadOnly() {
		s += ":ro"
	}
	return s
}

// Localhost are the addresses that the name localhost means (RFC 6761, section 6.3).
var Localhost = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// Loopbacks returns the addresses of the host on which the sandbox's ports are published. An
// address of its own is in 127.0.0.0/8, all of which is the host's loopback (RFC 6890, section
// 2.2.2), and follows from the sandbox's ID. It never lies in 127.0.0.0/16, where hosts have
// localhost, their own name and resolvers.
func (s *Spec) Loopbacks() []netip.Addr {
	if !s.OwnAddress {
		return Localhost
	}
	sum := sha256.Sum256([]byte(s.ID))
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 1 + sum[0]%254, sum[1], 1 + sum[2]%254})}
}

// Port publishes a guest TCP port on the host's loopback.
type Port struct {
	Host  uint16 `json:"host"`
	Guest uint16 `json:"guest"`
}

func (p Port) String() string { return fmt.Sprintf("%d->%d", p.Host, p.Guest) }

// Host gives a name an address, as /etc/hosts does. It allows nothing.
type Host struct {
	Name string     `json:"name"`
	Addr netip.Addr `json:"addr"`
}

// Limits of a Spec.
const (
	MinMemory = 256 << 20        // bytes; below, Debian's user space and Docker do not start
	MinDisk   = 1 << 30          // bytes; room for an ext4 journal and something to do
	MaxDisk   = 16 << 40         // bytes; ext4's own limit with 4 KiB blocks
	MinIdle   = 10 * time.Second // below, it would be gone between two commands
	MinRate   = 1 << 10          // bytes a second; below, a mistake more likely than a wish
	MaxCPUs   = 255              // q35 without x2APIC, QEMU's default (docs/system/i386)
)

// MaxName is how long a name may be, in bytes.
const MaxName = 63

// nameRule matches valid names: a host name label, since it becomes the
// guest's hostname and an ssh host alias (RFC 1123 section 2.1).
var nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName returns an error unless a sandbox can have the name.
func CheckName(name string) error { return checkName("sandbox", name) }

// checkName is CheckName for the name of that kind of thing.
func checkName(kind, name string) error {
	if !nameRule.MatchString(name) {
		return fmt.Errorf("invalid %s name %q: use 1 to %d lower-case letters, digits and hyphens, not at the ends", kind, name, MaxName)
	}
	return nil
}

// NameFor returns a sandbox name made from the name of a directory.
func NameFor(dir string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(filepath.Base(dir)) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() == 50 {
			break
		}
	}
	if n := strings.Trim(b.String(), "-"); n != "" {
		return n
	}
	return "sandbox"
}

// FieldError means that a value of a spec is invalid.
type FieldError struct {
	Field   string // its name in JSON and in bawn.yaml, such as "cpus"
	Problem string // the value and what is wrong with it: "0: must be 1 to 255"
}

func (e *FieldError) Error() string { return e.Field + " " + e.Problem }

func badField(field, format string, args ...any) error {
	return &FieldError{field, fmt.Sprintf(format, args...)}
}

// Check returns what is wrong with the spec. An error about one value is a *FieldError.
func (s *Spec) Check() error {
	if err := CheckName(s.Name); err != nil {
		return err
	}
	if !filepath.IsAbs(s.Dir) {
		return fmt.Errorf("project directory %q is not an absolute path", s.Dir)
	}
	if p := s.Project; !filepath.IsAbs(p.Host) || !filepath.IsAbs(p.Guest) {
		return fmt.Errorf("project %q at %q in the guest: both must be absolute paths", p.Host, p.Guest)
	}
	for _, m := range s.Sources() {
		if err := checkText(m); err != nil {
			return err
		}
	}
	if s.CPUs < 1 || s.CPUs > MaxCPUs {
		return badField("cpus", "%d: must be 1 to %d", s.CPUs, MaxCPUs)
	}
	if s.Memory < MinMemory {
		return badField("memory", "%s is too little: must be at least %s", size.Format(s.Memory), size.Format(MinMemory))
	}
	if s.Disk < MinDisk || s.Disk > MaxDisk {
		return badField("disk", "%s: must be %s to %s", size.Format(s.Disk), size.Format(MinDisk), size.Format(MaxDisk))
	}
	if s.Rate != 0 && s.Rate < MinRate {
		return badField("rate", "%s is too little: must be at least %s a second, or 0 for no limit", size.Format(s.Rate), size.Format(MinRate))
	}
	if s.Idle != 0 && s.Idle < MinIdle {
		return badField("idle", "%s: must be at least %s, or 0 for never", s.Idle, MinIdle)
	}
	if err := s.checkMounts(); err != nil {
		return err
	}
	if err := s.checkVolumes(); err != nil {
		return err
	}
	if err := checkLocalDirs(s.LocalDirs); err != nil {
		return err
	}
	if err := checkCaches(s.Caches); err != nil {
		return err
	}
	return s.checkPorts()
}

func (s *Spec) checkPorts() error {
	hosts := map[uint16]Port{}
	for _, p := range s.Ports {
		if other, ok := hosts[p.Host]; ok && p.Host != 0 {
			return fmt.Errorf("port %d is published twice: %s and %s", p.Host, other, p)
		}
		hosts[p.Host] = p
	}
	return nil
}

// checkText returns an error unless the paths of a source are UTF-8. They are kept and sent
// as JSON, which has no other bytes.
func checkText(m Source) error {
	for _, path := range []string{m.Host, m.Guest} {
		if !utf8.ValidString(path) {
			return fmt.Errorf("cannot share %q: its path is not UTF-8; rename it on the host, such as by mv or convmv", path)
		}
	}
	return nil
}

func (s *Spec) checkMounts() error {
	targets := map[string]string{s.Project.Guest: s.Project.Host}
	for _, m := range s.Mounts {
		if err := checkTarget(m.Guest); err != nil {
			return badField("mounts", "%s: %v", m, err)
		}
		if other, ok := targets[m.Guest]; ok {
			return badField("mounts", "%s: %s is already mounted at %s", m, other, m.Guest)
		}
		if m.Guest != m.Host && Beneath(m.Guest, s.Project.Guest) {
			return badField("mounts", "%s: it would hide the project directory %s: choose another path in the guest, such as /mnt/%s", m, s.Project.Guest, filepath.Base(m.Host))
		}
		targets[m.Guest] = m.Host
	}
	return nil
}

// Phase is a stage in the life of a sandbox.
type Phase string

// The phases. Dead means that a supervisor ended without writing its state.
const (
	Stopped  Phase = "stopped"
	Starting Phase = "starting"
	Running  Phase = "running"
	Stopping Phase = "stopping"
	Dead     Phase = "dead"

	// Suspended is the phase that is reported for a stopped sandbox whose next start resumes
	// it. It is never in a state file.
	Suspended Phase = "suspended"
)

// State is the content of a sandbox's state file, which its supervisor writes.
type State struct {
	Phase   Phase     `json:"phase"`
	PID     int       `json:"pid,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Accel   string    `json:"accel,omitempty"`
	Message string    `json:"message,omitempty"` // why it ended, unless it was stopped by request
}
