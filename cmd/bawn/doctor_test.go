package main

import (
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/proxyenv/proxyenvtest"
)

// TestRemedies: each finding of a host that has nothing is worded.
func TestRemedies(t *testing.T) {
	for _, v := range []string{"XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"} {
		t.Setenv(v, filepath.Join(t.TempDir(), v))
	}
	t.Setenv("PATH", t.TempDir())
	proxyenvtest.Set(t) // a doctor asks each proxy
	for _, f := range engine.Doctor(t.Context()) {
		if words := remedyWords(f.Remedy); f.OK != (words == "") || strings.Contains(words, "%!") {
			t.Errorf("%+v: %q", f, words)
		}
	}
	for _, kind := range []engine.RemedyKind{engine.UpdateKernel, engine.InstallDeb, engine.FreeSpace, engine.RunThis, engine.RemoveCache} {
		if words := remedyWords(engine.Remedy{Kind: kind, Text: "TEXT"}); !strings.Contains(words, "TEXT") {
			t.Errorf("%s: %q", kind, words)
		}
	}
}
