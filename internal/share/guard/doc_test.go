package guard

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestTheListIsDocumented: docs/guard.md has one row for each rule, and no others.
func TestTheListIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../../../docs/guard.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	kinds := map[Kind]string{Noted: "logged", Guarded: "guarded", Hidden: "hidden"}
	for _, list := range [][]Rule{Git, Defaults} {
		for i := range list {
			r := &list[i]
			row := fmt.Sprintf("| `%s` | %s | %s | %s |", Describe(r), kinds[r.Kind], r.Reason, r.Source)
			want[row] = true
			if !strings.Contains(string(b), row+"\n") {
				t.Errorf("docs/guard.md has no row %s", row)
			}
			if r.Reason == "" || r.Source == "" || kinds[r.Kind] == "" {
				t.Errorf("%s has no reason, source or kind", r.Path)
			}
		}
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if strings.HasPrefix(line, "| `") && strings.Count(line, " | ") == 3 && !want[line] {
			t.Errorf("docs/guard.md has a row of no rule: %s", line)
		}
	}
}
