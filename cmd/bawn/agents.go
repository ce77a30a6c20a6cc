package main

import (
	"fmt"

	"bawn.dev/bawn/internal/engine"
)

// installHint returns the next step when a guest has no such command: how to install it, if it
// is a known agent; "" for any other command.
func installHint(command, sandbox string) string {
	for _, a := range engine.Agents() {
		if a.Command == command {
			return fmt.Sprintf("  try: bawn policy allow --name %[1]s preset:npm preset:%[2]s && bawn exec %[1]s -- sudo npm install -g %[3]s\n", sandbox, a.Preset, a.Package)
		}
	}
	return ""
}
