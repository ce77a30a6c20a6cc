package share

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// # Theory of operation: files that the host moved
//
// The rules judge a path when the guest opens a file. The host may rename the file, or a
// directory above it, afterwards: git writes config.lock and renames it to config, and a person
// moves a draft to .envrc or out of the project. A guest that holds the file would write to
// what the host runs. So each change asks the kernel for the path that the file has now
// (proc_pid_fd(5)). If that is not the path that was judged, it is judged again. The answer is
// ESTALE if it is guarded or hidden there, or outside of the share.
//
// A request that makes or opens a file has read a path already, to judge it. The first write does not judge that again,
// if no rule may apply to any name of it: what such rules say depends on what the host has there by then.
//
// The kernel's path is that of the name by which the file was opened. Where that name is gone and
// the file has another one, that is unknown: the file is separated from it (separate.go).

// checkHere returns the error for a request on a node that is open at a descriptor, if the host has
// moved it to where the guest may not change it, or not read it. Without an error it returns where the file
// lies, as it found that.
func (f *fileSystem) checkHere(o operation, n *node, fd int) (at hostPath, err error) {
	if f.file != "" {
		return at, nil
	}
	c, err := f.tree.chain(n)
	if err == nil && c.private {
		return at, nil
	}
	if at.path, err = pathOn(fd); err != nil {
		return at, pathError(err)
	}
	if at.names, err = f.tree.pathBelow(at.path); err != nil {
		return at, pathError(err)
	}
	if at.names != nil && slices.Equal(at.names, c.names) || n == f.tree.root {
		return at, nil
	}
	return at, f.checkNames(o, fd, at.names)
}

// hostPath is where a file lies on the host.
type hostPath struct {
	path  string   // the kernel's; empty if it was not read
	names []string // its components below the root of the share; nil if it does not lie there
}

// free returns the path if nothing applies to it, whatever the host has there. Otherwise it returns nil.
func (f *fileSystem) free(at hostPath) *string {
	if at.names == nil || f.rules != nil && slices.ContainsFunc(at.names, f.rules.Candidate) || strings.HasSuffix(at.path, deleted) {
		return nil
	}
	return &at.path
}

// pathError is nil for a path that is too long to be read: the rules were asked about each of
// its components, and no program of the host opens it by one path.
func pathError(err error) error {
	if errors.Is(err, errLongPath) || errors.Is(err, unix.ENAMETOOLONG) {
		return nil
	}
	return err
}

// checkHandle is checkHere for a change of an open file.
func (f *fileSystem) checkHandle(h *handle) error {
	if h.stored || f.file != "" {
		return nil
	}
	path, err := pathOn(h.fd)
	if err != nil {
		return pathError(err)
	}
	if judged := h.path.Load(); judged != nil && *judged == path {
		return nil
	}
	names, err := f.tree.pathBelow(path)
	if err != nil {
		return pathError(err)
	}
	named, err := f.hasName(h.fd, path, names)
	switch {
	case err != nil:
		return err
	case !named:
		return f.checkUnnamed(h)
	}
	if err := f.checkNames(modifyNode, h.fd, names); err != nil {
		return err
	}
	h.path.Store(&path)
	return nil
}

// checkUnnamed is checkHandle for a file whose name was removed. It may have another one, which the
// guest may know.
func (f *fileSystem) checkUnnamed(h *handle) error {
	st, err := statFD(h.fd)
	if err != nil || st.Nlink == 0 {
		return err
	}
	f.tree.mu.Lock()
	spots := append([]spot{{h.node.parent, h.node.name}}, h.node.also...)
	f.tree.mu.Unlock()
	for _, s := range spots {
		if s.parent == nil {
			continue
		}
		c, err := f.tree.chain(s.parent)
		if err != nil || c.private {
			continue
		}
		if err := f.judgeNames(modifyNode, append(c.names, s.name), false); err != nil {
			return err
		}
	}
	return f.separateNode(h.node, h.fd)
}

