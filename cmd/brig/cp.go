package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/pkg/sftp"
	"github.com/spf13/cobra"

	"brig.dev/brig/internal/progress"
	"brig.dev/brig/internal/sandbox"
	"brig.dev/brig/internal/session"
)

func cpCommand() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use:   "cp SOURCE... DESTINATION",
		Short: "Copy files between the host and a sandbox",
		Long: `Copy files and directories between the host and a sandbox. One side is
NAME:PATH (or :PATH for this directory's sandbox); a relative PATH is taken from
the home directory there. Directories are copied whole; modes and symbolic
links are kept. A path of the host that holds a colon is written ./with:colon.`,
		Example: `  brig cp notes.txt myproject:/tmp/
  brig cp :/var/log/dockerd.log .`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return copyFiles(c.Context(), args[:len(args)-1], args[len(args)-1], user)
		},
	}
	c.Flags().StringVarP(&user, "user", "u", "", "copy as `USER`: root, or you (default)")
	return c
}

// place is one side of a copy.
type place struct {
	remote bool
	name   string // of the sandbox
	path   string
}

func parsePlace(s string) place {
	name, p, ok := strings.Cut(s, ":")
	if !ok || strings.Contains(name, "/") {
		return place{path: s}
	}
	if p == "" {
		p = "."
	}
	return place{remote: true, name: name, path: p}
}

