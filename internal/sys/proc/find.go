package proc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Programs of the host run with the user's rights, so none may be one that a guest wrote.
// A project's own folder is often on the PATH (direnv's PATH_add, node_modules/.bin), and
// the guest may write there. Find passes over such programs; Command runs a found one in
// an environment from which it and its children take no others.

// systemFolders have the programs of the system. They stand first on the PATH of a child.
var systemFolders = []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// administratorFolders are searched after the PATH: ordinary users do not have them on it.
var administratorFolders = []string{"/usr/sbin", "/sbin"}

// Skipped is a program that was found and must not be run.
type Skipped struct {
	Path string
	Why  string
}

// NotFoundError says that no program of a name can be run. It is an exec.ErrNotFound.
type NotFoundError struct {
	Name    string
	Skipped []Skipped // in the order of the PATH
}

func (e *NotFoundError) Error() string {
	if len(e.Skipped) == 0 {
		return fmt.Sprintf("there is no %s on the PATH", e.Name)
	}
	var list []string
	for _, s := range e.Skipped {
		list = append(list, s.Path+" ("+s.Why+")")
	}
	return fmt.Sprintf("there is no %s on the PATH that is safe to run: skipped %s", e.Name, strings.Join(list, "; "))
}

// Is makes the error match exec.ErrNotFound.
func (e *NotFoundError) Is(target error) bool { return target == exec.ErrNotFound }

// Find returns the absolute path of a program: from the PATH, else from the administrator's
// folders. It passes over relative entries
// of the PATH, and over each program that a guest or another user could have written or
// can replace (Distrust). The error is a *NotFoundError, or says why nothing can be judged.
func Find(name string) (string, error) {
	if name == "" || strings.ContainsRune(name, '/') {
		return "", fmt.Errorf("%q is not the name of a program", name)
	}
	judge, err := newJudge()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	failed := &NotFoundError{Name: name}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), administratorFolders...) {
		path := filepath.Join(dir, name)
		if !executable(path) {
			continue
		}
		err := errRelative
		if filepath.IsAbs(dir) {
			err = judge.trusted(path)
		}
		if err == nil {
			return path, nil
		}
		if s := (Skipped{path, err.Error()}); !slices.Contains(failed.Skipped, s) {
			failed.Skipped = append(failed.Skipped, s)
		}
	}
	return "", failed
}

var errRelative = errors.New("a relative entry of the PATH")

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// Command is exec.CommandContext for a program of the host that Find finds, or whose
// absolute path Find returned before, in the environment that Environ returns. If there is
// none, running the command fails with Find's error.
func Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	path, err := name, error(nil)
	if !filepath.IsAbs(name) {
		if path, err = Find(name); err != nil {
			path = "/nonexistent/" + filepath.Base(name) // never looked up on the PATH by os/exec
		}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Args[0] = name
	cmd.Env = Environ()
	if err != nil {
		cmd.Err = err
	}
	return cmd
}

// Missing returns the error for a command that failed because its program is not there: it
// says which program cannot be run and why, and which package has it. It returns nil for
// any other failure.
func Missing(err error, pkg string) error {
	var failed *NotFoundError
	if errors.As(err, &failed) {
		return fmt.Errorf("%w; install the package %s", failed, pkg)
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; install the package %s", err, pkg)
	}
	return nil
}

// keptVariables pass to programs of the host: who the user is, the language, and the way
// to the network. What else is set may come from a project (direnv) and name code to load:
// LD_LIBRARY_PATH, PERL5LIB, QEMU_MODULE_DIR, APT_CONFIG.
var keptVariables = []string{
	"HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "TZ", "TMPDIR", "TERM",
	"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy",
	"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY",
}

