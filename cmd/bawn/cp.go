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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pkg/sftp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

func cpCommand() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use:   "cp SOURCE... DESTINATION",
		Short: "Copy files between the host and a sandbox",
		Long: `Copy files and directories between the host and a sandbox. One side is
NAME:PATH (or :PATH for this directory's sandbox); a relative PATH is taken from
the home directory there. Directories are copied whole; modes, times of change
and symbolic links are kept. Devices, pipes and sockets in them are left out, which
bawn tells. A path of the host that holds a colon is written ./with:colon.

In a directory that the sandbox can change, bawn follows no symbolic link that
leads out of it.`,
		Example: `  bawn cp notes.txt myproject:/tmp/
  bawn cp :/var/log/docker.log .`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completePlaces,
		RunE: func(c *cobra.Command, args []string) error {
			return copyFiles(c.Context(), args[:len(args)-1], args[len(args)-1], user)
		},
	}
	c.SetFlagErrorFunc(copyFlagError)
	c.Flags().StringVarP(&user, "user", "u", "", "copy as `USER`: root, or you (default)")
	_ = c.RegisterFlagCompletionFunc("user", completeUsers)
	return c
}

// copyFlagError says of the flags with which other programs copy directories that
// none is needed.
func copyFlagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && slices.Contains([]string{"a", "p", "r", "R", "archive", "recursive"}, unknown.GetSpecifiedName()) {
		return hint(fmt.Errorf("bawn cp copies directories whole, with modes and times, and has no %s", err.Error()[strings.LastIndexByte(err.Error(), ' ')+1:]), "the same without it")
	}
	return flagError(c, err)
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
	if p == "~" || strings.HasPrefix(p, "~/") { // where relative paths begin
		p = strings.TrimLeft(p[1:], "/")
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
			return hint(errors.New("one side must be in a sandbox (NAME:PATH) and the other on the host"), "bawn cp --help")
		}
	}
	sandboxes, err := store.Open()
	if err != nil {
		return err
	}
	spec, err := lookup(sandboxes, to.name+from[0].name)
	if err != nil {
		return err
	}
	shares, err := writable(sandboxes)
	if err != nil {
		return err
	}
	if err := ensureRunning(ctx, sandboxes, spec.Name); err != nil {
		return err
	}
	client, err := dial(ctx, sandboxes, spec.Name, user)
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
	guest := guestFiles{ft, spec.Name}
	skipped := 0
	c := copier{ctx: ctx, task: task, skip: func(err error) {
		skipped++
		bar.around(func() { fmt.Fprintf(os.Stderr, "bawn: left out %s\n", printable(err.Error())) })
	}}
	for _, f := range from {
		if to.remote {
			err = c.upload(shares, guest, f.path, to.path, len(from) > 1)
		} else {
			err = c.download(shares, guest, f.path, to.path, len(from) > 1)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	if skipped > 0 {
		return fmt.Errorf("all was copied but what cannot be (%d)", skipped)
	}
	return nil
}

func (c copier) upload(shares []string, guest guestFiles, src, dst string, dir bool) error {
	host, name, err := openSource(shares, src)
	if err != nil {
		return err
	}
	defer host.root.Close()
	c.src, c.dst = host, guest
	return c.into(name, baseName(src), dst, dir || strings.HasSuffix(dst, "/"))
}

func (c copier) download(shares []string, guest guestFiles, src, dst string, dir bool) error {
	if fi, err := os.Stat(dst); err == nil && !fi.IsDir() && !fi.Mode().IsRegular() { // a file would take its place
		return hint(fmt.Errorf("%s is neither a file nor a directory", dst), "bawn exec %s -- cat %s", guest.sandbox, pathArgument(src))
	}
	host, name, err := openDestination(shares, dst)
	if err != nil {
		return err
	}
	defer host.root.Close()
	c.src, c.dst = guest, host
	return c.into(src, baseName(src), name, dir || strings.HasSuffix(dst, "/"))
}

// files is a file system on one side of a copy.
type files interface {
	Name(string) string // as a person knows the file
	Lstat(string) (fs.FileInfo, error)
	Stat(string) (fs.FileInfo, error)
	ReadDir(string) (names []string, err error)
	ReadLink(string) (string, error)
	Open(string) (io.ReadCloser, error)
	// Create writes a new file beside the old, and puts it in its place, with the
	// mode and the time of like, when write returns without an error.
	Create(name string, like fs.FileInfo, write func(io.Writer) error) error
	// Mkdir makes a directory that may be written to, or finds one.
	Mkdir(string) (made bool, err error)
	Chmod(string, fs.FileMode) error
	Chtimes(name string, modified time.Time) error
	Symlink(target, name string) error
}

// copier copies trees. Names that a hostile guest gives are single path
// elements or refused, and hostFiles follows no link out of where it begins: a
// copy never leaves its destination, nor its source.
type copier struct {
	ctx      context.Context
	src, dst files
	task     progress.Task
	skip     func(error) // is told of what lies in a directory and cannot be copied
}

// errKind is about what is nothing that can be copied.
var errKind = errors.New("neither a file, a directory nor a symbolic link")

// into copies src to dst, or, as base, into dst where that is a directory, as
// cp(1) does.
func (c *copier) into(src, base, dst string, dir bool) error {
	fi, err := c.dst.Stat(dst)
	switch {
	case err == nil && fi.IsDir():
		dst = path.Join(dst, base)
	case err != nil && (dir || !errors.Is(err, fs.ErrNotExist)):
		return failure(c.dst, dst, err)
	case dir:
		return failure(c.dst, dst, syscall.ENOTDIR)
	}
	return c.tree(src, dst)
}

func baseName(p string) string {
	if b := filepath.Base(p); b != "." && b != ".." && b != "/" {
		return b
	}
	return ""
}

// failure is an error about a file, without the names that system calls use.
func failure(where files, name string, err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pe):
		err = pe.Err
	case errors.As(err, &le):
		err = le.Err
	}
	if strings.Contains(err.Error(), "escapes from parent") { // os.Root has no value for it
		err = hint(fmt.Errorf("a symbolic link or .. leads out of a directory that a sandbox can change (%w)", err), "name the place that it leads to, if you mean that")
	}
	return fmt.Errorf("%s: %w", where.Name(name), err)
}

