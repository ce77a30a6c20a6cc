package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/regular"
)

// This file finds out whether a new build of a project's image could give another image. It
// compares a digest of what a build reads of the project: what is approved of the build, the
// Dockerfile and, if that could use the context, the names, modes and contents of all files in the
// context. Large files count by their size and time. What .dockerignore leaves out by plain names
// is left out. Whatever cannot be told within limits means that the image is built again, for which
// BuildKit has its own cache; base images are not looked at.
//
// The guest writes these files. They are read beneath the project's directory without leaving it by
// a link, without waiting for a pipe and within limits, and nothing of them but the digest is kept.

const (
	maxInputFiles = 20000    // files and directories of a context
	maxInputBytes = 64 << 20 // of contents that are read, together
	maxInputFile  = 1 << 20  // contents of larger files are not read
	maxInputDepth = 128      // directories in one another: each file is found step by step
)

// takesContext matches the text of a Dockerfile that could read its context: COPY and ADD, a mount
// (which is of the context unless it says otherwise), or something that a line-by-line look cannot
// see (a base image's triggers are not seen at all).
var takesContext = regexp.MustCompile(`(?i)\b(COPY|ADD|ONBUILD)\b|--mount|#\s*(syntax|escape)\s*=`)

// inputs returns the digest of what the image is built from. known is false if it cannot be told.
func (b *projectBuild) inputs() (digest string, known bool) {
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return "", false
	}
	defer root.Close()
	in := &inputDigest{root: root, sum: sha256.New()}
	settings, err := json.Marshal(struct {
		Build any
		Hide  []string
	}{b.Build, b.hide})
	if err != nil {
		return "", false
	}
	in.add("settings", string(settings))
	text, err := in.read(b.Dockerfile(), maxDockerfile)
	if err != nil {
		return "", false
	}
	in.add("Dockerfile", string(text))
	if takesContext.Match(text) {
		ignored, err := in.ignored(b.Dockerfile(), b.Context)
		if err != nil || in.context(b.Context, b.Context, ignored) != nil {
			return "", false
		}
	}
	return hex.EncodeToString(in.sum.Sum(nil)), true
}

// inputDigest is the digest of what was added to it.
type inputDigest struct {
	root  *os.Root
	sum   hash.Hash
	files int
	bytes int64
}

// add adds strings, each with its length, so that no two lists have the same digest.
func (d *inputDigest) add(list ...string) {
	for _, s := range list {
		fmt.Fprintf(d.sum, "%d:%s", len(s), s)
	}
}

// read returns the content of a regular file of at most limit bytes.
func (d *inputDigest) read(name string, limit int64) ([]byte, error) {
	text, err := regular.ReadIn(d.root, name, limit)
	if d.bytes += int64(len(text)); err == nil && d.bytes > maxInputBytes {
		err = fmt.Errorf("%s: there is too much to read", name)
	}
	return text, err
}

// ignored returns the plain patterns of the build's .dockerignore (docs.docker.com, build context):
// those without a wildcard. If a pattern takes paths back in, it returns none.
func (d *inputDigest) ignored(dockerfile, context string) (map[string]bool, error) {
	for _, name := range []string{dockerfile + ignoreSuffix, filepath.Join(context, ignoreSuffix)} {
		if _, err := d.root.Lstat(name); err != nil {
			continue
		}
		text, err := d.read(name, maxDockerfile)
		if err != nil {
			return nil, err
		}
		d.add("ignore", string(text))
		return plainPatterns(string(text)), nil
	}
	return nil, nil //nolint:nilnil // nothing is ignored
}

func plainPatterns(text string) map[string]bool {
	list := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "!"):
			return nil
		case line == "", strings.HasPrefix(line, "#"), strings.ContainsAny(line, `*?[\`):
		default:
			list[path.Clean(strings.TrimPrefix(line, "/"))] = true
		}
	}
	return list
}

// context adds all that is in a context, but for what is ignored. dir is the context, or a directory
// in it. A directory is read within the limit, too: the guest may have filled it.
func (d *inputDigest) context(context, dir string, ignored map[string]bool) error {
	if strings.Count(dir, "/") > maxInputDepth {
		return fmt.Errorf("%d directories in one another", maxInputDepth)
	}
	names, err := d.names(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		name := filepath.Join(dir, n)
		inside, err := filepath.Rel(context, name)
		if err != nil {
			return err
		}
		if ignored[inside] {
			continue
		}
		fi, err := d.root.Lstat(name)
		if err != nil {
			return err
		}
		if err := d.file(name, inside, fi); err != nil {
			return err
		}
		if fi.IsDir() {
			if err := d.context(context, name, ignored); err != nil {
				return err
			}
		}
	}
	return nil
}

// names returns what is in a directory, sorted.
func (d *inputDigest) names(dir string) ([]string, error) {
	f, err := d.root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxInputFiles - d.files + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if d.files += len(names); d.files > maxInputFiles {
		return nil, fmt.Errorf("more than %d files", maxInputFiles)
	}
	slices.Sort(names)
	return names, nil
}

// file adds one file or directory of the context.
func (d *inputDigest) file(name, inside string, fi fs.FileInfo) error {
	d.add(inside, fi.Mode().String())
	switch {
	case fi.Mode()&fs.ModeSymlink != 0:
		target, err := d.root.Readlink(name)
		d.add(target)
		return err
	case !fi.Mode().IsRegular():
		return nil
	case fi.Size() > maxInputFile:
		d.add(fmt.Sprint(fi.Size()), fi.ModTime().UTC().String())
		return nil
	}
	text, err := d.read(name, maxInputFile)
	d.add(string(text))
	return err
}
