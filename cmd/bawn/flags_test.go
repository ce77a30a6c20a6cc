package main

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/spf13/pflag"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
)

func TestParseMounts(t *testing.T) {
	dir, _ := filepath.EvalSymlinks(t.TempDir())
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]sandbox.Source{
		dir:               {Host: dir, Guest: dir},
		dir + ":/data":    {Host: dir, Guest: "/data"},
		dir + ":/data:ro": {Host: dir, Guest: "/data", Mode: sandbox.ReadOnly},
		dir + ":ro":       {Host: dir, Guest: dir, Mode: sandbox.ReadOnly},
		link + ":rw":      {Host: dir, Guest: link},
	} {
		got, err := parseMounts([]string{in})
		if err != nil || got[0] != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	if got, err := parseMounts([]string{""}); err != nil || len(got) != 0 { // the way to have none
		t.Errorf("an empty --mount: %v, %v", got, err)
	}
	for _, bad := range []string{":/x", dir + ":rel", dir + ":/", dir + ":/a:/b", dir + "/absent"} {
		if got, err := parseMounts([]string{bad}); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestOnlyNamedVariablesGoIn(t *testing.T) {
	t.Setenv("SECRET_TOKEN", "s3cret")
	t.Setenv("NAMED", "yes")
	t.Setenv("TERM", "xterm")
	t.Setenv("TERM_PROGRAM", "ghostty")
	t.Setenv("NO_COLOR", "1")
	os.Unsetenv("UNSET")
	env, err := commandEnv([]string{"NAMED", "GIVEN=a=b", "UNSET", "EMPTY="})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NAMED=yes", "GIVEN=a=b", "EMPTY=", "TERM=xterm", "TERM_PROGRAM=ghostty", "NO_COLOR=1"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing from %q", want, env)
		}
	}
	if all := strings.Join(env, "\n"); strings.Contains(all, "s3cret") || strings.Contains(all, "UNSET") {
		t.Errorf("unasked: %q", env)
	}
	for _, bad := range []string{"=x", "A B=1"} {
		if _, err := commandEnv([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestParsePlace(t *testing.T) {
	for in, want := range map[string]place{
		"file":       {path: "file"},
		"./a:b":      {path: "./a:b"},
		"box:/tmp/x": {remote: true, name: "box", path: "/tmp/x"},
		":out":       {remote: true, path: "out"},
		"box:":       {remote: true, name: "box", path: "."},
		"box:~":      {remote: true, name: "box", path: "."},
		"box:~/":     {remote: true, name: "box", path: "."},
		":~/x/y":     {remote: true, path: "x/y"},
		":~x":        {remote: true, path: "~x"},
		"/a/b:c":     {path: "/a/b:c"},
	} {
		if got := parsePlace(in); got != want {
			t.Errorf("%q: %+v", in, got)
		}
	}
}

func TestConsoleIsShownHarmlessly(t *testing.T) {
	log := filepath.Join(t.TempDir(), "console.log")
	if err := os.WriteFile(log, []byte("a\x1b]0;evil\x07\r\n\tb\x7f\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	if err := showLog(t.Context(), slave, log, false); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(master)
	for _, want := range []string{"a\\x1b]0;evil\\x07\r\n", "\tb\\x7f\r\n"} {
		if got, err := r.ReadString('\n'); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
}

func TestSSHConfigQuotes(t *testing.T) {
	d := store.Dir{Path: "/home/a b/100%/x"}
	t.Setenv("XDG_STATE_HOME", "/home/a b/state")
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	got, err := session.SSHConfig(d, "x", "me", proxyCommand("/opt/it's/bawn", "x"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`IdentityFile "/home/a b/100%%/x/id_ed25519"`,
		`ProxyCommand env XDG_STATE_HOME='/home/a b/state' '/opt/it'\''s/bawn' __ssh-proxy x`,
		"Host bawn-x\n", "ForwardAgent no",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("want %s in\n%s", want, got)
		}
	}
}

// TestSSHConfigFolders: a sandbox that ssh starts is looked for in the folders of the
// person who printed the configuration.
func TestSSHConfigFolders(t *testing.T) {
	for _, k := range []string{"XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"} {
		t.Setenv(k, "/other/"+k)
	}
	got, err := session.SSHConfig(store.Dir{Path: "/x"}, "x", "me", proxyCommand("/bawn", "x"))
	if err != nil {
		t.Fatal(err)
	}
	want := "ProxyCommand env XDG_STATE_HOME='/other/XDG_STATE_HOME' XDG_CONFIG_HOME='/other/XDG_CONFIG_HOME' XDG_CACHE_HOME='/other/XDG_CACHE_HOME' '/bawn' __ssh-proxy x\n"
	if !strings.Contains(got, want) {
		t.Errorf("want %s in\n%s", want, got)
	}
}

func TestRateFlag(t *testing.T) {
	for in, want := range map[string]int64{"2m": 2 << 20, "0": 0} {
		c, err := flagsOf(t, "--rate", in).change()
		if err != nil || c.Rate == nil || *c.Rate != want {
			t.Errorf("--rate %s: %v, %v", in, c.Rate, err)
		}
	}
	_, dir := projectPlace(t)
	err := runIn(t.Context(), flagsOf(t, "-C", dir, "--rate", "10"), false, invocation{argv: []string{"true"}})
	if err == nil || !strings.Contains(message(err), "--rate 10 B is too little") {
		t.Errorf("10 bytes a second: %v", err)
	}
}

// TestVolumeFlags: a single empty value is none at all, which is another thing than no flag.
func TestVolumeFlags(t *testing.T) {
	for _, c := range []struct {
		args          []string
		volumes, dirs int // -1: not given
		say           string
	}{
		{nil, -1, -1, ""},
		{[]string{"--volume", "", "--local-dir", ""}, 0, 0, ""},
		{[]string{"--volume", "a:/x", "--volume", "b:~/y:ro", "--local-dir", "./target/"}, 2, 1, ""},
		{[]string{"--volume", "a:/x", "--volume", ""}, 0, 0, "--volume"},
		{[]string{"--volume", "/x:/x"}, 0, 0, "--mount /x:/x"},
		{[]string{"--local-dir", "/x"}, 0, 0, "--local-dir"},
	} {
		var f specFlags
		flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
		f.register(flags)
		if err := flags.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		change, err := f.change()
		if c.say != "" {
			if err == nil || !strings.Contains(err.Error(), c.say) {
				t.Errorf("%q: %v, want %q", c.args, err, c.say)
			}
			continue
		}
		volumes, dirs := -1, -1
		if change.Volumes != nil {
			volumes = len(*change.Volumes)
		}
		if change.LocalDirs != nil {
			dirs = len(*change.LocalDirs)
		}
		if err != nil || volumes != c.volumes || dirs != c.dirs {
			t.Errorf("%q: %d volumes, %d local directories, %v", c.args, volumes, dirs, err)
		}
		for _, v := range deref(change.Volumes) {
			if !filepath.IsAbs(v.Guest) {
				t.Errorf("%q: %s", c.args, v)
			}
		}
	}
}

// deref returns what a pointer to a list points to; nothing for nil.
func deref[T any](p *[]T) []T {
	if p == nil {
		return nil
	}
	return *p
}