func (c *copier) tree(src, dst string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	fi, err := c.src.Lstat(src)
	if err != nil {
		return failure(c.src, src, err)
	}
	c.task.Note(path.Base(src))
	switch fi.Mode().Type() {
	case 0:
		return c.file(src, dst, fi)
	case fs.ModeDir:
		return c.dir(src, dst, fi)
	case fs.ModeSymlink:
		target, err := c.src.ReadLink(src)
		if err != nil {
			return failure(c.src, src, err)
		}
		return failure(c.dst, dst, c.dst.Symlink(target, dst))
	}
	return failure(c.src, src, errKind)
}

func (c *copier) file(src, dst string, fi fs.FileInfo) error {
	r, err := c.src.Open(src)
	if err != nil {
		return failure(c.src, src, err)
	}
	defer r.Close()
	err = c.dst.Create(dst, fi, func(w io.Writer) error { return c.bytes(w, r, fi.Size()) })
	return failure(c.dst, dst, err)
}

// bytes copies a file's contents in the way in which SFTP has many requests
// under way: a file of the guest's that is read writes itself, and one that is
// written reads from what has a size.
func (c *copier) bytes(w io.Writer, r io.Reader, size int64) error {
	if from, ok := r.(io.WriterTo); ok {
		_, err := from.WriteTo(countWriter{w, c.task})
		return err
	}
	_, err := io.Copy(w, countReader{r, size, c.task})
	return err
}

type countWriter struct {
	io.Writer
	task progress.Task
}

func (c countWriter) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.task.Add(int64(n))
	return n, err
}

type countReader struct {
	io.Reader
	size int64
	task progress.Task
}

func (c countReader) Size() int64 { return c.size }

func (c countReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.task.Add(int64(n))
	return n, err
}

func (c *copier) dir(src, dst string, fi fs.FileInfo) error {
	made, err := c.dst.Mkdir(dst)
	if err != nil {
		return failure(c.dst, dst, err)
	}
	err = c.entries(src, dst)
	if !made {
		return err
	}
	// Also of what was copied in part: until now nobody else could look into it.
	settled := errors.Join(c.dst.Chtimes(dst, fi.ModTime()), c.dst.Chmod(dst, fi.Mode().Perm()))
	if err == nil {
		err = failure(c.dst, dst, settled)
	}
	return err
}

