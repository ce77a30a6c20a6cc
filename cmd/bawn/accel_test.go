package main

import (
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
)

// TestEmulationNotice: a person sees what does not work and what to do; what QEMU
// printed is shown only on request.
func TestEmulationNotice(t *testing.T) {
	n := engine.Notice{Reason: engine.SoftwareEmulation, Text: "/dev/kvm is shy", Remedy: "be kind", Detail: "Assertion failed"}
	want := "bawn: /dev/kvm is shy; using software emulation, about 20 times slower\n  try: be kind\n"
	for debug, want := range map[bool]string{false: want, true: want + "  QEMU printed: Assertion failed\n"} {
		var out strings.Builder
		writeEmulation(&out, n, debug)
		if out.String() != want {
			t.Errorf("debug %v: %q, want %q", debug, out.String(), want)
		}
	}
	n.Reason = engine.KVMUnsettled
	var out strings.Builder
	writeEmulation(&out, n, false)
	if want := "bawn: /dev/kvm is shy; this start uses software emulation, about 20 times slower\n  try: be kind\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
