// Package accounts knows the guest's users: it reads the image's passwd and group files,
// adds the sandbox's user to them, and makes the environment that a session starts with.
//
// The files are the image's, and later the guest's own users write them. They are read
// with a bound and line by line; a line that is malformed is skipped, never half used:
// a user whose number cannot be read must not become number 0. (That is why the parser
// is not github.com/moby/sys/user, which takes a malformed number for 0 and rejects a
// whole file for one long line.)
package accounts

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"

	"bawn.dev/bawn/internal/guest/etc"
	"bawn.dev/bawn/internal/wire"
)

// Login is a user as a session needs it.
type Login struct {
	account
	groups []uint32 // supplementary
}

// Credential returns the credential of the user's processes; nil where this process is
// not root's, and so can only run them as itself.
func (l *Login) Credential() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: l.UID, Gid: l.GID, Groups: l.groups}
}

// Logins finds users, and makes their environment. Its methods may be called concurrently.
type Logins struct {
	root string // of the file system with /etc; "" is /

	mu       sync.Mutex
	user     wire.User
	workdir  string
	imageEnv []string
	caEnv    []string
}

// NewLogins returns the accounts of the file system at root, "" for /.
func NewLogins(root string) *Logins { return &Logins{root: root} }

// Configure sets the unprivileged user and the variables (KEY=VALUE) of the image.
func (ls *Logins) Configure(user wire.User, imageEnv []string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.user, ls.imageEnv = user, imageEnv
}

// StartIn sets the directory in which sessions start, where it exists.
func (ls *Logins) StartIn(workdir string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.workdir = workdir
}

// Trust sets the variables (KEY=VALUE) that make programs trust the host's certificate.
func (ls *Logins) Trust(env []string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.caEnv = env
}

// User returns the unprivileged user; its zero value before Configure.
func (ls *Logins) User() wire.User {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.user
}

var errNoUser = errors.New("no such user in the guest")

// Find returns the user of the name from the guest's files. The unprivileged user and root
// are found even where those files are damaged: somebody must be able to repair them.
func (ls *Logins) Find(name string) (*Login, error) {
	user := ls.User()
	l := &Login{}
	accounts := parsePasswd(etc.Read(ls.root + "/etc/passwd"))
	i := slices.IndexFunc(accounts, func(a account) bool { return a.name == name })
	switch {
	case i >= 0:
		l.account = accounts[i]
	case name == user.Name:
		l.account = account{name: name, UID: user.UID, GID: user.GID, Home: user.Home}
	case name == "root":
		l.account = account{name: name, Home: "/root"}
	default:
		return nil, errNoUser
	}
	for _, g := range parseGroup(etc.Read(ls.root + "/etc/group")) {
		if g.GID != l.GID && slices.Contains(g.members, name) && len(l.groups) < 1024 {
			l.groups = append(l.groups, g.GID)
		}
	}
	if l.Shell == "" {
		l.Shell = "/bin/sh" // passwd(5)
	}
	return l, nil
}

// Environ returns the variables of a session: those of a sandbox, of the host's
// certificate, of the image, of a login, and of the client. Later ones replace earlier ones.
// An empty term sets no TERM. A locale or a type of terminal that the guest does not know is
// replaced (knownLocales, knownTerminal).
func (ls *Logins) Environ(l *Login, term string, client []string) []string {
	ls.mu.Lock()
	image, ca := ls.imageEnv, ls.caEnv
	ls.mu.Unlock()
	e := environment{}
	// Agents read IS_SANDBOX as the permission to work unattended as root.
	e.set("LANG="+neutralLocale, "IS_SANDBOX=1")
	// Installers put a user's programs into ~/.local/bin. Debian's ~/.profile adds it too,
	// but only for login shells.
	e.set("PATH=" + l.Home + "/.local/bin:" + userPath)
	if l.UID == 0 {
		e.set("PATH=" + RootPath)
	}
	e.set(ca...)
	e.set(image...)
	e.set("HOME="+l.Home, "USER="+l.name, "LOGNAME="+l.name, "SHELL="+l.Shell)
	if dir := RuntimeDir(l.UID); isFolder(ls.root + dir) {
		e.set("XDG_RUNTIME_DIR=" + dir)
	}
	if term != "" {
		e.set("TERM=" + term)
	}
	e.set(client...)
	e.knownLocales(ls.root)
	e.knownTerminal(ls.root, l.Home)
	return e
}

// RuntimeDir returns the directory for a user's sockets (XDG Base Directory Specification,
// XDG_RUNTIME_DIR), where systemd has it.
func RuntimeDir(uid uint32) string { return fmt.Sprintf("/run/user/%d", uid) }

func isFolder(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// StartDir returns the directory in which a session starts that names none.
func (ls *Logins) StartDir(l *Login) string {
	ls.mu.Lock()
	workdir := ls.workdir
	ls.mu.Unlock()
	for _, d := range []string{workdir, l.Home} {
		if fi, err := os.Stat(d); d != "" && err == nil && fi.IsDir() {
			return d
		}
	}
	return "/"
}
