package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The proof's guest must boot where guests do boot, or the proof says nothing. It needs no
// folder for temporary files, which may be full.
func TestProofBoots(t *testing.T) {
	bin, err := Find(t.Context(), "")
	if err != nil {
		t.Skip(err)
	}
	t.Setenv("TMPDIR", "/nonexistent")
	o, err := bootProof(t.Context(), bin.Path, TCG, proofLimits{time.Minute, time.Minute})
	if err != nil || o.verdict != works {
		t.Fatalf("the proof's guest does not run under TCG: %+v, %v", o, err)
	}
	t.Logf("proof under TCG: %v of processor time", o.cpu)
}

// fakeQEMU is a program in QEMU's place, with a count of its starts in the file $n. Under
// software emulation it works at once.
func fakeQEMU(t *testing.T, underKVM string) (path string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "qemu")
	text := fmt.Sprintf(`#!/bin/sh
n=%s/runs
case "$*" in *"-accel tcg"*) %s ;; esac
echo run >>$n
%s
`, dir, succeed(), underKVM)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// succeed ends the fake as the proof's guest does.
func succeed() string { return fmt.Sprintf("exit %d", hostArch().proofExit) }

const (
	burn  = "while :; do :; done"
	sleep = "exec sleep 1000"
)

// runs returns how often a fake was started under KVM.
func runs(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(path), "runs"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "run\n")
}

// No limit of these is reached in a test, but for those that a test is about.
const never = time.Hour

func TestProof(t *testing.T) {
	brief := time.Second // of a program that does not end: long enough that it has begun, also on a busy host
	second := func(then string) string { return "if [ $(wc -l <$n) = 1 ]; then " + then + "; fi; " + succeed() }
	for _, c := range []struct {
		name, script string
		first, last  proofLimits
		want         verdict
		cause        string // a part of it
		output       string
		runs         int
	}{
		{
			"works", succeed(), proofLimits{never, never}, proofLimits{never, never},
			works, "", "", proofRuns,
		},
		{
			"another exit status", "echo no such machine >&2; exit 1", proofLimits{never, never}, proofLimits{never, never},
			fails, "QEMU ended with exit status 1", "no such machine", 1,
		},
		{
			"crashes", "echo 'kvm_buf_set_msrs: Assertion failed' >&2; kill -ABRT $$", proofLimits{never, never}, proofLimits{never, never},
			fails, "QEMU stopped with SIGABRT", "kvm_buf_set_msrs: Assertion failed", 1,
		},
		{
			"works only sometimes", second(succeed()) + "; exit 1", proofLimits{never, never}, proofLimits{never, never},
			works, "", "", proofRuns,
		},
		{
			"burns the processor", burn, proofLimits{time.Second, never}, proofLimits{never, never},
			fails, "of processor time without an end; under software emulation", "", 1,
		},
		{
			"no processor for it", sleep, proofLimits{never, brief}, proofLimits{never, 2 * brief},
			unsettled, "did not finish within 2s, of which it had the processor for", "", 2,
		},
		{
			"no processor at first", second(sleep), proofLimits{never, brief}, proofLimits{never, never},
			works, "", "", 1 + proofRuns,
		},
		{
			"killed by another process", "kill -KILL $$", proofLimits{never, never}, proofLimits{never, never},
			unsettled, "QEMU stopped with SIGKILL", "", 1,
		},
		{
			"ended by another process at first", second("kill -TERM $$"), proofLimits{never, brief}, proofLimits{never, never},
			works, "", "", 1 + proofRuns,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			qemu := fakeQEMU(t, c.script)
			o, err := prover{qemu, c.first, c.last}.prove(t.Context())
			if err != nil || o.verdict != c.want || !strings.Contains(o.cause, c.cause) || o.output != c.output {
				t.Errorf("%+v, %v, want verdict %d, cause %q, output %q", o, err, c.want, c.cause, c.output)
			}
			if n := runs(t, qemu); n != c.runs {
				t.Errorf("%d boots, want %d", n, c.runs)
			}
		})
	}
}

