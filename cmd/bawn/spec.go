package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/size"
)

// Defaults of a new sandbox.
const (
	defaultCPUs   = 4        // at most; fewer where the host has fewer
	defaultMemory = 4 << 30  // bytes, at most; half the host's where that is less
	defaultDisk   = 32 << 30 // bytes, sparse: the host pays for what is written
	defaultIdle   = time.Hour
)

// specFlags are the flags that say what a sandbox should be.
type specFlags struct {
	flags  *pflag.FlagSet
	dir    string
	name   string
	image  string
	cpus   int
	memory string
	disk   string
	rate   string
	idle   time.Duration
	mounts []string
	ports  []string
	env    []string
	hosts  []string
	allow  []string
	deny   []string

	noProject bool
}

func (f *specFlags) register(flags *pflag.FlagSet) {
	f.flags = flags
	flags.StringVarP(&f.dir, "dir", "C", "", "project `DIRECTORY` (default: this one, or its parent that has a sandbox)")
	flags.StringVar(&f.name, "name", "", "`NAME` of the sandbox (default: after the directory)")
	flags.StringVar(&f.image, "image", "", "OCI image `REFERENCE` (default: bawn's own Debian 13)")
	flags.IntVar(&f.cpus, "cpus", 0, fmt.Sprintf("virtual CPUs (default: %d)", hostCPUs()))
	flags.StringVar(&f.memory, "memory", "", fmt.Sprintf("guest memory `SIZE` (default: %s)", size.Format(hostMemory())))
	flags.StringVar(&f.disk, "disk", "", fmt.Sprintf("largest `SIZE` of the sandbox's disk (default: %s, sparse)", size.Format(defaultDisk)))
	flags.StringVar(&f.rate, "rate", "", "limit of network traffic, a second, both ways together: `SIZE` (default: none)")
	flags.DurationVar(&f.idle, "idle", defaultIdle, fmt.Sprintf("suspend the sandbox after a `TIME` without use, at least %s; 0 is never", sandbox.MinIdle))
	flags.StringArrayVar(&f.mounts, "mount", nil, "share another `SRC[:DST][:ro]` (repeatable; '' for none)")
	flags.StringArrayVarP(&f.ports, "publish", "p", nil, "publish a guest port on 127.0.0.1: `[HOST:]GUEST` (repeatable)")
	flags.StringArrayVar(&f.hosts, "add-host", nil, "where a name leads, instead of asking the host's resolver: `NAME:ADDRESS` (repeatable)")
	flags.StringArrayVar(&f.allow, "allow", nil, "allow the sandbox to reach `RULE`: HOST[:PORTS], ADDRESS, preset:NAME (repeatable; see bawn policy)")
	flags.StringArrayVar(&f.deny, "deny", nil, "deny what `RULE` says, whatever else allows it (repeatable)")
	flags.BoolVar(&f.noProject, "no-project-file", false, "leave the project's bawn.yaml aside, from now on (=false: no longer)")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "pass `NAME[=VALUE]` to the command (repeatable)")
}

func hostCPUs() int { return min(defaultCPUs, runtime.NumCPU()) }

func hostMemory() int64 {
	total := totalMemory()
	if total == 0 {
		return defaultMemory
	}
	half := total / 2
	half -= half % (256 << 20)
	return max(sandbox.MinMemory, min(defaultMemory, half))
}

// totalMemory is the host's, in bytes; 0 when it is not known.
func totalMemory() int64 {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0
	}
	return int64(si.Totalram) * int64(si.Unit)
}

// directory is the project directory that the flags mean, symlinks resolved,
// so that one directory has one sandbox.
func (f *specFlags) directory() (string, error) {
	dir := f.dir
	if dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return "", hint(fmt.Errorf("current directory: %w", err), "cd to one that is there, or name one by --dir")
		}
		dir = wd
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, fs.ErrNotExist) {
		return "", hint(fmt.Errorf("project directory: %s does not exist", abs), "mkdir %s, or another --dir", pathArgument(abs))
	} else if err != nil {
		return "", fmt.Errorf("project directory: %w", err)
	}
	if fi, err := os.Stat(real); err != nil {
		return "", fmt.Errorf("project directory: %w", err)
	} else if !fi.IsDir() {
		return "", hint(fmt.Errorf("project directory: %s is not a directory", real), "the directory that it is in: --dir %s", pathArgument(filepath.Dir(real)))
	}
	return real, nil
}

