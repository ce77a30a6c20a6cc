package share

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCheck: what a share allows, in its root and below.
func TestCheck(t *testing.T) {
	all := []operation{lookupName, createName, changeName, createUnnamed, statNode, readNode, modifyNode}
	for name, c := range map[string]struct {
		options Options
		below   bool   // in a directory below the root
		name    string // looked up, made or changed
		want    map[operation]error
	}{
		"writable":                 {options: Options{}, name: "a"},
		"read-only":                {options: Options{ReadOnly: true}, name: "a", want: map[operation]error{createName: unix.EROFS, changeName: unix.EROFS, createUnnamed: unix.EROFS, modifyNode: unix.EROFS}},
		"the one file":             {options: Options{File: "a"}, name: "a", want: map[operation]error{createName: unix.EPERM, changeName: unix.EPERM, createUnnamed: unix.EPERM, readNode: unix.EACCES, modifyNode: unix.EPERM}},
		"beside the one file":      {options: Options{File: "a"}, name: "b", want: map[operation]error{lookupName: unix.ENOENT, createName: unix.EPERM, changeName: unix.EPERM, createUnnamed: unix.EPERM, readNode: unix.EACCES, modifyNode: unix.EPERM}},
		"a name like the one file": {options: Options{File: "a"}, below: true, name: "b"},
		"the one file, read-only":  {options: Options{File: "a", ReadOnly: true}, name: "a", want: map[operation]error{createName: unix.EROFS, changeName: unix.EROFS, createUnnamed: unix.EROFS, readNode: unix.EACCES, modifyNode: unix.EROFS}},
	} {
		f := newTest(t, c.options)
		n := f.tree.root
		if c.below {
			n = &node{typ: unix.S_IFDIR}
		}
		for _, o := range all {
			if err := f.check(o, n, c.name); !errors.Is(err, c.want[o]) {
				t.Errorf("%s: operation %d: %v, want %v", name, o, err, c.want[o])
			}
		}
	}
}

// TestEqual: a server may take over from one of the same share, and from no other.
func TestEqual(t *testing.T) {
	o := Options{Root: "/a", File: "f", ReadOnly: true}
	if same := o; !o.Equal(same) {
		t.Error("a share is not itself")
	}
	for _, p := range []Options{{Root: "/b", File: "f", ReadOnly: true}, {Root: "/a", ReadOnly: true}, {Root: "/a", File: "f"}} {
		if o.Equal(p) || p.Equal(o) {
			t.Errorf("%+v is %+v", p, o)
		}
	}
}
