package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/xdg"
)

// noticeEmulation prints that guests run under software emulation and why: once per boot of
// this host, or at each start where it is so for the moment only.
func noticeEmulation(n engine.Notice) {
	debug := os.Getenv("BAWN_DEBUG") != ""
	if n.Reason == engine.KVMUnsettled {
		writeEmulation(os.Stderr, n, debug)
		return
	}
	cache, err := xdg.Cache()
	if err != nil {
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
	writeEmulation(os.Stderr, n, debug)
	// If the marker cannot be written, the message only appears again.
	_ = atomicfile.Write(marker, boot)
}

// writeEmulation prints what does not work and what to do; with debug also what QEMU
// printed.
func writeEmulation(w io.Writer, n engine.Notice, debug bool) {
	what := engine.SlowWithoutKVM
	if n.Reason == engine.KVMUnsettled {
		what = "this start uses software emulation, about 20 times slower"
	}
	fmt.Fprintf(w, "bawn: %s; %s\n", n.Text, what)
	if n.Remedy != "" {
		fmt.Fprintf(w, "  try: %s\n", strings.TrimSpace(n.Remedy))
	}
	if debug && n.Detail != "" {
		fmt.Fprintf(w, "  QEMU printed: %s\n", n.Detail)
	}
}
