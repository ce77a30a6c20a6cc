package guard

import (
	"slices"
	"testing"
)

// TestCopiesOfEachKind: each end of a copy leads to the original.
func TestCopiesOfEachKind(t *testing.T) {
	copies := []string{".#a.b", "#a.b#"}
	for _, end := range copyEnds {
		copies = append(copies, "a.b"+end, ".a.b"+end)
	}
	for _, name := range copies {
		if list := originals(name); !slices.Contains(list, "a.b") && !slices.Contains(list, ".a.b") {
			t.Errorf("%s: %q", name, list)
		}
	}
	for _, name := range []string{"", "a", "a.b", "~", ".bak", "swp", "a.bak.txt"} {
		if list := originals(name); len(list) > 0 {
			t.Errorf("%s: %q", name, list)
		}
	}
}
