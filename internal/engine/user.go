package engine

import (
	"os"
	"os/user"
	"slices"
	"strconv"

	"bawn.dev/bawn/internal/wire"
)

// GuestUser returns the account that a guest gets for the user who runs this process.
func GuestUser() wire.User {
	u := wire.User{Name: "user", Group: "user", UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Home: "/home/user"}
	if me, err := user.Current(); err == nil && me.Username != "" {
		u.Name, u.Group, u.Home = me.Username, me.Username, me.HomeDir
		if g, err := user.LookupGroupId(me.Gid); err == nil {
			u.Group = g.Name
		}
	}
	u.Shell = os.Getenv("SHELL")
	u.Groups = supplementaryGroups()
	if u.UID == 0 {
		u.Name, u.Group, u.Home, u.Groups = "root", "root", "/root", nil
	}
	return u
}

// maxGroups bounds the groups that a guest is told of.
const maxGroups = 256

// supplementaryGroups returns the supplementary groups of this process, the lowest number
// first.
func supplementaryGroups() []wire.Group {
	ids, err := os.Getgroups()
	if err != nil {
		return nil
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	var list []wire.Group
	for _, id := range ids[:min(len(ids), maxGroups)] {
		g := wire.Group{GID: uint32(id)}
		if named, err := user.LookupGroupId(strconv.Itoa(id)); err == nil {
			g.Name = named.Name
		}
		list = append(list, g)
	}
	return list
}

// userOr returns the user to log in as: the user's own, if none is named.
func userOr(name string) string {
	if name == "" {
		return GuestUser().Name
	}
	return name
}
