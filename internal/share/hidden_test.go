package share

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/undo"
)

func hiddenProject(t *testing.T) *project {
	return newProject(t, guard.Options{Hide: []string{"secrets/", "config/prod.yml"}, Show: []string{".env.ci"}}, func(p *project) {
		p.sh(p.host, `mkdir secrets config deep .aws .env.d venv
			for f in .env .env.local .env.ci .env.example deep/.env secrets/x config/prod.yml config/dev.yml .aws/credentials id_ed25519 .env.d/x; do echo "SECRET of $f" >$f; done
			printf -- '-----BEGIN PRIVATE KEY-----\nSECRET' >tls.key; printf -- '-----BEGIN CERTIFICATE-----\n' >ca.pem
			printf '//r.example/:_authToken=SECRET' >.npmrc; echo color=true >deep/.npmrc`)
	})
}

// TestTheGuestDoesNotSeeHiddenPaths tries each way to list, read, link, move or replace one.
func TestTheGuestDoesNotSeeHiddenPaths(t *testing.T) {
	p := hiddenProject(t)
	hidden := []string{".env", ".env.local", "deep/.env", "secrets", "secrets/x", "config/prod.yml", ".aws", ".aws/credentials", "id_ed25519", "tls.key", ".npmrc"}
	shown := []string{".env.ci", ".env.example", "config/dev.yml", "ca.pem", "deep/.npmrc", ".env.d/x", "venv"}
	list := p.sh(p.guest, `find . | sed 's,^\./,,' | sort`)
	for _, name := range hidden {
		if slices.Contains(strings.Split(list, "\n"), name) {
			t.Errorf("%s is listed", name)
		}
		if _, err := os.Lstat(filepath.Join(p.guest, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range shown {
		if !slices.Contains(strings.Split(list, "\n"), name) {
			t.Errorf("%s is not listed", name)
		}
	}
	for _, way := range []string{
		`cat .env`, `cat .ENV`, `ln .env x && cat x`, `mv .env x && cat x`, `mv secrets x && cat x/x`, `cp -r . ../copy-of-all 2>/dev/null; grep -rs SECRET .env* secrets deep/.env`,
		`mv config c2; cat c2/prod.yml`, `mv deep d2; cat d2/.env`, `ln -s .env y && cat y`, `cat secrets/../secrets/x`, `rm -f .env; rm -rf secrets .aws; rmdir secrets`,
		`echo evil >.env; echo evil >.env.local; mkdir secrets; echo evil >secrets/x; mkdir .aws; echo evil >.aws/credentials`, `echo evil >n; mv n id_ed25519`, `echo evil >n; mv n deep/.env`,
		`echo evil >m; ln m tls.key`,
	} {
		out, _ := p.try(p.guest, way)
		if strings.Contains(strings.ReplaceAll(out, "SECRET of .env.ci", ""), "SECRET of .env\n") || strings.Contains(out, "SECRET of secrets") || strings.Contains(out, "SECRET of deep") || strings.Contains(out, "prod.yml\nS") || strings.Contains(out, "SECRET of config/prod") {
			t.Errorf("%s:\n%s", way, out)
		}
	}
	if got := readText(t, filepath.Join(p.host, "d2/.env")); got != "SECRET of deep/.env\n" { // it went with its directory
		t.Errorf("d2/.env: %q", got)
	}
	for _, name := range []string{".env", ".env.local", "secrets/x", "config/prod.yml", ".aws/credentials", "id_ed25519"} {
		p.hostHas(name, "SECRET of "+name+"\n")
	}
	if out := p.sh(p.guest, `cat .env secrets/x; ls -A | grep -Fx .env; ls secrets`); out != "evil\nevil\n.env\nx\n" {
		t.Errorf("the guest's own: %q", out)
	}
}

// TestAFileThatTheHostMakesLaterIsHidden: also from a guest that knows its node.
func TestAFileThatTheHostMakesLaterIsHidden(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}})
	root := f.tempRoot(t)
	writeFile(t, filepath.Join(root, "server.key"), "empty so far")
	id := lookup(t, f, rootID, "server.key")
	writeFile(t, filepath.Join(root, "server.key"), "-----BEGIN RSA PRIVATE KEY-----")
	writeFile(t, filepath.Join(root, ".env"), "SECRET")
	h := header(rootID)
	if st := f.Lookup(nil, &h, ".env", &fuse.EntryOut{}); st == fuse.OK {
		var e fuse.EntryOut
		if f.Lookup(nil, &h, ".env", &e); e.NodeId != 0 {
			t.Error(".env is found")
		}
	}
	if st := f.Open(nil, &fuse.OpenIn{InHeader: header(id)}, &fuse.OpenOut{}); st == fuse.OK {
		t.Error("a key that the host wrote is opened by a node that was known before")
	}
}

