package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"brig.dev/brig/internal/qemu"
	"brig.dev/brig/internal/sandbox"
)

// tellAccel tells the person, once per boot of this host, that guests run
// under software emulation and why.
func tellAccel(a qemu.Accel) {
	cache, err := sandbox.CacheDir()
	if a.OK() || err != nil {
		return
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return
	}
	marker := filepath.Join(cache, "told-software-emulation")
	if was, err := os.ReadFile(marker); err == nil && string(was) == string(boot) {
		return
	}
	fmt.Fprintf(os.Stderr, "brig: KVM does not work here (%s), so guests run under software emulation, about 20 times slower. This is said once.\n", a.Reason)
	if a.Remedy != "" {
		fmt.Fprintf(os.Stderr, "  try: %s\n", strings.TrimSpace(a.Remedy))
	}
	// Not being able to write it down only means saying it again.
	_ = sandbox.WriteFile(marker, boot)
}
