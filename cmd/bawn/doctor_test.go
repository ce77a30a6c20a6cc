package main

import (
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/cache"
)

// TestDoctorNamesRemedies: what is not well says what to do about it, on a host
// that has nothing.
func TestDoctorNamesRemedies(t *testing.T) {
	home := filepath.Join(t.TempDir(), strings.Repeat("a-long-name-", 12)) // longer than an address of a socket
	for _, v := range []string{"XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"} {
		t.Setenv(v, filepath.Join(home, v))
	}
	t.Setenv("PATH", t.TempDir())
	seen := map[string]finding{}
	for _, f := range examine(t.Context()) {
		seen[f.Check] = f
		if f.Detail == "" || f.OK != (f.Remedy == "") {
			t.Errorf("%+v: want a detail, and a remedy when it is not well", f)
		}
	}
	for _, check := range []string{"qemu", "kvm", "kernel", "landlock", "memory", "state", "sockets", "cache", "cached", "mke2fs", "depmod", "apt-get", "mmdebstrap", "keyring"} {
		if seen[check].Check == "" {
			t.Errorf("%s is not looked at", check)
		}
	}
	for _, check := range []string{"qemu", "apt-get", "mmdebstrap"} {
		if f := seen[check]; f.OK || !f.Fatal {
			t.Errorf("without it: %+v", f)
		}
	}
	if f := seen["sockets"]; !f.OK {
		t.Errorf("a long path: %+v", f)
	}
}

func TestDoctorFolders(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/proc/nowhere")
	t.Setenv("XDG_CACHE_HOME", "/proc/nowhere")
	failed := map[string]bool{}
	for _, f := range examine(t.Context()) {
		if !f.OK && f.Fatal && f.Remedy != "" {
			failed[f.Check] = true
		}
	}
	if !failed["state"] || !failed["cache"] {
		t.Errorf("folders that cannot be made: %v", failed)
	}
	if f := checkSpace("state", t.TempDir(), 1<<60); f.OK || f.Remedy == "" {
		t.Errorf("too little room: %+v", f)
	}
}

func TestOlderThan(t *testing.T) {
	for release, older := range map[string]bool{
		"5.10.0-28-amd64": true, "5.13.0": false, "5.4": true, "6.1.0-18-amd64": false, "4.19.0": true, "": true,
	} {
		if olderThan(release, oldestKernel) != older {
			t.Errorf("%q older than %s: want %v", release, oldestKernel, older)
		}
	}
}

func TestCachedWords(t *testing.T) {
	got := cachedWords([]cache.Item{{Kind: "kernel", Size: 1 << 20}, {Kind: "image", Size: 1 << 30}, {Kind: "image", Size: 1 << 29}})
	if want := "2 images (1.5 GiB), 1 kernel (1 MiB)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := cachedWords(nil); !strings.HasPrefix(got, "nothing yet") {
		t.Error(got)
	}
}
