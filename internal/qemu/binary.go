package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Oldest QEMU that has all that is used here: 7.2 brought -netdev stream.
var oldest = Version{7, 2, 0}

// Version is QEMU's version.
type Version struct{ Major, Minor, Micro int }

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro) }

// Less orders versions.
func (v Version) Less(w Version) bool {
	if v.Major != w.Major {
		return v.Major < w.Major
	}
	if v.Minor != w.Minor {
		return v.Minor < w.Minor
	}
	return v.Micro < w.Micro
}

// Binary is an installed QEMU.
type Binary struct {
	Path    string
	Version Version
	Build   string // the whole first line of --version: tells packages of one version apart
}

func (b Binary) String() string { return fmt.Sprintf("QEMU %s (%s)", b.Version, b.Path) }

// Program is the name of the QEMU for this machine's architecture.
func Program() string {
	if runtime.GOARCH == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// Package is the Debian and Ubuntu package that has Program.
func Package() string {
	if runtime.GOARCH == "arm64" {
		return "qemu-system-arm"
	}
	return "qemu-system-x86"
}

// ErrMissing is within Find's error when there is no QEMU at all.
var ErrMissing = errors.New("QEMU is not installed")

// Find finds QEMU on the PATH and checks its version, which is asked once for
// each file and kept in cacheDir, or asked in any case where that is empty. Its
// errors name the next step.
func Find(ctx context.Context, cacheDir string) (Binary, error) {
	path, err := look(Program())
	if err != nil {
		return Binary{}, fmt.Errorf("%w: there is no %s on the PATH; install it with: sudo apt-get install %s", ErrMissing, Program(), Package())
	}
	out, err := ask(ctx, path, cacheDir)
	if err != nil {
		return Binary{}, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	v, err := parseVersion(out)
	if err != nil {
		return Binary{}, fmt.Errorf("%s: %w", path, err)
	}
	if v.Less(oldest) {
		return Binary{}, fmt.Errorf("%s is QEMU %s, and bawn needs %s or later: upgrade the package %s, or the system (Debian 12, Ubuntu 23.04 or later)",
			path, v, oldest, Package())
	}
	first, _, _ := bytes.Cut(out, []byte("\n"))
	return Binary{Path: path, Version: v, Build: string(first)}, nil
}

// versionFile keeps what the QEMU that was last found says of itself. To run it
// takes longer than to restore a machine.
const versionFile = "qemu-version"

type saidVersion struct {
	File string `json:"file"` // what tells this QEMU from another
	Said string `json:"said"`
}

// ask returns what the program prints for --version.
func ask(ctx context.Context, path, cacheDir string) ([]byte, error) {
	if cacheDir == "" {
		return exec.CommandContext(ctx, path, "--version").Output()
	}
	keptIn := filepath.Join(cacheDir, versionFile)
	id, err := identity(path)
	if err != nil {
		return nil, err
	}
	var kept saidVersion
	if b, err := os.ReadFile(keptIn); err == nil && json.Unmarshal(b, &kept) == nil && kept.File == id {
		return []byte(kept.Said), nil
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return nil, err
	}
	// Not being able to keep it only costs the next start a moment.
	_ = replaceJSON(keptIn, saidVersion{id, string(out)})
	return out, nil
}

// identity tells a file from another, and from itself before an upgrade.
func identity(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return "", fmt.Errorf("%s: %w", real, err)
	}
	return fmt.Sprintf("%s %d %d %d %d", real, st.Dev, st.Ino, st.Size, st.Ctim.Nano()), nil
}

func look(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

var versionLine = regexp.MustCompile(`^QEMU emulator version (\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?`)

func parseVersion(out []byte) (Version, error) {
	m := versionLine.FindSubmatch(out)
	if m == nil {
		if len(out) > 100 {
			out = out[:100]
		}
		return Version{}, fmt.Errorf("no QEMU version in %q", out)
	}
	n := func(b []byte) int { i, _ := strconv.Atoi(string(b)); return i }
	return Version{n(m[1]), n(m[2]), n(m[3])}, nil
}
