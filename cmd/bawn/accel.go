package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/xdg"
)

// tellAccel prints, once per boot of this host, that guests run under software emulation
// and why.
func tellAccel(n engine.Notice) {
	a := qemu.Accel{Reason: n.Text, Remedy: n.Remedy, Said: n.Detail}
	cache, err := xdg.Cache()
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
	writeAccel(os.Stderr, a, os.Getenv("BAWN_DEBUG") != "")
	// If the marker cannot be written, the message only appears again.
	_ = atomicfile.Write(marker, boot)
}

func writeAccel(w io.Writer, a qemu.Accel, debug bool) {
	fmt.Fprintf(w, "bawn: %s; %s\n", a.Reason, engine.SlowWithoutKVM)
	if a.Remedy != "" {
		fmt.Fprintf(w, "  try: %s\n", strings.TrimSpace(a.Remedy))
	}
	if debug && a.Said != "" {
		fmt.Fprintf(w, "  QEMU said: %s\n", a.Said)
	}
}
