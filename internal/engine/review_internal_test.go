package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/undo"
)

// reviewed is a sandbox whose share server is played by the test.
type reviewed struct {
	t       *testing.T
	e       *Engine
	dir     string
	d       store.Dir
	private string
	rec     *undo.Recorder
}

func newReviewed(t *testing.T) *reviewed {
	t.Helper()
	sandboxes, err := store.OpenAt(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &reviewed{t: t, e: &Engine{sandboxes: sandboxes, events: func(Event) {}}, dir: t.TempDir()}
	r.d, err = sandboxes.Create(&sandbox.Spec{ID: sandbox.NewID(), Name: "shop", Dir: r.dir, Project: sandbox.Source{Host: r.dir, Guest: r.dir}})
	if err != nil {
		t.Fatal(err)
	}
	r.private = r.d.Private(r.dir)
	at := r.d.File(store.UndoFolder)
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(at, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.rec = undo.NewRecorder(fd, undo.WhySession)
	t.Cleanup(func() { r.rec.Close(); unix.Close(fd) })
	return r
}

// file makes a file with the directories on its way.
func (r *reviewed) file(root, at, text string, mode os.FileMode) {
	r.t.Helper()
	path := filepath.Join(root, at)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		r.t.Fatal(err)
	}
}

// guest changes a path as the guest does.
func (r *reviewed) guest(at string, change func(path string) error) {
	r.t.Helper()
	dir, err := unix.Open(filepath.Dir(filepath.Join(r.dir, at)), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer unix.Close(dir)
	r.rec.Names.RLock()
	r.rec.Before(undo.Source{FD: dir, Name: filepath.Base(at)}, at)
	r.rec.Names.RUnlock()
	if err := change(filepath.Join(r.dir, at)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reviewed) writes(at, text string, mode os.FileMode) {
	r.t.Helper()
	r.guest(at, func(path string) error {
		return errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode))
	})
}

func (r *reviewed) review() *Review {
	r.t.Helper()
	v, err := r.e.Review(r.t.Context(), "shop", Since{})
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// TestReview: what the host may run or trust is found, and what the guest only has for itself.
func TestReview(t *testing.T) {
	r := newReviewed(t)
	if v := r.review(); !v.Empty() {
		t.Errorf("nothing was changed: %+v", v)
	}
	r.file(r.dir, "package.json", `{"scripts":{"test":"a","lint":"b"},"dependencies":{"x":"1"}}`, 0o644)
	r.file(r.dir, "run.sh", "#!/bin/sh\n", 0o755)
	r.file(r.dir, "main.go", "package main\n\nfunc main() {}\n", 0o644)
	r.file(r.dir, ".vscode/tasks.json", "{}\n", 0o644)
	r.file(r.dir, ".git/HEAD", "x", 0o644)
	r.writes("package.json", `{"scripts":{"test":"a","lint":"c","postinstall":"d"},"dependencies":{"x":"1"}}`, 0o644)
	r.writes("run.sh", "#!/bin/sh\nevil\n", 0o755)
	r.writes("main.go", "package main\n\nfunc main() { x() }\n", 0o644)
	r.writes("token.txt", "AKIAABCDEFGHIJKLMNOP", 0o644)
	r.writes(".git/HEAD", "y", 0o644)
	for at, target := range map[string]string{"out": "/etc/passwd", "up": "../x", "in": "main.go", "abs": r.dir + "/main.go", "via": "in/../../x", "nowhere": "gone/file"} {
		r.guest(at, func(path string) error { return os.Symlink(target, path) })
	}
	r.file(r.private, "p:.vscode/tasks.json", `{"evil":1}`+"\n", 0o644)
	r.file(r.private, "p:.env", "KEY=1\n", 0o600)
	r.file(r.dir, ".env", "HOST=secret\n", 0o600)

	v := r.review()
	found := map[string]string{}
	for _, f := range v.Findings {
		found[f.Path] += string(f.Class) + ": " + f.Why
	}
	for at, want := range map[string]string{
		"package.json": "script: scripts: lint, postinstall", "run.sh": "executable: executable with new contents",
		"token.txt": "secret: holds what looks like a key or a token",
		"out":       "link: leads to /etc/passwd", "up": "link: leads to ../x", "main.go": "", "in": "", "abs": "", "nowhere": "",
	} {
		if found[at] != want {
			t.Errorf("%s: %q, want %q", at, found[at], want)
		}
	}
	if v.InGit != 1 || v.Point != 1 {
		t.Errorf("in .git: %d; point %d", v.InGit, v.Point)
	}
	for _, s := range v.Changes {
		if s.Path == "main.go" && (s.Status != "M" || s.Added != 1 || s.Removed != 1) {
			t.Errorf("%+v", s)
		}
	}
	if len(v.Kept) != 2 || v.Kept[0].Path != ".env" || !v.Kept[0].Hidden || v.Kept[1].Path != ".vscode/tasks.json" {
		t.Fatalf("%+v", v.Kept)
	}
	if strings.Contains(v.Kept[0].Diff+v.Kept[0].Note, "secret") {
		t.Errorf("the host's secret is shown: %+v", v.Kept[0])
	}
	if want := "-{}\n+{\"evil\":1}\n"; !strings.HasSuffix(v.Kept[1].Diff, want) {
		t.Errorf("%q, want %q", v.Kept[1].Diff, want)
	}
}

// TestAttackAcceptShowsAll: what is to be accepted is shown to its end, whatever it begins with.
func TestAttackAcceptShowsAll(t *testing.T) {
	for name, begin := range map[string]string{"long": strings.Repeat("# harmless\n", 20_000), "NUL": "#!/bin/sh\n# \x00\n"} {
		t.Run(name, func(t *testing.T) {
			r := newReviewed(t)
			r.file(r.private, "d:.git/p:hooks/post-commit", begin+"evil --now\n", 0o755)
			a, err := r.e.Accept("shop", []string{filepath.Join(r.dir, ".git/hooks/post-commit")})
			if err != nil || len(a.Shown) != 1 {
				t.Fatalf("%+v, %v", a, err)
			}
			if k := a.Shown[0]; !strings.Contains(k.Diff, "+evil --now\n") || k.Cut || k.Note != "" {
				t.Errorf("%d bytes are shown, cut %v, %q", len(k.Diff), k.Cut, k.Note)
			}
		})
	}
}

// TestAccept: the host gets what was shown, of a directory each file, keeps its permissions, and
// bawn undo takes it back; the guest has no version of its own any more.
func TestAccept(t *testing.T) {
	r := newReviewed(t)
	r.file(r.dir, ".git/hooks/old", "old\n", 0o600)
	r.file(r.private, "d:.git/p:hooks/old", "changed\n", 0o777)
	r.file(r.private, "d:.git/p:hooks/new", "new\n", 0o755)
	r.file(r.private, "d:.git/p:config", "other\n", 0o644)
	a, err := r.e.Accept("shop", []string{filepath.Join(r.dir, ".git/hooks")})
	if err != nil || len(a.Shown) != 2 {
		t.Fatalf("%+v, %v", a, err)
	}
	res, err := a.Apply(t.Context())
	if err != nil || len(res.Paths) != 2 || res.Point == 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	for at, want := range map[string]struct {
		text string
		mode os.FileMode
	}{"old": {"changed\n", 0o700}, "new": {"new\n", 0o755}} {
		path := filepath.Join(r.dir, ".git/hooks", at)
		b, err := os.ReadFile(path)
		fi, serr := os.Stat(path)
		if err != nil || serr != nil || string(b) != want.text || fi.Mode().Perm()&0o700 != want.mode&0o700 {
			t.Errorf("%s: %q, %v", at, b, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(r.private, "d:.git/p:hooks")); err == nil {
		t.Error("the guest still has its version of the hooks")
	}
	if _, err := os.Lstat(filepath.Join(r.private, "d:.git/p:config")); err != nil {
		t.Errorf("the guest lost another version: %v", err)
	}
	if v := r.review(); len(v.Findings) != 0 || len(v.Kept) != 1 {
		t.Errorf("after it: %+v", v)
	}

	u, err := r.e.OpenUndo("shop")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	q := UndoRequest{To: res.Point}
	p, err := u.Plan(q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Apply(t.Context(), q, p); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(r.dir, ".git/hooks/old")); string(b) != "old\n" {
		t.Errorf("after the undo: %q", b)
	}
}

// TestRemovedFromAGuardedDirectory: what the guest has removed from its version of a directory is in
// the review, and is removed on the host when it is accepted; what the host has made there since is not.
func TestRemovedFromAGuardedDirectory(t *testing.T) {
	r := newReviewed(t)
	for _, at := range []string{"gone", "kept", "sub/gone"} {
		r.file(r.dir, ".git/hooks/"+at, "old\n", 0o755)
	}
	r.file(r.private, "d:.git/p:hooks/kept", "old\n", 0o755)
	shown := func() (list []string) {
		for _, k := range r.review().Kept {
			list = append(list, string(k.Status)+" "+k.Path+" "+strings.ReplaceAll(k.Diff, "\n", "|"))
		}
		return list
	}
	if got := fmt.Sprint(shown()); got != "[D .git/hooks/gone @@ -1,1 +0,0 @@|-old| D .git/hooks/sub/gone @@ -1,1 +0,0 @@|-old|]" {
		t.Errorf("%s", got)
	}
	accept := func(at string) {
		a, err := r.e.Accept("shop", []string{filepath.Join(r.dir, at)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	accept(".git/hooks/sub/gone")
	if got := shown(); len(got) != 1 {
		t.Errorf("after one was accepted: %q", got)
	}
	if _, err := os.Lstat(filepath.Join(r.private, "d:.git/p:hooks/kept")); err != nil {
		t.Errorf("the guest lost its version: %v", err)
	}
	accept(".git")
	for at, there := range map[string]bool{"gone": false, "sub/gone": false, "kept": true} {
		if _, err := os.Lstat(filepath.Join(r.dir, ".git/hooks", at)); (err == nil) != there {
			t.Errorf("%s: %v", at, err)
		}
	}
	if got := shown(); len(got) != 0 {
		t.Errorf("at the end: %q", got)
	}
	if _, err := os.Lstat(filepath.Join(r.private, "d:.git/p:hooks")); err == nil {
		t.Error("the guest does not see the host's directory again")
	}
}

// TestAttackAcceptOfAnotherWorktree: the guest's own folder of a working tree that has the name of one
// of the host's, which is hidden from it, is neither shown nor taken over.
func TestAttackAcceptOfAnotherWorktree(t *testing.T) {
	r := newReviewed(t)
	r.file(r.dir, ".git/worktrees/feature/HEAD", "host\n", 0o644)
	r.file(r.dir, ".git/worktrees/feature/MERGE_MSG", "host\n", 0o644)
	r.file(r.private, "d:.git/d:worktrees/p:feature/HEAD", "guest\n", 0o644)
	if kept := r.review().Kept; len(kept) != 0 {
		t.Errorf("%+v", kept)
	}
	if _, err := r.e.Accept("shop", []string{filepath.Join(r.dir, ".git")}); ReasonOf(err) != NothingToAccept {
		t.Errorf("%v", err)
	}
}

// TestAcceptRaces: what the guest or the host does between the showing and the accepting does not
// reach the host unseen, and is not lost.
func TestAcceptRaces(t *testing.T) {
	show := func(t *testing.T) (*reviewed, *Acceptance) {
		t.Helper()
		r := newReviewed(t)
		r.file(r.dir, ".envrc", "old\n", 0o644)
		r.file(r.private, "p:.envrc", "shown\n", 0o644)
		a, err := r.e.Accept("shop", []string{filepath.Join(r.dir, ".envrc")})
		if err != nil {
			t.Fatal(err)
		}
		return r, a
	}
	read := func(t *testing.T, path, want string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", path, b, err, want)
		}
	}
	t.Run("guest", func(t *testing.T) {
		r, a := show(t)
		r.file(r.private, "p:.envrc", "evil\n", 0o755)
		if _, err := a.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		read(t, filepath.Join(r.dir, ".envrc"), "shown\n")
		read(t, filepath.Join(r.private, "p:.envrc"), "evil\n")
	})
	t.Run("host", func(t *testing.T) {
		r, a := show(t)
		r.file(r.dir, ".envrc", "mine\n", 0o644)
		if _, err := a.Apply(t.Context()); !errors.Is(err, undo.ErrNotAsSeen) {
			t.Errorf("%v", err)
		}
		read(t, filepath.Join(r.dir, ".envrc"), "mine\n")
		read(t, filepath.Join(r.private, "p:.envrc"), "shown\n")
	})
	t.Run("link", func(t *testing.T) {
		r, a := show(t)
		outside := filepath.Join(t.TempDir(), "outside")
		r.file("/", outside, "outside\n", 0o644)
		path := filepath.Join(r.dir, ".envrc")
		if err := errors.Join(os.Remove(path), os.Symlink(outside, path)); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Apply(t.Context()); !errors.Is(err, undo.ErrNotAsSeen) {
			t.Errorf("%v", err)
		}
		read(t, outside, "outside\n")
	})
	t.Run("nothing there", func(t *testing.T) {
		r, _ := show(t)
		if _, err := r.e.Accept("shop", []string{filepath.Join(r.dir, "main.go")}); ReasonOf(err) != NothingToAccept {
			t.Errorf("%v", err)
		}
	})
	t.Run("removed by the guest", func(t *testing.T) {
		r, _ := show(t)
		slot := filepath.Join(r.private, "p:.envrc")
		if err := errors.Join(os.Remove(slot), unix.Mkfifo(slot, 0o600)); err != nil {
			t.Fatal(err)
		}
		a, err := r.e.Accept("shop", []string{r.dir})
		if err != nil || len(a.Shown) != 1 || a.Shown[0].Status != "D" {
			t.Fatalf("%+v, %v", a, err)
		}
		if _, err := a.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(filepath.Join(r.dir, ".envrc")); err == nil {
			t.Error("it is still there")
		}
	})
}

// TestOutcome: what is said at the end of a session is about that session.
func TestOutcome(t *testing.T) {
	r := newReviewed(t)
	r.writes("Makefile", "all:\n", 0o644)
	spec, err := r.d.Spec()
	if err != nil {
		t.Fatal(err)
	}
	s := r.e.newSession("shop", "")
	s.Spec = spec
	if o := s.Outcome(); o != (Outcome{}) {
		t.Errorf("of an earlier session: %+v", o)
	}
	r.rec.Mark(undo.WhySession)
	r.writes("Makefile", "all: evil\n", 0o644)
	r.writes("main.go", "x", 0o644)
	r.file(r.private, "p:.envrc", "x\n", 0o644)
	if o := s.Outcome(); o != (Outcome{Runs: 1, Kept: 1}) {
		t.Errorf("%+v", o)
	}
}

// TestAttackLinksToGuardedPaths: a link that the guest leaves and that leads to a guarded or hidden path of the
// project, by what it says or through another link, is found; others are not.
func TestAttackLinksToGuardedPaths(t *testing.T) {
	r := newReviewed(t)
	r.file(r.dir, ".git/config", "", 0o600)
	r.file(r.dir, "src/config", "", 0o600)
	if err := os.Symlink(".git", filepath.Join(r.dir, "g")); err != nil {
		t.Fatal(err)
	}
	spec, err := r.d.Spec()
	if err != nil {
		t.Fatal(err)
	}
	guarded, err := leadsToGuarded(spec)
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]bool{
		"../.git/config": true, "../.git/hooks/pre-push": true, "../g/config": true, r.dir + "/.envrc": true, "../.env": true, "../.vscode/tasks.json": true, "../dist/../.git/config": true,
		"../src/config": false, "app.js": false, "/etc/passwd": false, "../../x": false, "": false, "..": false,
	} {
		if guarded("dist/app.js", target) != want {
			t.Errorf("%s: %v", target, !want)
		}
	}
}
