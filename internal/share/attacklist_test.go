package share

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/share/guard"
)

// examples returns paths to which the rules of a kind apply, each in a directory of its own, and whether
// they apply to a file and to a directory there.
func examples(t *testing.T, kind guard.Kind, hosts bool) (list []string, file, dir map[string]bool) {
	t.Helper()
	rules, err := guard.New(guard.Options{})
	if err != nil {
		t.Fatal(err)
	}
	file, dir = map[string]bool{}, map[string]bool{}
	for i, r := range guard.Defaults {
		if r.Kind != kind {
			continue
		}
		at := "d" + strconv.Itoa(i) + "/" + strings.NewReplacer("*", "x", "#", "a").Replace(r.Path)
		judge := func(isDir bool) bool {
			names := strings.Split(at, "/")
			got, _ := rules.Judge(guard.Place{
				Dir: names[:len(names)-1], Name: names[len(names)-1], Has: func(name string) bool { return hosts && name != "HEAD" },
				IsDir: func() bool { return isDir }, Contains: func([]string) bool { return hosts }, Made: func() bool { return false },
			})
			return got == kind
		}
		list, file[at], dir[at] = append(list, at), judge(false), judge(true)
		if hosts && !file[at] {
			t.Errorf("%s is not of its kind", at)
		}
	}
	return list, file, dir
}

// TestAttackEachGuardedPath: the guest makes each path of the list, as a file, a directory and a link, by
// its name, by a rename and by a hard link. Nothing of it is on the host.
func TestAttackEachGuardedPath(t *testing.T) {
	p := newProject(t, guard.Options{}, nil)
	list, file, dir := examples(t, guard.Guarded, false)
	script := `
import os, shutil
def write(at):
    with open(at, 'w') as f: f.write('evil')
def renamed(at): write('made'); os.rename('made', at)
def linked(at): write('made'); os.link('made', at)
def pointed(at): os.symlink('../made', at)
def folder(at): os.mkdir(at); write(at + '/x')
def folders(at): os.mkdir('made'); write('made/x'); shutil.move('made', at)
def attack(at, ways):
    for i, way in enumerate(ways):
        to = 'w%d/%s' % (i, at)
        os.makedirs(os.path.dirname(to), exist_ok=True)
        try: way(to)
        except OSError: pass
        shutil.rmtree('made', ignore_errors=True)
        if os.path.lexists('made'): os.unlink('made')
`
	for _, at := range list {
		ways := ""
		if file[at] {
			ways += "write, renamed, linked, pointed, "
		}
		if dir[at] {
			ways += "folder, folders"
		}
		script += "attack('" + at + "', [" + ways + "])\n"
	}
	at := filepath.Join(t.TempDir(), "script.py")
	if err := os.WriteFile(at, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	p.sh(p.guest, `python3 `+at)
	if out := p.sh(p.host, `find . -type l; grep -rl evil . || true`); out != "" {
		t.Errorf("the host has\n%s", out)
	}
	for _, at := range list {
		for i := range 4 {
			if st, err := os.Lstat(filepath.Join(p.host, "w"+strconv.Itoa(i), at)); err == nil && file[at] && !st.IsDir() {
				t.Errorf("the host has %s", at)
			}
		}
	}
	if out := p.sh(p.guest, `find . -type f | wc -l`); len(strings.TrimSpace(out)) < 3 {
		t.Errorf("the guest has only %s files of its own: the attacks did not run", out)
	}
}

// TestAttackEachHiddenPath: a file of the host at each hidden path, with something that makes it a
// secret, is neither listed nor read nor copied nor linked by the guest.
func TestAttackEachHiddenPath(t *testing.T) {
	list, _, _ := examples(t, guard.Hidden, true)
	const secret = `-----BEGIN PRIVATE KEY-----
TOKEN= ghp_ secret token password "password" "private_key" _authToken _auth= npmAuthToken PrivateKey refresh_token "oauth" "authtoken" client-key-data @ __COM: ClearTextPassword <password> client_secret password= Password= key
`
	p := newProject(t, guard.Options{}, func(p *project) {
		for _, at := range list {
			path := filepath.Join(p.host, at)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(secret), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	})
	if out := p.sh(p.guest, `find . -type f; grep -rl 'PRIVATE KEY' . || true`); out != "" {
		t.Errorf("the guest finds\n%s", out)
	}
	script := "import os\n"
	for _, at := range list {
		script += "for way in (lambda at: open(at).read(), lambda at: os.link(at, 'stolen'), lambda at: os.rename(at, 'stolen'), os.stat, os.unlink):\n" +
			"    try: way('" + at + "'); print('" + at + "')\n    except FileNotFoundError: pass\n"
	}
	at := filepath.Join(t.TempDir(), "script.py")
	if err := os.WriteFile(at, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := p.sh(p.guest, `python3 `+at); out != "" {
		t.Errorf("the guest reaches\n%s", out)
	}
	for _, at := range list {
		p.hostHas(at, secret)
	}
}
