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

// Everything in the guest but the agent lives in control groups below the root:
// what the agent starts in guestGroup, containers in Docker's. Before the machine
// is saved they are all frozen (Linux's cgroup-v2.rst, cgroup.freeze); they go on
// when it has been told who it is, what time it is and what is random. So no
// program sees a copy that has not been told yet.

const (
	cgroups    = "/sys/fs/cgroup"
	guestGroup = "bawn"
)

// freezeLimit is how long processes may take to come to rest: one that waits for
// a disk does so first.
const (
	freezeLimit = 20 * time.Second
	freezePoll  = 5 * time.Millisecond
)

// openGroup makes the group for what the agent starts.
func openGroup() (*os.File, error) {
	path := filepath.Join(cgroups, guestGroup)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// suspend holds everything and writes file systems out.
func (a *agent) suspend(struct{}) (any, error) {
	if a.disk == nil {
		return nil, errors.New("the guest is not set up")
	}
	if err := setFrozen(true); err != nil {
		return nil, errors.Join(err, setFrozen(false))
	}
	unix.Sync()
	return nil, nil
}

// resume makes this machine who it shall be, and lets everything go on. It lets
// it go on after an error as well: a machine that stands still helps nobody.
func (a *agent) resume(r wire.Identity) (any, error) {
	fork := r.MachineID != a.machineID
	_, err := a.identify(r)
	if fork {
		netif.DropConnections(r.Addresses)
		err = errors.Join(err, changeBootID())
	}
	return nil, errors.Join(err, setFrozen(false))
}

// setFrozen freezes or thaws all groups, and waits until they are.
func setFrozen(frozen bool) error {
	groups, err := filepath.Glob(filepath.Join(cgroups, "*", "cgroup.freeze"))
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
	deadline := time.Now().Add(freezeLimit)
	for _, g := range groups {
		failed = errors.Join(failed, awaitState(filepath.Dir(g), state, deadline))
	}
	return failed
}

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
			return fmt.Errorf("a process in %s does not come to rest", filepath.Base(group))
		}
		time.Sleep(freezePoll)
	}
}
