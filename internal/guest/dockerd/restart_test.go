package dockerd

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"bawn.dev/bawn/internal/guest/process"
)

// container writes a container's files below data.
func container(t *testing.T, data, id, host, state string) {
	t.Helper()
	dir := filepath.Join(data, "containers", id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"hostconfig.json": host, "config.v2.json": state} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestContainersThatStartWithTheDaemon(t *testing.T) {
	policy := func(name string) string {
		return `{"Binds":null,"RestartPolicy":{"Name":"` + name + `","MaximumRetryCount":0}}`
	}
	const ran, stopped, failed = `{"State":{"Running":true,"ExitCode":0}}`, `{"HasBeenManuallyStopped":true,"State":{"ExitCode":137}}`, `{"State":{"ExitCode":1}}`
	for _, c := range []struct {
		host, state string
		want        bool
	}{
		{policy("no"), ran, false},
		{policy(""), ran, false},
		{`{}`, ran, false},
		{policy("always"), ran, true},
		{policy("always"), stopped, true}, // docker-run(1): restarted with the daemon
		{policy("unless-stopped"), ran, true},
		{policy("unless-stopped"), stopped, false},
		{policy("on-failure"), failed, true},
		{policy("on-failure"), ran, false},
		{policy("on-failure"), stopped, false},
		{`[1]`, ran, false},
		{policy("unless-stopped"), `no JSON`, false},
		{"", "", false},
	} {
		data := t.TempDir()
		container(t, data, "0a", policy("no"), ran)
		container(t, data, "0b", c.host, c.state)
		if got := hasContainersToStart(data); got != c.want {
			t.Errorf("%s %s: %v", c.host, c.state, got)
		}
	}
	if hasContainersToStart("/nonexistent") {
		t.Error("no folder, but containers")
	}
}

// TestDaemonIsStartedForAContainer: without a client.
func TestDaemonIsStartedForAContainer(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	container(t, dir, "0a", `{"RestartPolicy":{"Name":"always"}}`, `{}`)
	processes := process.NewTable(nil)
	processes.OwnOnly = true
	d := New(processes)
	d.socket, d.data, d.log, d.restartPause = dir+"/sock", dir, dir+"/log", time.Millisecond
	if err := d.listen(exe); err != nil {
		t.Fatal(err)
	}
	for started := false; !started; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		started = d.running != nil
		d.mu.Unlock()
	}
	ask(t, d.socket) // it ends then
	d.Stop(time.Minute)
}
