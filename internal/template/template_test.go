package template

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/memory"
)

// newMachine describes a machine whose files are there.
func newMachine(t *testing.T) Machine {
	t.Helper()
	kernel := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(kernel, []byte("kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Machine{Monitor: "monitor 1.0", Files: []string{kernel}, Accel: "tcg", Arguments: []string{"-m", "512M"}, Setup: "setup"}
}

func kindName(t *testing.T, m Machine) string {
	t.Helper()
	k, err := Kind(m)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestKind: a machine keeps its kind, and a change of anything makes another.
func TestKind(t *testing.T) {
	m := newMachine(t)
	was := kindName(t, m)
	if again := kindName(t, m); again != was {
		t.Errorf("the same machine is %s, and then %s", was, again)
	}
	for what, change := range map[string]func(*Machine){
		"monitor":   func(m *Machine) { m.Monitor = "monitor 1.1" },
		"accel":     func(m *Machine) { m.Accel = "kvm" },
		"processor": func(m *Machine) { m.OnHostCPU = true },
		"arguments": func(m *Machine) { m.Arguments = []string{"-m", "513M"} },
		"one more":  func(m *Machine) { m.Arguments = append(m.Arguments, "-S") },
		"setup":     func(m *Machine) { m.Setup = "another" },
		"files":     func(m *Machine) { m.Files = nil },
		"contents": func(m *Machine) {
			if err := os.WriteFile(m.Files[0], []byte("another kernel"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		n := m
		change(&n)
		if kindName(t, n) == was {
			t.Errorf("another %s is the same kind", what)
		}
		if what == "contents" {
			was = kindName(t, m)
		}
	}
	m.Files = []string{"/nonexistent"}
	if k, err := Kind(m); err == nil {
		t.Errorf("a machine without its kernel is of kind %s", k)
	}
}

// newRAM makes memory with a text in it.
func newRAM(t *testing.T, text string) *os.File {
	t.Helper()
	f, err := memory.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteAt([]byte(text), 4096); err != nil {
		t.Fatal(err)
	}
	return f
}

func holds(t *testing.T, f *os.File, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if _, err := f.ReadAt(b, 4096); err != nil || string(b) != text {
		t.Errorf("got %q, %v, want %q", b, err, text)
	}
}

// TestTemplate: what is saved at each point is what is restored there.
func TestTemplate(t *testing.T) {
	s := Open(t.TempDir())
	if _, err := s.Lookup("k"); !errors.Is(err, ErrNone) {
		t.Errorf("an empty store: %v", err)
	}
	made := time.Now().UTC().Truncate(time.Second)
	builds := 0
	build := func(_ context.Context, d *Draft) (Meta, error) {
		builds++
		state := func(text string) func(io.Writer) error {
			return func(w io.Writer) error { _, err := io.WriteString(w, text); return err }
		}
		if err := d.Save(Bare, state("bare"), newRAM(t, "booted"), nil); err != nil {
			return Meta{}, err
		}
		return Meta{Kernel: "6.1", Made: made}, d.Save(Ready, state("ready"), newRAM(t, "set up"), newRAM(t, "on disk"))
	}
	for range 2 { // the second finds the first
		if err := s.Make(t.Context(), "k", build); err != nil {
			t.Fatal(err)
		}
	}
	if builds != 1 {
		t.Errorf("built %d times", builds)
	}
	got, err := s.Lookup("k")
	if err != nil {
		t.Fatal(err)
	}
	if got.Kind != "k" || got.Meta.Kernel != "6.1" || !got.Meta.Made.Equal(made) {
		t.Errorf("got %+v", got)
	}
	for p, text := range map[Point]string{Bare: "booted", Ready: "set up"} {
		ram := newRAM(t, "")
		if err := got.Unpack(p, ram); err != nil {
			t.Fatal(err)
		}
		holds(t, ram, text)
		state, err := got.State(p)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(state)
		if err := errors.Join(err, state.Close()); err != nil || string(b) != string(p) {
			t.Errorf("state at %s: %q, %v", p, b, err)
		}
	}
	disk := newRAM(t, "")
	if err := got.UnpackDisk(disk); err != nil {
		t.Fatal(err)
	}
	holds(t, disk, "on disk")
	if err := s.Remove("k"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lookup("k"); !errors.Is(err, ErrNone) {
		t.Errorf("after Remove: %v", err)
	}
}

// TestFailedBuildLeavesNothing: neither a template nor a part of one.
func TestFailedBuildLeavesNothing(t *testing.T) {
	folder := t.TempDir()
	s := Open(folder)
	broken := errors.New("the guest did not boot")
	err := s.Make(t.Context(), "k", func(_ context.Context, d *Draft) (Meta, error) {
		return Meta{}, d.Save(Bare, func(io.Writer) error { return broken }, newRAM(t, "x"), nil)
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	if _, err := s.Lookup("k"); !errors.Is(err, ErrNone) {
		t.Errorf("after a failed build: %v", err)
	}
	err = filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".state") {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
