//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSessionLooksLikeTheHosts: locale, terminal and what a login has besides, with bawn run
// and with ssh.
func TestSessionLooksLikeTheHosts(t *testing.T) {
	dir := shared(t)
	entry := filepath.Join(base, "home", ".terminfo", "b", "bawn-own")
	if out, err := exec.Command("sh", "-c", "mkdir -p ${0%/*/*} && infocmp -x xterm | sed '/^#/d; s/^xterm[^,]*,/bawn-own|a terminal,/' | tic -x -o ${0%/*/*} -", entry).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	with := func(env []string, script string) string {
		t.Helper()
		r := bawnAt(t.Context(), dir, nil, env, "run", "--", "bash", "-c", script)
		if r.code != 0 {
			t.Errorf("%v %s: %+v", env, script, r)
		}
		return r.out + r.err
	}
	for _, c := range []struct {
		env          []string
		script, want string
	}{
		{[]string{"LANG=de_DE.UTF-8"}, `perl -e 1; echo $LANG; printf '\303\274' | wc -m; locale charmap`, "de_DE.UTF-8\n1\nUTF-8\n"},
		{[]string{"LC_ALL=xx_YY.UTF-8"}, `perl -e 1; echo $LC_ALL; printf '\303\274' | wc -m; locale charmap`, "C.UTF-8\n1\nUTF-8\n"},
		{[]string{"TERM=alacritty"}, `echo $TERM; tput colors`, "alacritty\n256\n"}, // of ncurses-term
		{[]string{"TERM=no-such-terminal"}, `echo $TERM; tput colors`, "xterm-256color\n256\n"},
		{[]string{"TERM=bawn-own"}, `echo $TERM; tput colors; echo $TERMINFO`, "bawn-own\n8\n\n"},
		{nil, `echo $IS_SANDBOX; test -d $XDG_RUNTIME_DIR && test -w $XDG_RUNTIME_DIR && echo runtime`, "1\nruntime\n"},
		{nil, `test $(ulimit -n) -ge 65536 && ulimit -Hn; flock /var/lock/x true && flock /run/lock/x echo lock`, "1048576\nlock\n"},
		{nil, `getent -s files ahostsv4 localhost | awk 'NR==1{print $1}'; getent -s files ahostsv6 localhost | awk 'NR==1{print $1}'`, "127.0.0.1\n::1\n"},
		{nil, `getent hosts $(hostname) >/dev/null && echo known`, "known\n"},
		{nil, `touch made; stat -c %Y made > t; make -f /dev/stdin 2>&1 <<<'all: made; @echo done'`, "done\n"},
	} {
		if got := with(c.env, c.script); got != c.want {
			t.Errorf("%v %s:\n%s", c.env, c.script, got)
		}
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	got := " " + strings.TrimSpace(sh(t, dir, "id -G")) + " "
	for _, g := range groups {
		if os.Getuid() != 0 && g >= 1000 && !strings.Contains(got, fmt.Sprintf(" %d ", g)) {
			t.Errorf("group %d is missing in %s", g, got)
		}
	}
	// The host's own files are never of the future.
	for range 20 {
		writeFile(t, filepath.Join(dir, "skew"), "x")
		if out := sh(t, dir, `m=$(stat -c %.9Y skew) n=$(date +%s.%N); awk -v m=$m -v n=$n 'BEGIN{if (m>n) print m-n}'`); out != "" {
			t.Errorf("a file of the host is %s s in the future", out)
			break
		}
	}
	os.Remove(filepath.Join(dir, "skew"))
}

// TestProjectBehindALink: paths mean the same in the guest, as the person names them.
func TestProjectBehindALink(t *testing.T) {
	dir := temp(t)
	writeFile(t, filepath.Join(dir, "f"), "hello\n")
	via := filepath.Join(base, "home", "via")
	if err := os.Symlink(filepath.Dir(dir), via); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(via) })
	logical := filepath.Join(via, filepath.Base(dir))
	if err := os.Symlink(filepath.Join(logical, "f"), filepath.Join(dir, "through")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"with blank", "quote's \"", "new\nline", "ümlaut 日本"} {
		sub := filepath.Join(dir, name)
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		named := filepath.Join(logical, name)
		r := bawnAt(t.Context(), sub, nil, []string{"PWD=" + named}, "run", "--", "sh", "-c", `printf "%s\n" "$PWD"; cat "$0/../f" ../through; pwd -P`, named)
		if want := named + "\nhello\nhello\n" + sub + "\n"; r.out != want || r.code != 0 {
			t.Errorf("%q: %+v", name, r)
		}
	}
	// What the guest has at the place stays.
	if got := must(t, dir, "run", "--", "stat", "-c", "%F", filepath.Join(base, "home", "shared")); got != "directory\n" {
		t.Errorf("the project is a %s", got)
	}
}

// TestMachineKeepsItsAdministratorsFiles over a stop and a fork, and restarts containers.
func TestMachineKeepsItsAdministratorsFiles(t *testing.T) {
	dir := project(t, "keeps")
	writeFile(t, filepath.Join(dir, "docker.sh"), testdata(t, "restart.sh"))
	must(t, dir, "run", "--memory", "2G", "--", "bash", "docker.sh")
	sh(t, dir, `echo '10.9.8.7 db.test' | sudo tee -a /etc/hosts; sudo mkdir -p /etc/tmpfiles.d; echo 'd /run/mine 1777' | sudo tee /etc/tmpfiles.d/mine.conf
sudo ln -sf /usr/share/zoneinfo/Pacific/Chatham /etc/localtime; sudo git config --system user.email kept@example.org`)
	must(t, dir, "stop")
	const look = `getent hosts db.test | awk '{print $1}'; stat -c %a /run/mine; hostname; grep -c "$(hostname)" /etc/hosts; readlink /etc/localtime; git config user.email; grep -c keeps /etc/hosts`
	if got := sh(t, dir, look); got != "10.9.8.7\n1777\nkeeps\n1\n/usr/share/zoneinfo/Pacific/Chatham\nkept@example.org\n1\n" {
		t.Errorf("after a stop:\n%s", got)
	}
	wait(t, "the container to be restarted", func() bool {
		return sh(t, dir, "pgrep -f 'sleep 98765' || true") != ""
	})
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "-f", "kept") })
	must(t, dir, "fork", "keeps", "kept")
	if got := must(t, dir, "exec", "kept", "--", "sh", "-c", look+"; true"); got != "10.9.8.7\n1777\nkept\n1\n/usr/share/zoneinfo/Pacific/Chatham\nkept@example.org\n0\n" {
		t.Errorf("after a fork:\n%s", got)
	}
}
