package transfer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/sys/regular/regulartest"
)

// hostile is a guest's side that does something while it answers. It serves a
// folder of this machine.
type hostile struct {
	files
	onList, onStat func(name string)
}

func (h hostile) ReadDir(p string) ([]string, error) {
	if h.onList != nil {
		h.onList(p)
	}
	return h.files.ReadDir(p)
}

func (h hostile) Stat(p string) (fs.FileInfo, error) {
	if h.onStat != nil {
		h.onStat(p)
	}
	return h.files.Stat(p)
}

// idOf is the identity of a directory, as of one that is shared.
func idOf(t *testing.T, path string) fileid.ID {
	t.Helper()
	id, err := fileid.Of(path)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func atHost[F interface {
	files
	close()
}](t *testing.T, shares []string, p string, open func([]fileid.ID, string) (F, string, error)) (F, string) {
	t.Helper()
	var ids []fileid.ID
	for _, path := range shares {
		ids = append(ids, idOf(t, path))
	}
	h, name, err := open(ids, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h, name
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestCopyIntoChangingDirectory is an attack: while files are copied out of the
// guest into the project, the guest puts a symbolic link to the person's home
// where a directory of the copy was.
func TestCopyIntoChangingDirectory(t *testing.T) {
	top := t.TempDir()
	home, project, guest := filepath.Join(top, "home"), filepath.Join(top, "project"), filepath.Join(top, "guest")
	write(t, filepath.Join(guest, "d", "keys"), "the attacker's")
	write(t, filepath.Join(home, "keys"), "mine")
	write(t, filepath.Join(project, "README"), "")
	src, name := atHost(t, nil, filepath.Join(guest, "d"), openSource)
	dst, at := atHost(t, []string{project}, filepath.Join(project, "d"), openDestination)
	swap := func(string) {
		if err := os.Remove(filepath.Join(project, "d")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(home, filepath.Join(project, "d")); err != nil {
			t.Fatal(err)
		}
	}
	c := copier{ctx: t.Context(), src: hostile{files: src, onList: swap}, dst: dst, task: progress.Silent.Start("", 0, progress.Bytes)}
	err := c.into(name, "d", at, false)
	if err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("the copy ended with %v", err)
	}
	if b, _ := os.ReadFile(filepath.Join(home, "keys")); string(b) != "mine" {
		t.Errorf("home/keys is now %q", b)
	}
}

// TestCopyOfChangingFile is the attack the other way: what was a file of the
// project when it was looked at is a link to a secret when it is opened, or a
// pipe that nobody writes to.
func TestCopyOfChangingFile(t *testing.T) {
	for _, kind := range []string{"link", "pipe"} {
		t.Run(kind, func(t *testing.T) {
			top := t.TempDir()
			secret, project, guest := filepath.Join(top, "secret"), filepath.Join(top, "project"), filepath.Join(top, "guest")
			write(t, secret, "mine")
			write(t, filepath.Join(project, "f"), "harmless")
			write(t, filepath.Join(guest, "x"), "")
			src, name := atHost(t, []string{project}, filepath.Join(project, "f"), openSource)
			dst, at := atHost(t, nil, filepath.Join(guest, "f"), openDestination)
			fi, err := src.Lstat(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(project, "f")); err != nil {
				t.Fatal(err)
			}
			if kind == "link" {
				err = os.Symlink(secret, filepath.Join(project, "f"))
			} else {
				err = syscall.Mkfifo(filepath.Join(project, "f"), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			c := copier{ctx: t.Context(), src: src, dst: dst, task: progress.Silent.Start("", 0, progress.Bytes)}
			if err := c.file(name, at, fi); err == nil {
				t.Error("the copy went on")
			}
			if b, err := os.ReadFile(filepath.Join(guest, "f")); err == nil {
				t.Errorf("the guest got %q", b)
			}
		})
	}
}

// TestCopyPlaces: what a person may name, and what it is copied to.
func TestCopyPlaces(t *testing.T) {
	top := t.TempDir()
	project := filepath.Join(top, "real", "project")
	write(t, filepath.Join(project, "sub", "f"), "f")
	write(t, filepath.Join(top, "elsewhere", "out", "old"), "")
	for link, target := range map[string]string{
		filepath.Join(top, "alias"):        "real",                              // of the person's
		filepath.Join(top, "mine"):         filepath.Join(top, "elsewhere/out"), // likewise
		filepath.Join(top, "intoproject"):  filepath.Join(project, "sub"),       // likewise
		filepath.Join(project, "leadsout"): filepath.Join(top, "elsewhere/out"), // perhaps the guest's
		filepath.Join(project, "leadsin"):  "sub",
	} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	from := filepath.Join(top, "from")
	write(t, filepath.Join(top, "elsewhere", "file"), "")
	if err := os.Symlink("elsewhere/file", filepath.Join(top, "tofile")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(from, "tree", "a"), "a")
	if err := os.Chmod(filepath.Join(from, "tree"), 0o750); err != nil {
		t.Fatal(err)
	}
	shares := []fileid.ID{idOf(t, project)}
	for _, c := range []struct{ dst, got, fails string }{
		{dst: project, got: project + "/tree/a"},
		{dst: project + "/new", got: project + "/new/a"},
		{dst: project + "/leadsin", got: project + "/sub/tree/a"},
		{dst: project + "/leadsout", fails: "escapes"},
		{dst: project + "/leadsout/x", fails: "escapes"},
		{dst: top + "/alias/project/leadsout/x", fails: "escapes"},
		{dst: top + "/alias/project/by-alias", got: project + "/by-alias/a"},
		{dst: top + "/intoproject/../leadsout", fails: ""}, // cleaned: nothing of the project's
		{dst: top + "/intoproject/y", got: project + "/sub/y/a"},
		{dst: top + "/mine", got: top + "/elsewhere/out/tree/a"},
		{dst: top + "/mine/z", got: top + "/elsewhere/out/z/a"},
		{dst: project + "/sub/f", fails: "exists"},
		{dst: top + "/tofile", fails: "exists"},
		{dst: top + "/no/such", fails: "no such file"},
		{dst: top + "/missing/", fails: "no such file"},
		{dst: from + "/tree/a/", fails: "not a directory"},
	} {
		src, name := atHost(t, nil, filepath.Join(from, "tree"), openSource)
		dst, at, err := openDestination(shares, c.dst)
		if err == nil {
			cp := copier{ctx: t.Context(), src: src, dst: dst, task: progress.Silent.Start("", 0, progress.Bytes)}
			err = cp.into(name, "tree", at, strings.HasSuffix(c.dst, "/"))
		}
		switch {
		case c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)):
			t.Errorf("to %s: %v, want %q", c.dst, err, c.fails)
		case c.got != "" && err != nil:
			t.Errorf("to %s: %v", c.dst, err)
		case c.got != "":
			if b, err := os.ReadFile(c.got); string(b) != "a" {
				t.Errorf("to %s: no %s: %v", c.dst, c.got, err)
			}
			if fi, err := os.Stat(filepath.Dir(c.got)); err != nil || fi.Mode().Perm() != 0o750 {
				t.Errorf("to %s: %v, %v", c.dst, fi, err)
			}
		}
	}
}

// TestCopyFailsWhole: a file that breaks off leaves the old one.
func TestCopyFailsWhole(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "f"), "old")
	h, name := atHost(t, nil, filepath.Join(dir, "f"), openDestination)
	like, err := h.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	err = h.Create(name, like, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return io.ErrUnexpectedEOF
	})
	b, _ := os.ReadFile(filepath.Join(dir, "f"))
	list, _ := os.ReadDir(dir)
	if err == nil || string(b) != "old" || len(list) != 1 {
		t.Errorf("%v, %q, %v", err, b, list)
	}
}

