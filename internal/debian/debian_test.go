package debian

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sys/proxyenv"
	"bawn.dev/bawn/internal/sys/proxyenv/proxyenvtest"
)

func TestParseTargets(t *testing.T) {
	for _, c := range []struct {
		what, in string
		want     Mirror
	}{
		{"fetched lists", `Packages|http://a.test/debian/|trixie|main|Debian
Packages|http://a.test/debian-security|trixie-security|main|Debian
Packages|http://a.test/debian|trixie-updates|main|Debian
`, Mirror{"http://a.test/debian", "http://a.test/debian-security"}},
		{"lists that were never fetched", "Packages|http://a.test/pub/debian|stable|main|$(ORIGIN)\n", Mirror{Main: "http://a.test/pub/debian"}},
		{"another's archive for Debian", `Packages|http://other.test/apt|trixie|main|Other
Packages|http://a.test/debian|trixie|main|Debian
`, Mirror{Main: "http://a.test/debian"}},
		{"the likelier of two", `Packages|http://other.test/apt|trixie|main|$(ORIGIN)
Packages|http://a.test/debian|trixie|main|$(ORIGIN)
`, Mirror{Main: "http://a.test/debian"}},
		{"backports alone", "Packages|http://a.test/debian|trixie-backports|main|Debian\n", Mirror{}},
		{"a disc, other components and kinds", `Packages|cdrom:[Debian]/|trixie|main|Debian
Packages|http://a.test/debian|trixie|contrib|Debian
Translations|http://a.test/debian|trixie|main|Debian
too|few
`, Mirror{}},
		{"nothing", "", Mirror{}},
	} {
		if got := parseTargets([]byte(c.in)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

func TestParseOneLine(t *testing.T) {
	got := parseOneLine([]byte(`# made by mmdebstrap
deb [signed-by="/a key"] http://a.test/debian ` + Suite + ` main
deb http://a.test/debian ` + Suite + `-updates main
deb http://a.test/debian-security ` + Suite + `-security main
deb-src http://b.test/debian ` + Suite + ` main
deb [broken http://c.test/debian ` + Suite + ` main
deb too-short
`))
	if want := (Mirror{"http://a.test/debian", "http://a.test/debian-security"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestChecked(t *testing.T) {
	for in, want := range map[string]string{
		" http://a.test/debian/ ": "http://a.test/debian",
		"file:/srv/debian":        "file:/srv/debian",
		"":                        "error",
		"a.test/debian":           "error",
		"http://a.test/x y":       "error",
		"http://a.test/\nTypes:":  "error",
		"http://a.test/[x]":       "error",
	} {
		m, err := checked(Mirror{Main: in})
		if err != nil {
			m.Main = "error"
			if !strings.Contains(err.Error(), MirrorEnv) {
				t.Errorf("%q: the error does not say what to set: %v", in, err)
			}
		}
		if m.Main != want {
			t.Errorf("%q: %q, %v, want %q", in, m.Main, err, want)
		}
	}
}

func TestHostFromTheEnvironment(t *testing.T) {
	t.Setenv(MirrorEnv, "http://a.test/debian/")
	t.Setenv(SecurityEnv, "http://a.test/security")
	m, err := Host(t.Context())
	if want := (Mirror{"http://a.test/debian", "http://a.test/security"}); m != want || err != nil {
		t.Errorf("%+v, %v, want %+v", m, err, want)
	}
}

func TestResolveMirrorList(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(file, []byte("# ours\n\nhttp://a.test/debian\tpriority:1\nhttp://b.test/debian\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("# nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"http://c.test/debian":  "http://c.test/debian",
		"mirror+file:" + file:   "http://a.test/debian",
		"mirror+file:" + empty:  "",
		"mirror+file:/no/where": "",
	} {
		if got, err := resolveMirrorList(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
}

// TestInherited: settings of the network are taken over; what weakens the check of
// signatures, and what runs programs, is not.
func TestInherited(t *testing.T) {
	for line, want := range map[string]bool{
		`Acquire::http::Proxy "http://proxy.test:3128";`:     true,
		`Acquire::https::CaInfo "/etc/ssl/ca.pem";`:          true,
		`Acquire::Retries "3";`:                              true,
		`Acquire::Check-Valid-Until "false";`:                true,
		`Acquire::ForceIPv4 "true";`:                         true,
		`Acquire::AllowInsecureRepositories "true";`:         false,
		`Acquire::AllowDowngradeToInsecureRepositories "1";`: false,
		`APT::Get::AllowUnauthenticated "true";`:             false,
		`APT::Update::Pre-Invoke:: "rm -rf /";`:              false,
		`Acquire::http::Proxy "a"; APT::Hook "b";`:           false,
	} {
		if got := inherited.MatchString(line); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

func TestReleaseDate(t *testing.T) {
	for in, want := range map[string]time.Time{
		"Origin: Debian\nDate: Sat, 15 Nov 2025 09:12:33 UTC\nSuite: stable\n": time.Date(2025, 11, 15, 9, 12, 33, 0, time.UTC),
		"Date: soon\n": {},
		"":             {},
	} {
		if got := releaseDate([]byte(in)); !got.Equal(want) {
			t.Errorf("%q: %v", in, got)
		}
	}
}

// TestRunStatus: apt's percentages are reported, and its complaint is in the error.
func TestRunStatus(t *testing.T) {
	var got []float64
	report := func(p float64) { got = append(got, p) }
	script := `echo dlstatus:1:12.5:first >&3; echo pmstatus:x:50:other >&3; echo dlstatus:2:100:last >&3; echo noise; exit 0`
	if err := runStatus(exec.Command("sh", "-c", script, "sh"), report); err == nil {
		t.Fatal("sh took apt's option")
	}
	apt := filepath.Join(t.TempDir(), "apt")
	if err := os.WriteFile(apt, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := runStatus(exec.Command(apt), report); err != nil || len(got) != 2 || got[0] != 12.5 || got[1] != 100 {
		t.Errorf("%v, %v", got, err)
	}
	if err := os.WriteFile(apt, []byte("#!/bin/sh\necho no network >&2; exit 100"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := runStatus(exec.Command(apt), report); err == nil || !strings.Contains(err.Error(), "no network") {
		t.Errorf("%v", err)
	}
}

func TestSourcesFile(t *testing.T) {
	m := Mirror{Main: "http://a.test/debian", Security: "http://a.test/security"}
	text := SourcesFile(m.Sources())
	if n := strings.Count(text, "Types: deb\n"); n != 3 {
		t.Errorf("%d sources in\n%s", n, text)
	}
	if !strings.Contains(text, "URIs: http://a.test/security\nSuites: "+Suite+"-security\n") || !strings.Contains(text, "Signed-By: "+Keyring) {
		t.Error(text)
	}
}

// TestAptGetsTheProxy: apt knows lower case variables alone.
func TestAptGetsTheProxy(t *testing.T) {
	proxyenvtest.Set(t, "ALL_PROXY=socks5://staff:word@proxy.test", "NO_PROXY=mirror.corp.test")
	s, err := proxyenv.Read()
	if err != nil {
		t.Fatal(err)
	}
	a := &Apt{dir: t.TempDir(), proxies: s.Environ()}
	cmd := a.command(t.Context(), "apt-get", "update")
	for _, want := range []string{"http_proxy=socks5h://staff:word@proxy.test:1080", "https_proxy=socks5h://staff:word@proxy.test:1080", "no_proxy=mirror.corp.test"} {
		if !slices.Contains(cmd.Environ(), want) {
			t.Errorf("%s is not in %q", want, cmd.Environ())
		}
	}
	if args := strings.Join(cmd.Args, " "); strings.Contains(args, "word") {
		t.Error(args)
	}
}

// TestProxiesOfAptWithAPassword are not among the lines for a command line.
func TestProxiesOfAptWithAPassword(t *testing.T) {
	const plain = `Acquire::http::Proxy::cache.test "http://cache.test:3142/";`
	for _, c := range []struct {
		lines []string
		env   string
	}{
		{[]string{plain}, ""},
		{[]string{`Acquire::http::Proxy "http://u:hunter2@a.test/";`, plain}, "http_proxy=http://u:hunter2@a.test/ https_proxy=http://u:hunter2@a.test/"},
		{[]string{`Acquire::https::Proxy "http://u:hunter2@b.test/";`, plain, `Acquire::http::Proxy "http://u:hunter2@a.test/";`}, "https_proxy=http://u:hunter2@b.test/ http_proxy=http://u:hunter2@a.test/"},
		{[]string{`Acquire::http::Proxy "http://u:hunter2@a.test/";`, `Acquire::https::Proxy "DIRECT";`, plain}, "http_proxy=http://u:hunter2@a.test/"},
	} {
		rest, env, err := ProxyVariables(c.lines)
		if err != nil || strings.Join(env, " ") != c.env || strings.Contains(strings.Join(rest, " "), "hunter2") || !slices.Contains(rest, plain) {
			t.Errorf("%q: %q, %q, %v", c.lines, rest, env, err)
		}
	}
	_, _, err := ProxyVariables([]string{`Acquire::http::Proxy::mirror.test "http://u:hunter2@a.test/";`})
	if err == nil || !strings.Contains(err.Error(), "mirror.test") || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}
