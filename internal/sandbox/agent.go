package sandbox

import "slices"

// Agent is a coding agent that a sandbox has: its programs and its home, both of which are
// directories of the host that bawn owns.
type Agent struct {
	Name     string `json:"name"`           // the word by which it is started
	Version  string `json:"version"`        // of its package
	Programs string `json:"programs"`       // directory of the host that the guest has read-only
	Home     string `json:"home,omitempty"` // directory of the host that the guest writes to; empty until a start chooses it
}

// Where a guest has the programs and the home of an agent: below these, in a directory of the
// agent's name.
const (
	AgentPrograms = "/opt/bawn/agents"
	AgentHomes    = "/opt/bawn/home"
)

// AgentShares is how many directories of the host one agent adds.
const AgentShares = 2

// Sources returns the directories that the agent adds to what the guest sees; none before its
// home is chosen.
func (a Agent) Sources() []Source {
	if a.Home == "" {
		return nil
	}
	return []Source{
		{Host: a.Programs, Guest: AgentPrograms + "/" + a.Name, Mode: ReadOnly},
		{Host: a.Home, Guest: AgentHomes + "/" + a.Name},
	}
}

// Agent returns the agent of that name, and whether the sandbox has it.
func (s *Spec) Agent(name string) (Agent, bool) {
	for _, a := range s.Agents {
		if a.Name == name {
			return a, true
		}
	}
	return Agent{}, false
}

// AgentNames returns the names of the sandbox's agents.
func (s *Spec) AgentNames() (names []string) {
	for _, a := range s.Agents {
		names = append(names, a.Name)
	}
	return names
}

// SetAgent adds the agent, or replaces the one of its name.
func (s *Spec) SetAgent(a Agent) {
	list := slices.Clone(s.Agents)
	if i := slices.IndexFunc(list, func(b Agent) bool { return b.Name == a.Name }); i >= 0 {
		list[i] = a
	} else {
		list = append(list, a)
	}
	s.Agents = list
}
