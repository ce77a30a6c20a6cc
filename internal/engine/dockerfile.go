package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"bawn.dev/bawn/internal/sandbox"
)

const (
	// maxDockerfile bounds a Dockerfile, or what it ignores, that lies outside of the context,
	// in bytes.
	maxDockerfile = 1 << 20
	// ignoreSuffix is added to the name of a Dockerfile for that of its own .dockerignore.
	ignoreSuffix = ".dockerignore"
)

// dockerfile is the Dockerfile of a build.
type dockerfile struct {
	inContext bool
	path      string // if in the context, there and in the guest
	// Otherwise what is put into the guest; ignore is nil for none.
	text, ignore []byte
}

// guest returns the path of the file in the guest.
func (f dockerfile) guest() string {
	if f.inContext {
		return f.path
	}
	return buildFolder + "/Dockerfile"
}

// buildContext returns the directory of a context, absolute and free of symbolic links.
func buildContext(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	bad := func(what string) error {
		return &Error{Reason: BuildContext, Path: path, Err: fmt.Errorf("build context %s %s", path, what)}
	}
	dir, err := realPath(abs, true)
	if errors.Is(err, fs.ErrNotExist) {
		return "", bad("does not exist")
	} else if err != nil {
		return "", fmt.Errorf("build context: %w", err)
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("build context: %w", err)
	}
	if !fi.IsDir() {
		return "", bad("is not a directory")
	}
	if slices.Contains(sandbox.SystemDirs, dir) { // the guest has it at the same path
		return "", bad("is a directory that the builder itself needs")
	}
	return dir, nil
}

// findDockerfile finds the Dockerfile of a build; name and stdin are those of a BuildRequest. A
// Dockerfile in the context is read by the guest only, so that a symbolic link of the project leads
// to no other file of the host. One outside of the context is read here, by open, since the person
// named it.
func findDockerfile(dir, name string, stdin io.Reader, open opener) (dockerfile, error) {
	if name == "-" {
		text, err := readBounded(stdin)
		if err != nil {
			return dockerfile{}, fmt.Errorf("standard input: %w", err)
		}
		return dockerfile{text: text}, nil
	}
	path := filepath.Join(dir, "Dockerfile")
	abs := path // as it was named: open judges the links on its way
	if name != "" {
		var err error
		if abs, err = filepath.Abs(name); err != nil {
			return dockerfile{}, err
		}
		path = abs
		if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
			path = filepath.Join(parent, filepath.Base(abs))
		}
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return dockerfile{}, &Error{Reason: NoDockerfile, Path: path, Err: fmt.Errorf("there is no Dockerfile %s", path)}
	} else if err != nil {
		return dockerfile{}, err
	}
	if sandbox.Beneath(dir, path) {
		return dockerfile{inContext: true, path: path}, nil
	}
	text, err := readSmall(open, abs)
	if err != nil {
		return dockerfile{}, err
	}
	ignore, err := readSmall(open, abs+ignoreSuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return dockerfile{}, err
	}
	return dockerfile{text: text, ignore: ignore}, nil
}

// opener opens a file of the host (Engine.OpenSource).
type opener func(path string) (*os.File, error)

// readSmall reads a file of at most maxDockerfile bytes.
func readSmall(open opener, path string) ([]byte, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readBounded(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// readBounded reads at most maxDockerfile bytes; more are an error.
func readBounded(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxDockerfile+1))
	if err == nil && len(b) > maxDockerfile {
		err = fmt.Errorf("it has more than %d bytes", maxDockerfile)
	}
	return b, err
}
