package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/proxyenv"
)

// Keyring holds the keys of Debian's archive (package debian-archive-keyring).
const Keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

var errNoKeyring = fmt.Errorf("%s is missing: install the package debian-archive-keyring", Keyring)

// Source is one suite of a mirror.
type Source struct{ URI, Suite string }

// Sources returns the suites of the mirror that the guest's system is made from.
func (m Mirror) Sources() []Source {
	s := []Source{{m.Main, Suite}, {m.Main, Suite + "-updates"}}
	if m.Security != "" {
		s = append(s, Source{m.Security, Suite + "-security"})
	}
	return s
}

// SourcesFile returns the content of a deb822 file of sources.list(5) for the sources.
func SourcesFile(sources []Source) string {
	var b strings.Builder
	for i, s := range sources {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n", s.URI, s.Suite, Keyring)
	}
	return b.String()
}

// Apt is apt with a configuration, lists and a cache of its own in one folder, so that it
// needs no privileges and does not touch the host's. Its methods run apt's programs; they
// must not be called at the same time.
type Apt struct {
	dir     string
	arch    string
	sources []Source
	config  []string
	proxies []string // variables of the environment
}

// NewApt prepares an Apt in the folder dir, which it makes, for the Debian architecture
// arch ("amd64"). It takes over the host's network settings (proxies, certificates,
// retries), but not its hooks, pins and keys. Where the host's apt has no proxy, those of the
// environment count (package proxyenv).
func NewApt(ctx context.Context, dir, arch string, m Mirror) (*Apt, error) {
	if _, err := os.Stat(Keyring); err != nil {
		return nil, errNoKeyring
	}
	host, err := HostConfig(ctx)
	if err != nil {
		return nil, err
	}
	proxies, err := proxyenv.Read()
	if err != nil {
		return nil, err
	}
	a := &Apt{dir: dir, arch: arch, sources: m.Sources(), config: host, proxies: proxies.Environ()}
	for _, d := range []string{"lists/partial", "cache/archives/partial", "etc", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(a.path("status"), nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(a.path("sources.sources"), []byte(SourcesFile(a.sources)), 0o600); err != nil {
		return nil, err
	}
	return a, os.WriteFile(a.path("apt.conf"), []byte(a.conf()), 0o600)
}

func (a *Apt) path(name string) string { return filepath.Join(a.dir, name) }

// conf returns the contents of apt.conf(5). apt reads the file that APT_CONFIG names
// first, and this one makes it read no other.
func (a *Apt) conf() string {
	var b strings.Builder
	set := func(k, v string) { fmt.Fprintf(&b, "%s %s;\n", k, quote(v)) }
	set("Dir::Etc::main", "/dev/null")
	set("Dir::Etc::parts", "/dev/null")
	set("Dir::Etc::preferences", "/dev/null")
	set("Dir::Etc::preferencesparts", "/dev/null")
	set("Dir::Etc::trusted", "/dev/null")
	set("Dir::Etc::trustedparts", "/dev/null")
	set("Dir::Etc::sourcelist", a.path("sources.sources"))
	set("Dir::Etc::sourceparts", "/dev/null")
	set("Dir::State", a.dir)
	set("Dir::State::lists", a.path("lists"))
	set("Dir::State::status", a.path("status"))
	set("Dir::Cache", a.path("cache"))
	set("Dir::Log", a.path("log"))
	set("APT::Architecture", a.arch)
	set("APT::Architectures", a.arch)
	set("Acquire::Languages", "none")
	set("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false")
	set("Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled", "false")
	if os.Geteuid() == 0 {
		// apt's own user _apt cannot enter the cache's folders, which belong to root.
		set("APT::Sandbox::User", "root")
	}
	for _, l := range a.config {
		b.WriteString(l + "\n")
	}
	return b.String()
}

// quote returns v as a value of apt.conf(5), which has no escapes.
func quote(v string) string { return `"` + strings.ReplaceAll(v, `"`, "") + `"` }

// inherited matches the settings of the host's apt that tell how to reach a mirror. It
// matches no setting that weakens the check of signatures, and no hooks.
var inherited = regexp.MustCompile(`^Acquire::((http|https|ftp|tor|socks)::[^" ]*|Retries[^" ]*|Check-Valid-Until|Check-Date|Max-ValidTime|Queue-Mode|By-Hash|ForceIPv[46]) "[^"]*";$`)

// proxyWithUser matches a setting of a proxy whose URL has a user or a password: its protocol, the
// host that it is for (none: all hosts), and the URL.
var proxyWithUser = regexp.MustCompile(`^Acquire::(https?)::Proxy(?:::([^" ]*))? "([^"]*@[^"]*)";$`)

// ProxyVariables splits lines of HostConfig into those for a command line, which every user of
// the host can read, and variables of the environment for proxies with a password. A proxy with a
// password for one host is an error, since no variable is for one host.
func ProxyVariables(lines []string) (rest, env []string, err error) {
	forHTTPS := slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, `Acquire::https::Proxy "`) })
	for _, l := range lines {
		m := proxyWithUser.FindStringSubmatch(l)
		switch {
		case m == nil:
			rest = append(rest, l)
		case m[2] != "":
			return nil, nil, fmt.Errorf("apt's proxy for the host %s has a password, which bawn cannot pass on without showing it to every user: set the proxy for all hosts (Acquire::%s::Proxy), or %s_proxy", m[2], m[1], m[1])
		default:
			env = append(env, m[1]+"_proxy="+m[3])
			if m[1] == "http" && !forHTTPS { // as apt does with its setting (apt-transport-https(1))
				env = append(env, "https_proxy="+m[3])
			}
		}
	}
	return rest, env, nil
}