// newSpec is the spec of a sandbox that does not exist yet.
func (f *specFlags) newSpec(name, dir string) (*sandbox.Spec, error) {
	s := &sandbox.Spec{
		ID: sandbox.NewID(), Name: name, Dir: dir, Created: time.Now().UTC(), Version: version(), Fresh: true,
		CPUs: hostCPUs(), Memory: hostMemory(), Disk: defaultDisk, Idle: defaultIdle, NoProject: f.noProject,
	}
	add, err := approvedAdditions(s)
	if err != nil {
		return nil, err
	}
	if _, err := f.apply(s, add); err != nil {
		return nil, err
	}
	return s, s.Check()
}

// apply changes the spec to what the flags say, with what bawn.yaml adds, and
// tells which flags change it in a way that takes a restart.
func (f *specFlags) apply(s *sandbox.Spec, add sandbox.Added) (changed []string, err error) {
	was := *s
	withdraw(s)
	if err := f.set(s); err != nil {
		return nil, err
	}
	contribute(s, add)
	for flag, differs := range map[string]bool{
		"image": s.Image != was.Image, "cpus": s.CPUs != was.CPUs, "memory": s.Memory != was.Memory, "disk": s.Disk != was.Disk,
		"mount": fmt.Sprint(s.Mounts) != fmt.Sprint(was.Mounts), "add-host": fmt.Sprint(s.Hosts) != fmt.Sprint(was.Hosts),
		"rate": s.Rate != was.Rate,
	} {
		if differs && f.flags.Changed(flag) {
			changed = append(changed, "--"+flag)
		}
	}
	slices.Sort(changed)
	return changed, nil
}

// set puts what the flags say into the spec.
func (f *specFlags) set(s *sandbox.Spec) (err error) {
	for _, key := range []string{"image", "cpus", "memory", "disk"} {
		if f.flags.Changed(key) && !slices.Contains(s.Given, key) {
			s.Given = append(slices.Clone(s.Given), key)
		}
	}
	if f.flags.Changed("no-project-file") {
		s.NoProject = f.noProject
	}
	if f.flags.Changed("image") {
		s.Image = f.image
	}
	if f.flags.Changed("cpus") {
		s.CPUs = f.cpus
	}
	if err := f.size("memory", f.memory, &s.Memory); err != nil {
		return err
	}
	if err := f.enoughMemory(s.Memory); err != nil {
		return err
	}
	if err := f.size("disk", f.disk, &s.Disk); err != nil {
		return err
	}
	if err := f.size("rate", f.rate, &s.Rate); err != nil {
		return err
	}
	if f.flags.Changed("idle") { // takes effect at once
		s.Idle = f.idle
	}
	if f.flags.Changed("mount") {
		if s.Mounts, err = parseMounts(f.mounts); err != nil {
			return err
		}
	}
	if f.flags.Changed("add-host") {
		if s.Hosts, err = parseHosts(f.hosts); err != nil {
			return err
		}
	}
	ports, err := parsePorts(f.ports)
	for _, p := range ports {
		s.Ports = addPort(s.Ports, p)
	}
	return err
}

