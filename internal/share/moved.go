package share

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// maxMoved bounds the files that are looked at when a directory is renamed. A larger one is
// copied by the guest.
const maxMoved = 200_000

// mover looks for guarded paths in a directory of the host that is renamed.
type mover struct {
	fs   *fileSystem
	left int
	// inRepository reports whether the directory's new place lies in a repository.
	inRepository func() bool
}

// holds reports whether a directory has something below it that is guarded where it is or
// where it would be, or would not be hidden any more, or a link that would lead out of a repository.
func (m *mover) holds(dir int, name string, was, will []string) bool {
	at, err := openDirAt(dir, name)
	if err != nil {
		return true
	}
	defer unix.Close(at)
	fd, err := unix.Open(magic(at), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	list, err := f.ReadDir(-1)
	if m.left -= len(list); err != nil || m.left < 0 || len(was) > depthLimit {
		return true
	}
	above := m.inRepository
	defer func() { m.inRepository = above }()
	m.inRepository = func() bool { return isRepository(at) || above() }
	for _, e := range list {
		if e.Type() == os.ModeSymlink && m.fs.rules.LeadsOut(m.place(at, e, will), targetOf(at, e.Name())) {
			return true
		}
		if m.fs.rules.Candidate(e.Name()) {
			before, after := m.judge(at, e, was), m.judge(at, e, will)
			if before == guard.Guarded || after == guard.Guarded || before == guard.Hidden && after != guard.Hidden {
				return true
			}
		}
		if e.IsDir() && m.holds(at, e.Name(), append(slices.Clip(was), e.Name()), append(slices.Clip(will), e.Name())) {
			return true
		}
	}
	return false
}

func (m *mover) judge(dir int, e os.DirEntry, names []string) guard.Kind {
	kind, _ := m.fs.rules.Judge(m.place(dir, e, names))
	return kind
}

func (m *mover) place(dir int, e os.DirEntry, names []string) guard.Place {
	return guard.Place{
		Dir: names, Name: e.Name(), Folds: m.fs.folds,
		Has:       func(name string) bool { _, err := statAt(dir, name); return err == nil },
		HasConfig: func() bool { return m.fs.hasConfig(dir) },

		IsDir:    e.IsDir,
		Contains: func(texts []string) bool { return e.Type().IsRegular() && contains(dir, e.Name(), texts) },
		Made: func() bool {
			st, err := statAt(dir, e.Name())
			return err == nil && m.fs.madeByGuest(file{dir, e.Name()}, st)
		},
		InRepository: m.inRepository,
	}
}

// isRepository reports whether a directory of the host is a repository by what it has.
func isRepository(dir int) bool {
	for _, name := range []string{"HEAD", "objects"} {
		if _, err := statAt(dir, name); err != nil {
			return false
		}
	}
	return true
}

// inRepository reports whether a place lies in a directory of the host that is a repository by what
// it has. One that cannot be looked at counts as one.
func (f *fileSystem) inRepository(s *spotAt) bool {
	return slices.ContainsFunc(append(slices.Clip(s.view.chain.nodes), f.tree.root), func(n *node) bool {
		p, err := f.tree.in(n)
		if err != nil {
			return true
		}
		defer p.close()
		return isRepository(p.dir.fd)
	})
}

// targetOf returns where a symbolic link leads; the root of the host if it cannot be read.
func targetOf(dir int, name string) string {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "/"
	}
	return string(buf[:n])
}

// moveVersions lets private versions follow a directory that was renamed.
func (f *fileSystem) moveVersions(r *renaming) error {
	if f.private == nil || !r.ofDir() {
		return nil
	}
	from, to := append(slices.Clip(r.pa.view.chain.names), r.from), append(slices.Clip(r.pb.view.chain.names), r.to)
	if r.flags&unix.RENAME_EXCHANGE != 0 {
		return f.private.exchangeDirs(from, to)
	}
	return f.private.moveDir(from, to)
}

// holdsVersions reports whether a directory of the host has private versions in it.
func (f *fileSystem) holdsVersions(s *spotAt, name string) bool {
	return f.private != nil && !s.private && len(f.private.versions(append(slices.Clip(s.view.chain.names), name))) > 0
}

// dropVersions forgets what the store knows of a directory that was removed.
func (f *fileSystem) dropVersions(s *spotAt, name string) {
	if f.private != nil && !s.private {
		f.private.dropDir(append(slices.Clip(s.view.chain.names), name))
	}
}

// checkNew returns the error for a file of a type (S_IFMT) that is to get a name. target is that
// of a symbolic link.
func (f *fileSystem) checkNew(w who, s *spotAt, name string, typ uint16, target string) error {
	if f.rules == nil {
		return nil
	}
	at := f.placeAt(s, name)
	away := !s.private && typ == unix.S_IFLNK && (f.rules.MayLeadAway(at) || f.rules.LeadsOut(at, target))
	if away || s.slot && typ != unix.S_IFREG && typ != unix.S_IFDIR && typ != unix.S_IFLNK {
		f.events.note(w, guard.Refused, s.view.chain.names, name)
		return unix.EPERM
	}
	return nil
}

// placeAt is a name in a directory for rules about links.
func (f *fileSystem) placeAt(s *spotAt, name string) guard.Place {
	return guard.Place{
		Dir: s.view.chain.names, Name: name, Folds: f.folds,
		Has:   func(name string) bool { _, err := statAt(s.dir.fd, name); return err == nil },
		IsDir: func() bool { return false },

		InRepository: func() bool { return f.inRepository(s) },
	}
}

// noteMade marks a regular file of the host that the guest has just made or given its name,
// where a rule depends on that.
func (f *fileSystem) noteMade(s *spotAt, name string) {
	if f.rules == nil || s.private || !f.rules.AsksMade(name) {
		return
	}
	fd, err := unix.Openat(s.dir.fd, s.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if st, err := statFD(fd); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		f.markMade(fd)
	}
}

// mayLink returns the error for a link to a node, and whether the node lies in the store. A
// second name of a guarded file would be a way round the guard.
func (f *fileSystem) mayLink(w who, n *node) (private bool, err error) {
	if f.rules == nil {
		return false, nil
	}
	slot, private, err := f.inSlot(n)
	if err == nil && slot != nil {
		if c, err := f.tree.chain(n); err == nil && len(c.names) > 0 {
			last := len(c.names) - 1
			f.events.note(w, guard.Refused, c.names[:last], c.names[last])
		}
		err = unix.EPERM
	}
	return private, err
}

// prepareGuard compiles the rules of a share and opens what they need.
func (f *fileSystem) prepareGuard(o Options, root int) error {
	if o.Guard == nil || o.File != "" {
		return nil
	}
	rules, err := guard.New(*o.Guard)
	if err != nil {
		return err
	}
	f.rules, f.folds = rules, folds(root)
	if o.Events != "" {
		if f.events, err = openEvents(o.Root, o.Events); err != nil {
			return err
		}
	}
	if o.Private == "" || o.ReadOnly {
		return nil
	}
	if f.private, err = openPrivate(o.Private); err != nil {
		return err
	}
	f.tree.store, f.tree.mounts.storeDev = f.private, f.private.dev
	return nil
}
