package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/text"
)

// The engine says what happened; this file has the words of the command line for it:
// the names of flags, and the next step to take.

// hinted is an error with the next step to take.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// hint adds the next step to an error.
func hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return hinted{err, fmt.Sprintf(format, args...)}
}

// nextStep is what to do about an error; empty if there is nothing to say.
func nextStep(err error) string {
	var h hinted
	switch {
	case diskFull(err): // whatever failed because of it
		return "df -h, to see which disk is full; bawn ls and bawn image ls name what bawn could do without"
	case errors.As(err, &h):
		return h.hint
	}
	if e := engine.As(err); e != nil {
		return stepFor(e)
	}
	return ""
}

// diskFull says whether an error comes of a full disk of the host's. A
// supervisor's, or a program's that it ran, comes as words.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(strings.ToLower(err.Error()), syscall.ENOSPC.Error())
}

// stepFor is the next step after an error of the engine.
func stepFor(e *engine.Error) string {
	name, path := e.Sandbox, pathArgument(e.Path)
	switch e.Reason {
	case engine.NotFound:
		if e.Path != "" {
			return "bawn ls, or bawn run to make one here"
		}
		return "bawn ls"
	case engine.Exists:
		if e.Throwaway {
			return "bawn run --rm without --name"
		}
		return fmt.Sprintf("bawn rm %s, or another name", name)
	case engine.OtherDirectory:
		return "another --name"
	case engine.Damaged:
		return "bawn ls, and bawn rm --force for the one that cannot be read"
	case engine.StillRunning:
		return fmt.Sprintf("bawn stop %s, or bawn rm --force %s", name, name)
	case engine.NotSuspended:
		return fmt.Sprintf("bawn exec %s -- COMMAND starts it", name)
	case engine.NoDirectory:
		return fmt.Sprintf("mkdir %s, or another --dir", path)
	case engine.NotADirectory:
		return "the directory that it is in: --dir " + pathArgument(filepath.Dir(e.Path))
	case engine.DirectoryGone:
		return "mkdir " + path
	case engine.MountGone:
		return fmt.Sprintf("mkdir %s, or bawn run --name %s --mount '' to go without what --mount has shared", path, name)
	case engine.NoMountSource:
		return fmt.Sprintf("mkdir %s, or another --mount", path)
	case engine.ShareOfBawn:
		return "run bawn in a project directory"
	case engine.ShareOfHome:
		return "run bawn in a project directory below it"
	case engine.ShareNotReadOnly:
		return fmt.Sprintf("run bawn in a project directory, and share this one read-only if need be (--mount %s:/mnt:ro)", path)
	case engine.NeedsRestart:
		return fmt.Sprintf("bawn stop %s, then again", name)
	case engine.ImageFixed:
		return fmt.Sprintf("bawn rm %s, or another --name", name)
	case engine.DiskCannotShrink:
		return fmt.Sprintf("bawn rm %s, then again", name)
	case engine.PortInUse, engine.PortPrivileged:
		return portStep(e)
	case engine.PortPublished:
		return fmt.Sprintf("bawn port --remove %d, to close the one that is published", e.Port.Host)
	case engine.PortNotPublished:
		return "bawn port, which lists those that are"
	case engine.Attached:
		return "the same with --force, which ends them"
	case engine.OtherVersion:
		return "bawn stop, then the same again"
	case engine.NotApproved:
		return fmt.Sprintf("bawn trust %s, or --no-project-file to go without", path)
	case engine.ProjectInvalid:
		if e.Check != nil {
			return fmt.Sprintf("mend it (bawn trust %s shows it), or --no-project-file to go without", path)
		}
		return "mend it, then bawn trust; or --no-project-file to go without"
	case engine.ApprovalInvalid:
		return "bawn trust " + path
	case engine.ApprovalUnreadable:
		return "bawn trust --forget " + path
	case engine.InvalidRule:
		return "bawn policy --help"
	case engine.RuleNotFound:
		return "bawn policy show"
	case engine.RulesSyntax:
		return fmt.Sprintf("mend %s by hand, or bawn policy reset %s", path, scopeArguments(name))
	case engine.SnapshotExists:
		return fmt.Sprintf("bawn snapshot rm %s %s, or another name", name, e.Snapshot)
	case engine.SnapshotNotFound:
		return "bawn snapshot ls " + name
	case engine.SnapshotDamaged:
		return "another of bawn snapshot ls " + name
	case engine.SnapshotFailed:
		return "bawn logs --supervisor " + name
	case engine.StateWouldBeLost:
		return fmt.Sprintf("--force, or bawn snapshot create %s first", name)
	case engine.ProjectCopyExists:
		return "another name for the fork, or move what is there"
	case engine.ImageInUse:
		return "bawn ls, and bawn rm what has it"
	case engine.ImageNotRemoved:
		return "bawn image ls"
	case engine.PathEscapes:
		return "name the place that it leads to, if you mean that"
	case engine.SpecialDestination:
		return fmt.Sprintf("bawn exec %s -- cat %s", name, path)
	case engine.SSHConfigQuoting:
		return "set XDG_STATE_HOME to a folder without line breaks and ${ in its name, and move bawn's there"
	case engine.NoQEMU:
		return "bawn doctor"
	case engine.NoMemory:
		return "bawn suspend another sandbox (bawn ls)"
	case engine.LimitReached:
		return fmt.Sprintf("bawn suspend another one (bawn ls), or a larger %s or %s", engine.MaxSandboxesEnv, engine.MaxMemoryEnv)
	case engine.StartFailed, engine.SupervisorDied, engine.CommandFailed:
		return lookInto(e)
	case engine.StopFailed:
		return "bawn stop --force " + name
	case engine.SuspendFailed:
		return "bawn logs --supervisor " + name
	case engine.NoGuestUser:
		return "--user root, or leave --user out"
	case engine.NotAnswering:
		if name == "" {
			return "bawn ls"
		}
		return fmt.Sprintf("bawn logs %s, or bawn stop --force %s and run again", name, name)
	case engine.InvalidPoolSize:
		return "bawn pool 2"
	case engine.PoolSizeDamaged:
		return "bawn pool 0"
	}
	return ""
}

