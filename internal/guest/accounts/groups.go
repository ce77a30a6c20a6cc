package accounts

import (
	"fmt"
	"regexp"
	"slices"

	"bawn.dev/bawn/internal/wire"
)

// The host user's supplementary groups own files that are shared with the guest, so the
// guest's user is a member of the groups with these numbers. A number may mean something
// else in the guest: 102 is a group of one's colleagues on the host and may be the group
// that owns the disks in an image. So the user does not become a member of a system group
// of the image because of a number. Only users (100) is one that gives no rights, in any
// distribution.

// maxHostGroups bounds the groups that are taken over.
const maxHostGroups = 256

// firstUserGID is the first number that is not a system group's (login.defs(5), GID_MIN).
const firstUserGID = 1000

// rightsByName are groups to which programs give rights by name, where they are installed.
var rightsByName = []string{"sudo", "wheel", "admin", "docker", "disk", "shadow", "kmem", "lxd", "libvirt"}

// groupName matches the names that groupadd(8) accepts. Those of a directory service may
// have blanks and more.
var groupName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)

// putHostGroups makes the user a member of the host's supplementary groups, and adds those
// whose numbers are free.
func putHostGroups(groups table, u wire.User) table {
	if u.UID == 0 {
		return groups
	}
	for _, h := range u.Groups[:min(len(u.Groups), maxHostGroups)] {
		if h.GID == u.GID {
			continue
		}
		i := slices.IndexFunc(groups, func(line string) bool {
			g, ok := parseGroupLine(line)
			return ok && g.GID == h.GID
		})
		if i < 0 {
			name := hostGroupName(groups, h)
			groups = append(groups, group{name: name, GID: h.GID, members: []string{u.Name}}.line())
			continue
		}
		g, _ := parseGroupLine(groups[i])
		if g.GID < firstUserGID && g.name != "users" || slices.Contains(g.members, u.Name) {
			continue
		}
		g.members = append(g.members, u.Name)
		groups[i] = g.line()
	}
	return groups
}

// hostGroupName returns the name of a group of the host's in the guest: its own, unless that
// stands for another number there or for rights.
func hostGroupName(groups table, h wire.Group) string {
	name := h.Name
	if !groupName.MatchString(name) {
		name = fmt.Sprintf("host%d", h.GID)
	}
	for groups.index(name) >= 0 || slices.Contains(rightsByName, name) {
		name += "-host"
	}
	return name
}
