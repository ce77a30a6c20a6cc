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
		return writableByGuests(sandboxes)
	})
}

// writableByGuests returns the files and directories of the host that the guest of any
// sandbox can change, or could.
func writableByGuests(sandboxes *store.Store) (list []proc.Writable, err error) {
	places, err := sandboxes.Changeable()
	for _, c := range places {
		list = append(list, proc.Writable{ID: c.ID, Why: c.Why()})
	}
	return list, err
}
