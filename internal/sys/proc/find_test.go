package proc

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sys/fileid"
)

// plant writes a program with a mode, and the directories to it.
func plant(t *testing.T, path string, mode fs.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho mark\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// distrust makes one directory the only one that guests can write to.
func distrust(t *testing.T, dirs ...string) {
	t.Helper()
	Distrust(func() (list []Writable, err error) {
		for _, dir := range dirs {
			if id, err := fileid.Of(dir); err == nil {
				list = append(list, Writable{id, "the guest of a sandbox can write to " + dir})
			}
		}
		return list, nil
	})
	t.Cleanup(func() { Distrust(nil) })
}

// TestWhatAGuestCanWriteIsNotRun tries each way in which a directory of the PATH can lead to
// a program that is not the host's own.
func TestWhatAGuestCanWriteIsNotRun(t *testing.T) {
	root := t.TempDir()
	at := func(p string) string { return filepath.Join(root, p) }
	own := plant(t, at("own/tool"), 0o755)
	plant(t, at("share/bin/tool"), 0o755)
	plant(t, at("here/node_modules/.bin/tool"), 0o755)
	plant(t, at("open/tool"), 0o755)
	plant(t, at("anyone/tool"), 0o777)
	for _, d := range []string{"links", "detour", "away"} {
		if err := os.Mkdir(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link(t, at("share/bin/tool"), at("links/tool"))
	link(t, at("share/bin"), at("folder"))
	link(t, at("share/hop"), at("detour/tool")) // leads back out, for now
	link(t, own, at("share/hop"))
	link(t, "../share/../own/tool", at("away/tool"))
	if err := os.Chmod(at("open"), 0o777); err != nil {
		t.Fatal(err)
	}
	distrust(t, at("share"))
	t.Chdir(at("here"))
	for name, c := range map[string]struct{ path, why string }{
		"below a share":                    {at("share/bin"), "the guest of a sandbox can write to " + at("share")},
		"below a share, not clean":         {at("own") + "/../share/bin/.", "the guest of a sandbox"},
		"a link to a program in a share":   {at("links"), "the guest of a sandbox"},
		"a link to a directory in a share": {at("folder"), "the guest of a sandbox"},
		"a link through a share":           {at("detour"), "the guest of a sandbox"},
		"dots through a share":             {at("away"), "the guest of a sandbox"},
		"the project here":                 {at("here/node_modules/.bin"), "the current directory"},
		"relative":                         {"node_modules/.bin", "a relative entry of the PATH"},
		"others can write the directory":   {at("open"), "other users can write to " + at("open")},
		"others can write the program":     {at("anyone"), "other users can write to " + at("anyone/tool")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", c.path)
			var failed *NotFoundError
			_, err := Find("tool")
			if !errors.As(err, &failed) || !errors.Is(err, exec.ErrNotFound) || len(failed.Skipped) != 1 || !strings.Contains(failed.Skipped[0].Why, c.why) {
				t.Errorf("%v, want: %s", err, c.why)
			}
			if out, err := Command(t.Context(), "tool").CombinedOutput(); err == nil || len(out) != 0 {
				t.Errorf("it ran: %q, %v", out, err)
			}
			t.Setenv("PATH", c.path+":"+at("own"))
			if got, err := Find("tool"); got != own || err != nil {
				t.Errorf("with another on the PATH: %q, %v", got, err)
			}
			for _, dir := range filepath.SplitList(pathOf(Environ())) {
				if dir == c.path {
					t.Errorf("a child would search %s", dir)
				}
			}
		})
	}
}

func pathOf(env []string) string {
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			return p
		}
	}
	return ""
}

func TestAnEmptyEntryOfThePathIsNotTheCurrentDirectory(t *testing.T) {
	dir := t.TempDir()
	plant(t, filepath.Join(dir, "tool"), 0o755)
	t.Chdir(dir)
	t.Setenv("PATH", ":")
	if p, err := Find("tool"); err == nil {
		t.Errorf("found %s", p)
	}
}

