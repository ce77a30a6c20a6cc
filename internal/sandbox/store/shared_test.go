package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/sys/opencount"
)

// sharer is a store with a sandbox "other", whose project is the directory shared, and a
// sandbox "mine", whose rules are a symbolic link.
type sharer struct {
	*Store
	t      *testing.T
	dir    string
	shared string
}

func newSharer(t *testing.T) *sharer {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &sharer{store(t), t, dir, filepath.Join(dir, "shared")}
	s.must(os.Mkdir(s.shared, 0o700))
	_, err = s.Create(spec("other", s.shared))
	s.must(err)
	_, err = s.Create(spec("mine", filepath.Join(dir, "none")))
	s.must(err)
	return s
}

func (s *sharer) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// plant writes a file of rules into a directory, as its guest would, and returns what the
// sandbox "mine" reads through a link to it.
func (s *sharer) plant(dir string) error {
	s.t.Helper()
	file, link := filepath.Join(dir, "rules"), s.Dir("mine").File(PolicyFile)
	s.must(os.WriteFile(file, []byte("allow **\n"), 0o600))
	if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	s.must(os.Symlink(file, link))
	rules, err := s.Dir("mine").Rules()
	if err != nil && len(rules) > 0 {
		s.t.Errorf("rules beside the error: %v", rules)
	}
	return err
}

// TestAttackPlantedBeforeTheSandboxWasRemoved: what a guest left in a directory is not
// trusted once its sandbox is gone, wherever the directory is by then.
func TestAttackPlantedBeforeTheSandboxWasRemoved(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *sharer) (dir string)
		held   bool
	}{
		"removed": {func(s *sharer) string {
			s.must(s.Dir("other").Remove())
			return s.shared
		}, true},
		"removed, with a damaged spec": {func(s *sharer) string {
			s.must(os.WriteFile(s.Dir("other").File(specFile), []byte("{"), 0o600))
			s.must(s.Dir("other").Remove())
			return s.shared
		}, true},
		"removed, made by a build without a record": {func(s *sharer) string {
			s.must(os.Remove(s.sharedPath()))
			s.must(s.Dir("other").Remove())
			return s.shared
		}, true},
		"moved while it is shared": {func(s *sharer) string {
			s.must(os.Rename(s.shared, s.dir+"/moved"))
			return s.dir + "/moved"
		}, true},
		"moved and removed": {func(s *sharer) string {
			s.must(os.Rename(s.shared, s.dir+"/moved"))
			s.must(s.Dir("other").Remove())
			return s.dir + "/moved"
		}, true},
		"another directory at its path": {func(s *sharer) string {
			s.must(os.Rename(s.shared, s.dir+"/moved"))
			s.must(os.Mkdir(s.shared, 0o700))
			s.must(s.Dir("other").Remove())
			return s.shared
		}, true},
		"both were shared, the second is moved": {func(s *sharer) string {
			s.must(os.Rename(s.shared, s.dir+"/moved"))
			s.must(os.Mkdir(s.shared, 0o700))
			s.must(s.Dir("other").RecordShared(s.shared)) // its server starts
			s.must(os.Rename(s.shared, s.dir+"/again"))
			s.must(s.Dir("other").Remove())
			return s.dir + "/again"
		}, true},
		"a mount that was taken back": {func(s *sharer) string {
			mount := s.dir + "/mount"
			s.must(os.Mkdir(mount, 0o700))
			sp := spec("other", s.shared)
			sp.Mounts = []sandbox.Source{{Host: mount, Guest: mount}}
			s.must(s.Dir("other").WriteSpec(sp))
			sp.Mounts = nil
			s.must(s.Dir("other").WriteSpec(sp))
			return mount
		}, true},
		"a mount that the guest could only read": {func(s *sharer) string {
			mount := s.dir + "/mount"
			s.must(os.Mkdir(mount, 0o700))
			sp := spec("other", s.shared)
			sp.Mounts = []sandbox.Source{{Host: mount, Guest: mount, Mode: sandbox.ReadOnly}}
			s.must(s.Dir("other").WriteSpec(sp))
			return mount
		}, false},
		"beside it": {func(s *sharer) string {
			s.must(os.Mkdir(s.shared+"2", 0o700))
			return s.shared + "2"
		}, false},
		"a person took it off the record": {func(s *sharer) string {
			s.must(s.Dir("other").Remove())
			s.must(os.Remove(s.sharedPath()))
			return s.shared
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSharer(t)
			err := s.plant(c.change(s))
			if c.held != (err != nil) || err != nil && !strings.Contains(err.Error(), s.shared) && !strings.Contains(err.Error(), s.dir+"/mount") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestAttackRulesWhereTheEnvironmentSays: XDG_CONFIG_HOME may come from the project (direnv),
// so the folder of rules itself may be a guest's.
func TestAttackRulesWhereTheEnvironmentSays(t *testing.T) {
	s := newSharer(t)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(s.shared, ".config"))
	s.must(os.MkdirAll(filepath.Join(s.shared, ".config", "bawn"), 0o700))
	s.must(os.WriteFile(filepath.Join(s.shared, ".config", "bawn", "policy"), []byte("allow **\n"), 0o600))
	if rules, err := s.Dir("mine").Rules(); err == nil {
		t.Errorf("read %v", rules)
	}
}

// TestAttackSharedAfterTheFirstQuestion: a long-lived process, as a supervisor, has asked what guests can write to when
// another sandbox begins to share, or the host puts another directory where one was shared.
func TestAttackSharedAfterTheFirstQuestion(t *testing.T) {
	for name, change := range map[string]func(s *sharer) (dir string){
		"a new sandbox": func(s *sharer) string {
			_, err := s.Create(spec("next", s.dir+"/next"))
			s.must(err)
			return s.dir + "/next"
		},
		"a new mount": func(s *sharer) string {
			sp := spec("other", s.shared)
			sp.Mounts = []sandbox.Source{{Host: s.dir + "/next", Guest: "/next"}}
			s.must(s.Dir("other").WriteSpec(sp))
			return s.dir + "/next"
		},
		"a share's server starts": func(s *sharer) string {
			s.must(s.Dir("mine").RecordShared(s.dir + "/next"))
			return s.dir + "/next"
		},
		"another directory at its path, a while later": func(s *sharer) string {
			s.must(errors.Join(os.Rename(s.shared, s.dir+"/moved"), os.Rename(s.dir+"/next", s.shared)))
			s.elapse(keptTime)
			return s.shared
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSharer(t)
			next := s.dir + "/next"
			s.must(os.Mkdir(next, 0o700))
			s.must(s.plant(next))
			if err := s.plant(change(s)); err == nil || !strings.Contains(err.Error(), "can write to ") && !strings.Contains(err.Error(), "could write to ") {
				t.Errorf("believed: %v", err)
			}
		})
	}
}

// elapse makes what this process has found older.
func (s *sharer) elapse(d time.Duration) {
	s.t.Helper()
	kept.Lock()
	defer kept.Unlock()
	f, ok := kept.of[s.root]
	if !ok {
		s.t.Fatal("nothing was found")
	}
	f.at = f.at.Add(-d)
	kept.of[s.root] = f
}

// TestManyQuestionsReadTheStoreOnce: as long as nothing begins to be shared, and within a moment.
func TestManyQuestionsReadTheStoreOnce(t *testing.T) {
	s := newSharer(t)
	first, err := s.Changeable()
	s.must(err)
	kept.Lock()
	was := kept.of[s.root]
	was.at = was.at.Add(time.Hour) // however slow this host is
	kept.of[s.root] = was
	kept.Unlock()
	opened := opencount.Of(t, s.Dir("other").File(specFile), s.Dir("mine").File(specFile), s.sharedPath())
	for range 20 {
		again, err := s.Changeable()
		s.must(errors.Join(err, s.CheckPlace(s.dir)))
		if !slices.Equal(again, first) {
			t.Fatalf("%v, %v", again, first)
		}
	}
	if n := opened(); n != 0 {
		t.Errorf("%d files were read again", n)
	}
	s.elapse(time.Hour + keptTime)
	_, err = s.Changeable()
	s.must(err)
	if n := opened(); n != 3 {
		t.Errorf("%d files were read anew, want 3", n)
	}
}

// TestWhatIsSharedIsKnownOrNothingIs: a record that cannot be read is not an empty one.
func TestWhatIsSharedIsKnownOrNothingIs(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "{\n", "not a path": `{"path":"x"}` + "\n", "too long a line": strings.Repeat(" ", 1<<20) + "\n",
	} {
		s := newSharer(t)
		s.must(os.WriteFile(s.sharedPath(), []byte(text), 0o600))
		if list, err := s.Changeable(); err == nil {
			t.Errorf("%s: %v", name, list)
		}
		if list, err := s.Changeable(); err == nil {
			t.Errorf("%s: the second time: %v", name, list)
		}
		if rules, err := s.Dir("mine").Rules(); err == nil || !strings.Contains(err.Error(), s.sharedPath()) {
			t.Errorf("%s: %v, %v", name, rules, err)
		}
		if err := s.Dir("other").RecordShared(s.dir); err == nil {
			t.Errorf("%s: written over", name)
		}
	}
}