// TestWithoutAStoreChangesAreRefused: nothing weaker takes its place.
func TestWithoutAStoreChangesAreRefused(t *testing.T) {
	log := filepath.Join(t.TempDir(), "files.log")
	f := newTest(t, Options{Guard: &guard.Options{Guard: []string{"deploy/"}}, Events: log})
	root := f.tempRoot(t)
	for _, d := range []string{".git/hooks", "deploy"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(root, ".git/config"), "host")
	writeFile(t, filepath.Join(root, "deploy/run.sh"), "host")
	git := lookup(t, f, rootID, ".git")
	config, hooks := lookup(t, f, git, "config"), lookup(t, f, git, "hooks")
	deploy := lookup(t, f, rootID, "deploy")
	run := lookup(t, f, deploy, "run.sh")
	as := func(id uint64) fuse.InHeader { return fuse.InHeader{NodeId: id, Caller: fuse.Caller{Pid: 7}} }
	h, d := as(git), as(deploy)
	for what, st := range map[string]fuse.Status{
		"open":     f.Open(nil, &fuse.OpenIn{InHeader: as(config), Flags: unix.O_WRONLY}, &fuse.OpenOut{}),
		"truncate": f.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: as(config), Valid: fuse.FATTR_SIZE}}, &fuse.AttrOut{}),
		"mode":     f.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: as(run), Valid: fuse.FATTR_MODE, Mode: 0o777}}, &fuse.AttrOut{}),
		"xattr":    f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: as(run)}, "user.x", []byte("y")),
		"unxattr":  f.RemoveXAttr(nil, &d, "user.x"),
		"unlink":   f.Unlink(nil, &h, "config"),
		"rmdir":    f.Rmdir(nil, &h, "hooks"),
		"create":   f.Create(nil, &fuse.CreateIn{InHeader: as(hooks), Flags: unix.O_WRONLY, Mode: 0o755}, "pre-commit", &fuse.CreateOut{}),
		"tmpfile":  f.Tmpfile(nil, &fuse.CreateIn{InHeader: as(hooks), Flags: unix.O_RDWR, Mode: 0o755}, &fuse.CreateOut{}),
		"mkdir":    f.Mkdir(nil, &fuse.MkdirIn{InHeader: as(rootID), Mode: 0o755}, ".vscode", &fuse.EntryOut{}),
		"mknod":    f.Mknod(nil, &fuse.MknodIn{InHeader: as(rootID), Mode: unix.S_IFREG | 0o644}, ".envrc", &fuse.EntryOut{}),
		"symlink":  f.Symlink(nil, &d, "x", "y", &fuse.EntryOut{}),
		"link":     f.Link(nil, &fuse.LinkIn{InHeader: as(rootID), Oldnodeid: config}, "l", &fuse.EntryOut{}),
		"linkto":   f.Link(nil, &fuse.LinkIn{InHeader: as(hooks), Oldnodeid: run}, "l", &fuse.EntryOut{}),
		"rename":   f.Rename(nil, &fuse.RenameIn{InHeader: as(git), Newdir: rootID}, "config", "c"),
		"renameto": f.Rename(nil, &fuse.RenameIn{InHeader: as(git), Newdir: git}, "HEAD.none", "config"),
	} {
		want := fuse.EPERM
		if what == "renameto" {
			want = fuse.ENOENT
		}
		if st != want {
			t.Errorf("%s: %v", what, st)
		}
	}
	if st := f.Rename(nil, &fuse.RenameIn{InHeader: as(rootID), Newdir: rootID}, ".git", "git2"); st != fuse.Status(unix.EXDEV) {
		t.Errorf("rename of the parent: %v", st)
	}
	seen := map[string]int{}
	if err := guard.ReadEvents(log, func(e guard.Event) error {
		if e.PID != 7 || e.Share != root || e.Action != guard.Refused {
			b, _ := json.Marshal(e)
			t.Errorf("%s", b)
		}
		seen[e.Path]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{".git/config", ".git/hooks", "deploy", ".vscode", ".envrc", ".git"} {
		if seen[path] != 1 {
			t.Errorf("%s is logged %d times", path, seen[path])
		}
	}
}

// TestPrivateVersionsSurviveAServer: the next server of the share has them, also for a node that
// the guest knows.
func TestPrivateVersionsSurviveAServer(t *testing.T) {
	store := filepath.Join(t.TempDir(), "private")
	o := Options{Root: t.TempDir(), Guard: &guard.Options{}, Private: store}
	f := newTest(t, o)
	writeFile(t, filepath.Join(o.Root, ".envrc"), "host")
	id := lookup(t, f, rootID, ".envrc")
	var open fuse.OpenOut
	if st := f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDWR | unix.O_TRUNC}, &open); st != fuse.OK {
		t.Fatal(st)
	}
	if st := write(f, open.Fh, 0, 0, "guest"); st != fuse.OK {
		t.Fatal(st)
	}
	g := newTest(t, o)
	if err := g.load(f.save(), false); err != nil {
		t.Fatal(err)
	}
	if got := read(t, g, open.Fh); got != "guest" {
		t.Errorf("the open file: %q", got)
	}
	if st := g.Open(nil, &fuse.OpenIn{InHeader: header(id)}, &open); st != fuse.OK || read(t, g, open.Fh) != "guest" {
		t.Errorf("the node: %v", st)
	}
	if again := lookup(t, g, rootID, ".envrc"); again != id {
		t.Errorf("node %d, was %d", again, id)
	}
	if b := readText(t, filepath.Join(o.Root, ".envrc")); b != "host" {
		t.Errorf("on the host: %q", b)
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestTemporaryNamesAreHidden: rules hide the names that files have while bawn makes them.
func TestTemporaryNamesAreHidden(t *testing.T) {
	rules, err := guard.New(guard.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{undo.TempPrefix + "x", tempName()} {
		if !rules.Candidate(name) || !rules.Hides(name) {
			t.Errorf("the guest sees %s", name)
		}
	}
}
