// Package debian fetches Debian packages: it finds the mirror that the host itself uses,
// and runs a private apt that reads it as an ordinary user.
//
// No mirror is named in bawn. Host takes it from, in this order: the environment
// (MirrorEnv), the host's own apt sources when the host is Debian, and the one that is
// built into mmdebstrap.
//
// apt checks all that a mirror sends against Debian's own keys, so that a wrong or hostile
// mirror can withhold packages but not forge them.
package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path"
	"strings"

	"bawn.dev/bawn/internal/sys/proc"
)

// Suite is the Debian release that the guest runs.
const Suite = "trixie"

// Environment variables that name a mirror, for hosts whose own sources name none.
const (
	MirrorEnv   = "BAWN_DEBIAN_MIRROR"
	SecurityEnv = "BAWN_DEBIAN_SECURITY_MIRROR"
)

// Mirror is the addresses of a Debian archive.
type Mirror struct {
	Main     string // URI of the archive
	Security string // URI of its security archive, empty when none is known
}

// Host finds the mirror of this host. It may run apt-get and mmdebstrap, but uses no
// network. The error tells the user to set MirrorEnv.
func Host(ctx context.Context) (Mirror, error) {
	if m := os.Getenv(MirrorEnv); m != "" {
		return checked(Mirror{Main: m, Security: os.Getenv(SecurityEnv)})
	}
	if osID("/etc/os-release") == "debian" {
		if m, err := fromApt(ctx); err == nil {
			return checked(m)
		}
	}
	m, err := fromMmdebstrap(ctx)
	if err != nil {
		return Mirror{}, fmt.Errorf("no Debian mirror is configured on this host (%w): set %s to the address of a mirror", err, MirrorEnv)
	}
	return checked(m)
}

// checked returns the mirror in its usual form. It refuses addresses that would end a line
// or a field of a sources file.
func checked(m Mirror) (Mirror, error) {
	for _, s := range []*string{&m.Main, &m.Security} {
		*s = strings.TrimRight(strings.TrimSpace(*s), "/")
		if *s == "" {
			continue
		}
		u, err := url.Parse(*s)
		if err != nil || u.Scheme == "" || strings.ContainsAny(*s, " \t\r\n[]\"") {
			return Mirror{}, fmt.Errorf("%q is not the address of a Debian mirror: set %s to a correct one", *s, MirrorEnv)
		}
	}
	if m.Main == "" {
		return Mirror{}, fmt.Errorf("no Debian mirror is configured on this host: set %s to the address of a mirror", MirrorEnv)
	}
	return m, nil
}

// osID returns the ID field of os-release(5), or "".
func osID(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}

// indexFormat makes apt-get(8) indextargets print one line for each index, so that every
// format and option of sources.list(5) is apt's to read. Origin is known only once the
// lists were fetched.
const indexFormat = "$(CREATED_BY)|$(SITE)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"

func fromApt(ctx context.Context) (Mirror, error) {
	out, err := output(proc.Command(ctx, "apt-get", "indextargets", "--format", indexFormat))
	if err != nil {
		return Mirror{}, err
	}
	m := parseTargets(out)
	if m.Main == "" {
		return Mirror{}, errors.New("apt has no Debian source")
	}
	for _, s := range []*string{&m.Main, &m.Security} {
		if *s, err = resolveMirrorList(*s); err != nil {
			return Mirror{}, err
		}
	}
	return m, nil
}

// parseTargets returns the host's archive and security archive from lines of indexFormat.
func parseTargets(out []byte) Mirror {
	var m Mirror
	var best, bestSecurity int
	sc := bufio.NewScanner(bytes.NewReader(out))
	for sc.Scan() {
		f := strings.Split(sc.Text(), "|")
		if len(f) != 5 || f[0] != "Packages" || f[3] != "main" || strings.HasPrefix(f[1], "cdrom:") {
			continue
		}
		site, release := strings.TrimRight(f[1], "/"), f[2]
		security := strings.HasSuffix(release, "-security")
		n := likeness(site, release, f[4], security)
		switch {
		case security && n > bestSecurity:
			m.Security, bestSecurity = site, n
		case !security && n > best:
			m.Main, best = site, n
		}
	}
	return m
}

