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
	"strconv"

	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/sys/proc"
)

// oldest is the first QEMU that has everything used here: 7.2 brought -netdev stream.
var oldest = Version{7, 2, 0}

// Version is QEMU's version.
type Version struct{ Major, Minor, Micro int }

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro) }

// Less reports whether v is older than w.
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

// ErrMissing means that there is no QEMU at all.
var ErrMissing = errors.New("QEMU is not installed")

// Find finds QEMU (proc.Find) and checks its version. It asks each QEMU once for its
// version and keeps the answer in cacheDir; where cacheDir is empty, it asks each time.
// Its errors name the next step; ErrMissing is among them.
func Find(ctx context.Context, cacheDir string) (Binary, error) {
	path, err := proc.Find(Program())
	if errors.Is(err, exec.ErrNotFound) {
		return Binary{}, fmt.Errorf("%w: %w; install it with: sudo apt-get install %s", ErrMissing, err, Package())
	}
	if err != nil {
		return Binary{}, err
	}
	out, err := versionText(ctx, path, cacheDir)
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

// versionFile keeps the version of the QEMU that was last found. To ask QEMU for it
// takes longer than to restore a machine.
const versionFile = "qemu-version"

// versionRecord is the content of versionFile.
type versionRecord struct {
	File   string `json:"file"`   // identity of the program's file (fileid.Exact)
	Output string `json:"output"` // what it printed
}

// versionText returns what the program prints for --version.
func versionText(ctx context.Context, path, cacheDir string) ([]byte, error) {
	if cacheDir == "" {
		return proc.Command(ctx, path, "--version").Output()
	}
	keptIn := filepath.Join(cacheDir, versionFile)
	id, err := fileid.Exact(path)
	if err != nil {
		return nil, err
	}
	var kept versionRecord
	if b, err := os.ReadFile(keptIn); err == nil && json.Unmarshal(b, &kept) == nil && kept.File == id {
		// A record that another version of bawn wrote in another form is made again.
		if _, err := parseVersion([]byte(kept.Output)); err == nil {
			return []byte(kept.Output), nil
		}
	}
	out, err := proc.Command(ctx, path, "--version").Output()
	if err != nil {
		return nil, err
	}
	// A failure to keep it only costs the next start a moment.
	_ = atomicfile.WriteJSON(keptIn, versionRecord{id, string(out)})
	return out, nil
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