// TestASharedFileIsNotRun: a mount of one file may be the program itself.
func TestASharedFileIsNotRun(t *testing.T) {
	own := plant(t, filepath.Join(t.TempDir(), "tool"), 0o755)
	distrust(t, own)
	t.Setenv("PATH", filepath.Dir(own))
	if p, err := Find("tool"); err == nil {
		t.Errorf("found %s", p)
	}
}

func TestProgramsOfOtherUsersAreNotRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	own := plant(t, filepath.Join(t.TempDir(), "bin/tool"), 0o755)
	if err := os.Chown(filepath.Dir(own), 12345, 12345); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(own))
	if _, err := Find("tool"); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("%v", err)
	}
}

// TestNothingRunsWhileItIsUnknownWhatGuestsCanWrite: no list is not an empty list.
func TestNothingRunsWhileItIsUnknownWhatGuestsCanWrite(t *testing.T) {
	Distrust(func() ([]Writable, error) { return nil, errors.New("cannot read the list") })
	defer Distrust(nil)
	if p, err := Find("sh"); err == nil || !strings.Contains(err.Error(), "cannot read the list") {
		t.Errorf("%s, %v", p, err)
	}
	if err := Command(t.Context(), "sh", "-c", ":").Run(); err == nil {
		t.Error("it ran")
	}
	if got := pathOf(Environ()); got != strings.Join(systemFolders, ":") {
		t.Errorf("the PATH of a child: %s", got)
	}
}