// deleted is what the kernel adds to the path of a file whose name was removed.
const deleted = " (deleted)"

// hasName reports whether the name by which a file was opened is still there. path is the kernel's,
// and names are its components below the root; nil if it does not lie there.
func (f *fileSystem) hasName(fd int, path string, names []string) (bool, error) {
	if !strings.HasSuffix(path, deleted) {
		return true, nil
	}
	if names == nil {
		return false, nil
	}
	st, err := statFD(fd)
	if err != nil {
		return false, err
	}
	last := len(names) - 1
	dir, done, err := f.tree.walkHost(names[:last])
	if err != nil {
		return false, nil // nor is its directory
	}
	defer done()
	now, err := statAt(dir, names[last])
	return err == nil && keyOf(now) == keyOf(st), nil // a name may end so itself
}

// unnamed reports whether the name by which a file was opened is gone and it has others. at is what checkHere has
// found.
func (f *fileSystem) unnamed(fd int, st *unix.Statx_t, at hostPath) bool {
	if st.Nlink == 0 || st.Mode&unix.S_IFMT != unix.S_IFREG || f.file != "" || f.readOnly {
		return false
	}
	path, err := at.path, error(nil)
	if path == "" {
		path, err = pathOn(fd)
	}
	if err != nil || !strings.HasSuffix(path, deleted) { // nearly always, so the root's path is not read first
		return false
	}
	names, err := f.tree.pathBelow(path)
	if err != nil {
		return false
	}
	named, err := f.hasName(fd, path, names)
	return err == nil && !named
}

// pathBelow returns the components of a path of the host below the root of the share, as of now; nil
// for the root itself and for what does not lie there.
func (t *tree) pathBelow(path string) ([]string, error) {
	root, err := pathOn(t.root.fd.fd)
	if err != nil {
		return nil, err
	}
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/")+"/")
	if !ok || rest == "" {
		return nil, nil
	}
	return strings.Split(rest, "/"), nil
}

// checkNames is checkHere for a file, open at a descriptor, whose path on the host has these components
// below the root; nil if it does not lie there.
func (f *fileSystem) checkNames(o operation, fd int, names []string) error {
	st, err := statFD(fd)
	if err != nil {
		return err
	}
	switch {
	case names == nil && o.modifies() && st.Nlink > 0:
		return unix.ESTALE
	case names == nil || st.Nlink == 0:
		return nil
	}
	return f.judgeNames(o, names, isDir(st))
}

// judgeNames returns ESTALE for a path of the host that is hidden, or guarded from the operation.
func (f *fileSystem) judgeNames(o operation, names []string, dir bool) error {
	if f.rules == nil {
		return nil
	}
	for i, name := range names {
		if !f.rules.Candidate(name) {
			continue
		}
		open := func() (int, func(), error) { return f.tree.walkHost(names[:i]) }
		kind := f.judgeIn(open, names[:i], name, i < len(names)-1 || dir)
		if kind == guard.Hidden || kind == guard.Guarded && o.modifies() {
			return unix.ESTALE
		}
	}
	return nil
}

// nameHandles opens what the guest has open of a file by the name that it just got, so that the
// kernel knows a path of it. It had none before.
func (f *fileSystem) nameHandles(n *node, dir int, name string) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	st, err := statFD(fd)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	f.tree.mu.Lock()
	var open []*handle
	if n.key == keyOf(st) {
		for h := range n.handles {
			open = append(open, h)
		}
	}
	f.tree.mu.Unlock()
	for _, h := range open {
		f.reopenAt(h, fd)
	}
}

// walkHost opens a directory of the host by its components. The caller calls done when it has no
// error.
func (t *tree) walkHost(names []string) (dir int, done func(), err error) {
	dir, done = t.root.fd.fd, func() {}
	for _, name := range names {
		next, err := openDirAt(dir, name)
		done()
		if err != nil {
			return -1, nil, stale(err)
		}
		dir, done = next, func() { unix.Close(next) }
	}
	return dir, done, nil
}
