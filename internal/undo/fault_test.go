package undo

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// apply goes back to a restore point, after between was called with the plan made.
func (g *guest) apply(q Request, between func()) (*Result, error) {
	g.t.Helper()
	s, root := g.open()
	defer s.Close()
	plan, err := s.Plan(root, q)
	if err != nil {
		g.t.Fatal(err)
	}
	if between != nil {
		between()
	}
	return s.Apply(root, q, plan)
}

func (g *guest) text(name string) string {
	g.t.Helper()
	b, err := os.ReadFile(g.path(name))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestUndoKeepsThePointsThatItGoesBackTo: an undo makes a restore point of its own, for which older ones make
// room. Those whose contents it puts back must not be among them.
func TestUndoKeepsThePointsThatItGoesBackTo(t *testing.T) {
	for name, prepare := range map[string]func(g *guest){
		"the point is as old as any may be": func(g *guest) { g.rec.at = time.Now().Add(-MaxAge - time.Hour) },
		"there are as many as there may be": func(g *guest) {
			g.write("a", "guest")
			for range MaxPoints - 1 {
				g.rec.Mark(WhySession)
				g.write("other", "guest")
			}
			g.rec.Mark(WhySession)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			g.host("a", "the person's work")
			prepare(g)
			if g.text("a") != "guest" {
				g.write("a", "guest")
			}
			s, _ := g.open()
			points, err := s.Points()
			s.Close()
			if err != nil {
				t.Fatal(err)
			}
			res, err := g.apply(Request{To: points[0].Number}, nil)
			if err != nil || len(res.Kept) > 0 {
				t.Errorf("%+v, %v", res, err)
			}
			if got := g.text("a"); got != "the person's work" || points[0].Number != 1 {
				t.Errorf("after the undo to %d: %q", points[0].Number, got)
			}
		})
	}
}

// TestUndoOfMuchKeepsThePointThatItGoesBackTo: contents that an undo replaces need room too.
func TestUndoOfMuchKeepsThePointThatItGoesBackTo(t *testing.T) {
	g := newGuest(t)
	if clones(t, g) {
		t.Skip("this file system clones: contents need no room")
	}
	const size = 1 << 20
	for i := range 4 {
		g.host(fmt.Sprint("f", i), strings.Repeat("h", size))
	}
	before := tree(t, g.dir)
	for i := range 4 {
		g.write(fmt.Sprint("f", i), strings.Repeat("g", size))
	}
	defer func(n int64) { maxBytes = n }(maxBytes)
	maxBytes = 6 * size
	res, err := g.apply(Request{To: 1}, nil)
	if err != nil || len(res.Kept) > 0 {
		t.Errorf("%+v, %v", res, err)
	}
	g.want("after the undo", before)
	if len(res.Lost) == 0 {
		t.Error("nothing says that this undo cannot be undone as a whole")
	}
}

// TestSeveralPointsMakeRoom: contents that need the room of more than one restore point are kept.
func TestSeveralPointsMakeRoom(t *testing.T) {
	g := newGuest(t)
	if clones(t, g) {
		t.Skip("this file system clones: contents need no room")
	}
	const size = 1 << 20
	defer func(n int64) { maxBytes = n }(maxBytes)
	maxBytes = 4 * size
	for i := range 4 {
		name := fmt.Sprint("f", i)
		g.host(name, strings.Repeat("h", size))
		g.write(name, "guest")
		g.rec.Mark(WhySession)
	}
	text := strings.Repeat("w", 3*size)
	g.host("large", text)
	g.write("large", "guest")
	res := g.undo("large")
	if got := g.text("large"); got != text {
		t.Errorf("after the undo: %d bytes, %.20q; %+v", len(got), got, res)
	}
}

func clones(t *testing.T, g *guest) bool {
	t.Helper()
	a, err := os.Create(filepath.Join(g.store, "probe"))
	g.must(err)
	defer a.Close()
	b, err := os.Create(g.path("probe"))
	g.must(err)
	defer b.Close()
	defer os.Remove(b.Name())
	_, err = b.WriteString("probe")
	g.must(err)
	return unix.IoctlFileClone(int(a.Fd()), int(b.Fd())) == nil
}

