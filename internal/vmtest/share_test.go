//go:build vm

package vmtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func testdata(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestShareIsLikeADisk runs the same file operations on the guest's own disk
// and on the project.
func TestShareIsLikeADisk(t *testing.T) {
	dir := temp(t)
	script := filepath.Join(dir, "posix.py")
	writeFile(t, script, testdata(t, "posix.py"))
	lines := func(at string) map[string]string {
		found := map[string]string{}
		for l := range strings.Lines(sh(t, dir, "mkdir -p '"+at+"'; python3 posix.py '"+at+"'")) {
			name, result, _ := strings.Cut(strings.TrimSpace(l), ": ")
			found[name] = result
		}
		return found
	}
	disk, share := lines("/var/tmp/posix"), lines(dir+"/posix")
	if len(disk) < 25 || len(share) != len(disk) {
		t.Errorf("%d results on the disk, %d on the share", len(disk), len(share))
	}
	for name, want := range disk {
		if strings.Contains(want, "raised") {
			t.Errorf("%s on the disk: %s", name, want)
		}
		if share[name] != want {
			t.Errorf("%s:\n share %s\n disk  %s", name, share[name], want)
		}
	}
}

// TestShareOwner: files that any user in the guest makes belong to the person who runs bawn.
func TestShareOwner(t *testing.T) {
	dir := temp(t)
	must(t, dir, "run", "--user", "root", "--", "sh", "-c", "mkdir d; touch d/byroot; ln -s x d/link; mkfifo d/fifo")
	sh(t, dir, "touch byuser; sudo -u nobody touch /tmp/x; sudo -u daemon sh -c 'umask 0; :'")
	_ = filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			t.Error(err)
			return nil
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Getuid() || int(st.Gid) != os.Getgid() {
			t.Errorf("%s belongs to %d:%d", p, st.Uid, st.Gid)
		}
		return nil
	})
	for name, c := range ownersInside {
		t.Run(name, func(t *testing.T) {
			r := bawn(t, dir, "run", "--user", "root", "--", "sh", "-c", "set -e; umask 022; "+c.script)
			if r.code != 0 || r.out != c.want {
				t.Errorf("%+v, want %q", r, c.want)
			}
		})
	}
	_ = filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			t.Error(err)
		} else if fi.Mode()&(os.ModeSetuid|os.ModeSetgid|os.ModeDevice) != 0 || fi.Mode().IsRegular() && fi.Mode()&0o600 != 0o600 {
			t.Errorf("%s has mode %v", p, fi.Mode())
		}
		return nil
	})
}

// ownersInside are commands of the guest's root, and of other users of the guest, as they end
// on a local disk.
var ownersInside = map[string]struct{ script, want string }{
	"a daemon's own file": {`install -d -o daemon -g daemon -m 0700 data; cd data
setpriv --reuid daemon --regid daemon --clear-groups sh -c 'umask 077; echo one >log; echo two >>log; cat log; mkdir sub; mv log sub'
stat -c '%U:%G %a' . sub/log; ! setpriv --reuid nobody --regid nogroup --clear-groups cat sub/log 2>/dev/null`,
		"one\ntwo\ndaemon:daemon 700\ndaemon:daemon 600\n"},
	"an archive": {`mkdir -p /tmp/in from to; cd from; echo x >a; ln -s a l; ln a hard; chown 12:34 a; chown -h 56:78 l; chmod 6755 a; mkdir -m 1777 d; mkfifo p; mknod null c 1 3
tar cf /tmp/in/t.tar .; cd ../to; tar xpf /tmp/in/t.tar --same-owner; cp -a . ../copied; cd ../copied
stat -c '%n %u:%g %a %h %F' a l hard d p null`,
		"a 12:34 6755 2 regular file\nl 56:78 777 1 symbolic link\nhard 12:34 6755 2 regular file\nd 0:0 1777 2 directory\np 0:0 644 1 fifo\nnull 0:0 644 1 character special file\n"},
	"root and modes": {`mkdir closed; echo x >closed/f; chmod 0 closed/f; chmod 0555 closed; cat closed/f; echo y >>closed/f; stat -c %a closed/f closed; rm -r closed; ls -d closed 2>/dev/null || true`,
		"x\n0\n555\n"},
	"set-user-ID": {`cp /usr/bin/id prog; chown daemon prog; chmod u+s prog; setpriv --reuid nobody --regid nogroup --clear-groups ./prog -un
setpriv --reuid daemon --regid daemon --clear-groups sh -c 'echo >>prog'; stat -c %a prog`,
		"daemon\n755\n"},
	"git of another user": {`setpriv --reuid "$(stat -c %u .)" --clear-groups git init -q repo; cd repo; git status --short; setpriv --reuid daemon --clear-groups git rev-parse --is-inside-work-tree`,
		"true\n"},
	"a sticky directory": {`mkdir -m 1777 shared; setpriv --reuid daemon --clear-groups touch shared/f; setpriv --reuid nobody --clear-groups rm -f shared/f 2>/dev/null || echo refused; rm shared/f`,
		"refused\n"},
	"a directory with its group": {`mkdir g; chgrp games g; chmod 2775 g; touch g/f; mkdir g/d; stat -c '%G %a' g/f g/d`,
		"games 644\ngames 2755\n"},
}

