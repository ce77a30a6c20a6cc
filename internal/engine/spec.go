package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/size"
)

// Defaults of a new sandbox.
const (
	maxDefaultCPUs   = 4       // fewer where the host has fewer
	maxDefaultMemory = 4 << 30 // bytes; half the host's where that is less

	DefaultDisk = 32 << 30 // bytes, sparse: the host pays for what is written
	DefaultIdle = time.Hour
)

// DefaultCPUs returns the number of virtual CPUs of a new sandbox on this host.
func DefaultCPUs() int { return min(maxDefaultCPUs, runtime.NumCPU()) }

// DefaultMemory returns the memory of a new sandbox on this host, in bytes.
func DefaultMemory() int64 {
	total := HostMemory()
	if total == 0 {
		return maxDefaultMemory
	}
	half := total / 2
	half -= half % (256 << 20)
	return max(sandbox.MinMemory, min(maxDefaultMemory, half))
}

// HostMemory returns the host's memory, in bytes; 0 when it is not known.
func HostMemory() int64 {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0
	}
	return int64(si.Totalram) * int64(si.Unit)
}

// SpecChange is a change of a sandbox's settings. A field that is nil changes nothing.
type SpecChange struct {
	Image  *string        // reference; empty is the default image
	CPUs   *int           // virtual CPUs
	Memory *int64         // bytes
	Disk   *int64         // bytes, at most
	Rate   *int64         // bytes a second; 0 is no limit
	Idle   *time.Duration // 0 is never

	Mounts  *[]sandbox.Source // all that is shared beside the project (ResolveMount)
	Volumes *[]sandbox.Volume // all volumes; those that do not exist are made at the start
	Hosts   *[]sandbox.Host   // all names with an address of their own

	LocalDirs *[]string // all directories of the project that are on the sandbox's own disk

	Caches *[]sandbox.Cache // all kinds of packages that it shares with other sandboxes

	Publish    []sandbox.Port // published beside what is published already
	OwnAddress *bool          // publish ports on an address of the sandbox's own, or on localhost

	Allow []string // rules that are added, as package policy reads them
	Deny  []string

	// Patterns of guarded and hidden paths (docs/guard.md): all of the sandbox. A list of one
	// empty pattern is none.
	Guard, NoGuard, Hide, Show *[]string

	ShareGit *bool // share the git directory of a linked worktree or a submodule, or do not

	Agent *sandbox.Agent // added, or put in the place of its other version

	NoGitIdentity *bool // keep git's user.name and user.email from the guest, or no longer

	Sign *bool // let the guest have commits and tags signed by the user's key, or no longer

	NoProject *bool // leave the project's bawn.yaml aside, or no longer

	Devcontainer *string // the devcontainer.json to be used, relative to the project; empty is none
}

// empty reports whether the change changes nothing.
func (c *SpecChange) empty() bool {
	return c == nil || c.emptyMachine() && c.emptyHost() && c.emptyNetwork()
}

// emptyMachine is empty for the machine itself.
func (c *SpecChange) emptyMachine() bool {
	return c.Image == nil && c.CPUs == nil && c.Memory == nil && c.Disk == nil && c.Rate == nil && c.Idle == nil && c.Agent == nil && c.NoProject == nil && c.Devcontainer == nil
}

// emptyHost is empty for what the guest gets of the host.
func (c *SpecChange) emptyHost() bool {
	return c.Mounts == nil && c.Volumes == nil && c.LocalDirs == nil && c.Caches == nil && c.NoGitIdentity == nil && c.Sign == nil && c.ShareGit == nil &&
		c.Guard == nil && c.NoGuard == nil && c.Hide == nil && c.Show == nil
}

// emptyNetwork is empty for the network.
func (c *SpecChange) emptyNetwork() bool {
	return c.Hosts == nil && c.OwnAddress == nil && len(c.Publish)+len(c.Allow)+len(c.Deny) == 0
}

// rules returns the changes of the sandbox's own rules.
func (c *SpecChange) rules() (list []RuleChange) {
	if c != nil && len(c.Allow) > 0 {
		list = append(list, RuleChange{Action: policy.Allow, Rules: c.Allow})
	}
	if c != nil && len(c.Deny) > 0 {
		list = append(list, RuleChange{Action: policy.Deny, Rules: c.Deny})
	}
	return list
}

// given returns the keys of bawn.yaml that the change sets instead.
func (c *SpecChange) given() []string {
	var keys []string
	for _, k := range []struct {
		name string
		set  bool
	}{{"image", c.Image != nil}, {"cpus", c.CPUs != nil}, {"memory", c.Memory != nil}, {"disk", c.Disk != nil}} {
		if k.set {
			keys = append(keys, k.name)
		}
	}
	return keys
}

