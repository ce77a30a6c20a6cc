package main

import (
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/policy"
)

// TestAgents: the hint names a preset that exists, and there is none for other commands.
func TestAgents(t *testing.T) {
	for _, a := range engine.Agents() {
		command := a.Command
		if !slices.ContainsFunc(policy.Presets(), func(p policy.Preset) bool { return p.Name == a.Preset }) {
			t.Errorf("%s: there is no preset %s", command, a.Preset)
		}
		if h := installHint(command, "shop"); !strings.Contains(h, "--name shop preset:npm preset:"+a.Preset) || !strings.Contains(h, "exec shop -- sudo npm install -g "+a.Package+"\n") {
			t.Errorf("%q", h)
		}
	}
	if h := installHint("make", "shop"); h != "" {
		t.Errorf("%q", h)
	}
}
