package accounts

import (
	"encoding/base64"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/wire"
)

// environ returns the environment of a session of me, in an image at root.
func environ(root, term string, imageEnv, client []string) []string {
	ls := NewLogins(root)
	ls.Configure(wire.User{Name: "me", UID: 1000, Home: "/home/me"}, imageEnv)
	l := &Login{account: account{name: "me", UID: 1000, Home: "/home/me"}}
	return ls.Environ(l, term, client)
}

func TestLocaleThatTheGuestLacks(t *testing.T) {
	root := image(t, nil)
	must(t, os.MkdirAll(root+"/usr/lib/locale/de_DE.utf8", 0o755))
	must(t, os.WriteFile(root+"/usr/lib/locale/de_DE.utf8/LC_CTYPE", nil, 0o644))
	for _, c := range []struct{ name, value, want string }{
		{"LANG", "de_DE.UTF-8", "de_DE.UTF-8"},
		{"LANG", "de_DE.utf8", "de_DE.utf8"},
		{"LC_ALL", "en_US.UTF-8", "C.UTF-8"},
		{"LC_TIME", "de_DE", "C.UTF-8"}, // ISO-8859-1
		{"LC_CTYPE", "de_DE.UTF-8@euro", "C.UTF-8"},
		{"LANG", "C", "C"},
		{"LANG", "POSIX", "POSIX"},
		{"LC_ALL", "C.utf8", "C.utf8"},
		{"LC_ALL", "", ""},
		{"LC_ALL", "../de_DE.utf8", "C.UTF-8"},
		{"LC_UNKNOWN", "xx", "xx"},
	} {
		e := environ(root, "", nil, []string{c.name + "=" + c.value})
		if got := Getenv(e, c.name); got != c.want {
			t.Errorf("%s=%s became %q, want %q", c.name, c.value, got, c.want)
		}
	}
	if got := Getenv(environ(root, "", nil, nil), "LANG"); got != "C.UTF-8" {
		t.Errorf("without a locale LANG is %q", got)
	}
	if got := Getenv(environ(root, "", nil, []string{"LOCPATH=/x", "LANG=xx"}), "LANG"); got != "xx" {
		t.Errorf("with LOCPATH, LANG became %q", got)
	}
}

func TestLocaleArchive(t *testing.T) {
	localedef, err := exec.LookPath("localedef")
	if err != nil {
		t.Skip("no localedef here")
	}
	root := image(t, nil)
	must(t, os.MkdirAll(root+localeDir, 0o755))
	if out, err := exec.Command(localedef, "--prefix="+root, "-c", "-i", "POSIX", "-f", "ANSI_X3.4-1968", "xx_YY.UTF-8").CombinedOutput(); err != nil {
		t.Skipf("localedef: %v: %s", err, out)
	}
	archive := root + localeDir + "/locale-archive"
	if got := archivedLocales(archive); !slices.Equal(got, []string{"xx_YY.utf8"}) {
		t.Fatalf("the archive has %q", got)
	}
	if got := Getenv(environ(root, "", nil, []string{"LC_ALL=xx_YY.UTF-8"}), "LC_ALL"); got != "xx_YY.UTF-8" {
		t.Errorf("LC_ALL became %q", got)
	}
	b, err := os.ReadFile(archive)
	must(t, err)
	for _, damaged := range [][]byte{nil, b[:10], b[:60], append([]byte("xxxx"), b[4:]...), slices.Concat(b[:16], []byte{255, 255, 255, 255}, b[20:])} {
		must(t, os.WriteFile(archive, damaged, 0o644))
		if got := archivedLocales(archive); got != nil {
			t.Errorf("a damaged archive has %q", got)
		}
	}
}

// entry is the beginning of a compiled entry.
var entry = append([]byte{0x1a, 0x01}, make([]byte, 40)...)

