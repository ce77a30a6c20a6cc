package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/size"
)

// specFlags are the flags that select a sandbox and change its settings.
type specFlags struct {
	flags     *pflag.FlagSet
	dir       string
	name      string
	image     string
	cpus      int
	memory    string
	disk      string
	rate      string
	idle      idleTime
	mounts    []string
	volumes   []string
	localDirs []string
	caches    []string
	ports     []string
	env       []string
	hosts     []string
	allow     []string
	deny      []string

	guard   []string
	noGuard []string
	hide    []string
	show    []string

	devcontainer string

	ownAddress    bool
	noProject     bool
	noGitIdentity bool
	sign          bool
	shareGit      bool
}

func (f *specFlags) register(flags *pflag.FlagSet) {
	f.flags = flags
	flags.StringVarP(&f.dir, "dir", "C", "", "project `DIRECTORY` (default: this one, or the nearest parent that has a sandbox)")
	flags.StringVar(&f.name, "name", "", "`NAME` of the sandbox (default: made from the directory's name)")
	flags.StringVar(&f.image, "image", "", "OCI image `REFERENCE` (default: bawn's own Debian 13)")
	flags.IntVar(&f.cpus, "cpus", 0, fmt.Sprintf("virtual CPUs (default: %d)", engine.DefaultCPUs()))
	flags.StringVar(&f.memory, "memory", "", fmt.Sprintf("guest memory `SIZE` (default: %s)", size.Format(engine.DefaultMemory())))
	flags.StringVar(&f.disk, "disk", "", fmt.Sprintf("largest `SIZE` of the sandbox's disk (default: %s, sparse)", size.Format(engine.DefaultDisk)))
	flags.StringVar(&f.rate, "rate", "", "limit network traffic to `SIZE` a second, both directions together (default: no limit)")
	f.idle = idleTime(engine.DefaultIdle)
	flags.Var(&f.idle, "idle", fmt.Sprintf("suspend the sandbox after it was idle for this `TIME`, at least %s; 0 means never", sandbox.MinIdle))
	flags.StringArrayVar(&f.mounts, "mount", nil, "share another file or directory of the host: `SRC[:DST][:ro]` (repeatable; '' shares none)")
	flags.StringArrayVar(&f.volumes, "volume", nil, "use a named volume, which outlasts the sandbox: `NAME:PATH[:ro]` (repeatable; '' uses none; see bawn volume)")
	flags.StringArrayVar(&f.localDirs, "local-dir", nil, "keep this `DIRECTORY` of the project on the sandbox's own disk, out of the host's sight, such as node_modules (repeatable; '' none)")
	flags.StringArrayVar(&f.caches, "cache", nil, "share verified packages of these `KINDS` with other sandboxes: cargo, go, npm, pip (repeatable; '' none; see bawn cache)")
	flags.StringArrayVarP(&f.ports, "publish", "p", nil, "publish a guest port on localhost of the host: `[HOST:]GUEST` (repeatable)")
	flags.BoolVar(&f.ownAddress, "own-address", false, "publish ports on a loopback address of the sandbox's own, not on localhost, from its next start on (=false: on localhost again)")
	flags.StringArrayVar(&f.hosts, "add-host", nil, "give a name a fixed address instead of asking the host's resolver: `NAME:ADDRESS` (repeatable)")
	flags.StringArrayVar(&f.allow, "allow", nil, "allow the sandbox to reach `RULE`: HOST[:PORTS], ADDRESS, preset:NAME (repeatable; see bawn policy)")
	flags.StringArrayVar(&f.deny, "deny", nil, "deny `RULE`, even where another rule allows it (repeatable)")
	flags.StringArrayVar(&f.guard, "guard", nil, "keep changes of paths that match `PATTERN` from the host, from the next start on (repeatable; '' only the default list; see docs/guard.md)")
	flags.StringArrayVar(&f.noGuard, "no-guard", nil, "let changes of guarded paths that match `PATTERN` reach the host (repeatable; '' none)")
	flags.StringArrayVar(&f.hide, "hide", nil, "hide paths that match `PATTERN` from the sandbox (repeatable; '' only the default list)")
	flags.StringArrayVar(&f.show, "show", nil, "show hidden paths that match `PATTERN` to the sandbox (repeatable; '' none)")
	flags.BoolVar(&f.noProject, "no-project-file", false, "ignore the project's bawn.yaml from now on (=false: use it again)")
	registerDevcontainer(flags, &f.devcontainer, "make the sandbox from the project's devcontainer.json, or the one at `PATH`, and run its commands (empty: no longer; see docs/devcontainer.md)")
	flags.BoolVar(&f.shareGit, "share-git", false, "share the git directory of a linked worktree or a submodule, without asking (=false: do not, and do not ask)")
	flags.BoolVar(&f.noGitIdentity, "no-git-identity", false, "keep your git user.name and user.email from the sandbox from its next start on (=false: let them in again)")
	flags.BoolVar(&f.sign, "sign", false, "have commits and tags of the sandbox signed on the host by your own key, from its next start on; the key stays here (=false: no longer; see docs/policy.md)")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "pass `NAME[=VALUE]` to the command (repeatable)")
}

// request returns the engine.Request that the flags describe.
func (f *specFlags) request(throwaway bool, user string) (engine.Request, error) {
	change, err := f.change()
	if err != nil {
		return engine.Request{}, err
	}
	dir, err := projectDir(f.dir)
	return engine.Request{Dir: dir, Name: f.name, OnlyDir: f.dir != "", Throwaway: throwaway, Change: change, User: user}, err
}