// TestAttackRoomDuringAnUndo: the guest writes so much while an undo is under way that restore points make
// room.
func TestAttackRoomDuringAnUndo(t *testing.T) {
	g := newGuest(t)
	g.host("a", "the person's work")
	g.write("a", "guest")
	s, root := g.open()
	defer s.Close()
	plan, err := s.Plan(root, Request{To: 1})
	g.must(err)
	hold, err := hold(s.fd)
	g.must(err)
	for i := range MaxPoints + 1 {
		g.rec.Mark(WhySession)
		g.write("other", fmt.Sprint(i))
	}
	hold()
	res, err := s.Apply(root, Request{To: 1}, plan)
	if got := g.text("a"); err != nil || got != "the person's work" {
		t.Errorf("after the undo: %q, %+v, %v", got, res, err)
	}
}

// TestAPointThatMadeRoomIsNotGoneBackTo: the guest makes restore points go while the person looks at the plan.
// Then nothing at all may be changed.
func TestAPointThatMadeRoomIsNotGoneBackTo(t *testing.T) {
	g := newGuest(t)
	g.host("a", "the person's work")
	g.write("a", "guest")
	g.write("new", "guest")
	res, err := g.apply(Request{To: 1}, func() {
		for i := range MaxPoints + 1 {
			g.rec.Mark(WhySession)
			g.write("other", fmt.Sprint(i))
		}
	})
	if err == nil || len(res.Done) > 0 || g.text("new") != "guest" {
		t.Errorf("%+v, %v", res, err)
	}
}

// duringCopy calls f as soon as a file with a temporary name is in the project.
func (g *guest) duringCopy(f func()) (called func() bool) {
	was := false
	end := again(func() (goes bool) {
		if list, _ := filepath.Glob(filepath.Join(g.dir, TempPrefix+"*")); len(list) > 0 {
			was = true
			f()
		}
		return !was
	})
	return func() bool { end(); return was }
}

// again calls f again and again beside the test, while it reports that it goes on, until end is called.
func again(f func() (goes bool)) (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if !f() {
				return
			}
		}
	}()
	return func() { close(stop); <-done }
}

