package supervisor

import (
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
	if _, err := watchFiles([]string{filepath.Join(one, "no/policy")}, func() {}); err == nil {
		t.Error("a folder that is not there is watched")
	}
}
