package qemu

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The proof's guest must boot where guests do boot, or the proof says nothing.
func TestProofBoots(t *testing.T) {
	bin, err := Find(t.Context(), "")
	if err != nil {
		t.Skip(err)
	}
	began := time.Now()
	works, why, err := boots(t.Context(), bin.Path, TCG, time.Minute)
	if err != nil || !works {
		t.Fatalf("the proof's guest does not run under TCG: %s, %v", why, err)
	}
	t.Logf("proof under TCG: %v", time.Since(began).Round(time.Millisecond))
}

func TestProofFails(t *testing.T) {
	works, why, err := boots(t.Context(), "/bin/false", TCG, time.Minute)
	if works || err != nil || !strings.Contains(why, "exit status 1") {
		t.Errorf("a QEMU that fails: %v, %q, %v", works, why, err)
	}
	sleeper := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(sleeper, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	works, why, err = boots(t.Context(), sleeper, TCG, 50*time.Millisecond)
	if works || err != nil || !strings.Contains(why, "not done within 50ms") {
		t.Errorf("a QEMU that hangs: %v, %q, %v", works, why, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err = boots(ctx, sleeper, TCG, time.Minute); err == nil {
		t.Error("a proof that was given up counts")
	}
	if _, _, err = boots(t.Context(), "/nonexistent", TCG, time.Minute); err == nil {
		t.Error("no QEMU at all counts as a proof")
	}
}

func TestOpenKVM(t *testing.T) {
	dir := t.TempDir()
	a := openKVM(filepath.Join(dir, "kvm"))
	if a.OK() || !strings.Contains(a.Reason, "does not exist") || a.Remedy == "" {
		t.Errorf("no device: %+v", a)
	}
	if os.Getuid() == 0 {
		return // root may open anything
	}
	device := filepath.Join(dir, "closed")
	if err := os.WriteFile(device, nil, 0); err != nil {
		t.Fatal(err)
	}
	a = openKVM(device)
	if a.OK() || !strings.Contains(a.Reason, "permission denied") || !strings.Contains(a.Remedy, "usermod -aG kvm") {
		t.Errorf("a closed device: %+v", a)
	}
}

func TestAccelerator(t *testing.T) {
	dir := t.TempDir()
	for v, ok := range map[string]bool{"kvm": true, "tcg": false} {
		t.Setenv(accelEnv, v)
		a, err := Accelerator(t.Context(), dir)
		if err != nil || a.OK() != ok || a.Name() != v {
			t.Errorf("%s=%s: %+v, %v", accelEnv, v, a, err)
		}
	}
	t.Setenv(accelEnv, "xen")
	if _, err := Accelerator(t.Context(), dir); err == nil {
		t.Error("BRIG_ACCEL=xen was taken")
	}

	t.Setenv(accelEnv, "")
	if _, err := Find(t.Context(), ""); err != nil {
		t.Skip(err)
	}
	first, err := Accelerator(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("here: %+v", first)
	if !first.OK() && first.Reason == "" {
		t.Error("no reason why not KVM")
	}
	path := filepath.Join(dir, accelFile)
	kept, ok := readProof(path)
	if opened := openKVM(kvmDevice).OK(); ok != opened {
		t.Fatalf("proof kept: %v, though the device opens: %v", ok, opened)
	}
	if !ok {
		return
	}
	// A kept answer is used; one of another boot, or damaged, is not.
	lie := kept
	lie.Works, lie.Why = !kept.Works, "a lie"
	if err := replaceJSON(path, lie); err != nil {
		t.Fatal(err)
	}
	if a, err := Accelerator(t.Context(), dir); err != nil || a.OK() == first.OK() {
		t.Errorf("the kept answer was not used: %+v, %v", a, err)
	}
	lie.BootID = "another"
	if err := replaceJSON(path, lie); err != nil {
		t.Fatal(err)
	}
	if a, err := Accelerator(t.Context(), dir); err != nil || a != first {
		t.Errorf("another boot's answer: %+v, %v, want %+v", a, err, first)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err := Accelerator(t.Context(), dir); err != nil || a != first {
		t.Errorf("a damaged answer: %+v, %v, want %+v", a, err, first)
	}
}