// portStep depends on who asked for the port that is taken.
func portStep(e *engine.Error) string {
	switch {
	case e.Origin == engine.FromProject:
		return fmt.Sprintf("another in %s, then bawn trust; or --no-project-file to go without", project.Name)
	case e.Origin == engine.FromSandbox:
		return fmt.Sprintf("bawn port --name %s --remove %d, to go without it", e.Sandbox, e.Port.Host)
	case e.Reason == engine.PortPrivileged:
		return fmt.Sprintf("a port of the host above 1023, with -p HOST:%d", e.Port.Guest)
	}
	return fmt.Sprintf("another port of the host, with -p HOST:%d", e.Port.Guest)
}

// lookInto is where to look when a sandbox failed: it, or what is left of it, will
// be there when the person reads it.
func lookInto(e *engine.Error) string {
	switch {
	case e.Throwaway:
		return "the same without --rm, which keeps the sandbox and its logs"
	case e.Sandbox == "":
		return "bawn ls"
	case e.Reason == engine.SupervisorDied:
		return "bawn logs --supervisor " + e.Sandbox
	}
	return "bawn ls, then bawn logs " + e.Sandbox
}

// scopeArguments are the flags of bawn policy that mean a sandbox's rules, or those for
// all.
func scopeArguments(name string) string {
	if name == "" {
		return "--all"
	}
	return "--name " + name
}

// flagOf are the flags that set fields of a spec.
var flagOf = map[string]string{"mounts": "mount", "ports": "publish", "hosts": "add-host"}

func flagFor(field string) string {
	if f, ok := flagOf[field]; ok {
		return "--" + f
	}
	return "--" + field
}

// message is the text of an error, with flags in place of the names of fields.
func message(err error) string {
	said := err.Error()
	var field *sandbox.FieldError
	if errors.As(err, &field) {
		said = strings.Replace(said, field.Error(), flagFor(field.Field)+" "+field.Problem, 1)
	}
	e := engine.As(err)
	if e == nil {
		return text.Block(said)
	}
	switch {
	case e.Reason == engine.NeedsRestart:
		var flags []string
		for _, f := range e.Fields {
			flags = append(flags, flagFor(f))
		}
		slices.Sort(flags)
		said = strings.Replace(said, e.Error(), fmt.Sprintf("sandbox %s is running, and %s takes effect at a start", e.Sandbox, strings.Join(flags, ", ")), 1)
	case e.Reason == engine.Exists && e.Throwaway:
		said = strings.Replace(said, e.Error(), fmt.Sprintf("a sandbox named %s exists already, and --rm would remove it", e.Sandbox), 1)
	}
	return text.Block(said)
}

// noticeWords is a notice as it is shown, and the next step, if that goes into a line of
// its own.
func noticeWords(n engine.Notice) (said, step string) {
	said = n.Text
	switch n.Reason {
	case engine.NotApproved:
		said += fmt.Sprintf(" (bawn trust %s)", pathArgument(n.Path))
	case engine.ImageFixed:
		said += fmt.Sprintf(" (bawn rm %s, then again, for what %s says now)", n.Sandbox, project.Name)
	case engine.NeedsRestart:
		said += fmt.Sprintf(" (bawn stop %s)", n.Sandbox)
	case engine.PoolMemberFailed, engine.StartRepeated:
		said += ": " + n.Err.Error()
	case engine.StopSlow:
		step = fmt.Sprintf("bawn stop --force %s, to do so now", n.Sandbox)
	case engine.HostDiskFull:
		step = fmt.Sprintf("free some on the file system of %s, or bawn stop --force %s", n.Path, n.Sandbox)
	case engine.RulesSyntax:
		step = nextStep(n.Err)
	}
	return text.Block(said), text.Line(step)
}

// pathArgument is a path as one types it to a shell.
func pathArgument(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") != "" {
		path = shellQuote(path)
	}
	return text.Line(path)
}
