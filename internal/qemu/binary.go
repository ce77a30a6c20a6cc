package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
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

// Find finds QEMU on the PATH and checks its version.
// Its errors name the next step.
func Find(ctx context.Context) (Binary, error) {
	path, err := look(Program())
	if err != nil {
		return Binary{}, fmt.Errorf("%w: there is no %s on the PATH; install it with: sudo apt-get install %s", ErrMissing, Program(), Package())
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return Binary{}, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	v, err := parseVersion(out)
	if err != nil {
		return Binary{}, fmt.Errorf("%s: %w", path, err)
	}
	if v.Less(oldest) {
		return Binary{}, fmt.Errorf("%s is QEMU %s, and brig needs %s or later: upgrade the package %s, or the system (Debian 12, Ubuntu 23.04 or later)",
			path, v, oldest, Package())
	}
	first, _, _ := bytes.Cut(out, []byte("\n"))
	return Binary{Path: path, Version: v, Build: string(first)}, nil
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
