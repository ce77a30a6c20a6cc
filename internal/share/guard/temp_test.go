package guard

import "testing"

// TestTemporaryNames: the files that bawn makes for a moment are hidden, whatever patterns say.
func TestTemporaryNames(t *testing.T) {
	r, err := New(Options{Show: []string{".bawn-*", "*"}, NoGuard: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Kind{".bawn-accept-X": Hidden, ".bawn-undo-1": Hidden, ".bawn": Free, "bawn-x": Free} {
		if kind, _ := r.Judge(Place{Name: name, Has: func(string) bool { return true }}); kind != want || want == Hidden && !r.Candidate(name) {
			t.Errorf("%s: %v", name, kind)
		}
	}
}
