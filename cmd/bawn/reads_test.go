package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/opencount"
	"bawn.dev/bawn/internal/sys/proc"
)

// TestVerbsReadTheStoreOnce counts how often a verb opens the specs of three sandboxes. All of them are read once to learn
// what guests can write to, whatever is judged by that, and once more in each further second that the verb takes. Beside
// that a verb reads what it works on. None of these verbs connects to a server, so none looks at certificates.
func TestVerbsReadTheStoreOnce(t *testing.T) {
	for _, c := range []struct {
		args   []string
		judges bool
		own    int // specs that it reads beside
	}{
		{[]string{"version"}, false, 0},
		{[]string{"help"}, false, 0},
		{[]string{"run", "--help"}, false, 0},
		{[]string{"__complete", "stop", ""}, true, 0},
		{[]string{"ls"}, true, 3},
		{[]string{"stop", "one"}, true, 1},
		{[]string{"inspect", "two"}, true, 2},
		{[]string{"policy", "show"}, true, 4},
		{[]string{"secret", "ls"}, true, 0},
		{[]string{"rm", "three"}, true, 4},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			sandboxes, dir := projectPlace(t) // what was read for another store does not count
			t.Cleanup(func() { proc.Distrust(nil) })
			certificates := t.TempDir()
			t.Setenv("SSL_CERT_DIR", certificates)
			t.Setenv("SSL_CERT_FILE", filepath.Join(certificates, "ca.pem"))
			var specs []string
			for _, n := range []string{"one", "two", "three"} {
				d, err := sandboxes.Create(&sandbox.Spec{ID: sandbox.NewID(), Name: n, Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}, CPUs: 1, Memory: 1 << 30, Disk: 1 << 30})
				if err != nil {
					t.Fatal(err)
				}
				specs = append(specs, d.File("spec.json"))
			}
			opened, believed := opencount.Of(t, specs...), opencount.Of(t, certificates)
			began := time.Now()
			if out, err := bawnRun(t, c.args...); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			most := c.own
			if c.judges {
				most += len(specs) * (1 + int(time.Since(began)/time.Second))
			}
			if n := opened(); n > most || c.judges && n < len(specs) {
				t.Errorf("specs were opened %d times: more than %d, or not all of them", n, most)
			} else {
				t.Logf("specs were opened %d times", n)
			}
			if n := believed(); n > 0 {
				t.Errorf("certificates were looked at %d times", n)
			}
		})
	}
}