// Environ returns the environment for a program of the host: a few of this process's
// variables, and a PATH of the folders of the system followed by those entries of this
// process's PATH from which nothing can be run that Find would pass over (LeftOut). A TMPDIR that
// a guest or another user could write to, or that may be a project's, is not among them: programs build
// trees there that they run things from.
func Environ() []string {
	judge, err := newJudge()
	dirs := slices.Clone(systemFolders)
	if err == nil {
		more, _ := judge.searched()
		dirs = append(dirs, more...)
	}
	env := []string{"PATH=" + strings.Join(dirs, ":")}
	for _, k := range keptVariables {
		v, ok := os.LookupEnv(k)
		if ok && k == tempVariable {
			ok = err == nil && filepath.IsAbs(v) && judge.trusted(v) == nil
		}
		if ok {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// tempVariable names the folder for temporary files (POSIX, environ(7)).
const tempVariable = "TMPDIR"

// TempDir returns the folder for this process's temporary files: os.TempDir, or /tmp where that is one that
// a guest or another user could write to, or that may be a project's.
func TempDir() string {
	dir := os.TempDir()
	if judge, err := newJudge(); err == nil && filepath.IsAbs(dir) && judge.trusted(dir) == nil {
		return dir
	}
	return "/tmp"
}

// IdleShell returns the variable of the environment with which a program that runs the commands of its settings by $SHELL
// runs none: each fails at once. ssh is one (Match exec, ssh_config(5)), and its settings may include files that a guest
// writes. An error is that of Find.
func IdleShell() (string, error) {
	idle, err := Find("false")
	return "SHELL=" + idle, err
}

// LeftOut returns the entries of the PATH that programs do not get (Environ), each with the reason.
func LeftOut() []Skipped {
	judge, err := newJudge()
	if err != nil {
		return nil
	}
	_, left := judge.searched()
	return left
}

// search is what a look through the PATH found, for which judge it holds, and when it began.
type search struct {
	path   string // the variable
	guests []Writable
	here   *place // the current directory, if that may be a project's
	at     time.Time
	dirs   []string
	left   []Skipped
}

// searchTime is how long the result of a search is used again at most. Programs come in bursts, a start of a sandbox runs a
// dozen, and folders of the PATH may have thousands of entries. What a user installs meanwhile counts from the next
// search on. It is as long as what guests can write to is kept by package store.
const searchTime = time.Second

var lastSearch struct {
	sync.Mutex
	search
}

// searched returns the entries of the PATH beside the folders of the system that a program may search, and the others. The
// caller does not change them. The answer is that of a search at most searchTime ago, unless the PATH, the current directory
// or what guests can write to is another one.
func (j *judge) searched() (dirs []string, left []Skipped) {
	now := search{path: os.Getenv("PATH"), guests: j.guests, here: j.here, at: time.Now()}
	lastSearch.Lock()
	defer lastSearch.Unlock()
	if !lastSearch.current(&now) {
		now.dirs, now.left = j.search(now.path)
		lastSearch.search = now
	}
	return lastSearch.dirs, lastSearch.left
}

// current reports whether what was found holds for a search that begins with now.
func (s *search) current(now *search) bool {
	return s.path == now.path && s.here.same(now.here) && slices.Equal(s.guests, now.guests) && now.at.Sub(s.at) < searchTime
}

// search is searched, from the folders.
func (j *judge) search(path string) (dirs []string, left []Skipped) {
	for _, dir := range filepath.SplitList(path) {
		if slices.Contains(systemFolders, dir) || slices.Contains(dirs, dir) {
			continue // judging one looks at all that is in it
		}
		switch err := j.searchable(dir); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			left = append(left, Skipped{dir, err.Error()})
		default:
			dirs = append(dirs, dir)
		}
	}
	return dirs, left
}

// searchable returns an error unless a folder and all programs in it are trusted: a program that searches it runs any
// of them, also one behind a link.
func (j *judge) searchable(dir string) error {
	if !filepath.IsAbs(dir) {
		return errRelative
	}
	if err := j.trusted(dir); err != nil {
		return err
	}
	return j.contents(dir)
}

// contents judges what is in a folder that is trusted itself, and where links in it lead.
func (j *judge) contents(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range list {
		path := filepath.Join(dir, f.Name())
		if f.Type()&fs.ModeSymlink != 0 {
			err = j.trusted(path)
		} else if fi, lerr := os.Lstat(path); lerr == nil {
			err = j.step(path, fi)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s in it: %w", f.Name(), err)
		}
	}
	return nil
}
