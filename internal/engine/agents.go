package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"bawn.dev/bawn/internal/agents"
	"bawn.dev/bawn/internal/agents/registry"
	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/regular"
	"bawn.dev/bawn/internal/sys/xdg"
)

// Agents of a sandbox: the programs are installed on the host (package agents) and given to the
// guest read-only, together with a home that lasts.
//
// Homes. An agent's home holds its login, settings and history. Two machines that write to one
// home would damage it, since locks and databases of one guest mean nothing in another. So a home
// belongs to one sandbox at a time: while that runs or is suspended, another sandbox gets the next
// home, into which the login is copied when it is made.

// Agent describes a coding agent.
type Agent = agents.Agent

const (
	// NoAgent is the reason when there is no agent of that name.
	NoAgent Reason = "agent-unknown"
	// AgentsFile is the reason when the person's agents.yaml is not valid (Path).
	AgentsFile Reason = "agents-file-invalid"
	// AgentNotInstalled is the reason when an agent's programs could not be fetched.
	AgentNotInstalled Reason = "agent-not-installed"
	// AgentUpdate is the reason of a notice about a newer version of an agent.
	AgentUpdate Reason = "agent-update"
)

// NamedAgents returns the agents for the help: those that come with bawn, as the person's
// agents.yaml changes and extends them if it is valid.
func NamedAgents() []Agent {
	if _, list, err := readAgents(func(string) error { return nil }); err == nil {
		return list
	}
	return agents.Builtin()
}

// Agents returns the agents that are known: those that come with bawn, as the person's agents.yaml
// changes and extends them.
func (e *Engine) Agents() ([]Agent, error) {
	file, list, err := readAgents(e.sandboxes.CheckPlace)
	if err != nil {
		return nil, &Error{Reason: AgentsFile, Path: file, Err: err}
	}
	return list, nil
}

// readAgents reads agents.yaml, if the place of it passes the check.
func readAgents(check func(file string) error) (file string, list []Agent, err error) {
	dir, err := xdg.Config()
	if err != nil {
		return "", nil, err
	}
	file = filepath.Join(dir, agents.FileName)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return file, agents.Builtin(), nil
	}
	if err == nil {
		err = check(file)
	}
	if err == nil {
		list, err = agents.Parse(file, text, agents.Builtin())
	}
	return file, list, err
}

// agent returns the agent of that name.
func (e *Engine) agent(name string) (*Agent, error) {
	list, err := e.Agents()
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Name == name {
			return &list[i], nil
		}
	}
	return nil, failf(NoAgent, "", "there is no agent %q", name)
}

// agentStore returns the store of installed agents.
func agentStore() (*agents.Store, error) {
	dir, err := xdg.Cache()
	if err != nil {
		return nil, err
	}
	address, err := registry.Address()
	if err != nil {
		return nil, fmt.Errorf("npm's settings: %w", err)
	}
	c, err := registry.New(address, registry.StallLimit)
	if err != nil {
		return nil, err
	}
	return &agents.Store{Cache: cache.Open(dir), Client: c, Arch: runtime.GOARCH, GuestPrograms: sandbox.AgentPrograms, GuestHomes: sandbox.AgentHomes}, nil
}

// InstalledAgent returns the version of an agent that new sandboxes get; "" if none is installed.
func (e *Engine) InstalledAgent(name string) string {
	s, err := agentStore()
	if err != nil {
		return ""
	}
	version, _ := s.Current(name)
	return version
}

// AgentRequest asks for an agent in a sandbox.
type AgentRequest struct {
	Name    string
	Version string // empty: the sandbox's own, else the one that is installed, else the newest
}

// withAgent installs the agent that a request asks for, and adds to the request's change what the
// sandbox does not have of it.
func (e *Engine) withAgent(ctx context.Context, r *Request) error {
	if r.Agent == nil {
		return nil
	}
	a, err := e.agent(r.Agent.Name)
	if err != nil {
		return err
	}
	if err := defineLogin(a); err != nil {
		return err
	}
	var has sandbox.Agent
	known := false
	switch spec, err := e.existing(r); {
	case err == nil:
		has, known = spec.Agent(a.Name)
	case !store.IsNotFound(err):
		return err
	}
	version := r.Agent.Version
	if version == "" && known {
		version = has.Version
		if newer := e.InstalledAgent(a.Name); newer != "" && newer != version {
			e.notify(Notice{Reason: AgentUpdate, Text: fmt.Sprintf("new sandboxes get %s %s; this one keeps %s", a.Name, newer, version)})
		}
	}
	in, err := e.install(ctx, a, version)
	if err != nil {
		return &Error{Reason: AgentNotInstalled, Err: err}
	}
	if known && has.Version == in.Version && has.Programs == in.Dir && has.Home != "" {
		return fillHome(&has)
	}
	r.Change.Agent = &sandbox.Agent{Name: a.Name, Version: in.Version, Programs: in.Dir, Home: has.Home}
	if !known {
		r.Change.Allow = append(slices.Clone(r.Change.Allow), a.Allow...)
	}
	return nil
}

