package accounts

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/guest/etc"
	"bawn.dev/bawn/internal/wire"
)

// table is a file of lines, each beginning with a name and a colon. Lines that
// nobody asks about stay as they are.
type table []string

func parseTable(b []byte) table {
	var t table
	for line := range strings.Lines(string(b)) {
		t = append(t, strings.TrimRight(line, "\r\n"))
	}
	return t
}

func (t table) bytes() []byte {
	if len(t) == 0 {
		return nil
	}
	return []byte(strings.Join(t, "\n") + "\n")
}

func (t table) index(name string) int {
	return slices.IndexFunc(t, func(l string) bool { return strings.HasPrefix(l, name+":") })
}

// rename gives the entry of the name another one, which is free.
func (t table) rename(name string) {
	i := t.index(name)
	if i < 0 {
		return
	}
	to := name + "-image"
	for t.index(to) >= 0 {
		to += "-"
	}
	t[i] = to + strings.TrimPrefix(t[i], name)
}

// DockerGroup may use Docker's socket.
const DockerGroup = "docker"

// AddUser makes the user in the image's account files under root, without
// taking any of the image's own users away: the numbers and the name are the
// host's and not ours to choose, so an entry that has the name with another
// number gets another name, and one that has the number stays as a second name
// of it. It may be run any number of times.
func AddUser(root string, u wire.User) error {
	passwd := parseTable(etc.Read(root + "/etc/passwd"))
	shadow := parseTable(etc.Read(root + "/etc/shadow"))
	groups := parseTable(etc.Read(root + "/etc/group"))
	gshadow := parseTable(etc.Read(root + "/etc/gshadow"))

	if passwd.index("root") < 0 {
		passwd = slices.Insert(passwd, 0, account{name: "root", gecos: "root", Home: "/root", Shell: anyShell(root)}.line())
	}
	if groups.index("root") < 0 {
		groups = slices.Insert(groups, 0, group{name: "root"}.line())
	}
	if u.UID != 0 {
		passwd, shadow = putUser(root, passwd, shadow, u)
		groups = putGroup(groups, u)
	}
	groups = putDocker(groups, u)

	return errors.Join(
		writeAccounts(root+"/etc/passwd", passwd, 0o644),
		writeAccounts(root+"/etc/group", groups, 0o644),
		writeAccounts(root+"/etc/shadow", shadow, 0o640),
		writeAccounts(root+"/etc/gshadow", gshadow, 0o640),
	)
}

func putUser(root string, passwd, shadow table, u wire.User) (table, table) {
	ours := account{name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home, Shell: anyShell(root)}
	i := passwd.index(u.Name)
	if i >= 0 {
		was, ok := parseAccount(passwd[i])
		switch {
		case ok && was.UID == u.UID:
			// The image's own, or ours of the last start; a shell that was
			// chosen stays.
			ours.gecos = was.gecos
			if was.Shell != "" && isProgram(root+was.Shell) {
				ours.Shell = was.Shell
			}
			passwd = slices.Delete(passwd, i, i+1)
		default:
			passwd.rename(u.Name)
			shadow.rename(u.Name)
		}
	}
	// The first entry of a number is the one whose name `id` shows. Root's
	// stays first, for programs that take the first line for it.
	at := passwd.index("root") + 1
	passwd = slices.Insert(passwd, at, ours.line())
	if shadow.index(u.Name) < 0 {
		// No password fits, but the account is not locked (shadow(5)).
		shadow = append(shadow, u.Name+":*:20000:0:99999:7:::")
	}
	return passwd, shadow
}

// putGroup makes the user's primary group, if the number has no name yet.
func putGroup(groups table, u wire.User) table {
	list := parseGroup(groups.bytes())
	if slices.ContainsFunc(list, func(g group) bool { return g.GID == u.GID }) {
		return groups
	}
	name := u.Group
	if name == "" {
		name = u.Name
	}
	for groups.index(name) >= 0 {
		name += "-host"
	}
	return append(groups, group{name: name, GID: u.GID}.line())
}

// putDocker makes the group docker, if there is none, and the user a member.
func putDocker(groups table, u wire.User) table {
	g := group{name: DockerGroup}
	i := groups.index(DockerGroup)
	if i >= 0 {
		if was, ok := parseGroupLine(groups[i]); ok {
			g = was
		}
	} else {
		g.GID = freeSystemGID(parseGroup(groups.bytes()))
		groups = append(groups, "")
		i = len(groups) - 1
	}
	if u.UID != 0 && !slices.Contains(g.members, u.Name) {
		g.members = append(g.members, u.Name)
	}
	groups[i] = g.line()
	return groups
}

// freeSystemGID is the highest group number below 1000 that is free, where
// Debian's adduser looks too (adduser.conf(5), LAST_SYSTEM_GID).
func freeSystemGID(list []group) uint32 {
	for gid := uint32(999); gid > 100; gid-- {
		if !slices.ContainsFunc(list, func(g group) bool { return g.GID == gid }) {
			return gid
		}
	}
	return 65533
}

// anyShell is the best shell that the image has, or what passwd(5) means by
// none.
func anyShell(root string) string {
	for _, s := range []string{"/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh"} {
		if isProgram(root + s) {
			return s
		}
	}
	return "/bin/sh"
}

// isProgram follows symbolic links from our own root, so a link such as
// /bin -> /usr/bin is only right once root is "".
func isProgram(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// writeAccounts replaces the file whole, if it differs; mode is for a new one.
func writeAccounts(path string, t table, mode fs.FileMode) error {
	b := t.bytes()
	if len(b) == 0 {
		return nil
	}
	return etc.Replace(path, b, mode)
}
