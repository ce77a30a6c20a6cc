package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
	for in, want := range map[string]sandbox.Mount{
		dir:               {Source: dir, Target: dir},
		dir + ":/data":    {Source: dir, Target: "/data"},
		dir + ":/data:ro": {Source: dir, Target: "/data", ReadOnly: true},
		dir + ":ro":       {Source: dir, Target: dir, ReadOnly: true},
		link + ":rw":      {Source: dir, Target: link},
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
	os.Unsetenv("UNSET")
	env, err := commandEnv([]string{"NAMED", "GIVEN=a=b", "UNSET", "EMPTY="})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NAMED=yes", "GIVEN=a=b", "EMPTY=", "TERM=xterm"} {
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

// TestPortsFree: who finds a port taken is told what to do about it, which depends on
// where the port comes from.
func TestPortsFree(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := sandbox.Port{Host: uint16(l.Addr().(*net.TCPAddr).Port), Guest: 80}
	given := noFlags()
	given.ports = []string{fmt.Sprintf("%d:80", taken.Host)}
	for name, c := range map[string]struct {
		f    *specFlags
		spec sandbox.Spec
		try  string
	}{
		"a flag":             {given, sandbox.Spec{Ports: []sandbox.Port{taken}}, ""},
		"an earlier command": {nil, sandbox.Spec{Name: "shop", Ports: []sandbox.Port{taken}}, fmt.Sprintf("bawn port --name shop --remove %d, to go without it", taken.Host)},
		"bawn.yaml": {
			noFlags(), sandbox.Spec{Ports: []sandbox.Port{taken}, Project: sandbox.Added{Ports: []sandbox.Port{taken}}},
			"another in bawn.yaml, then bawn trust; or --no-project-file to go without",
		},
	} {
		var h hinted
		err := c.f.portsFree(&c.spec)
		if err == nil || !strings.Contains(err.Error(), "in use by another program") {
			t.Errorf("%s: %v", name, err)
		} else if errors.As(err, &h); h.hint != c.try {
			t.Errorf("%s: %q", name, h.hint)
		}
	}
	if err := noFlags().portsFree(&sandbox.Spec{Ports: []sandbox.Port{{Guest: 80}}}); err != nil {
		t.Error(err)
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
	var b strings.Builder
	_, _ = (&visible{w: &b}).Write([]byte("a\x1b]0;evil\x07\r\n\tb\x7f"))
	if got := b.String(); got != "a^[]0;evil^G\n\tb^?" {
		t.Errorf("%q", got)
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
		var f specFlags
		flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
		f.register(flags)
		if err := flags.Parse([]string{"--rate", in}); err != nil {
			t.Fatal(err)
		}
		spec := sandbox.Spec{Rate: 5000}
		if changed, err := f.apply(&spec, sandbox.Added{}); err != nil || spec.Rate != want || !slices.Equal(changed, []string{"--rate"}) {
			t.Errorf("--rate %s: %d, %q, %v", in, spec.Rate, changed, err)
		}
		if _, err := f.newSpec("box", t.TempDir()); err != nil {
			t.Errorf("--rate %s: %v", in, err)
		}
	}
	var f specFlags
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f.register(flags)
	if err := flags.Parse([]string{"--rate", "10"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.newSpec("box", t.TempDir()); err == nil || !strings.Contains(err.Error(), "--rate") {
		t.Errorf("10 bytes a second: %v", err)
	}
}