// TestShareIsLive: changes of host and guest are seen by the other while programs run.
func TestShareIsLive(t *testing.T) {
	dir := temp(t)
	file := filepath.Join(dir, "f")
	writeFile(t, file, "one")
	if got := sh(t, dir, "cat f; ls"); got != "onef\n" {
		t.Errorf("%q", got)
	}
	c := command(t.Context(), dir, "run", "--", "sh", "-c", "while [ \"$(cat f)\" != two ]; do :; done; while ! [ -e new ]; do :; done; while [ -e gone ]; do :; done; echo seen > answer")
	writeFile(t, filepath.Join(dir, "gone"), "")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, "two")
	writeFile(t, filepath.Join(dir, "new"), "")
	if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, filepath.Join(dir, "answer")); got != "seen\n" { // at once
		t.Errorf("%q", got)
	}
	// Replaced by a rename, as editors do.
	tmp := filepath.Join(dir, "f.new")
	writeFile(t, tmp, "three")
	if err := os.Rename(tmp, file); err != nil {
		t.Fatal(err)
	}
	sh(t, dir, "while [ \"$(cat f)\" != three ]; do :; done")

	// What the guest made is the same on the host: written by mapping, sparse,
	// under any name, with its attributes and times.
	sh(t, dir, `python3 -c '
import mmap, os
open("mapped", "wb").write(bytes(9000))
with open("mapped", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
    m[5000:5003] = b"map"
with open("sparse", "wb") as f:
    f.truncate(1 << 30)
open(b"\xff\xfe", "w").close()
os.setxattr("mapped", "user.from", b"guest")
os.utime("mapped", ns=(1, 1_000_000_000_123_456_789))
'`)
	mapped := filepath.Join(dir, "mapped")
	if got := readFile(t, mapped); len(got) != 9000 || got[5000:5003] != "map" {
		t.Errorf("%d bytes, %q", len(got), got[:min(len(got), 5003)])
	}
	if fi, err := os.Stat(mapped); err != nil || fi.ModTime().UnixNano() != 1_000_000_000_123_456_789 {
		t.Errorf("%v, %v", fi, err)
	}
	value := make([]byte, 16)
	if n, err := unix.Getxattr(mapped, "user.from", value); err != nil || string(value[:n]) != "guest" {
		t.Errorf("%q, %v", value, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "sparse"), &st); err != nil || st.Size != 1<<30 || st.Blocks > 100 {
		t.Errorf("%d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "\xff\xfe")); err != nil {
		t.Error(err)
	}
}

