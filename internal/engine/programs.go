package engine

import (
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/proc"
)

// DistrustShares keeps this process from running programs that a guest of the user's
// sandboxes could have written (package proc). Each process that uses this package and
// does not begin with Open calls it first.
func DistrustShares() {
	proc.Distrust(func() ([]proc.Writable, error) {
		sandboxes, err := store.Open()
		if err != nil {
			return nil, err
		}
		return sandboxes.Changeable()
	})
}
