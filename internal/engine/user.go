package engine

import (
	"os"
	"os/user"

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
	if u.UID == 0 {
		u.Name, u.Group, u.Home = "root", "root", "/root"
	}
	return u
}

// userOr returns the user to log in as: the user's own, if none is named.
func userOr(name string) string {
	if name == "" {
		return GuestUser().Name
	}
	return name
}
