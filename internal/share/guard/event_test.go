package guard

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadEvents reads a log that a hostile share server has written to, and its predecessor.
func TestReadEvents(t *testing.T) {
	log := filepath.Join(t.TempDir(), "files.log")
	for path, text := range map[string]string{
		log + ".1": `{"time":"2026-11-01T00:00:00Z","share":"/p","path":"old","action":"kept","pid":1}` + "\n",
		log: "garbage\n" + `{"path":"x","action":"unheard of"}` + "\n" + `{"action":"kept"}` + "\n" +
			`{"share":"/p","path":"a\u001b[2J\u202e","action":"refused","pid":2}` + "\n" + `{"share":"/p","path":"torn`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err := ReadEvents(log, func(e Event) error { got = append(got, e.Text()); return nil })
	if err != nil || len(got) != 2 || !strings.HasSuffix(got[0], "/p/old") || strings.ContainsAny(got[1], "\x1b\u202e") {
		t.Errorf("%q, %v", got, err)
	}
	if err := ReadEvents(log+"none", func(Event) error { return nil }); err != nil {
		t.Error(err)
	}
}