// TestTheRecordIsBounded: entries without their directory go, the oldest first, and those
// with it stay.
func TestTheRecordIsBounded(t *testing.T) {
	s := newSharer(t)
	entries, err := s.readShared()
	s.must(err)
	for i := range maxGone + 3 {
		entries = append(entries, sharedEntry{fmt.Sprintf("%s/gone%d", s.dir, i), fileid.ID{Inode: 1}})
	}
	s.must(s.writeShared(entries))
	s.must(os.Mkdir(s.dir+"/next", 0o700))
	s.must(s.Dir("other").RecordShared(s.dir + "/next"))
	got, err := s.readShared()
	s.must(err)
	if len(got) != maxGone+2 || got[0].Path != s.shared || got[1].Path != s.dir+"/gone3" || got[len(got)-1].Path != s.dir+"/next" {
		t.Errorf("%d entries: %v ... %v", len(got), got[:2], got[len(got)-1])
	}
	s.must(os.Mkdir(s.dir+"/many", 0o700))
	id, err := fileid.Of(s.dir + "/many")
	s.must(err)
	for len(got) < maxShared {
		got = append(got, sharedEntry{s.dir + "/many", id})
	}
	s.must(s.writeShared(got))
	err = s.Dir("other").RecordShared(s.dir)
	if after, rerr := s.readShared(); err == nil || !strings.Contains(err.Error(), s.sharedPath()) || rerr != nil || len(after) != maxShared {
		t.Errorf("%d entries, %v, %v", len(after), err, rerr)
	}
}

// TestTheRecordIsWrittenByManyAtOnce: no entry is lost.
func TestTheRecordIsWrittenByManyAtOnce(t *testing.T) {
	s := newSharer(t)
	const n = 20
	done := make(chan error, n)
	for i := range n {
		dir := fmt.Sprintf("%s/p%d", s.dir, i)
		go func() { done <- errors.Join(os.Mkdir(dir, 0o700), s.Dir("other").RecordShared(dir)) }()
	}
	for range n {
		s.must(<-done)
	}
	entries, err := s.readShared()
	if err != nil || len(entries) != n+1 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}
