//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
)

func TestVerbs(t *testing.T) {
	dir := shared(t)
	var list []struct{ Name, Dir string }
	if err := json.Unmarshal([]byte(must(t, "/", "ls", "--json")), &list); err != nil || len(list) == 0 {
		t.Errorf("ls --json: %v, %v", list, err)
	}
	if got := must(t, "/", "ls"); !strings.Contains(got, "shared") || !strings.Contains(got, dir) {
		t.Errorf("ls: %s", got)
	}
	if s := inspect(t, dir); s.State.Phase != "running" || s.Status.MachinePID == 0 {
		t.Errorf("inspect: %+v", s)
	}
	var st struct {
		Usage      struct{ CPUNs, Memory int64 }
		CPUPercent *float64
	}
	if err := json.Unmarshal([]byte(must(t, "/", "stats", "--once", "--json", "shared")), &st); err != nil || st.Usage.CPUNs <= 0 || st.Usage.Memory < 64<<20 || st.CPUPercent == nil {
		t.Errorf("stats: %+v, %v", st, err) // a machine that runs Linux has more memory
	}
	sh(t, dir, "echo seen on the console | sudo tee /dev/console")
	wait(t, "what the guest prints on its console", func() bool {
		return strings.Contains(must(t, dir, "logs"), "seen on the console")
	})
	var v struct{ Version string }
	if err := json.Unmarshal([]byte(must(t, "/", "version", "--json")), &v); err != nil || v.Version == "" {
		t.Errorf("version --json: %+v, %v", v, err)
	}
	if got := must(t, "/", "completion", "bash"); !strings.Contains(got, "bawn") {
		t.Error("completion bash prints nothing of use")
	}
	if r := bawn(t, "/", "doctor"); !strings.Contains(r.out, "QEMU") {
		t.Errorf("doctor: %s%s", r.out, r.err)
	}
}

// TestNames: a directory has one sandbox, --name makes another, --rm a temporary one.
func TestNames(t *testing.T) {
	dir := project(t, "names")
	must(t, dir, "run", "--", "touch", "/tmp/first")
	if r := bawn(t, dir, "run", "--rm", "--", "ls", "/tmp/first"); r.code == 0 {
		t.Error("--rm used the directory's own sandbox")
	}
	if got := must(t, "/", "ls"); strings.Contains(got, "names-") {
		t.Errorf("the throwaway is still there:\n%s", got)
	}
	begin := func(said io.Writer, args ...string) *exec.Cmd {
		c := command(t.Context(), dir, append(args, "--", "sh", "-c", "echo ready; exec sleep 1000")...)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		c.Stderr = said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := begin(nil, "run", "--rm")
	kill9(t, c.Process.Pid)
	_ = c.Wait()
	wait(t, "the end of a throwaway whose owner was killed", func() bool { return !strings.Contains(must(t, "/", "ls"), "names-") })
	must(t, dir, "run", "--name", "other", "--", "sh", "-c", "test ! -e /tmp/first && touch /tmp/second")
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "--force", "other") })
	must(t, dir, "run", "--", "test", "-e", "/tmp/first")
	must(t, dir, "stop", "other")
	must(t, dir, "run", "--name", "other", "--", "test", "-e", "/tmp/second")
	var said strings.Builder
	c = begin(&said, "exec", "other")
	must(t, dir, "rm", "--force", "other")
	if _ = c.Wait(); c.ProcessState.ExitCode() != 125 || !strings.HasSuffix(said.String(), "it was removed\n  try: bawn ls\n") {
		t.Errorf("%v: %q", c.ProcessState, said.String())
	}
	fails(t, dir, 125, "no such sandbox", "exec", "other", "--", "true")
}