// TestProofOnSlowHost: what passes the first limit of processor time does not fail if the
// same guest takes long under software emulation too.
func TestProofOnSlowHost(t *testing.T) {
	dir := t.TempDir()
	qemu := filepath.Join(dir, "qemu")
	// Under emulation it uses some tenths of a second, so under KVM more than the first limit,
	// a second, is allowed; there it burns the processor at its first boot only.
	text := fmt.Sprintf(`#!/bin/sh
case "$*" in *"-accel tcg"*) i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; %[1]s ;; esac
echo run >>%[2]s/runs
if [ $(wc -l <%[2]s/runs) = 1 ]; then %[3]s; fi
%[1]s
`, succeed(), dir, burn)
	if err := os.WriteFile(qemu, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	p := prover{qemu, proofLimits{time.Second, never}, proofLimits{never, never}}
	enough, measured, err := p.enough(t.Context())
	if err != nil || measured.verdict != works || enough != proofMargin*measured.cpu {
		t.Fatalf("%v from %+v, %v", enough, measured, err)
	}
	if enough <= time.Second {
		t.Skipf("a processor that counts to 200,000 in %v", measured.cpu)
	}
	o, err := p.prove(t.Context())
	if err != nil || o.verdict != works {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestProofIsNotTried(t *testing.T) {
	qemu := fakeQEMU(t, sleep)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (prover{qemu, proofFirst, proofLast}).prove(ctx); err == nil {
		t.Error("a proof that was given up counts")
	}
	if _, err := (prover{"/nonexistent", proofFirst, proofLast}).prove(t.Context()); err == nil {
		t.Error("no QEMU at all counts as a proof")
	}
}

// TestProofIsKept: how long an answer counts, and that those of older versions, which have no
// time, count only if KVM works.
func TestProofIsKept(t *testing.T) {
	now := proof{BootID: "this", QEMU: "q", Made: 10 * time.Hour}
	ago := func(p proof, d time.Duration) proof {
		p.BootID, p.QEMU, p.Made = "this", "q", now.Made-d
		return p
	}
	ok, bad, open := proof{Works: true}, proof{Cause: "c"}, proof{Unsettled: true, Cause: "c"}
	for _, c := range []struct {
		name string
		kept proof
		want bool
	}{
		{"works", ago(ok, 9*time.Hour), true},
		{"works, of an older version", proof{BootID: "this", QEMU: "q", Works: true}, true},
		{"works, of another boot", proof{BootID: "that", QEMU: "q", Works: true}, false},
		{"works, of another QEMU", proof{BootID: "this", QEMU: "r", Works: true}, false},
		{"fails", ago(bad, keepFailure-1), true},
		{"fails, long ago", ago(bad, keepFailure), false},
		{"fails, of an older version", proof{BootID: "this", QEMU: "q", Cause: "QEMU did not finish within 3s"}, false},
		{"fails, in the future", ago(bad, -1), false},
		{"unsettled", ago(open, keepUnsettled-1), true},
		{"unsettled, minutes ago", ago(open, keepUnsettled), false},
		{"empty", ago(proof{}, 0), false},
	} {
		if got := c.kept.valid(now); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestUnsettledSaysWhatToDo(t *testing.T) {
	a := proof{Unsettled: true, Cause: "QEMU did not finish within 15s"}.accel()
	if a.OK() || !a.Unsettled || !strings.Contains(a.Reason, "too little time (QEMU did not finish within 15s)") {
		t.Errorf("%+v", a)
	}
	for _, a := range []Accel{a, proof{Cause: "c"}.accel()} {
		if !strings.Contains(a.Remedy, "bawn doctor") || !strings.Contains(a.Remedy, accelEnv+"=kvm") {
			t.Errorf("%+v does not say how to try anew", a)
		}
	}
}
