package engine

// Agent is a coding agent that npm installs in a guest. No sandbox comes with one: agents
// change often, and which one to trust is for the user to choose.
type Agent struct {
	Command string
	Package string // of npm
	Preset  string // of policy rules that it needs at work
}

var agents = []Agent{
	{"claude", "@anthropic-ai/claude-code", "anthropic"},
	{"codex", "@openai/codex", "openai"},
	{"gemini", "@google/gemini-cli", "gemini"},
	{"opencode", "opencode-ai", "opencode"},
	{"copilot", "@github/copilot", "copilot"},
	{"amp", "@sourcegraph/amp", "amp"},
}

// Agents returns the agents that are known.
func Agents() []Agent { return append([]Agent{}, agents...) }