// TestCopyLeavesOut: what cannot be copied is left out and told, and directories get
// their modes, also where a file could not be read.
func TestCopyLeavesOut(t *testing.T) {
	top := t.TempDir()
	from := filepath.Join(top, "from")
	write(t, filepath.Join(from, "sub", "file"), "")
	if err := errors.Join(os.Chmod(from, 0o750), syscall.Mkfifo(filepath.Join(from, "pipe"), 0o600), syscall.Mkfifo(filepath.Join(from, "sub", "pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	src, name := atHost(t, nil, from, openSource)
	dst, _ := atHost(t, nil, top, openDestination)
	var skipped []string
	c := copier{
		ctx: t.Context(), src: src, dst: dst, task: progress.Silent.Start("", 0, progress.Bytes),
		skip: func(err error) { skipped = append(skipped, err.Error()) },
	}
	if err := c.into(name, "from", "to", false); err != nil || len(skipped) != 2 || !strings.Contains(strings.Join(skipped, ","), "from/sub/pipe: neither a file") {
		t.Errorf("%v; left out: %q", err, skipped)
	}
	if fi, err := os.Stat(filepath.Join(top, "to", "sub", "file")); err != nil || fi.Size() != 0 {
		t.Error(err)
	}
	c.src = hostile{files: src, onList: func(p string) { // it is gone before it is read
		if p == "from/sub" {
			os.RemoveAll(filepath.Join(from, "sub"))
		}
	}}
	if err := c.into(name, "from", "again", false); err == nil {
		t.Error("the copy went on")
	}
	for _, to := range []string{"to", "again"} {
		if fi, err := os.Stat(filepath.Join(top, to)); err != nil || fi.Mode().Perm() != 0o750 {
			t.Errorf("%v, %v", fi, err)
		}
	}
}

// TestAttackOpenSource: a link that a guest left in its share leads nowhere, neither to a file outside nor to a hidden
// one inside, and a FIFO there holds nobody; links elsewhere are the person's own.
func TestAttackOpenSource(t *testing.T) {
	top := t.TempDir()
	shared, key := filepath.Join(top, "shared"), filepath.Join(top, "key")
	err := errors.Join(os.Mkdir(shared, 0o700), os.WriteFile(key, []byte("secret"), 0o600), os.WriteFile(filepath.Join(shared, "own"), []byte("own"), 0o600),
		os.Symlink("../key", filepath.Join(shared, "up")), os.Symlink(key, filepath.Join(shared, "absolute")), os.Symlink("own", filepath.Join(shared, "inside")),
		os.Mkdir(filepath.Join(shared, "real"), 0o700), os.WriteFile(filepath.Join(shared, "real", "f"), []byte("hidden"), 0o600), os.Symlink("real", filepath.Join(shared, "deep")),
		os.Symlink(key, filepath.Join(top, "mine")), syscall.Mkfifo(filepath.Join(shared, "pipe"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	id := idOf(t, shared)
	for name, want := range map[string]string{"shared/own": "own", "shared/inside": "", "shared/deep/f": "", "shared/real/../own": "own", "shared/real/../../key": "secret", "mine": "secret", "key": "secret", "shared/up": "", "shared/absolute": "", "shared/pipe": "", "shared": "", "none": ""} {
		f, err := OpenSource([]fileid.ID{id}, filepath.Join(top, name))
		var got []byte
		if err == nil {
			got, err = io.ReadAll(f)
			f.Close()
		}
		if string(got) != want || (want == "") != (err != nil) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, want := range map[string]error{"up": ErrLink, "inside": ErrLink, "deep/f": ErrLink} {
		if _, err := OpenSource([]fileid.ID{id}, filepath.Join(shared, name)); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAttackALinkThroughAShare: a link of the person's leads into a share, and there a guest has put a link in the
// way. The path is followed up to the share, and from there no link out of it, whatever it leads to.
func TestAttackALinkThroughAShare(t *testing.T) {
	top := t.TempDir()
	project, keys := filepath.Join(top, "project"), filepath.Join(top, "keys")
	write(t, filepath.Join(keys, "id"), "secret")
	write(t, filepath.Join(project, "real", "own"), "own")
	write(t, filepath.Join(top, "beside", "f"), "f")
	for link, target := range map[string]string{
		filepath.Join(top, "mine"):      "project/dist",      // of the person's
		filepath.Join(top, "chain"):     "mine",              // likewise
		filepath.Join(top, "good"):      "project/real",      // likewise
		filepath.Join(top, "past"):      "project/../beside", // likewise
		filepath.Join(project, "dist"):  keys,                // the guest's
		filepath.Join(project, "up"):    "../keys",           // likewise
		filepath.Join(top, "throughup"): "project/up",        // of the person's
	} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	shares := []fileid.ID{idOf(t, project)}
	for path, want := range map[string]string{
		"mine/id": "", "chain/id": "", "throughup/id": "", "good/own": "own", "past/f": "f", "keys/id": "secret",
	} {
		f, err := OpenSource(shares, filepath.Join(top, path))
		var got []byte
		if err == nil {
			got, err = io.ReadAll(f)
			f.Close()
		}
		if string(got) != want || want == "" && !errors.Is(err, ErrLink) || want != "" && err != nil {
			t.Errorf("read %s: %q, %v", path, got, err)
		}
	}
	for _, path := range []string{"mine", "mine/new", "chain", "throughup"} {
		src, name := atHost(t, nil, filepath.Join(top, "beside", "f"), openSource)
		dst, at, err := openDestination(shares, filepath.Join(top, path))
		if err == nil {
			cp := copier{ctx: t.Context(), src: src, dst: dst, task: progress.Silent.Start("", 0, progress.Bytes)}
			err = cp.into(name, "authorized_keys", at, false)
			dst.root.Close()
		}
		if !errors.Is(err, ErrEscapes) {
			t.Errorf("write to %s: %v", path, err)
		}
	}
	if list, err := os.ReadDir(keys); err != nil || len(list) != 1 {
		t.Errorf("written beside the keys: %v, %v", list, err)
	}
}

// TestAttackALinkOnTheWayToASource: a guest puts a link to a hidden directory where one was on the way to what the person
// copies from a project.
func TestAttackALinkOnTheWayToASource(t *testing.T) {
	project, to := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(project, name) }
	write(t, at("secrets/in/key"), "hidden")
	write(t, at("real/in/key"), "plain")
	if err := errors.Join(os.Symlink("secrets", at("dist")), os.Symlink("../secrets", at("real/up"))); err != nil {
		t.Fatal(err)
	}
	shares := []fileid.ID{idOf(t, project)}
	for name, want := range map[string]error{
		"dist/in": ErrLink, "dist/in/key": ErrLink, "dist/in/.": ErrLink, "real/up/in": ErrLink,
		"real/in": nil, "real/in/key": nil, "real/in/.": nil, "real/../real/in": nil,
	} {
		src, _, err := openSource(shares, project+"/"+name)
		if err == nil {
			src.close()
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	src, name, err := openSource(shares, at("real/in"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	dst, into, err := openDestination(nil, to)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.close()
	c := copier{ctx: t.Context(), src: src, dst: dst, task: progress.Silent.Start("", 0, progress.Bytes)}
	if err := c.into(name, "in", into, true); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(to, "in", "key")); string(b) != "plain" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestAttackLinksDuringAnUpload: while a directory of a project is copied into a guest, the guest exchanges a file of
// it, and a directory, for links to what is hidden from it.
func TestAttackLinksDuringAnUpload(t *testing.T) {
	project, spare := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(project, name) }
	write(t, at(".env"), "hidden")
	write(t, at("secrets/key"), "hidden")
	write(t, at("dir/notes"), "plain")
	write(t, at("dir/pub/key"), "plain")
	if err := errors.Join(os.Symlink("../.env", filepath.Join(spare, "notes")), os.Symlink("../secrets", filepath.Join(spare, "pub"))); err != nil {
		t.Fatal(err)
	}
	regulartest.Exchange(t, [2]string{at("dir/notes"), filepath.Join(spare, "notes")}, [2]string{at("dir/pub"), filepath.Join(spare, "pub")})
	whole := 0
	for i := range 500 {
		src, name, err := openSource([]fileid.ID{idOf(t, project)}, at("dir"))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(spare, fmt.Sprint("copy", i))
		if err := os.Mkdir(to, 0o700); err != nil {
			t.Fatal(err)
		}
		dst, into, err := openDestination(nil, to)
		if err != nil {
			t.Fatal(err)
		}
		c := copier{ctx: t.Context(), src: src, dst: dst, task: progress.Silent.Start("", 0, progress.Bytes)}
		if err := c.into(name, "dir", into, true); err == nil {
			whole++
		}
		src.close()
		dst.close()
		err = filepath.WalkDir(to, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			if text, err := os.ReadFile(path); err != nil || string(text) != "plain" {
				t.Fatalf("%s: %q, %v", path, text, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if whole == 0 {
		t.Error("no copy ended well")
	}
}
