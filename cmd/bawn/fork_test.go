package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
)

// forkable is a sandbox "shop" with a snapshot, which is not started.
func forkable(t *testing.T) (*store.Store, *sandbox.Spec, *snapshot.Snapshot) {
	t.Helper()
	sandboxes, dir := projectPlace(t)
	d, err := sandboxes.Create(&sandbox.Spec{ID: "1", Name: "shop", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s := keep(t, d, "one", "disk")
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	return sandboxes, s.Meta.Spec, s
}

// TestForkNames: what is wrong with a name is said before anything is made.
func TestForkNames(t *testing.T) {
	sandboxes, spec, _ := forkable(t)
	if err := os.Mkdir(spec.Dir+"-taken", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		names, says string
		copies      bool
	}{
		{"x y", "", false},
		{"x y x", "two forks cannot both be named x", false},
		{"x shop", "a sandbox named shop exists already", false},
		{"x Y", "invalid sandbox name", false},
		{"taken", "", false},
		{"x taken", "it would be the copy of the project", true},
	} {
		f := forkFlags{copyProject: c.copies}
		names, err := f.names(sandboxes, spec, strings.Fields(c.names))
		if c.says == "" && (err != nil || !slices.Equal(names, strings.Fields(c.names))) {
			t.Errorf("%s: %q, %v", c.names, names, err)
		}
		if c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", c.names, err)
		}
	}
}

// TestForkDefaultName: also of the longest name it is a name, and its project's copy
// is looked for as that of a given one is.
func TestForkDefaultName(t *testing.T) {
	sandboxes, spec, _ := forkable(t)
	f := forkFlags{copyProject: true}
	for of, want := range map[string]string{
		"shop":                          "shop-fork",
		strings.Repeat("a", 63):         strings.Repeat("a", 53) + "-fork",
		strings.Repeat("a", 52) + "-bc": strings.Repeat("a", 52) + "-fork",
	} {
		named := *spec
		named.Name = of
		if names, err := f.names(sandboxes, &named, nil); err != nil || !slices.Equal(names, []string{want}) {
			t.Errorf("%s: %q, %v", of, names, err)
		}
	}
	if err := os.Mkdir(spec.Dir+"-shop-fork", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := f.names(sandboxes, spec, nil); err == nil || !strings.Contains(err.Error(), "copy of the project") {
		t.Errorf("%v", err)
	}
}

// TestForkFailure: a fork that fails removes what it made and nothing else.
func TestForkFailure(t *testing.T) {
	sandboxes, spec, s := forkable(t)
	f := forkFlags{copyProject: true}
	other, err := sandboxes.Create(&sandbox.Spec{ID: "2", Name: "other", Dir: spec.Dir}) // since the names were looked at
	if err != nil {
		t.Fatal(err)
	}
	if err := f.make(t.Context(), sandboxes, s, "other"); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("a taken name: %v", err)
	}
	if spec, err := other.Spec(); err != nil || spec.ID != "2" {
		t.Errorf("the sandbox of that name: %v, %v", spec, err)
	}
	gone := func(paths ...string) {
		t.Helper()
		for _, p := range paths {
			if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", p, err)
			}
		}
	}
	gone(spec.Dir + "-other")

	theirs := spec.Dir + "-x"
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.make(t.Context(), sandboxes, s, "x"); err == nil {
		t.Error("a project was copied into what was there")
	}
	if _, err := os.Lstat(theirs); err != nil {
		t.Errorf("what was there: %v", err)
	}
	gone(sandboxes.Dir("x").Path)

	if err := os.Remove(s.Disk()); err != nil {
		t.Fatal(err)
	}
	if err := f.make(t.Context(), sandboxes, s, "y"); err == nil {
		t.Error("a fork without a disk")
	}
	gone(sandboxes.Dir("y").Path, spec.Dir+"-y")
}

// TestForkOfSeveral: when one cannot be made or started, the others are, and it is
// said which.
func TestForkOfSeveral(t *testing.T) {
	sandboxes, spec, s := forkable(t)
	f := forkFlags{copyProject: true}
	if err := os.Mkdir(spec.Dir+"-c", 0o700); err != nil { // since the names were looked at
		t.Fatal(err)
	}
	var started []string
	made, err := f.all(t.Context(), sandboxes, s, []string{"a", "b", "c", "d"}, func(name string) error {
		if started = append(started, name); name == "a" {
			return hint(errors.New("too many run"), "bawn stop")
		}
		return nil
	})
	if want := []string{"a", "b"}; !slices.Equal(made, want) || !slices.Equal(started, want) {
		t.Errorf("made %q, started %q", made, started)
	}
	var said strings.Builder
	report(&said, err)
	for _, want := range []string{"fork c:", "a is made, but does not start: too many run", "(made: a, b)", "try: bawn stop"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("not said: %q in %s", want, said.String())
		}
	}
	for _, name := range made {
		if d := sandboxes.Dir(name); !suspended(d) {
			t.Errorf("%s cannot go on", name)
		}
		if b, err := os.ReadFile(filepath.Join(spec.Dir+"-"+name, "file")); err != nil || string(b) != "text" {
			t.Errorf("%s has %q, %v", name, b, err)
		}
	}
	if names, err := sandboxes.Names(); err != nil || !slices.Equal(names, []string{"a", "b", "shop"}) {
		t.Errorf("%q, %v", names, err)
	}
}