func TestTerminalThatTheGuestLacks(t *testing.T) {
	root := image(t, nil)
	if got := Getenv(environ(root, "xterm", nil, nil), "TERM"); got != "xterm" {
		t.Errorf("in a guest without entries TERM is %q", got)
	}
	for _, f := range []string{"/usr/share/terminfo/x/xterm", "/lib/terminfo/76/vt220", "/home/me/.terminfo/m/mine"} {
		must(t, os.MkdirAll(root+f[:strings.LastIndex(f, "/")], 0o755))
		must(t, os.WriteFile(root+f, entry, 0o644))
	}
	b64 := "TERMINFO=b64:" + base64.StdEncoding.EncodeToString(entry)
	for _, c := range []struct {
		term, sent, want string
	}{
		{"xterm", "", "xterm"},
		{"vt220", "", "vt220"},
		{"mine", "", "mine"},
		{"dumb", "", "dumb"},
		{"alacritty", "", "xterm-256color"},
		{"tmux-256color", "", "screen-256color"},
		{"screen.new", "", "screen-256color"},
		{"../../x", b64, "xterm-256color"},
		{"foot", "TERMINFO=b64:!", "xterm-256color"},
		{"foot", "TERMINFO=b64:" + base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\nexec something")), "xterm-256color"},
		{"foot", "TERMINFO=b64:" + base64.StdEncoding.EncodeToString(append(slices.Clone(entry), make([]byte, maxTerminfo)...)), "xterm-256color"},
		{"foot", b64, "foot"},
		{"foot", "", "foot"}, // it has it now
	} {
		// By ssh the type comes with the terminal, from bawn's client also in a variable.
		for _, e := range [][]string{environ(root, c.term, nil, []string{c.sent}), environ(root, "", nil, []string{"TERM=" + c.term, c.sent})} {
			if got := Getenv(e, "TERM"); got != c.want || Getenv(e, "TERMINFO") != "" {
				t.Errorf("%s (%.20s): TERM is %q, TERMINFO %.20q", c.term, c.sent, got, Getenv(e, "TERMINFO"))
			}
		}
	}
	if e := environ(root, "", nil, []string{"TERMINFO=/opt/terminfo"}); Getenv(e, "TERMINFO") != "/opt/terminfo" || Getenv(e, "TERM") != "" {
		t.Errorf("a folder of one's own: %q", e)
	}
}

func TestSandboxIsNamed(t *testing.T) {
	root := image(t, nil)
	if got := Getenv(environ(root, "", nil, nil), "IS_SANDBOX"); got != "1" {
		t.Errorf("IS_SANDBOX is %q", got)
	}
	if got := Getenv(environ(root, "", []string{"IS_SANDBOX=image"}, nil), "IS_SANDBOX"); got != "image" {
		t.Errorf("the image's IS_SANDBOX became %q", got)
	}
	if got := Getenv(environ(root, "", []string{"IS_SANDBOX=image"}, []string{"IS_SANDBOX=0"}), "IS_SANDBOX"); got != "0" {
		t.Errorf("the client's IS_SANDBOX became %q", got)
	}
	if got := Getenv(environ(root, "", nil, nil), "XDG_RUNTIME_DIR"); got != "" {
		t.Errorf("XDG_RUNTIME_DIR is %q without such a folder", got)
	}
	must(t, os.MkdirAll(root+"/run/user/1000", 0o700))
	if got := Getenv(environ(root, "", nil, nil), "XDG_RUNTIME_DIR"); got != "/run/user/1000" {
		t.Errorf("XDG_RUNTIME_DIR is %q", got)
	}
}

func TestShellOfTheHost(t *testing.T) {
	me := wire.User{Name: "me", UID: 1000, GID: 1000, Home: "/home/me"}
	root := image(t, nil)
	shell := func(host string) string {
		me.Shell = host
		must(t, AddUser(root, me))
		l, err := func() (*Login, error) { ls := NewLogins(root); return ls.Find("me") }()
		must(t, err)
		return l.Shell
	}
	for _, c := range []struct{ host, want string }{
		{"", "/bin/bash"}, {"/bin/zsh", "/bin/bash"}, {"relative", "/bin/bash"}, {"/bin/sh", "/bin/bash"}, {"/usr/sbin/nologin", "/bin/bash"},
	} {
		if got := shell(c.host); got != c.want {
			t.Errorf("host's %q: %s", c.host, got)
		}
	}
	for _, s := range []string{"/bin/sh", "/bin/zsh", "/bin/fish"} { // installed later
		must(t, os.WriteFile(root+s, nil, 0o755))
	}
	if got := shell("/bin/zsh"); got != "/bin/zsh" {
		t.Errorf("host's zsh: %s", got)
	}
	if got := shell("/bin/fish"); got != "/bin/zsh" {
		t.Errorf("a shell that was chosen became %s", got)
	}
}
