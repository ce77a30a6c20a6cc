package engine

import (
	"strings"
	"testing"

	"bawn.dev/bawn/internal/cache"
)

func TestSpace(t *testing.T) {
	if f := checkSpace(CheckState, t.TempDir(), 1<<60); f.OK || f.Remedy.Kind != FreeSpace {
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

func TestDescribeCache(t *testing.T) {
	got := describeCache([]cache.Item{{Kind: "kernel", Size: 1 << 20}, {Kind: "image", Size: 1 << 30}, {Kind: "image", Size: 1 << 29}})
	if want := "2 images (1.5 GiB), 1 kernel (1 MiB)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := describeCache(nil); !strings.HasPrefix(got, "empty") {
		t.Error(got)
	}
}
