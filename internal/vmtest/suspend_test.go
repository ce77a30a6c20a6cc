//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ticker is a script that writes to a file in the background. Its working directory and an
// open file are on the share.
const ticker = `mkdir -p deep/er && cd deep/er && (exec 3>>ticks; i=0; while :; do i=$((i+1)); echo $i >&3; sleep 0.1; done) >/dev/null 2>&1 </dev/null & echo $!`

func sandboxDir(name string) string { return filepath.Join(base, "state", "bawn", "sandboxes", name) }

func ticks(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "deep/er/ticks"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	lines := strings.Fields(string(b))
	if len(lines) == 0 {
		return 0
	}
	for i, l := range lines { // each number once, none lost
		if n, err := strconv.Atoi(l); err != nil || n != i+1 {
			t.Fatalf("line %d of ticks is %q", i+1, l)
		}
	}
	return len(lines)
}

func awaitTicks(t *testing.T, dir string, more int) {
	t.Helper()
	start := ticks(t, dir)
	wait(t, "the sandbox to tick", func() bool { return ticks(t, dir) >= start+more })
}

// TestSuspend: after a suspension the processes of a sandbox go on, with their open files.
func TestSuspend(t *testing.T) {
	dir := project(t, "suspend")
	pid := strings.TrimSpace(must(t, dir, "run", "--", "sh", "-c", ticker))
	awaitTicks(t, dir, 3)
	w := watchInside(t, dir, filepath.Join(dir, "watched"), "run")
	const name = "suspend"
	for i := range 3 {
		must(t, dir, "suspend")
		if st := must(t, dir, "ls"); !strings.Contains(st, "suspended") {
			t.Fatalf("ls says %s", st)
		}
		was := ticks(t, dir)
		writeFile(t, filepath.Join(dir, "new"), strconv.Itoa(was))
		writeFile(t, filepath.Join(w.watched, fmt.Sprint("meanwhile", i)), "x\n")
		waitGone(t, sandboxDir(name)) // its machine with them
		if now := ticks(t, dir); now != was {
			t.Fatalf("it ticks while suspended: %d, then %d", was, now)
		}
		out := must(t, dir, "run", "--", "sh", "-c", "cat new; echo; date +%s; kill -0 "+pid+" && echo alive")
		f := strings.Fields(out)
		if len(f) != 3 || f[0] != strconv.Itoa(was) || f[2] != "alive" {
			t.Fatalf("after the resume: %q", out)
		}
		if at, err := strconv.ParseInt(f[1], 10, 64); err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
			t.Errorf("the guest's clock says %s", f[1])
		}
		w.saw(t, fmt.Sprint("meanwhile", i))
		w.sees(t, fmt.Sprint("after", i))
		awaitTicks(t, dir, 3)
	}

	t.Run("attached", func(t *testing.T) {
		c := command(t.Context(), dir, "run", "--", "sh", "-c", "echo here; sleep 1000")
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if r := bawn(t, dir, "suspend"); r.code != 125 || !strings.Contains(r.err, "--force") {
			t.Errorf("with a command attached: %+v", r)
		}
		awaitTicks(t, dir, 1)
		must(t, dir, "suspend", "--force")
		if err := c.Wait(); err == nil {
			t.Error("the attached command ended well")
		}
	})

	t.Run("damaged", func(t *testing.T) {
		must(t, dir, "run", "--", "sh", "-c", "echo kept | sudo tee /kept")
		must(t, dir, "suspend")
		ram := filepath.Join(sandboxDir(name), "suspended/machine/machine.ram")
		fi, err := os.Stat(ram)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(ram, fi.Size()/2); err != nil {
			t.Fatal(err)
		}
		r := bawn(t, dir, "run", "--", "sh", "-c", "cat /kept; grep -qs [t]icks /proc/"+pid+"/cmdline && echo alive") // the number may be another's, even ours
		if r.code == 0 || r.out != "kept\n" || !strings.Contains(r.err, "damaged") {
			t.Errorf("after damage: %+v", r)
		}
	})
}
