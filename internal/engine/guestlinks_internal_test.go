package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/proc"
)

// TestAttackALinkOfAGuestChoosesWhatIsShared: a guest puts a link to the person's keys where a directory of the
// project was, before the person mounts that directory, builds an image of it or gives it to an agent.
func TestAttackALinkOfAGuestChoosesWhatIsShared(t *testing.T) {
	e, dir := newProject(t)
	t.Cleanup(func() { proc.Distrust(nil) })
	d, err := e.sandboxes.Create(&sandbox.Spec{ID: sandbox.NewID(), Name: "shop", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}})
	if err != nil {
		t.Fatal(err)
	}
	top := filepath.Dir(dir)
	at := func(name string) string { return filepath.Join(top, name) }
	base := filepath.Base(dir)
	if err := errors.Join(os.MkdirAll(at("keys/docker"), 0o700), os.Mkdir(filepath.Join(dir, "real"), 0o700)); err != nil {
		t.Fatal(err)
	}
	write(t, at("keys/docker/id"), "secret")
	write(t, at("keys/docker/Dockerfile"), "secret")
	write(t, filepath.Join(dir, "real", "f"), "f")
	for link, target := range map[string]string{
		filepath.Join(dir, "dist"):   at("keys"),     // the guest's
		filepath.Join(dir, "up"):     "../keys",      // likewise
		filepath.Join(dir, "inside"): "real",         // likewise
		at("through"):                base + "/dist", // the person's
		at("mine"):                   "keys",         // likewise
		at("past"):                   base + "/../keys",
	} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		for path, c := range map[string]struct {
			end     string
			refused bool
			inside  bool // a link that leads to another place of the project
		}{
			dir + "/dist/docker":    {refused: true},
			dir + "/up/docker":      {refused: true},
			at("through/docker"):    {refused: true},
			dir + "/inside":         {end: dir + "/real", inside: true},
			dir + "/real":           {end: dir + "/real"},
			at("mine/docker"):       {end: at("keys/docker")},
			at("past/docker"):       {end: at("keys/docker")},
			dir + "/../keys/docker": {end: at("keys/docker")},
		} {
			got := map[string]error{}
			var ends [3]string
			ends[0], got["project"] = ProjectDir(path)
			m, err := ResolveMount(sandbox.Source{Host: path})
			ends[1], got["mount"] = m.Host, err
			ends[2], got["context"] = buildContext(path)
			for i, what := range []string{"project", "mount", "context"} {
				refused := c.refused || c.inside && what != "project"
				switch err := got[what]; {
				case refused && (ReasonOf(err) != LinkOfGuest || !strings.Contains(err.Error(), "write the path that you mean")):
					t.Errorf("%s: %s: %s: %v", when, path, what, err)
				case !refused && (err != nil || ends[i] != c.end):
					t.Errorf("%s: %s: %s: %s, %v", when, path, what, ends[i], err)
				}
			}
		}
		if f, err := findDockerfile(dir+"/real", dir+"/dist/docker/Dockerfile", nil, e.OpenSource); err == nil {
			t.Errorf("%s: the Dockerfile behind a link: %q", when, f.text)
		}
	}
	check("while it is shared")
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	check("after it was shared")
	proc.Distrust(func() ([]proc.Writable, error) { return nil, errors.New("unknown") })
	if got, err := ProjectDir(dir); err == nil {
		t.Errorf("nobody knows what is shared: %s", got)
	}
}
