package accounts

import (
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/wire"
)

// TestHostGroups: the user is a member of the host's groups by number, and of no group of
// the image that gives rights.
func TestHostGroups(t *testing.T) {
	me := wire.User{Name: "me", UID: 1000, GID: 1000, Group: "me", Home: "/home/me", Groups: []wire.Group{
		{Name: "me", GID: 1000},       // the primary one
		{Name: "team", GID: 102},      // the image's disk owners have this number
		{Name: "free", GID: 103},      // no group of the image has it
		{Name: "users", GID: 100},     // gives no rights
		{Name: "staff", GID: 2000},    // an ordinary group of the image
		{Name: "disks", GID: 2001},    // the image has the name for another number
		{Name: "sudo", GID: 2002},     // rights go with the name
		{Name: "", GID: 2003},         // without a name
		{Name: "a:b\nroot", GID: 104}, // not a name
	}}
	root := image(t, map[string]string{"group": "root:x:0:\nusers:x:100:\ndisks:x:102:\ndocker:x:999:\nnode:x:2000:other\n"})
	want := []string{
		"root:x:0:", "users:x:100:me", "disks:x:102:", "docker:x:999:me", "node:x:2000:other,me", "me:x:1000:",
		"free:x:103:me", "disks-host:x:2001:me", "sudo-host:x:2002:me", "host2003:x:2003:me", "host104:x:104:me",
	}
	for range 2 {
		must(t, AddUser(root, me))
		if got := lines(t, root+"/etc/group"); !slices.Equal(got, want) {
			t.Errorf("group:\n%s", strings.Join(got, "\n"))
		}
	}
	ls := NewLogins(root)
	ls.Configure(me, nil)
	l, err := ls.Find("me")
	if want := []uint32{100, 999, 2000, 103, 2001, 2002, 2003, 104}; err != nil || !slices.Equal(l.groups, want) {
		t.Errorf("groups %v, %v", l.groups, err)
	}
	root = image(t, nil)
	must(t, AddUser(root, wire.User{Name: "root", Home: "/root", Groups: me.Groups}))
	if got := lines(t, root+"/etc/group"); len(got) != 2 {
		t.Errorf("root's groups: %q", got)
	}
}