// projectDir returns the project directory that is named, or the working directory.
func projectDir(dir string) (string, error) {
	if dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return "", hint(fmt.Errorf("current directory: %w", err), "cd to a directory that exists, or name one with --dir")
		}
		dir = wd
	}
	return engine.ProjectDir(dir)
}

// change returns the changes that the flags describe. Flags that are not given change nothing.
func (f *specFlags) change() (c engine.SpecChange, err error) {
	c.NoProject = given(f, "no-project-file", f.noProject)
	c.ShareGit = given(f, "share-git", f.shareGit)
	c.OwnAddress = given(f, "own-address", f.ownAddress)
	c.NoGitIdentity = given(f, "no-git-identity", f.noGitIdentity)
	c.Sign = given(f, "sign", f.sign)
	c.Image = given(f, "image", f.image)
	c.CPUs = given(f, "cpus", f.cpus)
	c.Idle = given(f, "idle", time.Duration(f.idle))
	c.Allow, c.Deny = f.allow, f.deny
	c.Guard = given(f, "guard", f.guard)
	c.NoGuard = given(f, "no-guard", f.noGuard)
	c.Hide = given(f, "hide", f.hide)
	c.Show = given(f, "show", f.show)
	for _, s := range []struct {
		flag, value string
		into        **int64
	}{{"memory", f.memory, &c.Memory}, {"disk", f.disk, &c.Disk}, {"rate", f.rate, &c.Rate}} {
		if !f.flags.Changed(s.flag) {
			continue
		}
		n, err := size.Parse(s.value)
		if err != nil {
			return c, fmt.Errorf("--%s: %w", s.flag, err)
		}
		*s.into = &n
	}
	err = errors.Join(
		parsed(f, "mount", f.mounts, parseMounts, &c.Mounts),
		parsed(f, "volume", f.volumes, parseVolumes, &c.Volumes),
		parsed(f, "local-dir", f.localDirs, parseLocalDirs, &c.LocalDirs),
		parsed(f, "cache", f.caches, parseCaches, &c.Caches),
		parsed(f, "add-host", f.hosts, parseHosts, &c.Hosts),
	)
	if err != nil {
		return c, err
	}
	c.Publish, err = parsePorts(f.ports)
	return c, err
}

// parsed parses the values of a flag and sets *into to the result, if the flag was given.
func parsed[T any](f *specFlags, flag string, values []string, parse func([]string) ([]T, error), into **[]T) error {
	if !f.flags.Changed(flag) {
		return nil
	}
	list, err := parse(values)
	if err == nil {
		*into = &list
	}
	return err
}

// given returns a flag's value, or nil if it was not given.
func given[T any](f *specFlags, flag string, value T) *T {
	if !f.flags.Changed(flag) {
		return nil
	}
	return &value
}

// idleTime is the value of --idle.
type idleTime time.Duration

// String returns the time without units that are zero: 1h, not 1h0m0s.
func (t *idleTime) String() string {
	s := time.Duration(*t).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Set reads a time with units, or 0.
func (t *idleTime) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("write a time with its unit, such as 90s, 30m or 2h; 0 means never")
	}
	*t = idleTime(d)
	return nil
}

// Type is the kind of value, for the help.
func (*idleTime) Type() string { return "time" }

// parsePorts reads what is given to --publish. A port of the host that is given
// twice is a mistake, though a later command may give it anew.
func parsePorts(list []string) ([]sandbox.Port, error) {
	var ports []sandbox.Port
	for _, given := range list {
		p, err := sandbox.ParsePort(given)
		if err != nil {
			return nil, fmt.Errorf("--publish: %w", err)
		}
		for _, o := range ports {
			if o.Host == p.Host && o != p && p.Host != 0 {
				return nil, fmt.Errorf("--publish %s: port %d of the host already leads to the guest's port %d; use another port of the host: HOST:%d", given, p.Host, o.Guest, p.Guest)
			}
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// parseEach parses each value of a flag. A single empty value means no value at all.
func parseEach[T any](values []string, parse func(string) (T, error)) (list []T, err error) {
	if len(values) == 1 && values[0] == "" {
		return nil, nil
	}
	for _, given := range values {
		v, err := parse(given)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// parseMounts reads SRC[:DST][:ro] of --mount.
func parseMounts(list []string) ([]sandbox.Source, error) {
	return parseEach(list, func(given string) (sandbox.Source, error) {
		m, err := sandbox.ParseMount(given)
		if err != nil {
			return m, fmt.Errorf("--%w", err) // it begins with "mount"
		}
		if m, err = engine.ResolveMount(m); err != nil {
			return m, fmt.Errorf("--mount %q: %w", given, err)
		}
		return m, nil
	})
}

// parseVolumes reads NAME:PATH[:ro] of --volume.
func parseVolumes(list []string) ([]sandbox.Volume, error) {
	volumes, err := parseEach(list, sandbox.ParseVolume)
	if err != nil {
		return nil, fmt.Errorf("--%w", err) // it begins with "volume"
	}
	return engine.ResolveVolumes(volumes), nil
}

// parseLocalDirs reads the directories of --local-dir.
func parseLocalDirs(list []string) ([]string, error) {
	dirs, err := parseEach(list, sandbox.ParseLocalDir)
	if err != nil {
		return nil, fmt.Errorf("--local-dir: %w", err)
	}
	return dirs, nil
}

// parseCaches reads the kinds of --cache.
func parseCaches(list []string) ([]sandbox.Cache, error) {
	if slices.Equal(list, []string{""}) {
		return nil, nil
	}
	caches, err := sandbox.ParseCaches(strings.Join(list, ","))
	if err != nil {
		return nil, fmt.Errorf("--%w", err) // it begins with "cache"
	}
	return caches, nil
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
