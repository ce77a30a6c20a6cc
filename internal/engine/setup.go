package engine

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/devcontainer"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/sys/bounded"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/text"
)

// This file runs the commands of an approved devcontainer.json in the guest. Which of them have run is
// noted in the guest: those that are once for each sandbox on its disk, so that a fork and a snapshot have
// their own notes; those for each start in memory, which a suspension keeps and a stop does not. A guest
// that changes its notes changes only what runs in itself.

// SetupFailed is the reason of an error: a command of the devcontainer.json failed, or could not be run (Sandbox).
const SetupFailed Reason = "devcontainer-command-failed"

// setupLock is held in the folder of a sandbox while these commands run.
const setupLock = "setup.lock"

// The folders of the notes in the guest. A note is an empty file with the name of the event. Tests have
// others.
var (
	setupOnceFolder  = "/var/lib/bawn-devcontainer"
	setupStartFolder = "/run/bawn-devcontainer"
)

// linkScript makes the path $1 lead to the project, $2, unless it does. What the image has there is moved aside: a
// mount of the project would hide it, too, but only until the next start.
const linkScript = `
[ -n "$1" ] && ! [ "$1" -ef "$2" ] || exit 0
if [ -d "$1" ] && ! [ -L "$1" ]; then rmdir "$1" 2>/dev/null || { ! [ -e "$1.image" ] && mv "$1" "$1.image"; } || { echo "the image has files in $1, where the project would be, and they cannot be moved to $1.image" >&2; exit 1; }; fi
mkdir -p "${1%/*}/" && ln -sn "$2" "$1"`

// notesScript prints the names of the notes. $1 and $2 are their folders.
const notesScript = `cd "$1" 2>/dev/null && ls; cd "$2" 2>/dev/null && ls; exit 0`

// noteScript makes the note $2 in the folder $1.
const noteScript = `mkdir -p "$1" && : >"$1/$2"`

// SetupEnv returns the variables that the approved devcontainer.json gives every command.
func (s *Session) SetupEnv() ([]string, error) {
	setup, err := s.e.setupOf(s.Spec)
	if err != nil {
		return nil, err
	}
	return setup.ExpandEnv(withPath(s.Spec.Boot.ImageEnv)), nil
}

// usualPath is the search path of images that have none of their own.
const usualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// withPath returns the environment of an image, with the usual search path if it has none.
func withPath(imageEnv []string) []string {
	if slices.ContainsFunc(imageEnv, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		return imageEnv
	}
	return append([]string{"PATH=" + usualPath}, imageEnv...)
}

// Setup starts the services of the approved devcontainer.json that run beside the sandbox, once for each start,
// and runs its commands that are due: those that are once for each sandbox, those for each start, and those
// for each use. Two goroutines at once write to out what the
// commands print. A command that fails ends it with SetupFailed; the next Setup begins with the commands of
// the same event. If two processes call it for one sandbox, one waits for the other.
func (s *Session) Setup(ctx context.Context, out io.Writer) error {
	setup, err := s.e.setupOf(s.Spec)
	if err != nil || len(setup.Hooks) == 0 && setup.Mount == "" && !hasServices(setup) {
		return err
	}
	env, err := s.SetupEnv()
	if err != nil {
		return err
	}
	var l *lockfile.Lock
	err = s.e.during("Waiting for the commands of "+devcontainerFile, func() error {
		l, err = lockfile.Acquire(ctx, s.d.File(setupLock))
		return err
	})
	if err != nil {
		return err
	}
	defer l.Close()
	root, err := s.e.Dial(ctx, s.Spec.Name, "root")
	if err != nil {
		return err
	}
	defer root.Close()
	r := &setupRun{s: s, root: root, setup: setup, env: append(slices.Clone(s.Spec.Env), env...), out: out}
	return r.run(ctx)
}

// setupRun is one run of Setup.
type setupRun struct {
	s     *Session
	root  *session.Client
	setup *devcontainer.Setup
	env   []string
	out   io.Writer
}

func (r *setupRun) run(ctx context.Context) error {
	if _, err := r.asRoot(ctx, linkScript, r.setup.Mount, r.s.Spec.Project.Guest); err != nil {
		return err
	}
	notes, err := r.asRoot(ctx, notesScript, setupOnceFolder, setupStartFolder)
	if err != nil {
		return err
	}
	done := strings.Fields(notes)
	if note := servicesNote(r.setup); hasServices(r.setup) && !slices.Contains(done, note) {
		if err := r.services(ctx, note); err != nil {
			return err
		}
	}
	for _, h := range r.setup.Hooks {
		if slices.Contains(done, string(h.Event)) {
			continue
		}
		if err := r.hook(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// asRoot runs a script in the guest and returns the beginning of what it prints.
func (r *setupRun) asRoot(ctx context.Context, script string, args ...string) (string, error) {
	return r.withInput(ctx, nil, script, args...)
}

// withInput is asRoot with something to read.
func (r *setupRun) withInput(ctx context.Context, input *os.File, script string, args ...string) (string, error) {
	out := &bounded.Writer{Max: maxNotes}
	said := newLastLines(nil)
	argv := append([]string{"/bin/sh", "-c", script, "sh"}, args...)
	exit, err := r.root.Run(ctx, session.Command{Argv: argv, Dir: "/", Stdin: input, Stdout: out, Stderr: said, WaitOutput: true})
	if err == nil && exit.Status != 0 {
		err = failf(SetupFailed, r.s.Spec.Name, "the sandbox could not be prepared for %s (exit status %d): %s", devcontainerFile, exit.Status, said)
	}
	return string(out.Kept), err
}

// maxNotes bounds what is kept of a script's output, in bytes.
const maxNotes = 4096

// hook runs the commands of one event, and notes it.
func (r *setupRun) hook(ctx context.Context, h devcontainer.Hook) error {
	for _, c := range h.Commands {
		if err := r.command(ctx, h.Event, c); err != nil {
			return err
		}
	}
	folder := setupOnceFolder
	switch {
	case h.Event.EachUse():
		return nil
	case !h.Event.Once():
		folder = setupStartFolder
	}
	_, err := r.asRoot(ctx, noteScript, folder, string(h.Event))
	return err
}

func (r *setupRun) command(ctx context.Context, event devcontainer.Event, c devcontainer.Command) error {
	label := string(event)
	if c.Name != "" {
		label += " " + c.Name
	}
	if c.Feature != "" {
		label += " of the feature " + c.Feature
	}
	if _, err := fmt.Fprintf(r.out, "bawn: %s: %s\n", label, text.Line(c.String())); err != nil {
		return err
	}
	cmd := session.Command{Argv: c.Argv, Dir: r.dir(), Env: r.env, Stdout: r.out, Stderr: r.out}
	exit, err := r.s.Run(ctx, cmd)
	if ctx.Err() != nil { // which has closed the connection
		return context.Cause(ctx)
	}
	if err != nil || exit.Status == 0 {
		return err
	}
	return failf(SetupFailed, r.s.Spec.Name, "%s of %s failed (exit status %d): %s", label, r.s.Spec.Devcontainer, exit.Status, text.Line(c.String()))
}

// dir returns the directory in which the commands run.
func (r *setupRun) dir() string {
	place, guest := r.setup.Workspace, r.s.Spec.Project.Guest
	switch {
	case place == "":
		return guest
	case r.setup.Mount != "" && sandbox.Beneath(r.setup.Mount, place):
		return guest + strings.TrimPrefix(place, r.setup.Mount)
	}
	return place
}