// TestShareIsReplaced: the host puts another file, and another directory, where shared ones lay.
func TestShareIsReplaced(t *testing.T) {
	dir := temp(t)
	extra := filepath.Join(base, "home", "extra")
	file, old := filepath.Join(extra, "file"), extra+".old"
	rename := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	watched := filepath.Join(extra, "watched")
	t.Cleanup(func() { // other tests share the directory
		if err := os.RemoveAll(watched); err != nil {
			t.Error(err)
		}
	})
	w := watchInside(t, dir, watched, "run")
	writeFile(t, file+".new", "replaced\n")
	rename(file+".new", file)
	if got := sh(t, dir, "cat /etc/bawn-file"); got != "replaced\n" {
		t.Errorf("the file: %q", got)
	}
	rename(extra, old)
	fails(t, dir, 125, "is gone", "run", "--", "true")
	if err := os.MkdirAll(filepath.Join(extra+".new", "watched"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(extra+".new", "watched", "new"), "x\n")
	rename(extra+".new", extra)
	defer func() {
		if err := os.RemoveAll(old); err != nil {
			t.Error(err)
		}
	}()
	writeFile(t, file, "extra\n") // as it was, for others
	writeFile(t, filepath.Join(extra, "new"), "new\n")
	if got := sh(t, dir, "cat /etc/bawn-file '"+extra+"/new'"); got != "extra\nnew\n" {
		t.Errorf("the directory: %q", got)
	}
	w.saw(t, "new") // in the place of the directory that it began to watch
	w.sees(t, "later")
	rename(filepath.Join(extra, "new"), filepath.Join(dir, "new"))
}

func TestShareTools(t *testing.T) {
	dir := temp(t)
	writeFile(t, filepath.Join(dir, "hello.c"), "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 0; }\n")
	writeFile(t, filepath.Join(dir, "Makefile"), "hello: hello.c\n\tcc -o $@ $<\n")
	writeFile(t, filepath.Join(dir, "package.json"), `{"name":"x","version":"1.0.0","scripts":{"hi":"node -e \"console.log(6*7)\""},"dependencies":{"dep":"file:./dep"}}`)
	if err := os.Mkdir(filepath.Join(dir, "dep"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "dep", "package.json"), `{"name":"dep","version":"1.0.0","main":"i.js"}`)
	writeFile(t, filepath.Join(dir, "dep", "i.js"), "module.exports = 42\n")
	got := sh(t, dir, `
git init -q . && git add -A && git -c user.name=n -c user.email=e commit -qm first
make >&2 && ./hello && make | tail -1
git checkout -q -b other && echo more >> hello.c && git -c user.name=n -c user.email=e commit -qam second
git checkout -q - && git -c user.name=n -c user.email=e merge -q other && git log --format=%s && git fsck --no-progress && git gc -q && git status --short
npm install --offline --no-audit --no-fund >&2 && node -e 'console.log(require("dep"))' && npm run -s hi
`)
	for _, want := range []string{"hello\n", "up to date", "second\nfirst\n", "42\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	out, err := exec.Command("git", "-C", dir, "-c", "safe.directory=*", "log", "--format=%s").CombinedOutput()
	if err != nil || string(out) != "second\nfirst\n" {
		t.Errorf("git on the host: %s, %v", out, err)
	}
}

// TestShareManyFiles: a hundred thousand small files made on the host (20,000 with -short).
func TestShareManyFiles(t *testing.T) {
	dir := temp(t)
	const dirs = 100
	files := rounds(1000, 200)
	for d := range dirs {
		sub := filepath.Join(dir, fmt.Sprintf("d%02d", d))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for f := range files {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file-%04d", f)), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := strings.TrimSpace(sh(t, dir, "find . -type f | wc -l; ls d42 | sort | md5sum | cut -c1-32; cat d9*/file-01* | wc -c; rm -rf d0*; ls | wc -l")); !strings.HasPrefix(got, fmt.Sprintln(dirs*files)) || !strings.HasSuffix(got, "\n1000\n90") {
		t.Errorf("%q", got)
	}
}

func TestShareReadOnly(t *testing.T) {
	dir := shared(t)
	extra := filepath.Join(base, "home", "extra")
	if got := sh(t, dir, "cat "+extra+"/file /etc/bawn-file"); got != "extra\nextra\n" {
		t.Errorf("%q", got)
	}
	for _, cmd := range []string{
		"touch " + extra + "/new", "rm " + extra + "/file", "echo x > " + extra + "/file", "chmod 777 " + extra,
		"mv " + extra + "/file " + extra + "/g", "echo x > /etc/bawn-file", "mkdir " + extra + "/d", "ln " + extra + "/file " + extra + "/l",
		"mount -o remount,rw " + extra + " 2>&1; touch " + extra + "/new", // the guest may think so
		"mkdir -p /mnt/x; mount -t virtiofs share1 /mnt/x; touch /mnt/x/new",
	} {
		if r := bawn(t, dir, "run", "--user", "root", "--", "sh", "-c", cmd); r.code == 0 || !strings.Contains(r.err, "Read-only file system") {
			t.Errorf("%s: %+v", cmd, r)
		}
	}
	entries, err := os.ReadDir(extra)
	if err != nil || len(entries) != 1 || readFile(t, filepath.Join(extra, "file")) != "extra\n" {
		t.Errorf("the host's directory: %v, %v", entries, err)
	}
	sh(t, dir, "sudo mount -o remount,ro "+extra+"; sudo umount /mnt/x || true")
}

// TestAttackFiles is attack 14: root in the guest tries to leave the share.
func TestAttackFiles(t *testing.T) {
	dir := temp(t)
	secret := filepath.Join(base, "secret")
	writeFile(t, secret, "the secret")
	t.Cleanup(func() { os.Remove(secret) })
	root := func(script string) result {
		return bawn(t, dir, "run", "--user", "root", "--", "sh", "-c", script)
	}
	up := strings.Repeat("../", 12)
	for _, script := range []string{
		"cat " + secret, "cat " + up + secret[1:], "ln -s " + secret + " link; cat link",
		"ln -s " + up + secret[1:] + " rel; cat rel", "ln " + secret + " hard; cat hard",
		"cat /proc/self/root" + secret, "cat /proc/1/root" + secret,
		"mkdir -p m; mount --bind / m; cat m" + secret,
		"mkdir -p ns; unshare -m sh -c 'mount --bind / ns; cat ns" + secret + "'",
		"mkdir -p /mnt/s; mount -t virtiofs share0 /mnt/s; cat /mnt/s/../" + filepath.Base(secret),
	} {
		r := root(script)
		if r.code == 0 || strings.Contains(r.out, "the secret") {
			t.Errorf("%s: %+v", script, r)
		}
		if !strings.Contains(r.err, "No such file") {
			t.Errorf("%s: not refused as it should be: %s", script, r.err)
		}
	}
	root("umount /mnt/s m 2>/dev/null")

	if r := root("cp /bin/true suid; chown daemon suid; chmod 6755 suid; mkdir sg; chmod g+s sg; stat -c %a suid sg"); r.out != "6755\n2755\n" {
		t.Errorf("set-user-ID inside: %+v", r)
	}
	for script, say := range map[string]string{
		"mknod null c 1 3; echo x >null":       "Permission denied",
		"mknod disk b 8 0; cat disk":           "Permission denied",
		"touch cap; setcap cap_net_raw+ep cap": "",
		"touch l; chattr +i l":                 "",
		"setfattr -n security.x -v y . || python3 -c 'import os; os.setxattr(\".\", \"security.x\", b\"y\")'": "",
		"python3 -c 'import os; os.setxattr(\".\", \"trusted.x\", b\"y\")'":                                   "not supported",
	} {
		if r := root(script); r.code == 0 || !strings.Contains(r.err, say) {
			t.Errorf("%s: %+v", script, r)
		}
	}
	_ = filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode()&(os.ModeSetuid|os.ModeSetgid|os.ModeDevice) != 0 {
			t.Errorf("%s has mode %v", p, fi.Mode())
		}
		return nil
	})
	if got := readFile(t, secret); got != "the secret" {
		t.Errorf("the secret is now %q", got)
	}
}

// TestAttackSwap is attack 14's race: a directory on the host is swapped for a
// symbolic link, over and over, while the guest walks through it.
func TestAttackSwap(t *testing.T) {
	dir := temp(t)
	outside := filepath.Join(base, "outside")
	for _, d := range []string{outside, filepath.Join(dir, "real")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.RemoveAll(outside) })
	writeFile(t, filepath.Join(outside, "f"), "outside")
	writeFile(t, filepath.Join(dir, "real", "f"), "inside")
	swap := filepath.Join(dir, "swap")
	done := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for {
			select {
			case <-done:
				return
			default:
			}
			_ = os.Remove(swap)
			_ = os.Symlink(outside, swap)
			_ = os.Remove(swap)
			_ = os.Rename(filepath.Join(dir, "real"), swap)
			_ = os.Rename(swap, filepath.Join(dir, "real"))
		}
	}()
	got := bawn(t, dir, "run", "--user", "root", "--", "sh", "-c", `
i=0; while [ $i -lt 400 ]; do cat swap/f 2>/dev/null; echo; (echo x > swap/made-$i) 2>/dev/null; i=$((i+1)); done`)
	close(done)
	<-finished
	if got.code != 0 || strings.Contains(got.out, "outside") {
		t.Errorf("%+v", got)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("made outside: %v, %v", entries, err)
	}
}

