package dockerd

import (
	"encoding/json"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/guest/etc"
)

// maxContainers bounds how many containers are looked at.
const maxContainers = 4096

// hasContainersToStart reports whether the daemon with its data in that folder would start
// a container when it starts: one with a restart policy. The files are the daemon's own
// (Moby, container/container.go): hostconfig.json and config.v2.json for each container. One
// that cannot be read counts as none.
func hasContainersToStart(data string) bool {
	dir, err := os.Open(filepath.Join(data, "containers"))
	if err != nil {
		return false
	}
	defer dir.Close()
	ids, _ := dir.Readdirnames(maxContainers) // what was read counts
	for _, id := range ids {
		if startsWithDaemon(filepath.Join(dir.Name(), id)) {
			return true
		}
	}
	return false
}

// startsWithDaemon reports whether the daemon starts the container in that folder when it
// starts (docker-run(1), --restart).
func startsWithDaemon(dir string) bool {
	var host struct {
		RestartPolicy struct{ Name string }
	}
	var state struct {
		HasBeenManuallyStopped bool
		State                  struct{ ExitCode int }
	}
	if json.Unmarshal(etc.Read(filepath.Join(dir, "hostconfig.json")), &host) != nil {
		return false
	}
	known := json.Unmarshal(etc.Read(filepath.Join(dir, "config.v2.json")), &state) == nil
	switch host.RestartPolicy.Name {
	case "always":
		return true
	case "unless-stopped":
		return known && !state.HasBeenManuallyStopped
	case "on-failure":
		return known && !state.HasBeenManuallyStopped && state.State.ExitCode != 0
	}
	return false
}
