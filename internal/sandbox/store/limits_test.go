package store

import (
	"errors"
	"fmt"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

func TestLimitsCountWhatRuns(t *testing.T) {
	s := store(t)
	var specs []*sandbox.Spec
	for i := range 4 {
		sp := spec(fmt.Sprintf("s%d", i), fmt.Sprintf("/p%d", i))
		if _, err := s.Create(sp); err != nil {
			t.Fatal(err)
		}
		specs = append(specs, sp)
	}
	many := Limits{Sandboxes: 100, Memory: 100 * sandbox.MinMemory}
	for _, sp := range specs[:2] { // the others do not run
		l, err := s.Admit(sp, many)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	for _, c := range []struct {
		limits Limits
		ok     bool
	}{
		{Limits{2, 100 * sandbox.MinMemory}, false},
		{Limits{3, 100 * sandbox.MinMemory}, true},
		{Limits{100, 3*sandbox.MinMemory - 1}, false},
		{Limits{100, 3 * sandbox.MinMemory}, true},
	} {
		l, err := s.Admit(specs[2], c.limits)
		var much *TooMuchError
		if c.ok != (err == nil) || !c.ok && !errors.As(err, &much) {
			t.Errorf("%+v: %v", c.limits, err)
		}
		if l != nil {
			l.Close()
		}
	}
}