// apply applies the change and what bawn.yaml adds to the spec. It returns the fields whose
// value the change alters and that take effect at a start.
func (c *SpecChange) apply(s *sandbox.Spec, add sandbox.Added) (changed []string, err error) {
	was := *s
	removeProjectSettings(s)
	if err := c.set(s); err != nil {
		return nil, err
	}
	addProjectSettings(s, add)
	for _, f := range []struct {
		name         string
		set, differs bool
	}{
		{"cpus", c.CPUs != nil, s.CPUs != was.CPUs},
		{"devcontainer", c.Devcontainer != nil && *c.Devcontainer != "", s.Devcontainer != was.Devcontainer},
		{"disk", c.Disk != nil, s.Disk != was.Disk},
		{"guard", c.Guard != nil, !slices.Equal(s.Guard, was.Guard)},
		{"hide", c.Hide != nil, !slices.Equal(s.Hide, was.Hide)},
		{"noGuard", c.NoGuard != nil, !slices.Equal(s.NoGuard, was.NoGuard)},
		{"show", c.Show != nil, !slices.Equal(s.Show, was.Show)},
		{"hosts", c.Hosts != nil, !slices.Equal(s.Hosts, was.Hosts)},
		{"image", c.Image != nil, s.Image != was.Image},
		{"memory", c.Memory != nil, s.Memory != was.Memory},
		{"mounts", c.Mounts != nil, !slices.Equal(otherMounts(s.Mounts), otherMounts(was.Mounts))},
		{"ownAddress", c.OwnAddress != nil, s.OwnAddress != was.OwnAddress},
		{"noGitIdentity", c.NoGitIdentity != nil, s.NoGitIdentity != was.NoGitIdentity},
		{"sign", c.Sign != nil, s.Sign != was.Sign},
		{"shareGit", c.ShareGit != nil, !slices.Equal(gitMounts(s.Mounts), gitMounts(was.Mounts))},
		{"rate", c.Rate != nil, s.Rate != was.Rate},
		{"localDirs", c.LocalDirs != nil, !slices.Equal(s.LocalDirs, was.LocalDirs)},
		{"caches", c.Caches != nil, !slices.Equal(s.Caches, was.Caches)},
		{"volumes", c.Volumes != nil, !slices.Equal(s.Volumes, was.Volumes)},
	} {
		if f.set && f.differs {
			changed = append(changed, f.name)
		}
	}
	return changed, nil
}

// set puts the values of the change into the spec.
func (c *SpecChange) set(s *sandbox.Spec) error {
	for _, key := range c.given() {
		if !slices.Contains(s.Given, key) {
			s.Given = append(slices.Clone(s.Given), key)
		}
	}
	put(&s.NoProject, c.NoProject)
	put(&s.Devcontainer, c.Devcontainer)
	put(&s.NoGitIdentity, c.NoGitIdentity)
	put(&s.Sign, c.Sign)
	put(&s.OwnAddress, c.OwnAddress)
	for _, p := range []struct {
		field string
		into  *[]string
		list  *[]string
	}{{"guard", &s.Guard, c.Guard}, {"noGuard", &s.NoGuard, c.NoGuard}, {"hide", &s.Hide, c.Hide}, {"show", &s.Show, c.Show}} {
		list, err := patternsOf(p.field, p.list)
		if err != nil {
			return err
		}
		put(p.into, list)
	}
	put(&s.Image, c.Image)
	put(&s.CPUs, c.CPUs)
	put(&s.Memory, c.Memory)
	put(&s.Disk, c.Disk)
	put(&s.Rate, c.Rate)
	if err := checkIdle(c.Idle, qemu.CanDetachShares()); err != nil {
		return err
	}
	put(&s.Idle, c.Idle) // takes effect at once
	if err := c.setMounts(s); err != nil {
		return err
	}
	if c.Volumes != nil {
		s.Volumes = slices.Clone(*c.Volumes)
		sandbox.SortVolumes(s.Volumes)
	}
	put(&s.LocalDirs, c.LocalDirs)
	put(&s.Caches, c.Caches)
	put(&s.Hosts, c.Hosts)
	if c.Agent != nil {
		s.SetAgent(*c.Agent)
	}
	for _, p := range c.Publish {
		s.Ports = addPort(s.Ports, p)
	}
	if total := HostMemory(); c.Memory != nil && total != 0 && *c.Memory > total { // no machine would start with it
		return &sandbox.FieldError{Field: "memory", Problem: fmt.Sprintf("%s is more than the host has: must be at most %s", size.Format(*c.Memory), size.Format(total))}
	}
	return nil
}

// checkIdle refuses an idle time where sandboxes cannot be suspended: it would have no effect. The default, which
// nobody asked for, is ignored there.
func checkIdle(idle *time.Duration, suspends bool) error {
	if idle == nil || *idle == 0 || suspends {
		return nil
	}
	return &sandbox.FieldError{Field: "idle", Problem: idle.String() + ": only sandboxes on x86 can be suspended: must be 0"}
}

// put sets a field to a new value, if there is one.
func put[T any](field, asked *T) {
	if asked != nil {
		*field = *asked
	}
}

// addPort publishes a port in place of another one at the same port of the host.
func addPort(list []sandbox.Port, p sandbox.Port) []sandbox.Port {
	list = slices.Clone(list)
	for i, o := range list {
		if o == p || o.Host == p.Host && p.Host != 0 { // 0 means any that is free
			list[i] = p
			return list
		}
	}
	return append(list, p)
}