// HostConfig returns the lines of the host's apt configuration that tell how to reach a
// mirror.
func HostConfig(ctx context.Context) ([]string, error) {
	out, err := output(proc.Command(ctx, "apt-config", "dump"))
	if missing := proc.Missing(err, "apt"); missing != nil {
		return nil, fmt.Errorf("bawn needs apt to fetch the guest's kernel and image from Debian packages: %w", missing)
	}
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if inherited.MatchString(line) && !strings.HasSuffix(line, ` "";`) {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

func (a *Apt) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := proc.Command(ctx, name, args...)
	cmd.Dir = a.dir
	cmd.Env = append(cmd.Env, a.proxies...) // os/exec takes the last of two
	cmd.Env = append(cmd.Env, "APT_CONFIG="+a.path("apt.conf"), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	// apt removes its partial files on SIGINT, and its methods with it.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Update fetches the lists of packages and checks their signatures. It calls report with
// the percentage done.
func (a *Apt) Update(ctx context.Context, report func(percent float64)) error {
	cmd := a.command(ctx, "apt-get", "update", "-q", "-oAPT::Update::Error-Mode=any")
	if err := runStatus(cmd, report); err != nil {
		return fmt.Errorf("fetch the lists of Debian packages: %w", err)
	}
	return nil
}

// dependency matches a line of apt-cache(8) depends.
var dependency = regexp.MustCompile(`(?m)^\s*(?:Pre)?Depends: (\S+)$`)

// Depends returns the packages that a package depends on directly.
func (a *Apt) Depends(ctx context.Context, pkg string) ([]string, error) {
	out, err := output(a.command(ctx, "apt-cache", "depends", "--important", "--", pkg))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range dependency.FindAllSubmatch(out, -1) {
		names = append(names, string(m[1]))
	}
	return names, nil
}

// Candidate returns the version of a package that would be installed.
func (a *Apt) Candidate(ctx context.Context, pkg string) (string, error) {
	out, err := output(a.command(ctx, "apt-cache", "policy", "--", pkg))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "Candidate: "); ok && v != "(none)" {
			return v, nil
		}
	}
	return "", fmt.Errorf("the mirror has no package %s", pkg)
}

// Size returns a package's size in bytes.
func (a *Apt) Size(ctx context.Context, pkg string) (int64, error) {
	out, err := output(a.command(ctx, "apt-cache", "show", "--no-all-versions", "--", pkg))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(out)) {
		if v, ok := strings.CutPrefix(line, "Size: "); ok {
			return strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("the mirror does not give the size of %s", pkg)
}

// Download fetches one package and returns the path of the file. apt checks its hash
// against the signed lists. It calls report with the percentage done.
func (a *Apt) Download(ctx context.Context, pkg string, report func(percent float64)) (string, error) {
	cmd := a.command(ctx, "apt-get", "download", "-q", "--", pkg)
	if err := runStatus(cmd, report); err != nil {
		return "", fmt.Errorf("fetch the Debian package %s: %w", pkg, err)
	}
	found, err := filepath.Glob(a.path(pkg + "_*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("apt-get download left %d files of %s", len(found), pkg)
	}
	return found[0], nil
}

// statusFd is the child's descriptor of its status pipe: the first of
// exec.Cmd.ExtraFiles.
const statusFd = "3"

// runStatus runs an apt command and reports the percentages that it writes to
// APT::Status-Fd: lines "dlstatus:NUMBER:PERCENT:TEXT" (apt's progress-reporting.md).
func runStatus(cmd *exec.Cmd, report func(percent float64)) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.Args = append([]string{cmd.Args[0], "-oAPT::Status-Fd=" + statusFd}, cmd.Args[1:]...)
	cmd.ExtraFiles = []*os.File{w}
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &stderr
	done := make(chan struct{})
	go func() {
		defer close(done)
		sc := bufio.NewScanner(r)
		for sc.Scan() {
			if p, ok := percent(sc.Text()); ok {
				report(p)
			}
		}
		_, _ = io.Copy(io.Discard, r) // after an overlong line: apt must not block
	}()
	err = Run(cmd)
	w.Close()
	_ = r.SetReadDeadline(time.Now().Add(time.Second)) // a killed apt's methods may hold the other end a little longer
	<-done
	if err != nil {
		return commandError(cmd, err, stderr.Bytes())
	}
	return nil
}

func percent(line string) (float64, bool) {
	f := strings.SplitN(line, ":", 4)
	if len(f) != 4 || f[0] != "dlstatus" {
		return 0, false
	}
	p, err := strconv.ParseFloat(f[2], 64)
	return p, err == nil
}

// Run runs a command of Debian's, which gets SIGTERM, and can clean up, when this process
// dies. It is in a process group of its own: Ctrl-C in the terminal goes to bawn alone,
// which ends the command by its context.
func Run(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	return proc.Run(cmd)
}

// Arch returns Debian's name for this host's architecture.
func Arch() string {
	if runtime.GOARCH == "arm" {
		return "armhf"
	}
	return runtime.GOARCH
}

// ReleaseDate fetches the signed release files alone and returns the newest of their
// dates: all packages that they list are older.
func (a *Apt) ReleaseDate(ctx context.Context) (time.Time, error) {
	cmd := a.command(ctx, "apt-get", "update", "-q", "-oAPT::Update::Error-Mode=any",
		"-oAcquire::IndexTargets::deb::Packages::DefaultEnabled=false")
	if err := runStatus(cmd, func(float64) {}); err != nil {
		return time.Time{}, fmt.Errorf("fetch Debian's release files: %w", err)
	}
	files, err := filepath.Glob(a.path("lists/*Release"))
	if err != nil {
		return time.Time{}, err
	}
	var newest time.Time
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return time.Time{}, err
		}
		if t := releaseDate(b); t.After(newest) {
			newest = t
		}
	}
	if newest.IsZero() {
		return newest, errors.New("the mirror's release files have no date")
	}
	return newest, nil
}

// releaseDate returns the Date field of a Release file, or the zero time.
func releaseDate(b []byte) time.Time {
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Date: "); ok {
			t, err := time.Parse(time.RFC1123, strings.TrimSpace(v))
			if err == nil {
				return t.UTC()
			}
		}
	}
	return time.Time{}
}
