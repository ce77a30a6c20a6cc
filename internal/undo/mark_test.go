package undo

import (
	"crypto/sha256"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRecover: what a killed undo or accept left under a temporary name goes, and what the host
// wrote at the same moment gets its place back.
func TestRecover(t *testing.T) {
	old := &Seen{Kind: File, Mode: 0o644, Sum: sha256.Sum256([]byte("old"))}
	const accept, taken = acceptPrefix + "x", takenPrefix + "x"
	for _, test := range []struct {
		name    string
		files   map[string]string
		mark    mark
		ino     string // the file that the mark has the inode of
		want    map[string]string
		problem string
	}{
		{"undo", map[string]string{"d/f": "old", "d/.bawn-undo-x": "ha"}, mark{Path: []byte("d/f"), Temp: ".bawn-undo-x"}, "", map[string]string{"d/f": "old"}, ""},
		{"half of a replacement", map[string]string{"f": "old", accept: "ne"}, mark{Path: []byte("f"), Temp: accept, Seen: old}, "", map[string]string{"f": "old"}, ""},
		{"a replacement", map[string]string{"f": "old", accept: "new"}, mark{Path: []byte("f"), Temp: accept, Seen: old}, accept, map[string]string{"f": "old"}, ""},
		{"a replacement for nothing", map[string]string{accept: "new"}, mark{Path: []byte("f"), Temp: accept, Seen: &Seen{Kind: Absent}}, accept, map[string]string{}, ""},
		{"exchanged", map[string]string{"f": "new", accept: "old"}, mark{Path: []byte("f"), Temp: accept, Seen: old}, "f", map[string]string{"f": "new"}, ""},
		{"exchanged with what was not seen", map[string]string{"f": "new", accept: "mine"}, mark{Path: []byte("f"), Temp: accept, Seen: old}, "f", map[string]string{"f": "mine"}, ""},
		{"that, and something else came", map[string]string{"f": "else", accept: "mine", "n": "new"}, mark{Path: []byte("f"), Temp: accept, Seen: old}, "n", map[string]string{"f": "else", accept: "mine", "n": "new"}, "move it back"},
		{"taken", map[string]string{taken: "old"}, mark{Path: []byte("f"), Temp: taken, Seen: old}, "", map[string]string{}, ""},
		{"taken unseen", map[string]string{taken: "mine"}, mark{Path: []byte("f"), Temp: taken, Seen: old}, "", map[string]string{"f": "mine"}, ""},
		{"taken unseen, and made again", map[string]string{taken: "mine", "f": "else"}, mark{Path: []byte("f"), Temp: taken, Seen: old}, "", map[string]string{taken: "mine", "f": "else"}, "move it back"},
		{"finished", map[string]string{"f": "new"}, mark{Path: []byte("f"), Temp: accept, Seen: old}, "", map[string]string{"f": "new"}, ""},
		{"of another directory", map[string]string{accept: "new"}, mark{Root: "/elsewhere", Path: []byte("f"), Temp: accept}, "", map[string]string{accept: "new"}, ""},
		{"forged: no temporary name", map[string]string{"g": "mine"}, mark{Path: []byte("f"), Temp: "g"}, "", map[string]string{"g": "mine"}, ""},
		{"forged: elsewhere", map[string]string{"d/" + accept: "mine"}, mark{Path: []byte("f"), Temp: ".bawn-/../d/" + accept}, "", map[string]string{"d/" + accept: "mine"}, ""},
		{"forged: behind a link", map[string]string{"d/" + accept: "mine"}, mark{Path: []byte("link/f"), Temp: accept}, "", map[string]string{"d/" + accept: "mine"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t)
			if err := os.Symlink("d", g.path("link")); err != nil {
				t.Fatal(err)
			}
			for name, text := range test.files {
				g.host(name, text)
			}
			s, root := g.open()
			defer s.Close()
			m, err := openMarks(s.fd)
			if err != nil {
				t.Fatal(err)
			}
			if test.mark.Root == "" {
				test.mark.Root = root.Name()
			}
			if test.ino != "" {
				var st unix.Stat_t
				if err := unix.Lstat(g.path(test.ino), &st); err != nil {
					t.Fatal(err)
				}
				test.mark.Ino = st.Ino
			}
			if err := m.set(test.mark); err != nil {
				t.Fatal(err)
			}
			m.f.Close() // killed here
			err = s.Recover(root.Name())
			if (err != nil) != (test.problem != "") || err != nil && !strings.Contains(err.Error(), test.problem) {
				t.Errorf("%v, want %q", err, test.problem)
			}
			if err := s.Recover(root.Name()); err != nil { // the error is returned once
				t.Error(err)
			}
			for name := range test.files {
				if _, ok := test.want[name]; ok {
					continue
				}
				if _, err := os.Lstat(g.path(name)); err == nil {
					t.Errorf("%s is left", name)
				}
			}
			for name, text := range test.want {
				if b, err := os.ReadFile(g.path(name)); err != nil || string(b) != text {
					t.Errorf("%s: %q, %v; want %q", name, b, err, text)
				}
			}
		})
	}
}

// TestTornMark: a mark that was not written completely counts as none.
func TestTornMark(t *testing.T) {
	g := newGuest(t)
	s, root := g.open()
	defer s.Close()
	m, err := openMarks(s.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer m.f.Close()
	if err := m.set(mark{Root: root.Name(), Path: []byte("a/" + strings.Repeat("x", 200)), Temp: acceptPrefix + "x"}); err != nil {
		t.Fatal(err)
	}
	if m.read() == nil {
		t.Fatal("there is no mark")
	}
	for _, cut := range []int64{100, 12, 3} {
		if err := m.f.Truncate(cut); err != nil {
			t.Fatal(err)
		}
		if v := m.read(); v != nil {
			t.Errorf("of %d bytes: %+v", cut, v)
		}
	}
}
