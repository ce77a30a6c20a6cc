package ext4

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func stream(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.Gname // for brevity
		h.Gname, h.Size, h.Format = "", int64(len(content)), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func build(t *testing.T, tree []byte) (string, []byte) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "fs")
	if err := FromTar(bytes.NewReader(tree), out, 1<<30); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return out, b
}

// run returns what a program of e2fsprogs prints.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command("/sbin/"+program, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %s", program, err, out)
	}
	return string(out)
}

// checkSound has e2fsck look for damage. It may complain of the padding of a bitmap alone,
// which the library does not set and no kernel reads.
func checkSound(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command("/sbin/e2fsck", "-f", "-n", path).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "? no") && !strings.HasPrefix(line, "Padding at end of inode bitmap") {
			t.Errorf("e2fsck: %s", line)
		}
	}
	if !strings.Contains(string(out), "Pass 5") {
		t.Errorf("e2fsck ended early: %s", out)
	}
}

// TestFromTar holds what images need of the library: everything that a tar stream can
// say of a file is in the file system, and e2fsck finds it sound.
func TestFromTar(t *testing.T) {
	when := time.Unix(1_700_000_000, 0)
	files := []tar.Header{
		{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "etc/file", Mode: 0o4640, Uid: 70000, Gid: 7, ModTime: when, Gname: strings.Repeat("0123456789", 1000),
			PAXRecords: map[string]string{"SCHILY.xattr.user.colour": "blue", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00"}},
		{Typeflag: tar.TypeLink, Name: "hard", Linkname: "etc/file"},
		{Typeflag: tar.TypeSymlink, Name: "soft", Linkname: "etc/file", Mode: 0o777},
		{Typeflag: tar.TypeSymlink, Name: "long", Linkname: strings.Repeat("x", 200), Mode: 0o777},
		{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o600},
	}
	for i := range 300 {
		files = append(files, tar.Header{Typeflag: tar.TypeReg, Name: "many/" + strings.Repeat("n", 100) + string(rune('a'+i%26)) + strings.Repeat("m", i/26), Mode: 0o644})
	}
	tree := stream(t, files...)
	out, first := build(t, tree)
	checkSound(t, out)
	for command, want := range map[string][]string{
		"stat /etc/file":               {"Mode:  04640", "User: 70000", "Group:     7", "Links: 2", "Size: 10000", "user.colour", "security.capability"},
		"stat /hard":                   {"Links: 2", "Size: 10000"},
		"stat /soft":                   {`Fast link dest: "etc/file"`},
		"stat /long":                   {"symlink", "Size: 200"},
		"stat /dev/null":               {"character special", "01:03"},
		"stat /pipe":                   {"FIFO"},
		"cat /etc/file":                {"0123456789"},
		"ea_get /etc/file user.colour": {"blue"},
	} {
		got := run(t, "debugfs", "-R", command, out)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: want %q in\n%s", command, w, got)
			}
		}
	}
	if _, second := build(t, tree); !bytes.Equal(first, second) {
		t.Error("a second file system of the same stream differs")
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	big := stream(t, tar.Header{Typeflag: tar.TypeReg, Name: "f", Gname: strings.Repeat("x", 64<<20)})
	for what, c := range map[string]struct {
		in    []byte
		limit int64
	}{
		"too large":               {big, 16 << 20},
		"cut off":                 {big[:1<<20], 1 << 30},
		"no tar stream":           {bytes.Repeat([]byte("text "), 1000), 1 << 30},
		"a link without a target": {stream(t, tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "none"}), 1 << 30},
	} {
		if err := FromTar(bytes.NewReader(c.in), filepath.Join(dir, what), c.limit); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := FromTar(bytes.NewReader(nil), there, 1<<30); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
}
