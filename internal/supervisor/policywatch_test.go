package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestWatchFiles: a file that is written, replaced or removed is noticed, whether
// it was there or not; its neighbours are not.
func TestWatchFiles(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	changes := make(chan struct{}, 100)
	w, err := watchFiles([]string{filepath.Join(one, "policy"), filepath.Join(two, "policy"), filepath.Join(two, "more")}, func() { changes <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(one, "other"))
	write(filepath.Join(one, "more"))
	for _, change := range []func() error{
		func() error { write(filepath.Join(one, "policy")); return nil },
		func() error { return os.Rename(filepath.Join(one, "other"), filepath.Join(one, "policy")) },
		func() error { return os.Rename(filepath.Join(one, "more"), filepath.Join(two, "policy")) },
		func() error { write(filepath.Join(two, "more")); return nil },
		func() error { return os.Remove(filepath.Join(two, "policy")) },
	} {
		if len(changes) != 0 {
			t.Fatal("a change that is none was noticed")
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		<-changes
	}
	// A file that is written slowly is reported when the writer closes it.
	f, err := os.Create(filepath.Join(one, "policy"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("allow a.test\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changes:
		t.Error("reported before it was whole")
	case <-time.After(2 * quietTime): // long enough, if the write were an event
	}
	f.Close()
	<-changes
}

// TestAttackRulesMovedAway: a change is noticed behind links, in replaced folders, and where
// there was no folder.
func TestAttackRulesMovedAway(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string) func() error {
		return func() error {
			if err := os.MkdirAll(filepath.Dir(at(name)), 0o700); err != nil {
				return err
			}
			return os.WriteFile(at(name), []byte("deny "+name), 0o600)
		}
	}
	link := func(to, name string) func() error {
		return func() error { return errors.Join(os.Remove(at(name)), os.Symlink(to, at(name))) }
	}
	if err := errors.Join(write("dots/policy")(), write("more/policy")(), os.Symlink("dots", at("bawn")), os.Mkdir(at("own"), 0o700), os.Symlink("../dots/policy", at("own/policy"))); err != nil {
		t.Fatal(err)
	}
	changes := make(chan struct{}, 100)
	w, err := watchFiles([]string{at("bawn/policy"), at("own/policy"), at("none/policy")}, func() { changes <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"the target is written", write("dots/policy")},
		{"a link leads to another folder", link("more", "bawn")},
		{"that target is written", write("more/policy")},
		{"a link leads to another file", link("../more/policy", "own/policy")},
		{"the target is removed", func() error { return os.Remove(at("more/policy")) }},
		{"the target comes back", write("more/policy")},
		{"the folder of the target is moved away", func() error { return os.Rename(at("more"), at("moved")) }},
		{"another takes its place", write("more/policy")},
		{"a folder that was not there is made", write("none/policy")},
		{"a folder is replaced by a link", func() error { return errors.Join(os.RemoveAll(at("none")), os.Symlink("dots", at("none"))) }},
		{"a file may no longer be read", func() error { return os.Chmod(at("dots/policy"), 0) }},
	} {
		for len(changes) > 0 { // the same change may be noticed twice
			<-changes
		}
		if err := c.do(); err != nil {
			t.Fatal(c.what, err)
		}
		select {
		case <-changes:
		case <-time.After(time.Minute):
			t.Fatal("not noticed: ", c.what)
		}
	}
}
