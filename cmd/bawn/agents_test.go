package main

import (
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/policy"
)

// TestAgents: each agent has a command in the help, its rules exist, and the hint of a command that
// is missing in a guest names it.
func TestAgents(t *testing.T) {
	root := rootCommand()
	for _, a := range engine.NamedAgents() {
		for _, rule := range a.Allow {
			if err := (engine.RuleChange{Action: policy.Allow, Rules: []string{rule}}).Check(); err != nil {
				t.Errorf("%s: %v", a.Name, err)
			}
		}
		if c, rest, err := root.Find([]string{a.Name, "-p", "--help"}); err != nil || c.Name() != a.Name || !slices.Equal(rest, []string{"-p", "--help"}) {
			t.Errorf("%s: %v, %q, %v", a.Name, c.Name(), rest, err)
		}
		if h := installHint(a.Name); h != "  try: bawn "+a.Name+"\n" {
			t.Errorf("%q", h)
		}
	}
	if h := installHint("make"); h != "" {
		t.Errorf("%q", h)
	}
}

// TestAgentEnv: a value that the person gives prevails over the host's variable.
func TestAgentEnv(t *testing.T) {
	t.Setenv("ANTHROPIC_MODEL", "of-the-host")
	env, err := commandEnv(agentEnv([]string{"ANTHROPIC_MODEL"}, []string{"ANTHROPIC_MODEL=named"}))
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "ANTHROPIC_MODEL="); ok {
			last = v
		}
	}
	if last != "named" {
		t.Errorf("%q", env)
	}
}

// TestNoAgentIsAVerb: an agent cannot take a word of bawn's own.
func TestNoAgentIsAVerb(t *testing.T) {
	for _, c := range rootCommand().Commands() {
		isAgent := slices.ContainsFunc(engine.NamedAgents(), func(a engine.Agent) bool { return a.Name == c.Name() })
		if !isAgent && !strings.HasPrefix(c.Name(), "__") && !slices.Contains(verbs, c.Name()) {
			t.Errorf("%s is missing in verbs", c.Name())
		}
	}
}