func (c *copier) entries(src, dst string) error {
	list, err := c.src.ReadDir(src)
	if err != nil {
		return failure(c.src, src, err)
	}
	for _, n := range list {
		if n == "." || n == ".." || n == "" || strings.Contains(n, "/") {
			return failure(c.src, src, fmt.Errorf("holds an entry with the impossible name %q", n))
		}
		err := c.tree(path.Join(src, n), path.Join(dst, n))
		if errors.Is(err, errKind) {
			c.skip(err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// hostFiles is this machine's file system beneath a directory. What leads out
// of it, by a symbolic link or "..", is refused, also when the guest, which may
// see the directory too, changes it while files are copied.
type hostFiles struct {
	root *os.Root
	show string // the directory, as a person named it
}

// openSource opens a place to copy from, and says what it is called in there.
func openSource(shares []string, p string) (hostFiles, string, error) {
	if root, name := inShare(shares, p); root != "" {
		return openHost(root, name)
	}
	abs, err := filepath.Abs(p)
	if err != nil {
		return hostFiles{}, "", err
	}
	return openHost(filepath.Dir(abs), filepath.Base(abs))
}

// openDestination opens a place to copy to: it, or the directory it will be in.
func openDestination(shares []string, p string) (hostFiles, string, error) {
	if root, name := inShare(shares, p); root != "" {
		return openHost(root, name)
	}
	if fi, err := os.Stat(p); err == nil && fi.IsDir() {
		return openHost(p, ".")
	}
	p = filepath.Clean(p)
	if real, err := filepath.EvalSymlinks(p); err == nil {
		p = real // a link of the person's own to a file
	}
	return openHost(filepath.Dir(p), filepath.Base(p))
}

func openHost(dir, name string) (hostFiles, string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return hostFiles{}, "", failure(hostFiles{show: dir}, "", err)
	}
	if name == "/" {
		name = "."
	}
	return hostFiles{root, dir}, name, nil
}

// writable are the directories that the guest of any sandbox can change.
func writable(sandboxes *store.Store) ([]string, error) {
	names, err := sandboxes.Names()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, n := range names {
		spec, err := sandboxes.Dir(n).Spec()
		if err != nil {
			continue // damaged: it cannot run
		}
		dirs = append(dirs, spec.Dir)
		for _, m := range spec.Mounts {
			if !m.ReadOnly {
				dirs = append(dirs, m.Source)
			}
		}
	}
	return dirs, nil
}

// inShare finds the directory of shares that p lies in, and p's name from there.
func inShare(shares []string, p string) (root, name string) {
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", ""
	}
	if root, name := beneathAny(shares, abs); root != "" {
		return root, name
	}
	// By a link from elsewhere.
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		if real, err = filepath.EvalSymlinks(filepath.Dir(abs)); err != nil {
			return "", ""
		}
		real = filepath.Join(real, filepath.Base(abs))
	}
	return beneathAny(shares, real)
}

// beneathAny looks at each directory on the way to p, which may have other
// names than the shares have.
func beneathAny(shares []string, p string) (root, name string) {
	for i := 1; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' && i != 1 {
			continue
		}
		here, err := os.Stat(p[:i])
		if err != nil || !here.IsDir() {
			return "", ""
		}
		for _, s := range shares {
			if there, err := os.Stat(s); err == nil && os.SameFile(here, there) {
				if rest := strings.TrimPrefix(p[i:], "/"); rest != "" {
					return p[:i], rest
				}
				return p[:i], "."
			}
		}
	}
	return "", ""
}

func (h hostFiles) Name(p string) string                { return filepath.Join(h.show, p) }
func (h hostFiles) Lstat(p string) (fs.FileInfo, error) { return h.root.Lstat(p) }
func (h hostFiles) Stat(p string) (fs.FileInfo, error)  { return h.root.Stat(p) }
func (h hostFiles) ReadLink(p string) (string, error)   { return h.root.Readlink(p) }
func (h hostFiles) Chmod(p string, m fs.FileMode) error { return h.root.Chmod(p, m) }