// install returns a version of an agent, which is fetched if the cache does not have it. Without a
// version it is the current one, or the newest of the registry, which becomes the current one.
func (e *Engine) install(ctx context.Context, a *Agent, version string) (*agents.Installed, error) {
	s, err := agentStore()
	if err != nil {
		return nil, err
	}
	if version == "" {
		version, _ = s.Current(a.Name)
	}
	if version != "" {
		return s.Install(ctx, a, version, e.progress())
	}
	return e.installNewest(ctx, s, a)
}

// installNewest installs the newest version of an agent that the registry has, for new sandboxes.
func (e *Engine) installNewest(ctx context.Context, s *agents.Store, a *Agent) (in *agents.Installed, err error) {
	var version string
	err = e.during("Looking for the newest "+a.Name, func() error {
		version, err = s.Latest(ctx, a)
		return err
	})
	if err != nil {
		return nil, err
	}
	if in, err = s.Install(ctx, a, version, e.progress()); err != nil {
		return nil, err
	}
	return in, s.MakeCurrent(a.Name, version)
}

// updateInterval is how often the registry is asked for a newer version of an agent.
const updateInterval = 24 * time.Hour

// agentNeedsUpdate reports whether it is time to look for a newer version of an agent.
func agentNeedsUpdate(name string) bool {
	s, err := agentStore()
	if err != nil {
		return false
	}
	version, checked := s.Current(name)
	return version != "" && time.Since(checked) >= updateInterval
}

// updateAgent installs the newest version of an agent for new sandboxes, and removes versions that
// no sandbox has.
func (e *Engine) updateAgent(ctx context.Context, name string) error {
	a, err := e.agent(name)
	if err != nil {
		return err
	}
	s, err := agentStore()
	if err != nil {
		return err
	}
	if now, _ := s.Current(name); now != "" { // the next attempt is a day away, also after a failure
		if err := s.MakeCurrent(name, now); err != nil {
			return err
		}
	}
	if _, err := e.installNewest(ctx, s, a); err != nil {
		return &Error{Reason: AgentNotInstalled, Err: err}
	}
	used, err := e.agentPrograms()
	if err != nil {
		return err
	}
	return s.Prune(name, used)
}

// updateAgents starts a background process that updates the sandbox's agents, if it is time to.
func updateAgents(d store.Dir, spec *sandbox.Spec) {
	for _, a := range spec.Agents {
		if agentNeedsUpdate(a.Name) {
			_ = launch.UpdateAgents(d) // what it cannot do, the next day's does
			return
		}
	}
}

// UpdateAgents installs newer versions of a spec's agents for new sandboxes, where it is time to,
// and removes versions that no sandbox has.
func (e *Engine) UpdateAgents(ctx context.Context, spec *sandbox.Spec) (err error) {
	for _, a := range spec.Agents {
		if agentNeedsUpdate(a.Name) {
			err = errors.Join(err, e.updateAgent(ctx, a.Name))
		}
	}
	return err
}

// agentPrograms returns the folders of all agents that sandboxes have.
func (e *Engine) agentPrograms() (dirs []string, err error) {
	names, err := e.sandboxes.Names()
	for _, n := range names {
		spec, err := e.sandboxes.Dir(n).Spec()
		if err != nil {
			continue // damaged: it cannot start
		}
		for _, a := range spec.Agents {
			dirs = append(dirs, a.Programs)
		}
	}
	return dirs, err
}

// maxHomes bounds the homes of one agent, which is how many sandboxes can use it at once.
const maxHomes = 64

// homesLockTime is how long the choice of a home waits for another one.
const homesLockTime = 10 * time.Second

