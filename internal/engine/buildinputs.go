package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"bawn.dev/bawn/internal/sys/regular"
)

// This file tells whether the image of a project would be another one if it were built again. It
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
		if err != nil || in.context(b.Context, ignored) != nil {
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

// context adds all that is in a context, but for what is ignored.
func (d *inputDigest) context(dir string, ignored map[string]bool) error {
	return fs.WalkDir(d.root.FS(), filepath.ToSlash(dir), func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.files++; d.files > maxInputFiles {
			return fmt.Errorf("more than %d files", maxInputFiles)
		}
		inside, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if ignored[inside] {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return d.file(name, inside, entry)
	})
}

// file adds one file or directory of the context.
func (d *inputDigest) file(name, inside string, entry fs.DirEntry) error {
	fi, err := entry.Info()
	if err != nil {
		return err
	}
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
