package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/atomicfile"
)

const (
	// accelFile keeps the answer of the proof, in the cache directory.
	accelFile = "accel.json"
	// keepFailure is how long a failure is kept: what the proof costs where KVM fails, some
	// seconds, is then spent once an hour, and a host that was repaired is noticed.
	keepFailure = time.Hour
	// keepUnsettled is how long starts go without KVM after a proof that had too little
	// time: a busy host need not try at every start.
	keepUnsettled = 5 * time.Minute
)

// proof is the content of accelFile. It is valid for one boot of the host and one build
// of QEMU: if it works, until the next boot, else for a time.
type proof struct {
	BootID    string        `json:"bootID"`
	QEMU      string        `json:"qemu"`
	Works     bool          `json:"works"`
	Unsettled bool          `json:"unsettled,omitempty"` // it may work: the proof had too little time
	Cause     string        `json:"cause,omitempty"`     // why it does not work, in a few words
	Output    string        `json:"output,omitempty"`    // printed by QEMU
	Made      time.Duration `json:"made,omitempty"`      // nanoseconds since the host's boot; older versions wrote none
}

// valid reports whether p, read from accelFile, still answers for another proof, now.
func (p proof) valid(now proof) bool {
	if p.BootID != now.BootID || p.QEMU != now.QEMU {
		return false
	}
	keep := keepFailure
	switch {
	case p.Works:
		return true
	case p.Unsettled:
		keep = keepUnsettled
	}
	return p.Cause != "" && p.Made > 0 && p.Made <= now.Made && now.Made < p.Made+keep
}

// provenKVM answers from the proof kept in cacheDir, or makes and keeps one. With anew, a
// kept proof counts only if KVM works.
func provenKVM(ctx context.Context, cacheDir string, anew bool) (Accel, error) {
	bin, err := Find(ctx, cacheDir)
	if err != nil {
		return Accel{}, err
	}
	now, err := emptyProof(bin)
	if err != nil {
		return Accel{}, err
	}
	path := filepath.Join(cacheDir, accelFile)
	if kept, ok := readProof(path); ok && kept.valid(now) && (kept.Works || !anew) {
		return kept.accel(), nil
	}
	o, err := prover{bin.Path, proofFirst, proofLast}.prove(ctx)
	if err != nil {
		return Accel{}, err
	}
	now.Works, now.Unsettled, now.Cause, now.Output = o.verdict == works, o.verdict == unsettled, o.cause, o.output
	if now.Works {
		now.Output = ""
	}
	// A failure to keep it only costs the next start a moment.
	_ = atomicfile.WriteJSON(path, now)
	return now.accel(), nil
}

// emptyProof returns a proof of bin, made now, without a result.
func emptyProof(bin Binary) (proof, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // random(4)
	if err != nil {
		return proof{}, fmt.Errorf("tell this boot of the host from others: %w", err)
	}
	var t unix.Timespec // of a clock that nobody sets
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return proof{}, fmt.Errorf("read the time since the host's boot: %w", err)
	}
	return proof{BootID: strings.TrimSpace(string(id)), QEMU: bin.Path + " " + bin.Build, Made: time.Duration(t.Nano())}, nil
}

func (p proof) accel() Accel {
	const override = accelEnv + "=kvm uses KVM without this test"
	switch {
	case p.Works:
		return Accel{Kind: KVM}
	case p.Unsettled:
		return Accel{
			Kind: TCG, Unsettled: true, Output: p.Output,
			Reason: kvmDevice + " opens, but the test whether it can run a guest got too little time (" + p.Cause + ")",
			Remedy: "when this host is less busy, run bawn doctor, which tests KVM anew, then stop the sandbox and start it again; " + override,
		}
	}
	return Accel{
		Kind: TCG, Output: p.Output,
		Reason: kvmDevice + " opens, but cannot run a guest on this host (" + p.Cause + ")",
		Remedy: "if this host is itself a virtual machine, turn on nested virtualisation for it; bawn doctor then tests KVM anew; " + override,
	}
}

func readProof(path string) (proof, bool) {
	var p proof
	text, err := os.ReadFile(path)
	return p, err == nil && json.Unmarshal(text, &p) == nil
}
