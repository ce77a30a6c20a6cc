package datadir

import (
	"bytes"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// must ends the test at an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write writes a file and its parents.
func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// logged returns what f logs.
func logged(f func()) string {
	var b bytes.Buffer
	log.SetOutput(&b)
	defer log.SetOutput(os.Stderr)
	f()
	return b.String()
}

// describe returns a line for each file below dir: name, type, mode, owner, time, number of
// names, contents or target, and attributes.
func describe(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		links := st.Nlink
		var text string
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			links = 0 // depends on the file system
		case unix.S_IFLNK:
			text, err = os.Readlink(path)
		case unix.S_IFREG:
			var data []byte
			data, err = os.ReadFile(path)
			text = string(data)
		}
		value := make([]byte, 64)
		n, _ := unix.Lgetxattr(path, "user.test", value)
		fmt.Fprintf(&b, "%s %o %d:%d %d.%d %d %q %q\n", strings.TrimPrefix(path, dir), st.Mode, st.Uid, st.Gid,
			st.Mtim.Sec, st.Mtim.Nsec, links, text, value[:max(n, 0)])
		return err
	}))
	return b.String()
}

// fill makes a home directory with files of all types.
func fill(t *testing.T, home string) {
	t.Helper()
	write(t, home+"/me/.profile", "umask 022\n")
	write(t, home+"/me/.cache/x", "")
	must(t, os.Link(home+"/me/.profile", home+"/me/again"))
	must(t, os.Symlink("/nowhere", home+"/me/link"))
	must(t, unix.Mkfifo(home+"/me/fifo", 0o620))
	must(t, unix.Chmod(home+"/me/.cache/x", 0o4751))
	must(t, unix.Chmod(home+"/me/.cache", 0o2700))
	if err := unix.Setxattr(home+"/me/.profile", "user.test", []byte("value"), 0); err != nil {
		t.Logf("without attributes: %v", err)
	}
	if os.Getuid() == 0 {
		must(t, os.Lchown(home+"/me/link", 1000, 1001))
		must(t, os.Lchown(home+"/me", 1000, 1001))
	}
	when := time.Unix(1e9, 123)
	for _, p := range []string{"/me/.profile", "/me/.cache", "/me", ""} {
		must(t, os.Chtimes(home+p, when, when))
	}
}

func TestMakeCopiesWhatTheImageHas(t *testing.T) {
	image, disk := t.TempDir(), t.TempDir()
	fill(t, image+"/home")
	must(t, os.MkdirAll(image+"/var/lib/containers", 0o700))
	write(t, disk+wire.DataFolder+"/home/me/of an unfinished run", "x")
	write(t, disk+storesFolder+"/var/lib/containers/of an unfinished run", "x")
	for range 2 { // as if the first run had not been the last
		if got := logged(func() { must(t, Make(disk, image, "/home/me")) }); got != "" {
			t.Errorf("logged: %s", got)
		}
		if got, want := describe(t, disk+wire.DataFolder+"/home"), describe(t, image+"/home"); got != want {
			t.Errorf("the copy:\n%s\nthe image's:\n%s", got, want)
		}
	}
	for path, mode := range map[string]uint32{
		wire.DataFolder + "/tmp": 0o1777, wire.DataFolder + "/root": 0o700, storesFolder + "/var/lib/containers": 0o700,
	} {
		var st unix.Stat_t
		must(t, unix.Lstat(disk+path, &st))
		if names, err := namesIn(disk + path); st.Mode != unix.S_IFDIR|mode || err != nil || len(names) != 0 {
			t.Errorf("%s: mode %o, holds %q, %v", path, st.Mode, names, err)
		}
	}
}

// TestPlacesLeftOut: a place that cannot be copied is not on the disk, and the log has the
// reason.
func TestPlacesLeftOut(t *testing.T) {
	defer func(l limits) { copyLimits = l }(copyLimits)
	copyLimits = limits{bytes: 1 << 20, entries: 8}
	image, disk := t.TempDir(), t.TempDir()
	write(t, image+"/home/me/large", strings.Repeat("x", 1<<20+1))
	for i := range 9 {
		write(t, fmt.Sprintf("%s/srv/%d", image, i), "")
	}
	write(t, image+"/mnt", "a file")
	must(t, os.Symlink("/var/roothome", image+"/root"))
	must(t, os.MkdirAll(image+"/usr/lib", 0o755))
	must(t, os.MkdirAll(image+"/var", 0o755))
	must(t, os.Symlink("/usr/lib", image+"/var/lib"))
	got := logged(func() { must(t, Make(disk, image, "/home/me")) })
	for _, p := range places {
		_, err := os.Lstat(disk + p.folder + p.path)
		if kept := p.path == "/tmp" || p.path == "/var/tmp"; kept != (err == nil) || kept == strings.Contains(got, p.path+" stays part of the root's overlay") {
			t.Errorf("%s: %v; logged:\n%s", p.path, err, got)
		}
	}
}

func TestPlaceOfTheHome(t *testing.T) {
	for home, want := range map[string]string{
		"":                  "",
		"/":                 "",
		"/me":               "",
		"/root":             "",
		"/home/me":          "",
		"/home/org/me":      "",
		"/tmp/a/home":       "",
		"relative/me":       "",
		"/var/lib/me":       "", // /var/lib has places
		"/run/user/me":      "",
		"/Users/me":         "/Users",
		"/var/home/me/":     "/var/home",
		"/homes/me":         "/homes",
		"/var/lib/jenkins/": "",
		"/var/lib/ci/me":    "/var/lib/ci",
	} {
		got := placesFor(home)
		var more string
		if len(got) > len(places) {
			more = got[len(places)].path
		}
		if more != want || !slices.Equal(got[:len(places)], places) {
			t.Errorf("%q: %q, want %q", home, more, want)
		}
	}
}

// TestPlacesAreApart: a directory of the disk is mounted because it exists, so none may be
// the parent of another.
func TestPlacesAreApart(t *testing.T) {
	for _, p := range places {
		for _, q := range places {
			if p != q && within(p.path, q.path) {
				t.Errorf("%s is below %s", p.path, q.path)
			}
		}
	}
}
