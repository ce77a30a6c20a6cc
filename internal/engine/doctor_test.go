package engine_test

import (
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/proxyenv/proxyenvtest"
)

// TestDoctorOfBareHost: what is not well has a detail and a remedy, on a host that has
// nothing.
func TestDoctorOfBareHost(t *testing.T) {
	proc.Distrust(nil)                                                     // whose engine another test made is gone
	proxyenvtest.Set(t)                                                    // a doctor would ask each
	home := filepath.Join(t.TempDir(), strings.Repeat("a-long-name-", 12)) // longer than an address of a socket
	for _, v := range []string{"XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"} {
		t.Setenv(v, filepath.Join(home, v))
	}
	t.Setenv("PATH", t.TempDir())
	seen := map[engine.CheckID]engine.Finding{}
	for _, f := range engine.Doctor(t.Context()) {
		seen[f.Check] = f
		if f.Detail == "" || f.OK != (f.Remedy == engine.Remedy{}) {
			t.Errorf("%+v: want a detail, and a remedy when it is not well", f)
		}
	}
	for _, check := range []engine.CheckID{
		engine.CheckQEMU, engine.CheckKVM, engine.CheckKernel, engine.CheckLandlock, engine.CheckMemory, engine.CheckState, engine.CheckSockets,
		engine.CheckCache, engine.CheckCached, engine.CheckMke2fs, engine.CheckDepmod, engine.CheckApt, "mmdebstrap", "keyring",
	} {
		if seen[check].Check == "" {
			t.Errorf("%s is not looked at", check)
		}
	}
	for _, check := range []engine.CheckID{engine.CheckQEMU, engine.CheckApt, "mmdebstrap"} {
		if f := seen[check]; f.OK || !f.Fatal {
			t.Errorf("without it: %+v", f)
		}
	}
	if f := seen[engine.CheckSockets]; !f.OK {
		t.Errorf("a long path: %+v", f)
	}
}

func TestDoctorFolders(t *testing.T) {
	proxyenvtest.Set(t) // a doctor would ask each
	t.Setenv("XDG_STATE_HOME", "/proc/nowhere")
	t.Setenv("XDG_CACHE_HOME", "/proc/nowhere")
	failed := map[engine.CheckID]engine.RemedyKind{}
	for _, f := range engine.Doctor(t.Context()) {
		if f.Remedy.Kind == engine.InstallDeb || f.Remedy.Kind == engine.UseDebian {
			t.Errorf("%+v: its program is there, and only cannot be judged without the state folder", f)
		}
		if !f.OK && f.Fatal {
			failed[f.Check] = f.Remedy.Kind
		}
	}
	if failed[engine.CheckState] != engine.MoveState || failed[engine.CheckCache] != engine.MoveCache {
		t.Errorf("folders that cannot be made: %v", failed)
	}
}