// TestWorkOfThePersonDuringAnUndo: the person saves a file while the undo makes the one that is to take its
// place, or keeps what is to go.
func TestWorkOfThePersonDuringAnUndo(t *testing.T) {
	const size = 64 << 20 // its copy takes some time
	large := strings.Repeat("x", size)
	save := func(g *guest) {
		_ = os.WriteFile(g.path("saved"), []byte("the person's work"), 0o644)
		_ = os.Rename(g.path("saved"), g.path("a"))
	}
	t.Run("restore", func(t *testing.T) {
		g := newGuest(t)
		g.host("a", large)
		g.write("a", "guest")
		saved := g.duringCopy(func() { save(g) })
		res, err := g.apply(Request{To: 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !saved() {
			t.Skip("the copy was faster")
		}
		if got := g.text("a"); got != "the person's work" {
			t.Errorf("%.40q, kept %+v", got, res.Kept)
		}
		if names := g.names(); len(names) != 1 {
			t.Errorf("there are %q", names)
		}
	})
	t.Run("remove", func(t *testing.T) {
		g := newGuest(t)
		g.write("a", large)
		stop, done := make(chan struct{}), make(chan struct{})
		go func() { // as soon as the undo keeps what it removes
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if list, _ := filepath.Glob(filepath.Join(g.store, folderName(2), "[cf]*")); len(list) > 0 {
					save(g)
					return
				}
			}
		}()
		res, err := g.apply(Request{To: 1}, nil)
		close(stop)
		<-done
		if err != nil {
			t.Fatal(err)
		}
		if got := g.text("a"); got != "the person's work" {
			t.Errorf("%.40q, done %+v, kept %+v", got, res.Done, res.Kept)
		}
	})
}

// TestAttackADirectoryThatIsExchangedBeforeItIsMovedBack: the guest puts another directory in the place of
// the one that the person has seen in the plan.
func TestAttackADirectoryThatIsExchangedBeforeItIsMovedBack(t *testing.T) {
	g := newGuest(t)
	g.host("d/a", "a")
	g.rename("d", "n")
	res, err := g.apply(Request{To: 1}, func() {
		g.must(os.Rename(g.path("n"), g.path("aside")))
		g.host("n/evil", "evil")
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(g.path("d/evil")); err == nil || len(res.Kept) == 0 {
		t.Errorf("the other directory was moved: %+v", res)
	}
}

// TestAPathThatCannotBeUndoneKeepsNoOthers: one path on which the host refuses a change for ever must not keep
// the rest from being undone.
func TestAPathThatCannotBeUndoneKeepsNoOthers(t *testing.T) {
	for name, spoil := range map[string]func(g *guest){
		"immutable": func(g *guest) {
			f, err := os.Open(g.path("d/b"))
			g.must(err)
			defer f.Close()
			if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0x10); err != nil { // FS_IMMUTABLE_FL
				g.t.Skip("no immutable files here:", err)
			}
			g.t.Cleanup(func() {
				if f, err := os.Open(g.path("d/b")); err == nil {
					_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)
					f.Close()
				}
			})
		},
		"contents of another length": func(g *guest) {
			list, _ := filepath.Glob(filepath.Join(g.store, folderName(1), "[cf]*"))
			for _, blob := range list {
				if b, err := os.ReadFile(blob); err == nil && string(b) == "b" {
					g.must(os.Truncate(blob, 0))
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			for _, f := range []string{"a", "d/b", "z"} {
				g.host(f, filepath.Base(f))
				g.write(f, "guest")
			}
			g.rec.Sync()
			spoil(g)
			res, err := g.apply(Request{To: 1}, nil)
			if err != nil || len(res.Kept) != 1 || res.Kept[0].Path != "d/b" {
				t.Errorf("%+v, %v", res, err)
			}
			if g.text("a") != "a" || g.text("z") != "z" || g.text("d/b") != "guest" {
				t.Errorf("a: %q, z: %q, d/b: %q", g.text("a"), g.text("z"), g.text("d/b"))
			}
			if names := g.names(); len(names) != 3 {
				t.Errorf("there are %q", names)
			}
		})
	}
}

// TestTwoRecordersBeginAtOnce: an undo and the server of a share each begin a restore point. Neither may lose a
// record for that.
func TestTwoRecordersBeginAtOnce(t *testing.T) {
	g := newGuest(t)
	fd, err := unix.Open(g.store, dirFlags, 0)
	g.must(err)
	defer unix.Close(fd)
	for range 40 {
		a, b := NewRecorder(fd, WhySession), NewRecorder(fd, WhyUndo)
		root, err := os.Open(g.dir)
		g.must(err)
		got := make(chan bool, 2)
		for _, r := range []*Recorder{a, b} {
			go func() { got <- r.beforeName(int(root.Fd()), "x", "x") != nil }()
		}
		if x, y := <-got, <-got; !x || !y {
			t.Fatal("a change was not recorded")
		}
		a.Close()
		b.Close()
		root.Close()
	}
}

// TestAFileThatGrowsWhileItIsKept: a program of the host appends to a file that the guest is about to
// remove.
func TestAFileThatGrowsWhileItIsKept(t *testing.T) {
	g := newGuest(t)
	g.host("log", strings.Repeat("x", 8<<20))
	f, err := os.OpenFile(g.path("log"), os.O_APPEND|os.O_WRONLY, 0)
	g.must(err)
	defer f.Close()
	end := again(func() bool {
		_, _ = f.WriteString("y")
		return true
	})
	time.Sleep(10 * time.Millisecond)
	g.remove("log")
	end()
	res, err := g.apply(Request{To: 1}, nil)
	if err != nil || len(res.Kept) > 0 || len(g.text("log")) < 8<<20 {
		t.Errorf("%+v, %v, %.40q", res, err, g.text("log"))
	}
}

// TestKillDuringAnExchange: an undo that was killed after it had exchanged a file with what took its place. What
// the person has saved there meanwhile comes back, and what was to go goes.
func TestKillDuringAnExchange(t *testing.T) {
	for name, c := range map[string]struct {
		temp, at, want string
		host           bool
	}{
		"what was replaced":            {"guest", "restored", "restored", false},
		"what the person saved":        {"the person's", "restored", "the person's", true},
		"what the person saved, taken": {"the person's", "", "the person's", true},
		"what was taken":               {"guest", "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			temp := TempPrefix + "undo-0"
			if c.at == "" {
				temp = takenPrefix + "undo-0"
			}
			g.host(temp, c.temp)
			var st unix.Statx_t
			g.must(unix.Statx(unix.AT_FDCWD, g.path(temp), 0, statMask, &st))
			v := mark{Root: g.dir, Path: []byte("a"), Temp: temp, Was: slotOf(&st).bytes()}
			if c.at != "" {
				g.host("a", c.at)
				v.Ino = g.inode("a")
			}
			if c.host {
				was := slotOf(&st)
				was.ino++
				v.Was = was.bytes()
			}
			s, _ := g.open()
			defer s.Close()
			m, err := openMarks(s.fd)
			g.must(err)
			g.must(m.set(v))
			g.must(s.Recover(g.dir))
			got, want := g.text("a"), c.want
			if want == "" {
				if _, err := os.Lstat(g.path("a")); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("a is %q", got)
				}
			} else if got != want {
				t.Errorf("a is %q, not %q", got, want)
			}
			if _, err := os.Lstat(g.path(temp)); !errors.Is(err, os.ErrNotExist) {
				t.Error("the temporary name is left")
			}
		})
	}
}

