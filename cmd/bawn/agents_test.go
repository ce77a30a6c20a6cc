package main

import (
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/policy"
)

// TestAgents: what is hinted at is a preset that exists, and nothing is hinted at for
// what is no agent.
func TestAgents(t *testing.T) {
	for command, a := range agents {
		if !slices.ContainsFunc(policy.Presets(), func(p policy.Preset) bool { return p.Name == a.preset }) {
			t.Errorf("%s: there is no preset %s", command, a.preset)
		}
		if h := installHint(command, "shop"); !strings.Contains(h, "--name shop preset:npm preset:"+a.preset) || !strings.Contains(h, "exec shop -- sudo npm install -g "+a.pkg+"\n") {
			t.Errorf("%q", h)
		}
	}
	if h := installHint("make", "shop"); h != "" {
		t.Errorf("%q", h)
	}
}
