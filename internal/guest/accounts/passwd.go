package accounts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"bawn.dev/bawn/internal/guest/etc"
)

// account is a line of /etc/passwd (passwd(5)).
type account struct {
	name     string
	UID, GID uint32
	gecos    string
	Home     string
	Shell    string
}

func (a account) line() string {
	return fmt.Sprintf("%s:x:%d:%d:%s:%s:%s", a.name, a.UID, a.GID, a.gecos, a.Home, a.Shell)
}

// group is a line of /etc/group (group(5)).
type group struct {
	name    string
	GID     uint32
	members []string
}

func (g group) line() string {
	return fmt.Sprintf("%s:x:%d:%s", g.name, g.GID, strings.Join(g.members, ","))
}

// parsePasswd returns the accounts of a passwd file. Malformed lines are left out.
func parsePasswd(b []byte) []account {
	var list []account
	for line := range strings.Lines(string(b)) {
		if a, ok := parseAccount(line); ok {
			list = append(list, a)
		}
	}
	return list
}

func parseAccount(line string) (account, bool) {
	f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
	if len(f) < 7 || f[0] == "" {
		return account{}, false
	}
	uid, err1 := strconv.ParseUint(f[2], 10, 32)
	gid, err2 := strconv.ParseUint(f[3], 10, 32)
	if errors.Join(err1, err2) != nil {
		return account{}, false
	}
	return account{name: f[0], UID: uint32(uid), GID: uint32(gid), gecos: f[4], Home: f[5], Shell: f[6]}, true
}

// parseGroup returns the groups of a group file. Malformed lines are left out.
func parseGroup(b []byte) []group {
	var list []group
	for line := range strings.Lines(string(b)) {
		if g, ok := parseGroupLine(line); ok {
			list = append(list, g)
		}
	}
	return list
}

func parseGroupLine(line string) (group, bool) {
	f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
	if len(f) < 4 || f[0] == "" {
		return group{}, false
	}
	gid, err := strconv.ParseUint(f[2], 10, 32)
	if err != nil {
		return group{}, false
	}
	g := group{name: f[0], GID: uint32(gid)}
	for _, m := range strings.Split(f[3], ",") {
		if m != "" {
			g.members = append(g.members, m)
		}
	}
	return g, true
}

// UserID returns the number of a user in the passwd file at path. The first entry of the
// name counts.
func UserID(path, name string) (uid uint32, ok bool) {
	for _, a := range parsePasswd(etc.Read(path)) {
		if a.name == name {
			return a.UID, true
		}
	}
	return 0, false
}

// GroupID returns the number of a group in the group file at path. The last entry of
// the name counts.
func GroupID(path, name string) (gid uint32, ok bool) {
	for _, g := range parseGroup(etc.Read(path)) {
		if g.name == name {
			gid, ok = g.GID, true
		}
	}
	return gid, ok
}
