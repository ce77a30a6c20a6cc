package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"bawn.dev/bawn/internal/wire"
)

// account is a line of /etc/passwd (passwd(5)).
type account struct {
	name     string
	uid, gid uint32
	gecos    string
	home     string
	shell    string
}

func (a account) line() string {
	return fmt.Sprintf("%s:x:%d:%d:%s:%s:%s", a.name, a.uid, a.gid, a.gecos, a.home, a.shell)
}

// group is a line of /etc/group (group(5)).
type group struct {
	name    string
	gid     uint32
	members []string
}

func (g group) line() string {
	return fmt.Sprintf("%s:x:%d:%s", g.name, g.gid, strings.Join(g.members, ","))
}

// maxAccounts bounds the files that are read here, in bytes.
const maxAccounts = 1 << 20

// readSmall reads a file of the image, up to maxAccounts; what cannot be read
// is empty. It does not wait for a pipe that lies in the file's place.
func readSmall(path string) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|oNonblock, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil
	}
	b, _ := io.ReadAll(io.LimitReader(f, maxAccounts)) // what was read counts
	return b
}

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
	return account{name: f[0], uid: uint32(uid), gid: uint32(gid), gecos: f[4], home: f[5], shell: f[6]}, true
}

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
	g := group{name: f[0], gid: uint32(gid)}
	for _, m := range strings.Split(f[3], ",") {
		if m != "" {
			g.members = append(g.members, m)
		}
	}
	return g, true
}

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

// groupDocker may use Docker's socket.
const groupDocker = "docker"

// addUser makes the user in the image's account files under root, without
// taking any of the image's own users away: the numbers and the name are the
// host's and not ours to choose, so an entry that has the name with another
// number gets another name, and one that has the number stays as a second name
// of it. It may be run any number of times.
func addUser(root string, u wire.User) error {
	passwd := parseTable(readSmall(root + "/etc/passwd"))
	shadow := parseTable(readSmall(root + "/etc/shadow"))
	groups := parseTable(readSmall(root + "/etc/group"))
	gshadow := parseTable(readSmall(root + "/etc/gshadow"))

	if passwd.index("root") < 0 {
		passwd = slices.Insert(passwd, 0, account{name: "root", gecos: "root", home: "/root", shell: anyShell(root)}.line())
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
	ours := account{name: u.Name, uid: u.UID, gid: u.GID, home: u.Home, shell: anyShell(root)}
	i := passwd.index(u.Name)
	if i >= 0 {
		was, ok := parseAccount(passwd[i])
		switch {
		case ok && was.uid == u.UID:
			// The image's own, or ours of the last start; a shell that was
			// chosen stays.
			ours.gecos = was.gecos
			if was.shell != "" && isProgram(root+was.shell) {
				ours.shell = was.shell
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
	if slices.ContainsFunc(list, func(g group) bool { return g.gid == u.GID }) {
		return groups
	}
	name := u.Group
	if name == "" {
		name = u.Name
	}
	for groups.index(name) >= 0 {
		name += "-host"
	}
	return append(groups, group{name: name, gid: u.GID}.line())
}

// putDocker makes the group docker, if there is none, and the user a member.
func putDocker(groups table, u wire.User) table {
	g := group{name: groupDocker}
	i := groups.index(groupDocker)
	if i >= 0 {
		if was, ok := parseGroupLine(groups[i]); ok {
			g = was
		}
	} else {
		g.gid = freeSystemGID(parseGroup(groups.bytes()))
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
		if !slices.ContainsFunc(list, func(g group) bool { return g.gid == gid }) {
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
	return replaceFile(path, b, mode)
}

// overwriteFile is replaceFile for what is written again after a crash in any
// case: it changes the file in place, which takes a tenth of the steps.
func overwriteFile(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOFOLLOW|oNonblock, 0)
	if err != nil {
		return replaceFile(path, b, mode)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return replaceFile(path, b, mode)
	}
	if _, err := f.Write(b); err != nil {
		return replaceFile(path, b, mode)
	}
	if fi.Size() > int64(len(b)) {
		err = f.Truncate(int64(len(b)))
	}
	return err
}

// replaceFile writes a file anew, through a name beside it so that a reader
// sees the old or the new; owner and mode of an existing one are kept. Nothing
// is written where nothing changes.
func replaceFile(path string, b []byte, mode fs.FileMode) error {
	if old := readSmall(path); bytes.Equal(old, b) && old != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".bawn-new"
	_ = os.Remove(tmp) // of a start that was cut off
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, syscall.ENOSPC) {
		log.Printf("%s stays as it was: the disk is full", path)
		return nil
	}
	if err != nil {
		return err
	}
	uid, gid := -1, -1
	if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() {
		mode = fi.Mode().Perm()
		uid, gid = owner(fi)
	}
	_, err = f.Write(b)
	if uid >= 0 {
		err = errors.Join(err, f.Chown(uid, gid))
	}
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		if errors.Is(err, syscall.ENOSPC) {
			// The machine must start for anybody to make room on its disk.
			log.Printf("%s stays as it was: the disk is full", path)
			return nil
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// allowSudo lets the user become root without a password, where the image has
// sudo. The number is named, since the name may need quoting (sudoers(5)).
func allowSudo(root string, u wire.User) error {
	dir := root + "/etc/sudoers.d"
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() || u.UID == 0 {
		return nil //nolint:nilerr // the image has no such folder
	}
	return replaceFile(dir+"/bawn", fmt.Appendf(nil, "#%d ALL=(ALL:ALL) NOPASSWD: ALL\n", u.UID), 0o440)
}

// makeHome makes root's home directory and the user's, if there is none, the latter
// from /etc/skel. Small images have neither.
func makeHome(root string, u wire.User) error {
	if err := os.MkdirAll(filepath.Join(root, "/root"), 0o700); err != nil {
		return fmt.Errorf("home directory: %w", err)
	}
	if u.Home == "" || u.Home == "/" || u.UID == 0 {
		return nil
	}
	home := filepath.Join(root, u.Home)
	if fi, err := os.Stat(home); err == nil && fi.IsDir() {
		return os.Chown(home, int(u.UID), int(u.GID))
	}
	if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
		return fmt.Errorf("home directory: %w", err)
	}
	// Under another name until it is whole: a start that is cut off begins
	// again.
	tmp := home + ".bawn-new"
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("home directory: %w", err)
	}
	if err := copySkeleton(root+"/etc/skel", tmp, u); err != nil {
		return fmt.Errorf("home directory: %w", err)
	}
	return os.Rename(tmp, home)
}

// copySkeleton copies regular files, directories and links; src may be missing.
func copySkeleton(src, dst string, u wire.User) error {
	if err := os.Mkdir(dst, 0o755); err != nil {
		return err
	}
	if err := os.Lchown(dst, int(u.UID), int(u.GID)); err != nil {
		return err
	}
	entries, err := os.ReadDir(src)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := filepath.Join(src, e.Name()), filepath.Join(dst, e.Name())
		switch e.Type() {
		case fs.ModeDir:
			err = copySkeleton(from, to, u)
		case fs.ModeSymlink:
			var target string
			if target, err = os.Readlink(from); err == nil {
				err = os.Symlink(target, to)
			}
		case 0:
			err = copyFile(from, to)
		}
		if err == nil && e.Type()&^(fs.ModeDir|fs.ModeSymlink) == 0 {
			err = os.Lchown(to, int(u.UID), int(u.GID))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	fi, err := os.Stat(from)
	if err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fi.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