// debianReleases are names under which Debian's own archive is addressed.
// Others' archives for Debian often use them too, hence likeness.
var debianReleases = map[string]bool{
	"bullseye": true, "bookworm": true, "trixie": true, "forky": true, "duke": true, "sid": true,
	"oldoldstable": true, "oldstable": true, "stable": true, "testing": true, "unstable": true,
}

// likeness rates how likely a source is Debian's own archive; 0 is not at all.
func likeness(site, release, origin string, security bool) int {
	n := 0
	switch origin {
	case "Debian":
		n += 4
	case "", "$(ORIGIN)":
	default:
		return 0
	}
	base, _, _ := strings.Cut(release, "-")
	if debianReleases[base] {
		n++
	} else if n == 0 {
		return 0
	}
	if !security && release != base {
		return 0 // updates, backports: the same site appears with its plain suite
	}
	if last := path.Base(site); last == "debian" || security && last == "debian-security" {
		n += 2
	}
	return n
}

// resolveMirrorList replaces a mirror list in a local file, which the guest would not
// have, by its first address. Debian's cloud images have such lists.
func resolveMirrorList(uri string) (string, error) {
	file, ok := strings.CutPrefix(uri, "mirror+file:")
	if !ok {
		return uri, nil
	}
	file = "/" + strings.TrimLeft(file, "/")
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(f[0], "#") {
			return f[0], nil
		}
	}
	return "", fmt.Errorf("%s names no mirror", file)
}

// showSources is a hook that mmdebstrap runs when it has written the new system's sources
// and fetched nothing yet. It ends the run.
const showSources = `cat "$1"/etc/apt/sources.list; exit 1`

// fromMmdebstrap asks mmdebstrap which mirrors it would use.
func fromMmdebstrap(ctx context.Context) (Mirror, error) {
	// Nothing is installed, and chrootless needs no privileges: mmdebstrap makes the
	// system's folder and removes it. The hook fails on purpose.
	cmd := proc.Command(ctx, "mmdebstrap", "--quiet", "--mode=chrootless", "--variant=custom",
		"--format=null", "--setup-hook="+showSources, Suite, "-")
	out, err := cmd.CombinedOutput()
	if missing := proc.Missing(err, "mmdebstrap"); missing != nil {
		return Mirror{}, missing
	}
	m := parseOneLine(out)
	if m.Main == "" {
		return Mirror{}, errors.New("mmdebstrap knows no mirror")
	}
	return m, nil
}

// parseOneLine reads the one-line format of sources.list(5).
func parseOneLine(b []byte) Mirror {
	var m Mirror
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		rest, ok := strings.CutPrefix(line, "deb ")
		if !ok {
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			if _, rest, ok = strings.Cut(rest, "]"); !ok {
				continue
			}
		}
		f := strings.Fields(rest)
		if len(f) < 2 {
			continue
		}
		switch f[1] {
		case Suite:
			m.Main = f[0]
		case Suite + "-security":
			m.Security = f[0]
		}
	}
	return m
}

// output runs a command in the C locale and returns its standard output. The error holds
// its standard error.
func output(cmd *exec.Cmd) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		return nil, commandError(cmd, err, stderr.Bytes())
	}
	return out, nil
}

// maxStderr bounds how much of a command's standard error an error holds, in bytes.
const maxStderr = 2000

func commandError(cmd *exec.Cmd, err error, stderr []byte) error {
	s := bytes.TrimSpace(stderr)
	if len(s) > maxStderr {
		s = s[len(s)-maxStderr:]
	}
	if len(s) == 0 {
		return fmt.Errorf("%s: %w", path.Base(cmd.Path), err)
	}
	return fmt.Errorf("%s: %w: %s", path.Base(cmd.Path), err, s)
}
