package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/volume"
)

// withVolumes makes a sandbox that has volumes, which does not run.
func withVolumes(t *testing.T, e *Engine, name string, volumes ...sandbox.Volume) (store.Dir, *sandbox.Spec) {
	t.Helper()
	dir := t.TempDir()
	d, err := e.sandboxes.Create(&sandbox.Spec{ID: sandbox.NewID(), Name: name, Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}, Volumes: volumes})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := d.Spec()
	if err != nil {
		t.Fatal(err)
	}
	return d, spec
}

func closing(t *testing.T, c interface{ Close() error }, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
}

// TestVolumeHasOneWriter: while a sandbox runs, starts or is suspended, no other one can write to
// its volume, but others can read it; once it has stopped or was killed, the next one can.
func TestVolumeHasOneWriter(t *testing.T) {
	for name, c := range map[string]struct {
		is   func(t *testing.T, d store.Dir)
		free bool
	}{
		"stopped": {func(*testing.T, store.Dir) {}, true},
		"killed": {func(t *testing.T, d store.Dir) {
			if err := d.WriteState(sandbox.State{Phase: sandbox.Running}); err != nil {
				t.Fatal(err)
			}
		}, true},
		"removed": {func(t *testing.T, d store.Dir) {
			if err := d.Remove(); err != nil {
				t.Fatal(err)
			}
		}, true},
		"running": {func(t *testing.T, d store.Dir) {
			l, err := d.Lock()
			closing(t, l, errors.Join(err, d.WriteState(sandbox.State{Phase: sandbox.Running})))
		}, false},
		"starting": {func(t *testing.T, d store.Dir) {
			l, err := d.LockStart(t.Context())
			closing(t, l, err)
		}, false},
		"suspended": {func(t *testing.T, d store.Dir) {
			s := enginetest.Keep(t, d, "one", "disk")
			if err := os.MkdirAll(d.File(store.SuspendedFolder), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := s.Clone(d.File(store.SuspendedState)); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := newEngine(t)
			d, one := withVolumes(t, e, "one", sandbox.Volume{Name: "data", Guest: "/data"})
			if err := e.claimVolumes(t.Context(), one); err != nil {
				t.Fatal(err)
			}
			c.is(t, d)
			_, two := withVolumes(t, e, "two", sandbox.Volume{Name: "free", Guest: "/a"}, sandbox.Volume{Name: "data", Guest: "/data"})
			err := e.claimVolumes(t.Context(), two)
			if c.free {
				if err != nil || two.Boot.Volumes == "" {
					t.Errorf("%v; %+v", err, two.Boot)
				}
				return
			}
			if es := As(err); es == nil || es.Reason != VolumeInUse || es.Sandbox != "one" || es.Volume != "data" {
				t.Errorf("a second writer: %+v, %v", es, err)
			}
			if _, err := e.volumes().Get("free"); !errors.Is(err, volume.ErrNone) {
				t.Errorf("a volume was made although another one could not be had: %v", err)
			}
			_, reader := withVolumes(t, e, "reader", sandbox.Volume{Name: "data", Guest: "/data", Mode: sandbox.ReadOnly})
			if err := e.claimVolumes(t.Context(), reader); err != nil {
				t.Errorf("a reader: %v", err)
			}
			if err := e.claimVolumes(t.Context(), one); err != nil {
				t.Errorf("its own sandbox again: %v", err)
			}
		})
	}
}

// TestVolumeRemoved: a volume that a sandbox has, also one that is stopped or just begins to start
// with it, is not removed, and pruning leaves it.
func TestVolumeRemoved(t *testing.T) {
	e, _ := newEngine(t)
	ctx := t.Context()
	d, one := withVolumes(t, e, "one", sandbox.Volume{Name: "data", Guest: "/data"}, sandbox.Volume{Name: "seed", Guest: "/seed", Mode: sandbox.ReadOnly})
	if err := e.claimVolumes(ctx, one); err != nil {
		t.Fatal(err)
	}
	if err := e.CreateVolume(ctx, "spare", 0); err != nil {
		t.Fatal(err)
	}
	if err := e.CreateVolume(ctx, "spare", 0); ReasonOf(err) != VolumeExists {
		t.Errorf("made twice: %v", err)
	}
	for _, name := range []string{"data", "seed"} {
		if err := e.RemoveVolume(ctx, name); ReasonOf(err) != VolumeHeld || As(err).Sandbox != "one" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := e.RemoveVolume(ctx, "none"); ReasonOf(err) != NoVolume {
		t.Errorf("one that does not exist: %v", err)
	}
	starting, err := d.LockStart(ctx)
	if err != nil {
		t.Fatal(err)
	}
	one.Volumes = nil
	if err := d.WriteSpec(one); err != nil { // as before it is written
		t.Fatal(err)
	}
	if err := e.RemoveVolume(ctx, "data"); ReasonOf(err) != VolumeHeld {
		t.Errorf("of a sandbox that starts: %v", err)
	}
	unused, err := e.UnusedVolumes()
	if err != nil {
		t.Fatal(err)
	}
	removed, err := e.PruneVolumes(ctx, unused)
	var names []string
	for _, v := range removed {
		names = append(names, v.Name)
	}
	if err != nil || !slices.Equal(names, []string{"seed", "spare"}) {
		t.Errorf("pruned %q, %v", names, err)
	}
	starting.Close()
	if err := e.RemoveVolume(ctx, "data"); err != nil {
		t.Error(err)
	}
	if list, err := e.Volumes(); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestVolumeNotForked: a fork would write to the volume of its original.
func TestVolumeNotForked(t *testing.T) {
	e, _ := newEngine(t)
	withVolumes(t, e, "writer", sandbox.Volume{Name: "data", Guest: "/data"})
	if _, err := e.Fork(t.Context(), ForkRequest{Sandbox: "writer"}); ReasonOf(err) != VolumeNotForked {
		t.Errorf("a writer: %v", err)
	}
	if err := checkVolumesForFork(&sandbox.Spec{Volumes: []sandbox.Volume{{Name: "data", Guest: "/data", Mode: sandbox.ReadOnly}}}); err != nil {
		t.Errorf("a reader: %v", err)
	}
}

// TestVolumeCopy: what a guest has put into a volume leads a copy neither out of it nor into the
// host's files.
func TestVolumeCopy(t *testing.T) {
	e, _ := newEngine(t)
	if err := e.CreateVolume(t.Context(), "data", 0); err != nil {
		t.Fatal(err)
	}
	v, err := e.Volume("data")
	if err != nil {
		t.Fatal(err)
	}
	host := t.TempDir()
	outside := filepath.Join(host, "outside")
	if err := errors.Join(os.WriteFile(outside, []byte("secret"), 0o600), os.Symlink(host, filepath.Join(v.Path, "link")), os.Symlink(outside, filepath.Join(v.Path, "file"))); err != nil {
		t.Fatal(err)
	}
	in, on := func(p string) VolumePath { return VolumePath{"data", p} }, func(p string) VolumePath { return VolumePath{"", filepath.Join(host, p)} }
	for _, c := range []struct {
		from, to VolumePath
		say      string
	}{
		{in("link/outside"), on("got"), "is not followed"},
		{on("outside"), in("link/new"), "leads out"},
		{on("outside"), in("file"), "leads out"},
		{in("../volume.json"), on("got"), "no such file"},
		{in("/../../../../etc/passwd"), on("got"), "no such file"},
		{VolumePath{"none", "x"}, on("got"), "there is no volume"},
		{VolumePath{"../volumes/data", "x"}, on("got"), "invalid volume name"},
	} {
		if _, err := e.CopyVolume(t.Context(), VolumeCopy{c.from, c.to}); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%v to %v: %v, want %q", c.from, c.to, err, c.say)
		}
	}
	if _, err := os.Lstat(filepath.Join(host, "got")); !os.IsNotExist(err) {
		t.Errorf("something was copied: %v", err)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "secret" {
		t.Errorf("the file outside: %q, %v", b, err)
	}
	if _, err := e.CopyVolume(t.Context(), VolumeCopy{on("outside"), in("d/")}); err == nil {
		t.Error("into a directory that does not exist")
	}
	if _, err := e.CopyVolume(t.Context(), VolumeCopy{on("outside"), in("copy")}); err != nil {
		t.Error(err)
	}
	if _, err := e.CopyVolume(t.Context(), VolumeCopy{in(""), on("all")}); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(host, "all", "copy")); err != nil || string(b) != "secret" {
		t.Errorf("there and back: %q, %v", b, err)
	}
}

// TestVolumeReleased: a sandbox that starts without a volume that it had does not keep it from others,
// and a damaged volume that it does not have does not hinder its start.
func TestVolumeReleased(t *testing.T) {
	e, _ := newEngine(t)
	d, one := withVolumes(t, e, "one", sandbox.Volume{Name: "data", Guest: "/data"})
	if err := e.claimVolumes(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	one.Volumes = nil
	if err := os.Mkdir(filepath.Join(e.volumes().Root(), "damaged"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.claimVolumes(t.Context(), one), d.WriteState(sandbox.State{Phase: sandbox.Running})); err != nil {
		t.Fatal(err)
	}
	l, err := d.Lock()
	closing(t, l, err)
	_, two := withVolumes(t, e, "two", sandbox.Volume{Name: "data", Guest: "/data"})
	if err := e.claimVolumes(t.Context(), two); err != nil {
		t.Error(err)
	}
}

// TestProjectVolumes: what bawn.yaml adds is gone with it, and gives way to what the person has set.
func TestProjectVolumes(t *testing.T) {
	own := []sandbox.Volume{{Name: "own", Guest: "/own"}}
	s := &sandbox.Spec{Volumes: slices.Clone(own), LocalDirs: []string{"target"}}
	addProjectSettings(s, sandbox.Added{
		Volumes:   []sandbox.Volume{{Name: "npm", Guest: "/npm"}, {Name: "own", Guest: "/other"}, {Name: "x", Guest: "/own"}, {Name: "a", Guest: "/a"}},
		LocalDirs: []string{"target/debug", "node_modules"},
	})
	var names []string
	for _, v := range s.Volumes {
		names = append(names, v.Name)
	}
	if !slices.Equal(names, []string{"a", "npm", "own"}) || !slices.Equal(s.LocalDirs, []string{"target", "node_modules"}) {
		t.Errorf("%+v, %q", s.Volumes, s.LocalDirs)
	}
	if keys := awaitingStart(s, sandbox.Added{}); !slices.Equal(keys, []string{"volumes", "local_dirs"}) {
		t.Errorf("a start would change %q", keys)
	}
	removeProjectSettings(s)
	if !slices.Equal(s.Volumes, own) || !slices.Equal(s.LocalDirs, []string{"target"}) {
		t.Errorf("without bawn.yaml: %+v, %q", s.Volumes, s.LocalDirs)
	}
	if changed, err := (&SpecChange{Volumes: &[]sandbox.Volume{}, LocalDirs: &[]string{}}).apply(s, sandbox.Added{}); err != nil || !slices.Equal(changed, []string{"localDirs", "volumes"}) || len(s.Volumes)+len(s.LocalDirs) > 0 {
		t.Errorf("%q, %v; %+v", changed, err, s)
	}
}