func TestFindHonestPrograms(t *testing.T) {
	root := t.TempDir()
	own := plant(t, filepath.Join(root, "own/tool"), 0o755)
	if err := os.Mkdir(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	linked := filepath.Join(root, "bin/linked")
	link(t, own, linked)
	distrust(t, filepath.Join(root, "elsewhere"))
	t.Setenv("PATH", filepath.Dir(own)+":"+filepath.Dir(linked)+":/no/such/folder")
	for name, want := range map[string]string{"tool": own, "linked": linked} {
		if got, err := Find(name); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := Find("none-of-that-name"); err == nil || err.Error() != "there is no none-of-that-name on the PATH" {
		t.Errorf("nowhere: %v", err)
	}
	for _, name := range []string{"", "../tool", "/bin/sh"} {
		if p, err := Find(name); err == nil {
			t.Errorf("%q is no name, found %s", name, p)
		}
	}
	t.Chdir("/") // the root is no project
	t.Setenv("PATH", "/usr/bin:/bin")
	if got, err := Find("sh"); err != nil || filepath.Base(got) != "sh" {
		t.Errorf("sh of the system: %q, %v", got, err)
	}
}

func TestEnvironNamesNoCode(t *testing.T) {
	for _, k := range []string{"LD_LIBRARY_PATH", "LD_PRELOAD", "PERL5LIB", "PERL5OPT", "PYTHONPATH", "QEMU_MODULE_DIR", "APT_CONFIG", "BASH_ENV", "ENV", "GIT_SSH_COMMAND", "MKE2FS_CONFIG"} {
		t.Setenv(k, "/project/evil")
	}
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	env := Environ()
	for _, v := range env {
		if strings.Contains(v, "evil") {
			t.Errorf("a child gets %s", v)
		}
	}
	if !slices.Contains(env, "http_proxy=http://127.0.0.1:1") {
		t.Errorf("no proxy in %q", env)
	}
}

// TestAttackTemporaryFilesInAProject: direnv and the like put TMPDIR into a project, where a guest changes the trees
// that programs of the host build.
func TestAttackTemporaryFilesInAProject(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"share/tmp", "own", "here/tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link(t, filepath.Join(root, "share/tmp"), filepath.Join(root, "link"))
	distrust(t, filepath.Join(root, "share"))
	t.Chdir(filepath.Join(root, "here"))
	for dir, used := range map[string]bool{
		"own": true, "share/tmp": false, "link": false, "here/tmp": false,
	} {
		dir = filepath.Join(root, dir)
		t.Setenv("TMPDIR", dir)
		if got := slices.Contains(Environ(), "TMPDIR="+dir); got != used {
			t.Errorf("a program gets %s: %v", dir, got)
		}
		if got := TempDir() == dir; got != used {
			t.Errorf("%s is used: %v", dir, got)
		}
	}
	t.Setenv("TMPDIR", "tmp")
	if slices.Contains(Environ(), "TMPDIR=tmp") || TempDir() != "/tmp" {
		t.Error("a relative folder is used")
	}
}

// TestAttackALinkAmongThePrograms: a program searches the PATH itself, so a folder with a link into a project is not on it.
func TestAttackALinkAmongThePrograms(t *testing.T) {
	root := t.TempDir()
	plant(t, filepath.Join(root, "share/helper"), 0o755)
	plant(t, filepath.Join(root, "bin/own"), 0o755)
	plant(t, filepath.Join(root, "clean/own"), 0o755)
	link(t, filepath.Join(root, "share/helper"), filepath.Join(root, "bin/helper"))
	link(t, filepath.Join(root, "none"), filepath.Join(root, "clean/dangling"))
	distrust(t, filepath.Join(root, "share"))
	t.Setenv("PATH", filepath.Join(root, "bin")+":"+filepath.Join(root, "clean")+":/nonexistent")
	if out, err := Command(t.Context(), "/bin/sh", "-c", "helper").CombinedOutput(); err == nil {
		t.Errorf("a child ran it: %q", out)
	}
	if out, err := Command(t.Context(), "/bin/sh", "-c", "own").Output(); err != nil || string(out) != "mark\n" {
		t.Errorf("%q, %v", out, err)
	}
	left := LeftOut()
	if len(left) != 1 || left[0].Path != filepath.Join(root, "bin") || !strings.Contains(left[0].Why, "helper in it: the guest of a sandbox") {
		t.Errorf("%+v", left)
	}
}

// TestAttackAFolderOfThePathIsSharedLater: a long-lived process has looked through the PATH when a sandbox begins to share
// a directory that a link in a folder of it leads to. What the user installs meanwhile is seen a moment later.
func TestAttackAFolderOfThePathIsSharedLater(t *testing.T) {
	root := t.TempDir()
	plant(t, filepath.Join(root, "tools/helper"), 0o755)
	plant(t, filepath.Join(root, "open/tool"), 0o777)
	bin := filepath.Dir(plant(t, filepath.Join(root, "bin/own"), 0o755))
	link(t, filepath.Join(root, "tools/helper"), filepath.Join(bin, "helper"))
	t.Setenv("PATH", bin)
	searchedIn := func(want bool) {
		t.Helper()
		if got := slices.Contains(filepath.SplitList(pathOf(Environ())), bin); got != want {
			t.Errorf("a child would search it: %v", got)
		}
	}
	elapse := func(d time.Duration) {
		lastSearch.Lock()
		defer lastSearch.Unlock()
		lastSearch.at = lastSearch.at.Add(-d)
	}
	searchedIn(true)
	distrust(t, filepath.Join(root, "tools"))
	searchedIn(false)
	distrust(t)
	searchedIn(true)
	elapse(-time.Hour) // however slow this host is
	link(t, filepath.Join(root, "open/tool"), filepath.Join(bin, "more"))
	searchedIn(true) // it is not looked through again
	elapse(time.Hour + searchTime)
	searchedIn(false)
	if err := os.Remove(filepath.Join(bin, "more")); err != nil {
		t.Fatal(err)
	}
	elapse(searchTime)
	searchedIn(true)
	t.Chdir(filepath.Join(root, "tools"))
	searchedIn(false)
}
