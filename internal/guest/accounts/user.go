package accounts

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/guest/etc"
	"bawn.dev/bawn/internal/wire"
)

// table is a file of lines that begin with a name and a colon. Changing one line leaves the
// others as they are, byte for byte.
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

// rename gives the entry of the name another name, which is free.
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

// DockerGroup is the group whose members may use Docker's socket.
const DockerGroup = "docker"

// AddUser adds the user to the account files below root, and removes none of the image's
// users. Name and numbers are those of the user on the host and cannot be changed. So an
// entry of that name with another number is renamed, and one of that number stays as a
// second name for it. The user is a member of the host's supplementary groups (groups.go).
// A second call changes nothing.
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
	groups = putHostGroups(putDocker(groups, u), u)

	return errors.Join(
		writeAccounts(root+"/etc/passwd", passwd, 0o644),
		writeAccounts(root+"/etc/group", groups, 0o644),
		writeAccounts(root+"/etc/shadow", shadow, 0o640),
		writeAccounts(root+"/etc/gshadow", gshadow, 0o640),
	)
}

// putUser adds the user's entries, and renames those that conflict.
func putUser(root string, passwd, shadow table, u wire.User) (table, table) {
	ours := account{name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home, Shell: firstShell(root, u.Shell)}
	i := passwd.index(u.Name)
	if i >= 0 {
		was, ok := parseAccount(passwd[i])
		switch {
		case ok && was.UID == u.UID:
			// The image's own, or ours of the last start. A shell that was chosen stays.
			// The image's best shell was not: the host's may have been installed since.
			ours.gecos = was.gecos
			if was.Shell != anyShell(root) && was.Shell != "" && isProgram(root+was.Shell) {
				ours.Shell = was.Shell
			}
			passwd = slices.Delete(passwd, i, i+1)
		default:
			passwd.rename(u.Name)
			shadow.rename(u.Name)
		}
	}
	// `id` shows the name of the first entry of a number. Root's entry stays first, since
	// some programs take the first line for root's.
	at := passwd.index("root") + 1
	passwd = slices.Insert(passwd, at, ours.line())
	if shadow.index(u.Name) < 0 {
		// No password fits, but the account is not locked (shadow(5)).
		shadow = append(shadow, u.Name+":*:20000:0:99999:7:::")
	}
	return passwd, shadow
}

// putGroup adds the user's primary group, unless a group has its number.
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

// putDocker adds the group docker, unless there is one, and makes the user a member.
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

// freeSystemGID returns the highest free group number below 1000, which is how Debian's
// adduser chooses (adduser.conf(5), LAST_SYSTEM_GID).
func freeSystemGID(list []group) uint32 {
	for gid := uint32(999); gid > 100; gid-- {
		if !slices.ContainsFunc(list, func(g group) bool { return g.GID == gid }) {
			return gid
		}
	}
	return 65533
}

// firstShell returns the shell of a new user: the host's, where the image has it, else the
// best that there is. sh on the host is what a user has who never chose one.
func firstShell(root, host string) string {
	switch name := filepath.Base(host); {
	case !filepath.IsAbs(host), name == "sh", name == "nologin", name == "false", !isProgram(filepath.Join(root, host)):
		return anyShell(root)
	}
	return filepath.Clean(host)
}

// anyShell returns the best shell that the image has; /bin/sh if it has none, which is what
// an empty field means (passwd(5)).
func anyShell(root string) string {
	for _, s := range []string{"/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh"} {
		if isProgram(root + s) {
			return s
		}
	}
	return "/bin/sh"
}

// isProgram reports whether path is an executable file. It follows symbolic links from this
// process's root, so absolute links in an image are right only once the image is the root.
func isProgram(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// writeAccounts replaces the file, if it differs; mode is for a new one. An empty table is
// not written.
func writeAccounts(path string, t table, mode fs.FileMode) error {
	b := t.bytes()
	if len(b) == 0 {
		return nil
	}
	return etc.Replace(path, b, mode)
}
