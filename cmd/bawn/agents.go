package main

import "fmt"

// agent is a coding agent that npm installs.
type agent struct {
	pkg    string // its package
	preset string // the rules that it needs at work
}

// agents are known by their command. A new sandbox has none of them: agents change by
// the day, and which one to trust is the person's to choose.
var agents = map[string]agent{
	"claude":   {"@anthropic-ai/claude-code", "anthropic"},
	"codex":    {"@openai/codex", "openai"},
	"gemini":   {"@google/gemini-cli", "gemini"},
	"opencode": {"opencode-ai", "opencode"},
	"copilot":  {"@github/copilot", "copilot"},
	"amp":      {"@sourcegraph/amp", "amp"},
}

// installHint says how to install an agent that a sandbox has not; "" for any other
// command.
func installHint(command, sandbox string) string {
	a, ok := agents[command]
	if !ok {
		return ""
	}
	return fmt.Sprintf("  try: bawn policy allow --name %[1]s preset:npm preset:%[2]s && bawn exec %[1]s -- sudo npm install -g %[3]s\n", sandbox, a.preset, a.pkg)
}