// chooseHomes gives each agent of the spec a home that no other sandbox uses, and makes the
// sandbox its owner. The caller holds the sandbox's start lock.
func (e *Engine) chooseHomes(ctx context.Context, spec *sandbox.Spec) error {
	for _, a := range slices.Clone(spec.Agents) {
		err := e.chooseHome(ctx, spec, &a)
		if err == nil {
			err = fillHome(&a)
		}
		if err != nil {
			return fmt.Errorf("home of %s: %w", a.Name, err)
		}
		spec.SetAgent(a)
	}
	return nil
}

func (e *Engine) chooseHome(ctx context.Context, spec *sandbox.Spec, a *sandbox.Agent) error {
	folder := filepath.Join(e.sandboxes.Root(), store.AgentsFolder, a.Name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, homesLockTime)
	defer cancel()
	l, err := lockfile.Acquire(ctx, filepath.Join(folder, "lock"))
	if err != nil {
		return err
	}
	defer l.Close()
	if a.Home != "" && e.holder(a.Home+ownerSuffix, spec.Name) == "" {
		return hold(a.Home+ownerSuffix, spec.Name)
	}
	for i := 1; i <= maxHomes; i++ {
		home := filepath.Join(folder, "home-"+strconv.Itoa(i))
		if e.holder(home+ownerSuffix, spec.Name) != "" {
			continue
		}
		if _, err := os.Lstat(home); errors.Is(err, fs.ErrNotExist) {
			if err := e.makeHome(home, filepath.Join(folder, "home-1"), a.Name); err != nil {
				return err
			}
		}
		a.Home = home
		return hold(home+ownerSuffix, spec.Name)
	}
	return fmt.Errorf("%d sandboxes use it already: stop one", maxHomes)
}

// ownerSuffix follows a home's name in the name of the file that has its owner's.
const ownerSuffix = ".owner"

// makeHome makes a home, with the files of the first home that hold the agent's login. The guests
// wrote these, so no link among them is followed.
func (e *Engine) makeHome(home, first, name string) error {
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	a, err := e.agent(name)
	if err != nil || home == first {
		return nil // an agent that is not described any more has no login
	}
	from, err := os.OpenRoot(first)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenRoot(home)
	if err != nil {
		return err
	}
	defer to.Close()
	for _, file := range a.Login {
		b, err := readLogin(from, file)
		if err != nil {
			continue // not logged in, or not a file
		}
		if err := errors.Join(to.MkdirAll(filepath.Dir(file), 0o700), to.WriteFile(file, b, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// maxLogin bounds a file with a login, in bytes.
const maxLogin = 1 << 20

// readLogin reads a regular file of a home.
func readLogin(from *os.Root, file string) ([]byte, error) {
	fi, err := from.Lstat(file)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() { // also not a link
		return nil, fs.ErrInvalid
	}
	return regular.ReadIn(from, file, maxLogin)
}

// addAgent gives a running sandbox an agent, and keeps it in the spec; nil is none. The caller
// holds the sandbox's start lock.
func (e *Engine) addAgent(ctx context.Context, d store.Dir, add *sandbox.Agent) error {
	if add == nil {
		return nil
	}
	spec, err := d.Spec()
	if err != nil {
		return err
	}
	spec.SetAgent(*add)
	if err := e.chooseHomes(ctx, spec); err != nil {
		return err
	}
	a, _ := spec.Agent(add.Name)
	err = e.during("Adding "+a.Name, func() error { return control.NewClient(d.DialControl).AddAgent(ctx, a) })
	if reason := control.ReasonOf(err); reason == control.ReasonVersion || reason == control.ReasonPhase {
		return &Error{Reason: NeedsRestart, Sandbox: spec.Name, Err: fmt.Errorf("sandbox %s is running, and gets %s %s at its next start: %w", spec.Name, a.Name, a.Version, err)}
	}
	if err != nil {
		return fmt.Errorf("add %s: %w", a.Name, err)
	}
	return d.WriteSpec(spec)
}

// AgentCommand returns the command that starts an agent in a guest with the arguments, and the
// names of the host's variables that it gets. With ask the agent asks before it acts, as it does
// by itself.
func (e *Engine) AgentCommand(name string, ask bool, args []string) (argv, pass []string, err error) {
	a, err := e.agent(name)
	if err != nil {
		return nil, nil, err
	}
	argv = []string{sandbox.AgentPrograms + "/" + a.Name + "/bin/" + a.Name}
	if !ask {
		args = a.Arguments(args)
	}
	return append(argv, args...), a.Pass, nil
}