func (h hostFiles) Chtimes(p string, modified time.Time) error {
	return h.root.Chtimes(p, time.Time{}, modified) // the zero time leaves the other as it is
}

// Open opens a regular file. It does not wait for a pipe that has come in its
// place, and hides what copies files past the reader.
func (h hostFiles) Open(p string) (io.ReadCloser, error) {
	f, err := h.root.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, errors.New("no longer a file")
	}
	return struct{ io.ReadCloser }{f}, nil
}

func (h hostFiles) ReadDir(p string) ([]string, error) {
	f, err := h.root.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (h hostFiles) Create(name string, like fs.FileInfo, write func(io.Writer) error) error {
	tmp := temporary(name)
	f, err := h.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = errors.Join(f.Chmod(like.Mode().Perm()), h.Chtimes(tmp, like.ModTime()))
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = h.root.Rename(tmp, name)
	}
	if err != nil {
		_ = h.root.Remove(tmp)
	}
	return err
}

// temporary is a name for a file beside the one that it will replace.
func temporary(name string) string {
	return path.Join(path.Dir(name), ".bawn-cp-"+sandbox.NewID())
}

// Mkdir refuses to go through a symbolic link: the guest may have sent one of
// that name a moment ago.
func (h hostFiles) Mkdir(name string) (bool, error) {
	err := h.root.Mkdir(name, 0o700)
	if err == nil {
		return true, nil
	}
	if fi, lerr := h.root.Lstat(name); errors.Is(err, fs.ErrExist) && lerr == nil && fi.IsDir() {
		return false, nil
	}
	return false, err
}

func (h hostFiles) Symlink(target, name string) error {
	if fi, err := h.root.Lstat(name); err == nil && fi.Mode().Type() == fs.ModeSymlink {
		if err := h.root.Remove(name); err != nil {
			return err
		}
	}
	return h.root.Symlink(target, name)
}

// guestFiles is the guest's file system over SFTP.
type guestFiles struct {
	c       *sftp.Client
	sandbox string
}

func (g guestFiles) Name(p string) string                 { return g.sandbox + ":" + p }
func (g guestFiles) Lstat(p string) (fs.FileInfo, error)  { return g.c.Lstat(p) }
func (g guestFiles) Stat(p string) (fs.FileInfo, error)   { return g.c.Stat(p) }
func (g guestFiles) ReadLink(p string) (string, error)    { return g.c.ReadLink(p) }
func (g guestFiles) Open(p string) (io.ReadCloser, error) { return g.c.Open(p) }
func (g guestFiles) Chmod(p string, m fs.FileMode) error  { return g.c.Chmod(p, m) }

// Chtimes is exact to a second: SFTP knows no more (draft-ietf-secsh-filexfer-02, 5).
func (g guestFiles) Chtimes(p string, modified time.Time) error {
	return g.c.Chtimes(p, modified, modified)
}

func (g guestFiles) ReadDir(p string) ([]string, error) {
	list, err := g.c.ReadDir(p)
	names := make([]string, len(list))
	for i, fi := range list {
		names[i] = fi.Name()
	}
	return names, err
}

func (g guestFiles) Create(name string, like fs.FileInfo, write func(io.Writer) error) error {
	tmp := temporary(name)
	f, err := g.c.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = f.Chmod(like.Mode().Perm())
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = g.Chtimes(tmp, like.ModTime()) // when it is closed: what is written late counts too
	}
	if err == nil {
		err = g.c.PosixRename(tmp, name)
	}
	if err != nil {
		_ = g.c.Remove(tmp)
	}
	return err
}

func (g guestFiles) Mkdir(name string) (bool, error) {
	if fi, err := g.c.Lstat(name); err == nil && fi.IsDir() {
		return false, nil
	}
	if err := g.c.Mkdir(name); err != nil {
		return false, err
	}
	return true, g.c.Chmod(name, 0o700)
}

func (g guestFiles) Symlink(target, name string) error {
	if fi, err := g.c.Lstat(name); err == nil && fi.Mode().Type() == fs.ModeSymlink {
		if err := g.c.Remove(name); err != nil {
			return err
		}
	}
	return g.c.Symlink(target, name)
}