// TestUndoInAProcess is the process that TestAnUndoKilledAtAnyMoment kills.
func TestUndoInAProcess(t *testing.T) {
	dir := os.Getenv("BAWN_TEST_UNDO_OF")
	if dir == "" {
		t.Skip("run by another test")
	}
	s, err := Open(os.Getenv("BAWN_TEST_UNDO_STORE"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := s.Plan(root, Request{To: 1})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("begins")
	if _, err := s.Apply(root, Request{To: 1}, plan); err != nil {
		t.Fatal(err)
	}
}

// TestAnUndoKilledAtAnyMoment kills the process of an undo of many moved directories. The next undo finishes it.
func TestAnUndoKilledAtAnyMoment(t *testing.T) {
	for seed := range uint64(12) {
		g := newGuest(t)
		rnd := rand.New(rand.NewPCG(seed, 3))
		for i := range 12 {
			g.host(fmt.Sprintf("d%d/e%d/f%d", i%3, i%4, i), fmt.Sprint(i))
		}
		before := tree(t, g.dir)
		for i := range 120 {
			g.random(rnd, i)
		}
		g.rec.Sync()
		c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^TestUndoInAProcess$")
		c.Env = append(os.Environ(), "BAWN_TEST_UNDO_OF="+g.dir, "BAWN_TEST_UNDO_STORE="+g.store)
		out, err := c.StdoutPipe()
		g.must(err)
		g.must(c.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || line != "begins\n" {
			t.Fatalf("%q, %v", line, err)
		}
		time.Sleep(time.Duration(rnd.IntN(20_000)) * time.Microsecond)
		_ = c.Process.Kill()
		_ = c.Wait()

		s, root := g.open()
		g.must(s.Recover(g.dir))
		q, err := s.Unfinished()
		g.must(err)
		if q == nil {
			q = &Request{To: 1, before: 2} // it was killed before it began, or has ended
		}
		plan, err := s.Plan(root, *q)
		g.must(err)
		res, err := s.Apply(root, *q, plan)
		s.Close()
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		g.want(fmt.Sprintf("seed %d, kept %+v", seed, res.Kept), before) // what is as it was may be among what was kept
		if t.Failed() {
			return
		}
	}
}
