package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/netif"
	"bawn.dev/bawn/internal/wire"
)

// Theory of operation. A machine that is saved may be restored more than once: as the same
// sandbox later, as a fork, or as a snapshot gone back to. Each restored machine needs its
// own random seed, time, keys and addresses before any program runs in it; otherwise two
// machines would draw the same random numbers, and open connections from an address that
// is another's.
//
// So all processes but the agent are frozen before the machine is saved (OpSuspend), by
// the kernel's freezer for control groups (cgroup-v2.rst, cgroup.freeze). The agent itself
// is in the root group, which cannot be frozen. Its children start in guestGroup, and
// Docker makes groups of its own for containers, so every group directly below the root is
// frozen. After the restore the agent takes on the identity that the host sends, and then
// thaws them (OpResume).
//
// Freezing takes as long as a process needs to leave the kernel, such as from a read of a
// disk. If it does not succeed in freezeLimit, everything is thawed and the host gets an error.

const (
	cgroups    = "/sys/fs/cgroup"
	guestGroup = "bawn"
)

// freezeLimit is how long processes may take to freeze; freezePoll is how often the groups
// are looked at meanwhile.
const (
	freezeLimit = 20 * time.Second
	freezePoll  = 5 * time.Millisecond
)

// openGroup makes the group of the agent's children and opens it.
func openGroup() (*os.File, error) {
	path := filepath.Join(cgroups, guestGroup)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// suspend freezes all processes and writes file systems out. After an error nothing is
// frozen.
func (a *agent) suspend(struct{}) (any, error) {
	if a.disk == nil {
		return nil, errors.New("the guest is not set up")
	}
	if err := setFrozen(cgroups, true, freezeLimit); err != nil {
		return nil, errors.Join(err, setFrozen(cgroups, false, freezeLimit))
	}
	unix.Sync()
	return nil, nil
}

// resume takes on the identity and thaws all processes, also after an error, since nobody
// could repair a frozen guest. A machine with another machine ID is a fork: it also drops
// the original's connections and gets a boot ID of its own.
func (a *agent) resume(r wire.Identity) (any, error) {
	fork := r.MachineID != a.machineID
	_, err := a.identify(r)
	if fork {
		netif.DropConnections(r.Addresses)
		err = errors.Join(err, changeBootID())
	}
	return nil, errors.Join(err, setFrozen(cgroups, false, freezeLimit))
}

// setFrozen freezes or thaws all groups directly below root and waits, up to the limit,
// until they are.
func setFrozen(root string, frozen bool, limit time.Duration) error {
	groups, err := filepath.Glob(filepath.Join(root, "*", "cgroup.freeze"))
	if err != nil {
		return err
	}
	text, state := "0", "frozen 0"
	if frozen {
		text, state = "1", "frozen 1"
	}
	var failed error
	for _, g := range groups {
		if err := os.WriteFile(g, []byte(text), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	deadline := time.Now().Add(limit)
	for _, g := range groups {
		failed = errors.Join(failed, awaitState(filepath.Dir(g), state, deadline))
	}
	return failed
}

// awaitState waits until the group's events file has the line, or the group is gone.
func awaitState(group, state string, deadline time.Time) error {
	for {
		b, err := os.ReadFile(filepath.Join(group, "cgroup.events"))
		if errors.Is(err, os.ErrNotExist) || err == nil && strings.Contains(string(b), state) {
			return nil
		}
		if err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("a process in %s cannot be frozen", filepath.Base(group))
		}
		time.Sleep(freezePoll)
	}
}