// TestAttackDevices is part of attack 18: root in the guest breaks its own devices. The
// sandbox may end; the host goes on, and the next run works.
func TestAttackDevices(t *testing.T) {
	dir := project(t, "devices")
	must(t, dir, "run", "--memory", "1G", "--", "true")
	r := bawn(t, dir, "run", "--user", "root", "--", "sh", "-c", `
for p in /dev/vport*; do head -c 100000 /dev/urandom > $p 2>/dev/null; done
echo survived
for d in /sys/bus/virtio/devices/*; do
	case $(readlink $d/driver) in *virtiofs) echo ${d##*/} > $d/driver/unbind;; esac
done
echo unbound
for d in /sys/bus/pci/devices/*; do [ -e $d/reset ] && echo 1 > $d/reset; done 2>/dev/null
echo reset`)
	if !strings.Contains(r.out, "survived") {
		t.Errorf("%+v", r)
	}
	if r := bawn(t, dir, "stop", "--force"); r.code != 0 && !strings.Contains(r.err, "stopped") {
		t.Errorf("stop: %+v", r)
	}
	waitGone(t, filepath.Join(base, "state", "bawn", "sandboxes", "devices"))
	if got := must(t, dir, "run", "--", "echo", "again"); got != "again\n" {
		t.Errorf("%q", got)
	}
}

