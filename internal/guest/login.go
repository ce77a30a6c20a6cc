package guest

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"bawn.dev/bawn/internal/wire"
)

// login is who a session runs as.
type login struct {
	account
	groups []uint32 // supplementary
}

// credential is what a child runs with; nil when that is who we are.
func (l *login) credential() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: l.uid, Gid: l.gid, Groups: l.groups}
}

// logins finds accounts, and knows what sessions start with.
type logins struct {
	root string // where etc lies; "" is /

	mu       sync.Mutex
	user     wire.User
	workdir  string
	imageEnv []string
	caEnv    []string
}

// configure says who the unprivileged user is and what the image wants in the
// environment of sessions.
func (ls *logins) configure(user wire.User, imageEnv []string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.user, ls.imageEnv = user, imageEnv
}

// startIn says where sessions start.
func (ls *logins) startIn(workdir string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.workdir = workdir
}

// trust says what sessions need in their environment to trust the host's
// certificate.
func (ls *logins) trust(env []string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.caEnv = env
}

var errNoUser = errors.New("no such user in the guest")

// find looks name up in the guest's files. The unprivileged user and root are
// found even when those files are damaged, or the sandbox could not be
// repaired.
func (ls *logins) find(name string) (*login, error) {
	ls.mu.Lock()
	user := ls.user
	ls.mu.Unlock()
	l := &login{}
	accounts := parsePasswd(readSmall(ls.root + "/etc/passwd"))
	i := slices.IndexFunc(accounts, func(a account) bool { return a.name == name })
	switch {
	case i >= 0:
		l.account = accounts[i]
	case name == user.Name:
		l.account = account{name: name, uid: user.UID, gid: user.GID, home: user.Home}
	case name == "root":
		l.account = account{name: name, home: "/root"}
	default:
		return nil, errNoUser
	}
	for _, g := range parseGroup(readSmall(ls.root + "/etc/group")) {
		if g.gid != l.gid && slices.Contains(g.members, name) && len(l.groups) < 1024 {
			l.groups = append(l.groups, g.gid)
		}
	}
	if l.shell == "" {
		l.shell = "/bin/sh" // passwd(5)
	}
	return l, nil
}

// Default search paths, as Debian's login has them.
const (
	userPath = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// environ is what a session starts with: what the image says, what a login
// gives, what the client sent. Later ones win.
func (ls *logins) environ(l *login, term string, client []string) []string {
	ls.mu.Lock()
	image, ca := ls.imageEnv, ls.caEnv
	ls.mu.Unlock()
	e := environment{}
	// Where installers put what a user adds; Debian's ~/.profile has it too,
	// but not every command is run by a login shell.
	e.set("PATH=" + l.home + "/.local/bin:" + userPath)
	if l.uid == 0 {
		e.set("PATH=" + rootPath)
	}
	e.set(ca...)
	e.set(image...)
	e.set("HOME="+l.home, "USER="+l.name, "LOGNAME="+l.name, "SHELL="+l.shell)
	if term != "" {
		e.set("TERM=" + term)
	}
	e.set(client...)
	return e
}

// environment is KEY=VALUE, each key once.
type environment []string

// set adds or replaces; what is no KEY=VALUE is left out.
func (e *environment) set(vars ...string) {
	for _, v := range vars {
		key, _, ok := strings.Cut(v, "=")
		if !ok || key == "" || strings.ContainsRune(v, 0) {
			continue
		}
		i := slices.IndexFunc(*e, func(o string) bool { return strings.HasPrefix(o, key+"=") })
		if i < 0 {
			*e = append(*e, v)
		} else {
			(*e)[i] = v
		}
	}
}

func (e environment) get(key string) string {
	for _, v := range e {
		if s, ok := strings.CutPrefix(v, key+"="); ok {
			return s
		}
	}
	return ""
}

// startDir is where a session starts that names no place.
func (ls *logins) startDir(l *login) string {
	ls.mu.Lock()
	workdir := ls.workdir
	ls.mu.Unlock()
	for _, d := range []string{workdir, l.home} {
		if fi, err := os.Stat(d); d != "" && err == nil && fi.IsDir() {
			return d
		}
	}
	return "/"
}