// newSpec returns the spec of a sandbox that does not exist yet.
func (e *Engine) newSpec(name, dir string, c *SpecChange) (*sandbox.Spec, error) {
	return e.completed(e.emptySpec(name, dir), c)
}

// emptySpec returns the spec of a new sandbox with the defaults.
func (e *Engine) emptySpec(name, dir string) *sandbox.Spec {
	return &sandbox.Spec{
		ID: sandbox.NewID(), Name: name, Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}, Created: time.Now().UTC(), Version: e.version, Fresh: true,
		CPUs: DefaultCPUs(), Memory: DefaultMemory(), Disk: DefaultDisk, Idle: DefaultIdle,
	}
}

// completed puts what is approved, and the change, into a new spec.
func (e *Engine) completed(s *sandbox.Spec, c *SpecChange) (*sandbox.Spec, error) {
	put(&s.NoProject, c.NoProject)
	put(&s.Devcontainer, c.Devcontainer)
	add, err := approvedAdditions(e.sandboxes, s)
	if err != nil {
		return nil, err
	}
	if _, err := c.apply(s, add); err != nil {
		return nil, err
	}
	return s, s.Check()
}

// changeSpec applies the change and the approved bawn.yaml to the spec. While the sandbox
// runs, what bawn.yaml added at its start stays. It returns what apply returns.
func (e *Engine) changeSpec(spec *sandbox.Spec, c *SpecChange, phase sandbox.Phase) (changed []string, err error) {
	if c == nil {
		c = &SpecChange{}
	}
	was, asked := *spec, *spec
	put(&asked.NoProject, c.NoProject)
	put(&asked.Devcontainer, c.Devcontainer)
	add := spec.Added
	if phase != sandbox.Running && phase != sandbox.Starting {
		if add, err = approvedAdditions(e.sandboxes, &asked); err != nil {
			return nil, err
		}
	}
	if changed, err = c.apply(spec, add); err != nil {
		return nil, err
	}
	if err := e.keepDisk(spec, &was, changed); err != nil {
		return nil, err
	}
	return changed, spec.Check()
}

// keepDisk keeps the image and the disk size of a sandbox that was started before, because
// its disk is a layer over that image. A change of them is an error if the user asked for
// it (changed), and is ignored if it comes from bawn.yaml.
func (e *Engine) keepDisk(s, was *sandbox.Spec, changed []string) error {
	if s.Boot.ImageDigest == "" {
		return nil
	}
	if slices.Contains(changed, "image") {
		return failf(ImageFixed, s.Name, "sandbox %s was created from another image, and its image cannot be changed", s.Name)
	}
	if s.Disk < was.Disk && slices.Contains(changed, "disk") {
		return failf(DiskCannotShrink, s.Name, "the disk of sandbox %s is %s and cannot shrink", s.Name, size.Format(was.Disk))
	}
	if s.Image != was.Image {
		e.notify(Notice{Reason: ImageFixed, Sandbox: s.Name, Path: s.Devcontainer, Text: fmt.Sprintf("sandbox %s keeps the image that it was created from", s.Name)})
		s.Image, s.Added.Image = was.Image, was.Added.Image
	}
	if s.Disk < was.Disk {
		s.Disk, s.Added.Disk = was.Disk, was.Added.Disk
	}
	return nil
}

// checkShares returns an error unless all that the spec shares exists and may be shared.
func (e *Engine) checkShares(spec *sandbox.Spec) error {
	for i, m := range spec.Shared() {
		if m.Git {
			if err := checkGitDir(spec, m); err != nil {
				return err
			}
		}
		err := e.sandboxes.CheckShare(m.Host, m.ReadOnly())
		switch {
		case errors.Is(err, fs.ErrNotExist) && i > 0 && !slices.Contains(spec.Added.Mounts, m):
			return &Error{Reason: MountGone, Sandbox: spec.Name, Path: m.Host, Err: &sandbox.FieldError{Field: "mounts", Problem: fmt.Sprintf("%s: %s no longer exists", m, m.Host)}}
		case errors.Is(err, fs.ErrNotExist):
			return &Error{Reason: DirectoryGone, Sandbox: spec.Name, Path: m.Host, Err: fmt.Errorf("cannot share %s: it no longer exists", m.Host)}
		case err != nil:
			return err
		}
	}
	return nil
}

// ResolveMount makes the source of a mount absolute, from the working directory or, if
// it begins with ~/, from the user's home, and free of symbolic links. A mount
// without a target gets the source as it was named.
func ResolveMount(m sandbox.Source) (sandbox.Source, error) {
	src, err := filepath.Abs(expandHome(m.Host))
	if err != nil {
		return m, err
	}
	m.Host, err = realPath(src, true)
	if errors.Is(err, fs.ErrNotExist) {
		return m, &Error{Reason: NoMountSource, Path: src, Err: fmt.Errorf("%s does not exist", src)}
	} else if err != nil {
		return m, err
	}
	if m.Guest == "" {
		m.Guest = src
	}
	return m, nil
}

func expandHome(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return p
}