// TestAttackOtherUser is attack 22: other users of the host have no access to a sandbox.
func TestAttackOtherUser(t *testing.T) {
	shared(t)
	state := filepath.Join(base, "state", "bawn")
	fi, err := os.Stat(state)
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi, err)
	}
	guests := regexp.MustCompile(`/private/|/agents/[^/]+/home-[0-9]+/`)
	n := 0
	_ = filepath.Walk(state, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			t.Error(err)
			return nil
		}
		n++
		// What the guest writes to its own versions of guarded files, and to homes of agents, keeps the modes
		// that it gave them; the directories above, judged here like any other, let nobody in.
		if fi.Mode().Perm()&0o077 != 0 && !guests.MatchString(filepath.Dir(p)+"/") {
			t.Errorf("%s has mode %v", p, fi.Mode())
		}
		if fi.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
			t.Errorf("%s has mode %v on the host", p, fi.Mode())
		}
		if os.Getuid() != 0 || fi.IsDir() {
			return nil
		}
		// As nobody, for real.
		c := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", p)
		if out, err := c.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("Permission denied")) {
			t.Errorf("nobody reads %s: %s", p, out)
		}
		return nil
	})
	if n < 8 {
		t.Errorf("only %d files looked at", n)
	}
	// Neither may others look into QEMU, which has the guest's memory.
	s := inspect(t, shared(t))
	for _, pid := range []int{s.State.PID, s.Status.MachinePID} {
		if os.Getuid() == 0 {
			c := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "ls", fmt.Sprintf("/proc/%d/fd", pid))
			if err := c.Run(); err == nil {
				t.Errorf("nobody looks into process %d", pid)
			}
		}
	}
}