func copyFiles(ctx context.Context, sources []string, dest, user string) error {
	to := parsePlace(dest)
	from := make([]place, len(sources))
	for i, s := range sources {
		from[i] = parsePlace(s)
		if from[i].remote == to.remote || from[i].name != from[0].name {
			return hint(errors.New("one side must be in a sandbox (NAME:PATH) and the other on the host"), "brig cp --help")
		}
	}
	store, err := sandbox.Open()
	if err != nil {
		return err
	}
	spec, err := lookup(store, to.name+from[0].name)
	if err != nil {
		return err
	}
	if err := ensureRunning(ctx, store, spec.Name, nil); err != nil {
		return err
	}
	if user == "" {
		user = guestUser().Name
	}
	client, err := session.Dial(ctx, store.Dir(spec.Name), user)
	if err != nil {
		return err
	}
	defer client.Close()
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	ft, err := client.SFTP()
	if err != nil {
		return err
	}
	bar := newBars(os.Stderr)
	defer bar.close()
	task := bar.Start("Copying", 0, progress.Bytes)
	defer task.Done(nil)
	cp := copier{ctx: ctx, src: hostFiles{}, dst: guestFiles{ft}, task: task}
	if !to.remote {
		cp.src, cp.dst = cp.dst, cp.src
	}
	for _, f := range from {
		if err := cp.into(f.path, to.path, len(from) > 1); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
	return nil
}

// files is a file system on one side of a copy.
type files interface {
	Lstat(string) (fs.FileInfo, error)
	Stat(string) (fs.FileInfo, error)
	ReadDir(string) ([]fs.FileInfo, error)
	ReadLink(string) (string, error)
	Open(string) (io.ReadCloser, error)
	// Create writes a new file beside the old, and puts it in its place when
	// write returns without an error.
	Create(name string, mode fs.FileMode, write func(io.Writer) error) error
	Mkdir(string, fs.FileMode) error
	Symlink(target, name string) error
}

// copier copies trees. Names that a hostile guest gives are single path
// elements or refused: a copy never leaves its destination.
type copier struct {
	ctx      context.Context
	src, dst files
	task     progress.Task
}

// into copies src to dst, or into dst where that is a directory, as cp(1) does.
func (c *copier) into(src, dst string, dir bool) error {
	fi, err := c.dst.Stat(dst)
	switch {
	case err == nil && fi.IsDir():
		dst = path.Join(dst, baseName(src))
	case dir || strings.HasSuffix(dst, "/"):
		return fmt.Errorf("%s is not a directory", dst)
	}
	return c.tree(src, dst)
}

func baseName(p string) string {
	if b := filepath.Base(p); b != "." && b != ".." && b != "/" {
		return b
	}
	return ""
}

func (c *copier) tree(src, dst string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	fi, err := c.src.Lstat(src)
	if err != nil {
		return fmt.Errorf("%s: %w", src, err)
	}
	c.task.Note(src)
	switch fi.Mode().Type() {
	case 0:
		return c.file(src, dst, fi)
	case fs.ModeDir:
		return c.dir(src, dst, fi)
	case fs.ModeSymlink:
		target, err := c.src.ReadLink(src)
		if err != nil {
			return fmt.Errorf("%s: %w", src, err)
		}
		return c.dst.Symlink(target, dst)
	}
	return fmt.Errorf("%s is a %s and cannot be copied", src, fi.Mode().Type())
}

func (c *copier) file(src, dst string, fi fs.FileInfo) error {
	r, err := c.src.Open(src)
	if err != nil {
		return fmt.Errorf("%s: %w", src, err)
	}
	defer r.Close()
	err = c.dst.Create(dst, fi.Mode().Perm(), func(w io.Writer) error {
		_, err := io.Copy(w, io.TeeReader(r, counter{c.task}))
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", dst, err)
	}
	return nil
}

func (c *copier) dir(src, dst string, fi fs.FileInfo) error {
	// Writable until it is full.
	if err := c.dst.Mkdir(dst, fi.Mode().Perm()|0o700); err != nil {
		return fmt.Errorf("%s: %w", dst, err)
	}
	list, err := c.src.ReadDir(src)
	if err != nil {
		return fmt.Errorf("%s: %w", src, err)
	}
	for _, e := range list {
		if n := e.Name(); n == "." || n == ".." || n == "" || strings.Contains(n, "/") {
			return fmt.Errorf("%s holds an entry with the impossible name %q", src, n)
		}
		if err := c.tree(path.Join(src, e.Name()), path.Join(dst, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

type counter struct{ task progress.Task }

func (c counter) Write(b []byte) (int, error) {
	c.task.Add(int64(len(b)))
	return len(b), nil
}

// hostFiles is this machine's file system.
type hostFiles struct{}

func (hostFiles) Lstat(p string) (fs.FileInfo, error)  { return os.Lstat(p) }
func (hostFiles) Stat(p string) (fs.FileInfo, error)   { return os.Stat(p) }
func (hostFiles) ReadLink(p string) (string, error)    { return os.Readlink(p) }
func (hostFiles) Open(p string) (io.ReadCloser, error) { return os.Open(p) }
func (hostFiles) ReadDir(p string) ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(p)
	var list []fs.FileInfo
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			return nil, err
		}
		list = append(list, fi)
	}
	return list, err
}

func (hostFiles) Create(name string, mode fs.FileMode, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".brig-cp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(write(f), f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// Mkdir refuses to go through a symbolic link: the guest may have sent one of
// that name a moment ago.
func (hostFiles) Mkdir(name string, mode fs.FileMode) error {
	err := os.Mkdir(name, mode)
	if fi, lerr := os.Lstat(name); errors.Is(err, fs.ErrExist) && lerr == nil && fi.IsDir() {
		return nil
	}
	return err
}

func (hostFiles) Symlink(target, name string) error {
	if fi, err := os.Lstat(name); err == nil && fi.Mode().Type() == fs.ModeSymlink {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return os.Symlink(target, name)
}

// guestFiles is the guest's file system over SFTP.
type guestFiles struct{ c *sftp.Client }

func (g guestFiles) Lstat(p string) (fs.FileInfo, error)     { return g.c.Lstat(p) }
func (g guestFiles) Stat(p string) (fs.FileInfo, error)      { return g.c.Stat(p) }
func (g guestFiles) ReadLink(p string) (string, error)       { return g.c.ReadLink(p) }
func (g guestFiles) ReadDir(p string) ([]fs.FileInfo, error) { return g.c.ReadDir(p) }
func (g guestFiles) Open(p string) (io.ReadCloser, error)    { return g.c.Open(p) }

func (g guestFiles) Create(name string, mode fs.FileMode, write func(io.Writer) error) error {
	tmp := path.Join(path.Dir(name), ".brig-cp-"+sandbox.NewID())
	f, err := g.c.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Chmod(mode), f.Close())
	if err == nil {
		err = g.c.PosixRename(tmp, name)
	}
	if err != nil {
		_ = g.c.Remove(tmp)
	}
	return err
}

func (g guestFiles) Mkdir(name string, mode fs.FileMode) error {
	if fi, err := g.c.Lstat(name); err == nil && fi.IsDir() {
		return nil
	}
	if err := g.c.Mkdir(name); err != nil {
		return err
	}
	return g.c.Chmod(name, mode)
}

func (g guestFiles) Symlink(target, name string) error {
	if fi, err := g.c.Lstat(name); err == nil && fi.Mode().Type() == fs.ModeSymlink {
		if err := g.c.Remove(name); err != nil {
			return err
		}
	}
	return g.c.Symlink(target, name)
}
