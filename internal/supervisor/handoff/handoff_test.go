package handoff

import (
	"slices"
	"testing"

	"bawn.dev/bawn/internal/sys/proxyenv"
)

// TestProxiesPassToTheSupervisor: each variable does, and a token of the user does not. Another
// proxy makes another environment, so that no pool machine with the old one is taken (package
// pool).
func TestProxiesPassToTheSupervisor(t *testing.T) {
	t.Setenv("GITHUB_TOKEN", "hunter2")
	for _, v := range proxyenv.Variables {
		t.Setenv(v, "x-"+v)
	}
	before := Env()
	for _, v := range proxyenv.Variables {
		if !slices.Contains(before, v+"=x-"+v) {
			t.Errorf("%s is not passed on", v)
		}
	}
	if slices.Contains(before, "GITHUB_TOKEN=hunter2") {
		t.Error("a token is passed on")
	}
	t.Setenv("https_proxy", "http://other.test")
	if slices.Equal(before, Env()) {
		t.Error("the environment is the same with another proxy")
	}
}
