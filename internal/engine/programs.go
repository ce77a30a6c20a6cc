package engine

import (
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/proc"
)

// DistrustShares keeps this process from running programs that a guest of the user's
// sandboxes could have written (package proc). Each process that uses this package and
// does not begin with Open calls it first.
func DistrustShares() {
	proc.Distrust(func() ([]string, error) {
		sandboxes, err := store.Open()
		if err != nil {
			return nil, err
		}
		return writableByGuests(sandboxes)
	})
}

// writableByGuests returns the files and directories of the host that the guest of any
// sandbox can change.
func writableByGuests(sandboxes *store.Store) ([]string, error) {
	names, err := sandboxes.Names()
	if err != nil {
		return nil, err
	}
	var list []string
	for _, n := range names {
		spec, err := sandboxes.Dir(n).Spec()
		if err != nil {
			continue // damaged: it cannot run
		}
		for _, m := range spec.Sources() {
			if !m.ReadOnly() {
				list = append(list, m.Host)
			}
		}
	}
	return list, nil
}
