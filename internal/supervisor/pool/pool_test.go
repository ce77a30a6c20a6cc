package pool

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// newPool makes an empty pool and the store of the sandboxes beside it.
func newPool(t *testing.T) (*Pool, *store.Store) {
	t.Helper()
	sandboxes, err := store.OpenAt(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	members, err := sandboxes.Pool()
	if err != nil {
		t.Fatal(err)
	}
	return &Pool{Members: members}, sandboxes
}

// addMember makes the folder of a member that waits; its lock is held until release.
func addMember(t *testing.T, p *Pool, name, key string) (d store.Dir, release func()) {
	t.Helper()
	d, err := p.Members.Create(&sandbox.Spec{Name: name, Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.File(store.PoolKeyFile), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { lock.Close() })
	t.Cleanup(release)
	if err := d.WriteState(sandbox.State{Phase: sandbox.Running}); err != nil {
		t.Fatal(err)
	}
	return d, release
}

// TestList: members of the key are counted, the others are listed, the oldest first, and
// what dead ones left is removed.
func TestList(t *testing.T) {
	p, _ := newPool(t)
	addMember(t, p, "3-new", "other")
	addMember(t, p, "1-old", "other")
	addMember(t, p, "2-ours", "ours")
	dead, release := addMember(t, p, "0-dead", "ours")
	release()
	fitting, others, err := p.list(t.Context(), "ours")
	if err != nil || fitting != 1 {
		t.Errorf("%d fit, %v", fitting, err)
	}
	var names []string
	for _, d := range others {
		names = append(names, filepath.Base(d.Path))
	}
	if !slices.Equal(names, []string{"1-old", "3-new"}) {
		t.Errorf("the others: %v", names)
	}
	if _, err := os.Stat(dead.Path); !os.IsNotExist(err) {
		t.Errorf("the dead one is left: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := p.list(ctx, "ours"); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}

// TestWarmUpSpec: it makes a machine of the same kind, and has nothing else of the sandbox's.
func TestWarmUpSpec(t *testing.T) {
	like := &sandbox.Spec{
		ID: "of the sandbox", Name: "box", Dir: "/home/user/project", Project: sandbox.Source{Host: "/home/user/project", Guest: "/home/user/project"},
		CPUs: 3, Memory: 1 << 30, Disk: 2 << 30, Image: "image", Boot: sandbox.Boot{Kernel: "k"},
		Mounts: []sandbox.Source{{Host: "/secret", Guest: "/secret"}, {Host: "/more", Guest: "/more"}},
		Ports:  []sandbox.Port{{Host: 80, Guest: 80}},
	}
	got := warmUpSpec(like)
	if got.CPUs != 3 || got.Memory != 1<<30 || got.Disk != 2<<30 || got.Image != "image" || got.Boot.Kernel != "k" || len(got.Mounts) != 2 || !got.Fresh {
		t.Errorf("of another kind: %+v", got)
	}
	if got.ID == like.ID || got.Name == like.Name || len(got.Ports) != 0 || got.Project.Host != "" {
		t.Errorf("it has something of the sandbox's: %+v", got)
	}
	for i, m := range got.Mounts {
		if m.Host != "" || !strings.HasPrefix(m.Guest, handoff.WarmUpDir) || m.Guest == got.Project.Guest || i > 0 && m.Guest == got.Mounts[0].Guest {
			t.Errorf("mount %d: %+v", i, m)
		}
	}
	if again := warmUpSpec(like); again.ID == got.ID || again.Name == got.Name {
		t.Error("two members have one name")
	}
}

// memberSide is what a member does with a claim that it has received. It owns both.
type memberSide func(c *net.UnixConn, events *os.File, lock *lockfile.Lock)

// serve lets the member in d answer one claim.
func serve(t *testing.T, d store.Dir, do memberSide) {
	t.Helper()
	l, err := d.Listen(store.ClaimSocket)
	if err != nil {
		t.Fatal(err)
	}
	var task sync.WaitGroup
	task.Go(func() {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		_, events, lock, err := handoff.ReceiveClaim(c)
		if err != nil {
			t.Error(err)
			return
		}
		do(c, events, lock)
	})
	t.Cleanup(func() { l.Close(); task.Wait() })
}

// takes agrees, and reports the events.
func takes(t *testing.T, report ...handoff.StartEvent) memberSide {
	return func(c *net.UnixConn, events *os.File, lock *lockfile.Lock) {
		defer lock.Close()
		if err := errors.Join(handoff.Agree(c), handoff.AwaitAgreement(c)); err != nil {
			t.Error(err)
		}
		write, done := handoff.EventWriter(events)
		defer done()
		for _, e := range report {
			write(e)
		}
	}
}

func refuses(_ *net.UnixConn, events *os.File, lock *lockfile.Lock) { events.Close(); lock.Close() }

// TestClaim: the first member of the key that takes the sandbox gets it; when none does,
// the caller has its lock still.
func TestClaim(t *testing.T) {
	ready := handoff.StartEvent{Ready: true}
	for name, c := range map[string]struct {
		members map[string]string // name and key
		serve   map[string]func(*testing.T) memberSide
		text    string // of the error
		none    bool
	}{
		"an empty pool": {none: true},
		"another key":   {members: map[string]string{"1": "other"}, none: true},
		"ready": {
			members: map[string]string{"1": "ours"},
			serve:   map[string]func(*testing.T) memberSide{"1": func(t *testing.T) memberSide { return takes(t, handoff.StartEvent{Stage: "setting up"}, ready) }},
		},
		"the first has ended, the second refuses, the third takes it": {
			members: map[string]string{"1": "ours", "2": "ours", "3": "ours"},
			serve: map[string]func(*testing.T) memberSide{
				"2": func(*testing.T) memberSide { return refuses },
				"3": func(t *testing.T) memberSide { return takes(t, ready) },
			},
		},
		"all refuse": {
			members: map[string]string{"1": "ours"},
			serve:   map[string]func(*testing.T) memberSide{"1": func(*testing.T) memberSide { return refuses }}, none: true,
		},
		"it fails": {
			members: map[string]string{"1": "ours"},
			serve:   map[string]func(*testing.T) memberSide{"1": func(t *testing.T) memberSide { return takes(t, handoff.StartEvent{Error: "no disk"}) }},
			text:    "no disk",
		},
		"it dies": {
			members: map[string]string{"1": "ours"},
			serve:   map[string]func(*testing.T) memberSide{"1": func(t *testing.T) memberSide { return takes(t) }},
			text:    launch.ErrNoReason.Error(),
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, sandboxes := newPool(t)
			for member, key := range c.members {
				d, _ := addMember(t, p, member, key)
				if side := c.serve[member]; side != nil {
					serve(t, d, side(t))
				}
			}
			d, err := sandboxes.Create(&sandbox.Spec{Name: "box", Fresh: true})
			if err != nil {
				t.Fatal(err)
			}
			lock, err := d.Lock()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var stages []string
			_, err = p.claim(ctx, "ours", d, lock, launch.Progress{Stage: func(s string) { stages = append(stages, s) }, Reachable: func() {}})
			if errors.Is(err, ErrNoMember) != c.none || (err == nil) != (c.text == "" && !c.none) || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v", err)
			}
			if !c.none { // the member has the lock alone, and gives it up
				if err := d.AwaitUnlock(ctx); err != nil {
					t.Errorf("the lock is not the member's: %v", err)
				}
			} else if err := lock.Close(); err != nil {
				t.Errorf("the caller has no lock: %v", err)
			}
			if name == "ready" && !slices.Equal(stages, []string{"setting up"}) {
				t.Errorf("stages %q", stages)
			}
		})
	}
}
