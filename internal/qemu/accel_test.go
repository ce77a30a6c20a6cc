package qemu

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/fileid"
)

func TestReasonIsShort(t *testing.T) {
	p := proof{Cause: "QEMU stopped with SIGABRT", Output: "Assertion `ret == cpu->kvm_msr_buf->nmsrs' failed."}
	a := p.accel()
	if want := "/dev/kvm opens, but cannot run a guest on this host (QEMU stopped with SIGABRT)"; a.OK() || a.Reason != want {
		t.Errorf("%+v, want %q", a, want)
	}
	if a.Output != p.Output || a.Remedy == "" {
		t.Errorf("%+v: what QEMU printed, or the remedy, is lost", a)
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
	if a.OK() || !strings.Contains(a.Reason, "permission denied") || !strings.Contains(a.Remedy, "setfacl") {
		t.Errorf("a device that its group cannot open: %+v", a)
	}
	if err := os.Chmod(device, 0o060); err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(strconv.Itoa(os.Getgid()))
	if err != nil {
		t.Skip("this user's group has no name")
	}
	a = openKVM(device)
	if a.OK() || !strings.Contains(a.Remedy, "usermod -aG "+group.Name+" ") {
		t.Errorf("a device for a group: %+v", a)
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
		t.Error("BAWN_ACCEL=xen was taken")
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
	// A kept answer is used (TestProofIsKept); a damaged one is not.
	lie := kept
	lie.Works, lie.Unsettled, lie.Cause = !kept.Works, false, "a lie"
	if err := atomicfile.WriteJSON(path, lie); err != nil {
		t.Fatal(err)
	}
	if a, err := Accelerator(t.Context(), dir); err != nil || a.OK() == first.OK() {
		t.Errorf("the kept answer was not used: %+v, %v", a, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err := Accelerator(t.Context(), dir); err != nil || a.OK() != first.OK() {
		t.Errorf("a damaged answer: %+v, %v, want %+v", a, err, first)
	}
}

// TestVersionRecordOfAnotherForm: a record that another version of bawn kept for the same
// program, in another form, does not stand in the way.
func TestVersionRecordOfAnotherForm(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "qemu")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho QEMU emulator version 7.2.1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	id, err := fileid.Exact(program)
	if err != nil {
		t.Fatal(err)
	}
	old := `{"file": ` + strconv.Quote(id) + `, "said": "QEMU emulator version 7.2.1\n"}`
	if err := os.WriteFile(filepath.Join(dir, versionFile), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"the program", "the new record"} {
		out, err := versionText(t.Context(), program, dir)
		if err != nil || string(out) != "QEMU emulator version 7.2.1\n" {
			t.Errorf("from %s: %q, %v", from, out, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, versionFile)); err != nil || !strings.Contains(string(b), `"output"`) {
		t.Errorf("the record is %s, %v", b, err)
	}
}
