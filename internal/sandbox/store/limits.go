package store

import (
	"fmt"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/size"
)

// Limits bound the resources of all running sandboxes of a user together.
type Limits struct {
	Sandboxes int   // how many may run at the same time
	Memory    int64 // bytes of guest memory, as their specs say
}

// TooMuchError means that another sandbox would go beyond a limit.
type TooMuchError struct{ what string }

func (e *TooMuchError) Error() string { return e.what }

// Admit takes the sandbox's lock for a start, if the limits leave room for it
// beside those that run. The caller holds the lock of names (LockNames), so that
// two starts at the same time are counted one after the other.
func (s *Store) Admit(spec *sandbox.Spec, l Limits) (*lockfile.Lock, error) {
	number, memory, err := s.running(spec.Name)
	if err != nil {
		return nil, err
	}
	if number >= l.Sandboxes {
		run := "1 sandbox runs"
		if number != 1 {
			run = fmt.Sprintf("%d sandboxes run", number)
		}
		return nil, &TooMuchError{fmt.Sprintf("%s already, and at most %d may run at the same time", run, l.Sandboxes)}
	}
	if memory+spec.Memory > l.Memory {
		return nil, &TooMuchError{fmt.Sprintf("sandbox %s needs %s of memory; the running sandboxes have %s, and all together may have %s",
			spec.Name, size.Format(spec.Memory), size.Format(memory), size.Format(l.Memory))}
	}
	return s.Dir(spec.Name).Lock()
}

// Room reports whether the limits allow one more machine with the settings of spec, beside
// all running sandboxes and pool machines.
func (s *Store) Room(spec *sandbox.Spec, l Limits) bool {
	number, memory, err := s.running("")
	if err != nil {
		return false
	}
	pool, err := s.Pool()
	if err != nil {
		return false
	}
	waiting, more, err := pool.running("")
	return err == nil && number+waiting < l.Sandboxes && memory+more+spec.Memory <= l.Memory
}

// running counts the running sandboxes and their memory, without the one named by but.
func (s *Store) running(but string) (number int, memory int64, err error) {
	names, err := s.Names()
	if err != nil {
		return 0, 0, err
	}
	for _, n := range names {
		d := s.Dir(n)
		if alive, err := d.alive(); err != nil || !alive || n == but {
			continue
		}
		spec, err := d.Spec()
		if err != nil {
			continue // removed meanwhile
		}
		number, memory = number+1, memory+spec.Memory
	}
	return number, memory, nil
}