// parsePorts reads what is given to --publish. A port of the host that is given
// twice is a mistake, though a later command may give it anew.
func parsePorts(list []string) ([]sandbox.Port, error) {
	var ports []sandbox.Port
	for _, text := range list {
		p, err := sandbox.ParsePort(text)
		if err != nil {
			return nil, fmt.Errorf("--publish: %w", err)
		}
		if i := slices.IndexFunc(ports, func(o sandbox.Port) bool { return o.Host == p.Host && o != p && p.Host != 0 }); i >= 0 {
			return nil, fmt.Errorf("--publish %s: port %d of this machine leads to the guest's port %d already; write another HOST:%d", text, p.Host, ports[i].Guest, p.Guest)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// enoughMemory refuses to give a guest more than the host has, which no machine
// would start with.
func (f *specFlags) enoughMemory(want int64) error {
	total := totalMemory()
	if !f.flags.Changed("memory") || total == 0 || want <= total {
		return nil
	}
	return fmt.Errorf("--memory %s is more than the %s that this machine has: want at most that", size.Format(want), size.Format(total))
}

func (f *specFlags) size(flag, value string, into *int64) error {
	if !f.flags.Changed(flag) {
		return nil
	}
	n, err := size.Parse(value)
	if err != nil {
		return fmt.Errorf("--%s: %w", flag, err)
	}
	*into = n
	return nil
}

func addPort(list []sandbox.Port, p sandbox.Port) []sandbox.Port {
	for i, o := range list {
		if o == p || o.Host == p.Host && p.Host != 0 { // 0 means any that is free
			list[i] = p
			return list
		}
	}
	return append(list, p)
}

// parseMounts reads SRC[:DST][:ro] of --mount. A single empty one is none at all.
func parseMounts(list []string) ([]sandbox.Mount, error) {
	var mounts []sandbox.Mount
	if len(list) == 1 && list[0] == "" {
		return nil, nil
	}
	for _, text := range list {
		m, err := sandbox.ParseMount(text)
		if err != nil {
			return nil, fmt.Errorf("--%w", err) // it begins with "mount"
		}
		src, err := filepath.Abs(expandHome(m.Source))
		if err != nil {
			return nil, err
		}
		m.Source, err = filepath.EvalSymlinks(src)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, hint(fmt.Errorf("--mount %q: %s does not exist", text, src), "mkdir %s, or another --mount", pathArgument(src))
		} else if err != nil {
			return nil, fmt.Errorf("--mount %q: %w", text, err)
		}
		if m.Target == "" {
			m.Target = src
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

func expandHome(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return p
}

// parseHosts reads NAME:ADDRESS; an IPv6 address may stand in brackets.
func parseHosts(list []string) ([]sandbox.Host, error) {
	var hosts []sandbox.Host
	for _, h := range list {
		name, addr, _ := strings.Cut(h, ":")
		clean, ok := policy.CleanName(name)
		a, err := netip.ParseAddr(strings.Trim(addr, "[]"))
		if !ok || err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("--add-host %q: write NAME:ADDRESS", h)
		}
		hosts = append(hosts, sandbox.Host{Name: clean, Addr: a.Unmap()})
	}
	return hosts, nil
}

// parseEnv turns NAME and NAME=VALUE into KEY=VALUE. A NAME that is not set
// here is left out, as docker does.
func parseEnv(list []string) ([]string, error) {
	var env []string
	for _, e := range list {
		name, _, has := strings.Cut(e, "=")
		if name == "" || strings.ContainsAny(name, " \t\x00") {
			return nil, fmt.Errorf("--env %q: write NAME or NAME=VALUE", e)
		}
		if strings.ContainsRune(e, 0) {
			return nil, fmt.Errorf("--env %s: the value holds a zero byte", name)
		}
		if !has {
			v, ok := os.LookupEnv(name)
			if !ok {
				continue
			}
			e = name + "=" + v
		}
		env = append(env, e)
	}
	return env, nil
}

// ambient are the variables that go in unasked: how to show text, and the
// time zone. None can hold a secret.
var ambient = []string{"TERM", "LANG", "COLORTERM", "TZ"}

func commandEnv(named []string) ([]string, error) {
	env, err := parseEnv(named)
	if err != nil {
		return nil, err
	}
	for _, name := range ambient {
		if v := os.Getenv(name); v != "" {
			env = append([]string{name + "=" + v}, env...)
		}
	}
	return env, nil
}
