// Package accounts is who can log in to the guest: it reads the image's passwd and
// group files, adds the sandbox's user to them, and makes what a session starts with.
//
// The files are the image's, and later the guest's own users write them. They are read
// with a bound and line by line; a line that is malformed is skipped, never half used:
// a user whose number cannot be read must not become number 0. (That is why the parser
// is not github.com/moby/sys/user, which takes a malformed number for 0 and rejects a
// whole file for one long line.)
package accounts

import (
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"

	"bawn.dev/bawn/internal/guest/etc"
	"bawn.dev/bawn/internal/wire"
)

// Login is who a session runs as.
type Login struct {
	account
	groups []uint32 // supplementary
}

// Credential is what a child runs with; nil when that is who we are.
func (l *Login) Credential() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: l.UID, Gid: l.GID, Groups: l.groups}
}

// Logins finds accounts, and knows what sessions start with.
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

// Configure says who the unprivileged user is and what the image wants in the
// environment of sessions.
func (ls *Logins) Configure(user wire.User, imageEnv []string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.user, ls.imageEnv = user, imageEnv
}

// StartIn says where sessions start.
func (ls *Logins) StartIn(workdir string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.workdir = workdir
}

// Trust says what sessions need in their environment to trust the host's
// certificate.
func (ls *Logins) Trust(env []string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.caEnv = env
}

// User returns the unprivileged user; its zero value before configure.
func (ls *Logins) User() wire.User {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.user
}

var errNoUser = errors.New("no such user in the guest")

// Find looks name up in the guest's files. The unprivileged user and root are
// found even when those files are damaged, or the sandbox could not be
// repaired.
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

// Environ is what a session starts with: what the image says, what a login
// gives, what the client sent. Later ones win.
func (ls *Logins) Environ(l *Login, term string, client []string) []string {
	ls.mu.Lock()
	image, ca := ls.imageEnv, ls.caEnv
	ls.mu.Unlock()
	e := environment{}
	// Where installers put what a user adds; Debian's ~/.profile has it too,
	// but not every command is run by a login shell.
	e.set("PATH=" + l.Home + "/.local/bin:" + userPath)
	if l.UID == 0 {
		e.set("PATH=" + RootPath)
	}
	e.set(ca...)
	e.set(image...)
	e.set("HOME="+l.Home, "USER="+l.name, "LOGNAME="+l.name, "SHELL="+l.Shell)
	if term != "" {
		e.set("TERM=" + term)
	}
	e.set(client...)
	return e
}

// StartDir is where a session starts that names no place.
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
