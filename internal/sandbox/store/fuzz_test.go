package store

import (
	"errors"
	"os"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

// FuzzSpecAndState reads the files of a sandbox as a crash or a person may have left them: the
// sandbox is damaged or has settings, its phase is one that its lock allows, other sandboxes
// are found, and it can be removed.
func FuzzSpecAndState(f *testing.F) {
	f.Add([]byte(`{"id":"0123456789ab","name":"a","dir":"/p","project":{"host":"/p","guest":"/p"},"cpus":1,"memory":268435456,"disk":1073741824,"mounts":[{"host":"/m","guest":"/m","mode":"read-only"}],"ports":null,"added":{"cpus":2}}`), []byte(`{"phase":"running","pid":7,"since":"2026-11-29T00:00:00Z"}`), []byte(`{"path":"/p","id":{"inode":1,"born":2,"device":3}}`+"\n"))
	f.Add([]byte(`{}`), []byte(`{"phase":"suspended","pid":-1}`), []byte("\n\n"))
	f.Add([]byte(`null`), []byte(`null`), []byte(`null`))
	f.Add([]byte(`{"dir":"../..","project":{"host":"\u0000"},"mounts":[{"host":"relative"},{}]}`), []byte(`{"phase":1}`), []byte(`{"path":"/","id":{"inode":-1}}`))
	f.Add([]byte(`[`), []byte(``), []byte(`{`))
	f.Fuzz(func(t *testing.T, text, state, record []byte) {
		s := store(t)
		if _, err := s.Create(spec("other", "/other")); err != nil {
			t.Fatal(err)
		}
		d := s.Dir("fuzzed")
		if err := os.MkdirAll(d.Path, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{d.File(specFile): text, d.File(stateFile): state, s.sharedPath(): record} {
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := d.Spec()
		var damaged *DamagedError
		if err != nil && !errors.As(err, &damaged) {
			t.Errorf("%v", err)
		}
		if err == nil {
			_ = got.Check()
			for _, m := range got.Sources() {
				_ = m.String()
			}
		}
		if st, err := d.State(); err != nil || st.Phase != sandbox.Stopped && st.Phase != sandbox.Dead || st.Phase == sandbox.Dead && st.PID != 0 {
			t.Errorf("%+v, %v", st, err) // nobody holds the lock
		}
		if found, err := s.Find("/other/below"); err != nil || found.Name != "other" && found.Dir != "/other/below" && found.Dir != "/other" {
			t.Errorf("%+v, %v", found, err)
		}
		_ = s.Room(spec("new", "/new"), Limits{})
		list, err := s.Changeable()
		if err == nil {
			for _, c := range list {
				if !strings.Contains(c.Why, "can write to /") && !strings.Contains(c.Why, "could write to /") {
					t.Errorf("%+v", c)
				}
			}
		} else if rerr := d.Remove(); rerr == nil && got != nil && len(writable(got)) > 0 {
			t.Errorf("removed, with a record that cannot be read: %v", err)
		}
	})
}
