package share

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// TestGuestRemovesDirectoryOfGuardedFiles removes, in the guest, directories in which the host has
// guarded and hidden files, and makes them anew. The host keeps those files.
func TestGuestRemovesDirectoryOfGuardedFiles(t *testing.T) {
	files := map[string]string{
		"modules/pack/.vscode/settings.json": "{}", "modules/pack/deep/.husky/pre-commit": "x", "modules/pack/.envrc": "e", "modules/pack/index.js": "1",
		"secret/.env": "PASSWORD=x\n", "mine/.vscode/settings.json": "{}", "mine/kept": "k",
	}
	p := newProject(t, guard.Options{}, func(p *project) {
		for name, text := range files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(p.host, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(p.host, name), text)
		}
		p.sh(p.host, `mkdir clone && cd clone && `+repository)
	})
	const again = `sleep 0.3` // the time for which the guest keeps what it has seen
	for _, step := range []string{
		`ls -A modules/pack && rm -rf modules && test ! -e modules && ! ls -d modules/pack 2>/dev/null && ! ls | grep modules`,
		again + ` && test ! -e modules && ! ls | grep modules`,
		`mkdir modules && test -z "$(ls -A modules)" && mkdir modules/pack && test -z "$(ls -A modules/pack)" && echo new >modules/pack/index.js`,
		`cd modules/pack && rm index.js && rmdir ../pack && test ! -e ../pack && ! touch x 2>/dev/null && mkdir ../pack && cd ../pack && touch x && rm x`,
		`mkdir new && echo n >new/f && rm -rf modules/pack && mv new modules/pack && test "$(cat modules/pack/f)" = n && test ! -e new`,
		`rm -rf secret && test ! -e secret && mkdir secret && rmdir secret`,
		`rm -rf clone && test ! -e clone && git init -q clone && git -C clone commit -q --allow-empty -m new && git -C clone fsck && rm -rf clone && test ! -e clone`,
		`rm -r mine/.vscode && ! rmdir mine 2>/dev/null && test -e mine/kept`,
		`rm -r mine && test ! -e mine`,
	} {
		if out, err := p.try(p.guest, step); err != nil {
			t.Errorf("%s: %v\n%s", step, err, out)
		}
	}
	delete(files, "modules/pack/index.js")
	delete(files, "mine/kept")
	for name, text := range files {
		p.hostHas(name, text)
	}
	p.hostHas("modules/pack/index.js", "")
	p.hostHas("mine/kept", "")

	p.sh(p.host, `echo host >mine/from-host && echo host >secret/.env.local`)
	p.sh(p.guest, again+` && test "$(ls -A mine)" = from-host && test "$(cat mine/from-host)" = host && ls | grep mine && test ! -e secret`)
}

// TestVanishedDirectoriesAreBounded: where the list is full, rmdir(2) says what the host says.
func TestVanishedDirectoriesAreBounded(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}, Private: t.TempDir()})
	dir := filepath.Join(f.tempRoot(t), "d")
	if err := os.MkdirAll(filepath.Join(dir, ".vscode"), 0o755); err != nil {
		t.Fatal(err)
	}
	h, d := header(rootID), header(lookup(t, f, rootID, "d"))
	if st := f.Rmdir(nil, &h, "d"); st != fuse.Status(unix.ENOTEMPTY) {
		t.Errorf("rmdir of a directory that is not empty: %v", st)
	}
	must(t, f.Rmdir(nil, &d, ".vscode"))
	for i := range uint64(maxVanished) {
		f.vanished.add(key{ino: i})
	}
	if st := f.Rmdir(nil, &h, "d"); st != fuse.Status(unix.ENOTEMPTY) {
		t.Errorf("with a full list: %v", st)
	}
	f.vanished.back(key{ino: 0})
	must(t, f.Rmdir(nil, &h, "d"))
	var out fuse.EntryOut
	if must(t, f.Lookup(nil, &h, "d", &out)); out.NodeId != 0 {
		t.Error("the removed directory is found")
	}
}
