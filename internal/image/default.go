package image

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/progress"
)

// # How the default image is built
//
// mmdebstrap installs the packages of recipe/packages.txt into a folder, runs
// recipe/customize.sh there, and writes the result as a tar stream to its
// standard output, which is turned into ext4 as it comes: nothing is kept twice.
// For an ordinary user it works in a user namespace with the subordinate ids of
// /etc/subuid; for root, where the machine allows, without one.
//
// The folder lies under /var/tmp: the subordinate user must be able to reach it, which a
// cache below a private home would not allow, and /tmp is memory on many machines. Its
// name is fixed for each cache, so that the next build finds and removes the leftovers
// of one that was killed.
//
// A watcher process in mmdebstrap's process group ends the group when bawn has ended, in
// whatever way: then the pipe between the two is closed.
//
// With the same packages the result is the same to the byte (SOURCE_DATE_EPOCH is the
// date of the mirror's release files): while the mirror is unchanged, a damaged image
// can be made again under the digest that sandboxes name.

//go:embed recipe/packages.txt
var packagesFile string

//go:embed recipe/customize.sh
var customize string

// recipeVersion changes when anything else changes that the image depends on.
const recipeVersion = "1"

// maxDefault bounds the default image, in bytes. It is about 1.1 GB.
const maxDefault = 16 << 30

// pathExcludes keep files out of the image, and out of packages that are installed in it
// later: nobody reads manuals there, and all programs run in English. The directories of manuals
// stay: Java, PostgreSQL and others make symbolic links in them when they are installed.
var pathExcludes = []string{
	"path-exclude=/usr/share/doc/*",
	"path-include=/usr/share/doc/*/copyright",
	"path-exclude=/usr/share/man/*/*", // * is any text, also with slashes (dpkg(1))
	"path-exclude=/usr/share/info/*",
	"path-exclude=/usr/share/locale/*",
	"path-include=/usr/share/locale/locale.alias",
	"path-exclude=/usr/share/lintian/*",
}

// packages returns the lines of packages.txt without comments.
func packages() []string {
	var names []string
	for line := range strings.Lines(packagesFile) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			names = append(names, line)
		}
	}
	return names
}

// recipeDigest returns a digest that is another one when this bawn would build another
// default image. It does not depend on the mirror: every mirror has the same Debian.
func recipeDigest() string {
	h := sha256.New()
	for _, s := range [][]string{{recipeVersion, debian.Suite, debian.Arch(), customize}, packages(), pathExcludes} {
		fmt.Fprintf(h, "%q\n", s)
	}
	return "recipe:" + hex.EncodeToString(h.Sum(nil))
}

// build makes the default image in dir.
func (s *Store) build(ctx context.Context, dir, ref string, r progress.Reporter) (*meta, error) {
	if err := s.buildDefault(ctx, dir, r); err != nil {
		return nil, fmt.Errorf("default image: %w", err)
	}
	return &meta{Ref: ref, Source: recipeDigest(), Created: time.Now().UTC()}, nil
}

func (s *Store) buildDefault(ctx context.Context, dir string, r progress.Reporter) error {
	m, err := debian.Host(ctx)
	if err != nil {
		return err
	}
	mode, err := buildMode()
	if err != nil {
		return err
	}
	conf, err := debian.HostConfig(ctx)
	if err != nil {
		return err
	}
	apt := filepath.Join(dir, "apt")
	epoch, err := releaseDate(ctx, apt, m, r)
	if err != nil {
		return err
	}
	work, err := newWorkFolder(ctx, s.cache.Path(), mode)
	if err != nil {
		return err
	}
	defer removeWorkFolder(context.WithoutCancel(ctx), work, mode)
	cmd, err := mmdebstrap(ctx, mode, m, conf)
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+work, "LC_ALL=C", "SOURCE_DATE_EPOCH="+strconv.FormatInt(epoch.Unix(), 10),
		"BAWN_SOURCES="+debian.SourcesFile(m.Sources()), "BAWN_APT_CONF="+guestAptConf(conf))
	if err := buildTo(ctx, cmd, filepath.Join(dir, imageFile), r); err != nil {
		return err
	}
	return os.RemoveAll(apt) // it must not become a part of the entry
}

// releaseDate asks the mirror for its date. It fails early for a mirror that cannot be
// reached or is not Debian's.
func releaseDate(ctx context.Context, dir string, m debian.Mirror, r progress.Reporter) (_ time.Time, err error) {
	task := r.Start("Looking for Debian packages", 0, progress.Steps)
	defer func() { task.Done(err) }()
	apt, err := debian.NewApt(ctx, dir, debian.Arch(), m)
	if err != nil {
		return time.Time{}, err
	}
	return apt.ReleaseDate(ctx)
}

// guestAptConf returns those of the host's apt settings that the guest needs for the same
// mirror: whether its release files may be out of date. Settings of the host's network
// are left out.
func guestAptConf(conf []string) string {
	var b strings.Builder
	for _, l := range conf {
		if strings.HasPrefix(l, "Acquire::Check-") {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}
