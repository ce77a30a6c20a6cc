package main

import (
	"strings"
	"testing"

	"bawn.dev/bawn/internal/qemu"
)

// TestAccelNote: a person sees what does not work and what to do; the words of
// QEMU only who asks for them.
func TestAccelNote(t *testing.T) {
	a := qemu.Accel{Kind: qemu.TCG, Reason: "/dev/kvm is shy", Remedy: "be kind", Said: "Assertion failed"}
	want := "bawn: /dev/kvm is shy; using software emulation, about 20 times slower\n  try: be kind\n"
	for debug, want := range map[bool]string{false: want, true: want + "  QEMU said: Assertion failed\n"} {
		var out strings.Builder
		writeAccel(&out, a, debug)
		if out.String() != want {
			t.Errorf("debug %v: %q, want %q", debug, out.String(), want)
		}
	}
}
