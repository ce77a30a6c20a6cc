package accounts

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"bawn.dev/bawn/internal/wire"
)

// image makes a folder with an image's account files.
func image(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/bin", 0o755))
	must(t, os.Mkdir(root+"/etc", 0o755))
	must(t, os.WriteFile(root+"/bin/bash", nil, 0o755))
	for name, text := range files {
		must(t, os.WriteFile(root+"/etc/"+name, []byte(text), 0o644))
	}
	return root
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func TestUserIsAddedBesideTheImagesOwn(t *testing.T) {
	me := wire.User{Name: "me", UID: 1000, GID: 1000, Group: "me", Home: "/home/me"}
	for _, c := range []struct {
		name, passwd, group   string
		wantPasswd, wantGroup []string
	}{
		{
			name: "empty image",
			wantPasswd: []string{
				"root:x:0:0:root:/root:/bin/bash",
				"me:x:1000:1000::/home/me:/bin/bash",
			},
			wantGroup: []string{"root:x:0:", "me:x:1000:", "docker:x:999:me"},
		},
		{
			name:       "the image has the number",
			passwd:     "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n",
			group:      "root:x:0:\nnode:x:1000:\ndocker:x:103:other\n",
			wantPasswd: []string{"root:x:0:0::/root:/bin/sh", "me:x:1000:1000::/home/me:/bin/bash", "node:x:1000:1000::/home/node:/bin/sh"},
			wantGroup:  []string{"root:x:0:", "node:x:1000:", "docker:x:103:other,me"},
		},
		{
			name:       "the image has the name",
			passwd:     "root:x:0:0::/root:/bin/sh\nme:x:7:7::/x:/bin/sh\n",
			group:      "me:x:7:\n",
			wantPasswd: []string{"root:x:0:0::/root:/bin/sh", "me:x:1000:1000::/home/me:/bin/bash", "me-image:x:7:7::/x:/bin/sh"},
			wantGroup:  []string{"root:x:0:", "me:x:7:", "me-host:x:1000:", "docker:x:999:me"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{}
			if c.passwd != "" {
				files["passwd"] = c.passwd
			}
			if c.group != "" {
				files["group"] = c.group
			}
			root := image(t, files)
			for range 2 { // a second start changes nothing
				must(t, AddUser(root, me))
				if got := lines(t, root+"/etc/passwd"); !slices.Equal(got, c.wantPasswd) {
					t.Errorf("passwd:\n%s", strings.Join(got, "\n"))
				}
				if got := lines(t, root+"/etc/group"); !slices.Equal(got, c.wantGroup) {
					t.Errorf("group:\n%s", strings.Join(got, "\n"))
				}
			}
		})
	}
}

func TestRootNeedsNoUser(t *testing.T) {
	root := image(t, map[string]string{"passwd": "root:x:0:0::/root:/bin/sh\n"})
	must(t, AddUser(root, wire.User{Name: "root", Home: "/root"}))
	must(t, AllowSudo(root, wire.User{Name: "root"}, []string{"A"}))
	if got := lines(t, root+"/etc/passwd"); len(got) != 1 {
		t.Errorf("got %q", got)
	}
}

func TestSudo(t *testing.T) {
	me := wire.User{Name: "me", UID: 1234}
	root := image(t, nil)
	must(t, AllowSudo(root, me, []string{"A", "B"}))
	if _, err := os.Stat(root + "/etc/sudoers.d"); err == nil {
		t.Error("an image without sudo got its folder")
	}
	must(t, os.Mkdir(root+"/etc/sudoers.d", 0o755))
	must(t, AllowSudo(root, me, []string{"A", "B"}))
	fi, err := os.Stat(root + "/etc/sudoers.d/bawn")
	must(t, err)
	want := []string{`Defaults env_keep += "A B"`, "#1234 ALL=(ALL:ALL) NOPASSWD: ALL"}
	if got := lines(t, root+"/etc/sudoers.d/bawn"); !slices.Equal(got, want) || fi.Mode().Perm() != 0o440 {
		t.Errorf("got %q, %v", got, fi.Mode())
	}
	must(t, AllowSudo(root, wire.User{Name: "root"}, []string{"A"}))
	if got := lines(t, root+"/etc/sudoers.d/bawn"); !slices.Equal(got, []string{`Defaults env_keep += "A"`}) {
		t.Errorf("of root: %q", got)
	}
}

func TestHomeIsMadeFromTheSkeleton(t *testing.T) {
	root := image(t, nil)
	must(t, os.MkdirAll(root+"/etc/skel/.config", 0o700))
	must(t, os.WriteFile(root+"/etc/skel/.config/rc", []byte("x"), 0o640))
	must(t, os.Symlink("rc", root+"/etc/skel/.config/link"))
	me := wire.User{Name: "me", UID: uint32(os.Getuid()) + 1, GID: uint32(os.Getgid()), Home: "/home/me"}
	if os.Getuid() != 0 {
		me.UID-- // only root gives files away
	}
	must(t, MakeHome(root, me))
	home := root + "/home/me"
	if me.UID != 0 {
		fi, err := os.Lstat(home + "/.config/rc")
		must(t, err)
		if uid := fi.Sys().(*syscall.Stat_t).Uid; uid != me.UID || fi.Mode().Perm() != 0o640 {
			t.Errorf("belongs to %d, mode %v", uid, fi.Mode())
		}
	}
	if target, err := os.Readlink(home + "/.config/link"); err != nil || target != "rc" {
		t.Errorf("link: %q, %v", target, err)
	}
	if fi, err := os.Stat(root + "/root"); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("root has no home: %v, %v", fi, err)
	}
	must(t, os.WriteFile(home+"/mine", nil, 0o600))
	must(t, MakeHome(root, me))
	if _, err := os.Stat(home + "/mine"); err != nil {
		t.Error("a second start made the home anew:", err)
	}
}

func TestLoginOfADamagedGuest(t *testing.T) {
	ls := NewLogins(t.TempDir())
	ls.Configure(wire.User{Name: "me", UID: 5, GID: 6, Home: "/h"}, nil)
	if l, err := ls.Find("me"); err != nil || l.UID != 5 || l.GID != 6 || l.Home != "/h" || l.Shell != "/bin/sh" {
		t.Errorf("me: %+v, %v", l, err)
	}
	if l, err := ls.Find("root"); err != nil || l.UID != 0 {
		t.Errorf("root: %+v, %v", l, err)
	}
	if _, err := ls.Find("other"); err == nil {
		t.Error("other was found")
	}
}

func TestEnvironmentOfLaterWins(t *testing.T) {
	var e environment
	e.set("A=1", "B=2", "no assignment", "=x", "A=3", "C=\x00")
	if !slices.Equal(e, []string{"A=3", "B=2"}) || Getenv(e, "B") != "2" || Getenv(e, "Z") != "" {
		t.Errorf("got %q", e)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
