package engine

import (
	"errors"
	"slices"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sandbox"
)

// p is a pointer to a value, for the fields of a SpecChange.
func p[T any](v T) *T { return &v }

func TestChangeOverridesTheProjectFile(t *testing.T) {
	e, dir := newProject(t)
	trust := func(text string) {
		t.Helper()
		propose(t, dir, text)
		approve(t, e, dir)
	}
	trust("cpus: 3\nmemory: 1g\nimage: img.test/a\nmounts: [data]\nports: [3000, 4000]\n")
	s, err := e.newSpec("shop", dir, &SpecChange{Memory: p[int64](2 << 30), Publish: []sandbox.Port{{Host: 3000, Guest: 33}}})
	if err != nil {
		t.Fatal(err)
	}
	data := sandbox.Source{Host: dir + "/data", Guest: dir + "/data"}
	if s.CPUs != 3 || s.Memory != 2<<30 || s.Image != "img.test/a" || !slices.Equal(s.Mounts, []sandbox.Source{data}) ||
		!slices.Equal(s.Ports, []sandbox.Port{{Host: 3000, Guest: 33}, {Host: 4000, Guest: 4000}}) {
		t.Errorf("%+v", s)
	}

	// A running sandbox keeps what it has, and what it was given before is no change.
	trust("memory: 3g\nports: [5000]\n")
	if changed, err := e.changeSpec(s, &SpecChange{Memory: p[int64](2 << 30)}, sandbox.Running); err != nil || len(changed) != 0 || s.CPUs != 3 || len(s.Ports) != 2 {
		t.Errorf("%v, %v, %+v", changed, err, s)
	}
	if changed, err := e.changeSpec(s, &SpecChange{CPUs: p(5)}, sandbox.Running); err != nil || !slices.Equal(changed, []string{"cpus"}) {
		t.Errorf("%v, %v", changed, err)
	}

	// At a start, what the file no longer says is gone, and a person's stays.
	s.Boot.ImageDigest = "sha256:1"
	if _, err := e.changeSpec(s, nil, sandbox.Stopped); err != nil {
		t.Fatal(err)
	}
	if s.CPUs != 5 || s.Memory != 2<<30 || s.Image != "img.test/a" || len(s.Mounts) != 0 ||
		!slices.Equal(s.Ports, []sandbox.Port{{Host: 3000, Guest: 33}, {Host: 5000, Guest: 5000}}) {
		t.Errorf("%+v", s)
	}

	// A change that nobody approved changes nothing, nor does a file left aside.
	propose(t, dir, "ports: [6000]\nmounts: [~/.ssh]\n")
	if _, err := e.changeSpec(s, nil, sandbox.Stopped); err != nil || len(s.Mounts) != 0 || s.Ports[1].Host != 5000 {
		t.Errorf("%v, %+v", err, s)
	}
	if _, err := e.changeSpec(s, &SpecChange{NoProject: p(true)}, sandbox.Stopped); err != nil || len(s.Ports) != 1 || !s.NoProject {
		t.Errorf("%v, %+v", err, s)
	}
	if _, err := e.changeSpec(s, nil, sandbox.Stopped); err != nil || len(s.Ports) != 1 {
		t.Errorf("%v, %+v", err, s)
	}
}

// TestNoGitIdentity: the setting stays until it is taken back, and takes effect at a start.
func TestNoGitIdentity(t *testing.T) {
	e, dir := newProject(t)
	spec, err := e.newSpec("box", dir, &SpecChange{NoGitIdentity: p(true)})
	if err != nil || !spec.NoGitIdentity {
		t.Fatal(spec, err)
	}
	if _, err := e.changeSpec(spec, &SpecChange{}, sandbox.Stopped); err != nil || !spec.NoGitIdentity {
		t.Errorf("after a command that does not say: %v, %v", spec.NoGitIdentity, err)
	}
	c := SpecChange{NoGitIdentity: p(false)}
	if c.empty() {
		t.Error("it counts as no change")
	}
	if changed, err := e.changeSpec(spec, &c, sandbox.Running); err != nil || spec.NoGitIdentity || !slices.Equal(changed, []string{"noGitIdentity"}) {
		t.Errorf("taken back: %v, %q, %v", spec.NoGitIdentity, changed, err)
	}
}

// TestADevcontainerForARunningSandbox: one that is named takes effect at a start. To go on without it needs none.
func TestADevcontainerForARunningSandbox(t *testing.T) {
	e, dir := newProject(t)
	spec, err := e.newSpec("box", dir, &SpecChange{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		want []string
	}{{".devcontainer.json", []string{"devcontainer"}}, {".devcontainer.json", nil}, {"", nil}} {
		if changed, err := e.changeSpec(spec, &SpecChange{Devcontainer: &c.name}, sandbox.Running); err != nil || !slices.Equal(changed, c.want) || spec.Devcontainer != c.name {
			t.Errorf("%q: %q, %v, %q", c.name, changed, err, spec.Devcontainer)
		}
	}
}

func TestRate(t *testing.T) {
	e, dir := newProject(t)
	for _, want := range []int64{2 << 20, 0} {
		spec := sandbox.Spec{Rate: 5000}
		c := SpecChange{Rate: p(want)}
		if changed, err := c.apply(&spec, sandbox.Added{}); err != nil || spec.Rate != want || !slices.Equal(changed, []string{"rate"}) {
			t.Errorf("%d: %d, %q, %v", want, spec.Rate, changed, err)
		}
		if _, err := e.newSpec("box", dir, &c); err != nil {
			t.Errorf("%d: %v", want, err)
		}
	}
	var field *sandbox.FieldError
	if _, err := e.newSpec("box", dir, &SpecChange{Rate: p[int64](10)}); !errors.As(err, &field) || field.Field != "rate" {
		t.Errorf("10 bytes a second: %v", err)
	}
}

// TestIdleTimeWithoutEffect: it is refused, and the default, which nobody asked for, is not.
func TestIdleTimeWithoutEffect(t *testing.T) {
	var field *sandbox.FieldError
	hour, never := time.Hour, time.Duration(0)
	if err := checkIdle(&hour, false); !errors.As(err, &field) || field.Error() != "idle 1h0m0s: only sandboxes on x86 can be suspended: must be 0" {
		t.Error(err)
	}
	for _, err := range []error{checkIdle(&hour, true), checkIdle(&never, false), checkIdle(nil, false)} {
		if err != nil {
			t.Error(err)
		}
	}
}
