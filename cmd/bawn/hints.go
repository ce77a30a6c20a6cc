package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/project"
)

// The engine reports what happened. This file has the next step, in terms of the command
// line; words.go has the texts.

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

// nextStep is what to do about an error, or empty.
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

// diskFull reports whether an error comes from a full disk of the host. The error of another
// program is recognised by its text.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(strings.ToLower(err.Error()), syscall.ENOSPC.Error())
}

// steps are the next steps after errors of the engine. {sandbox}, {snapshot} and {path}
// stand for what the error is about, {parent} for the folder that the path is in, {host}
// and {guest} for the numbers of its port, {scope} for the flags of bawn policy that mean
// the rules. A reason that is not here has no step that fits every case, or its text says
// it.
var steps = map[engine.Reason]string{
	engine.NotFound:       "bawn ls",
	engine.Exists:         "bawn rm {sandbox}, or another name",
	engine.OtherDirectory: "another --name",
	engine.Damaged:        "bawn rm --force {sandbox}",
	engine.StillRunning:   "bawn stop {sandbox}, or bawn rm --force {sandbox}",
	engine.NotSuspended:   "bawn exec {sandbox} -- COMMAND starts it",

	engine.NoDirectory:       "mkdir {path}, or another --dir",
	engine.NotADirectory:     "the directory that it is in: --dir {parent}",
	engine.DirectoryGone:     "mkdir {path}",
	engine.MountGone:         "mkdir {path}, or bawn run --name {sandbox} --mount '' to go without what --mount has shared",
	engine.NoMountSource:     "mkdir {path}, or another --mount",
	engine.ShareOfBawn:       "run bawn in a project directory",
	engine.ShareOfHome:       "run bawn in a project directory below it",
	engine.ShareNotReadOnly:  "run bawn in a project directory, and share this one read-only if need be (--mount {path}:/mnt:ro)",
	engine.NeedsRestart:      "bawn stop {sandbox}, then again",
	engine.ImageFixed:        "bawn rm {sandbox}, or another --name",
	engine.DiskCannotShrink:  "bawn rm {sandbox}, then again",
	engine.PortInUse:         "another port of the host, with -p HOST:{guest}",
	engine.PortPrivileged:    "a port of the host above 1023, with -p HOST:{guest}",
	engine.PortPublished:     "bawn port --remove {host}, to close the one that is published",
	engine.PortNotPublished:  "bawn port, which lists those that are",
	engine.InvalidPoolSize:   "bawn pool 2",
	engine.PoolSizeDamaged:   "bawn pool 0",
	engine.ProjectCopyExists: "another name for the fork, or move what is there",

	engine.NotApproved:        "bawn trust {path}, or --no-project-file to go without",
	engine.ProjectInvalid:     "mend it, then bawn trust; or --no-project-file to go without",
	engine.ApprovalInvalid:    "bawn trust {path}",
	engine.ApprovalUnreadable: "bawn trust --forget {path}",
	engine.InvalidRule:        "bawn policy --help",
	engine.RuleNotFound:       "bawn policy show",
	engine.RulesSyntax:        "mend {path} by hand, or bawn policy reset {scope}",

	engine.NoQEMU:         "bawn doctor",
	engine.NoMemory:       "bawn suspend another sandbox (bawn ls)",
	engine.LimitReached:   "bawn suspend another one (bawn ls), or a larger " + engine.MaxSandboxesEnv + " or " + engine.MaxMemoryEnv,
	engine.StartFailed:    "bawn ls, then bawn logs {sandbox}",
	engine.SupervisorDied: "bawn logs --supervisor {sandbox}",
	engine.CommandFailed:  "bawn ls, then bawn logs {sandbox}",
	engine.StopFailed:     "bawn stop --force {sandbox}",
	engine.SuspendFailed:  "bawn logs --supervisor {sandbox}",
	engine.Attached:       "the same with --force, which ends them",
	engine.OtherVersion:   "bawn stop, then the same again",
	engine.NoGuestUser:    "--user root, or leave --user out",
	engine.NotAnswering:   "bawn logs {sandbox}, or bawn stop --force {sandbox} and run again",

	engine.SnapshotExists:   "bawn snapshot rm {sandbox} {snapshot}, or another name",
	engine.SnapshotNotFound: "bawn snapshot ls {sandbox}",
	engine.SnapshotDamaged:  "another snapshot: bawn snapshot ls {sandbox} lists them",
	engine.SnapshotFailed:   "bawn logs --supervisor {sandbox}",
	engine.StateWouldBeLost: "--force, or bawn snapshot create {sandbox} first",

	engine.ImageInUse:         "bawn ls, and bawn rm what has it",
	engine.ImageNotMade:       "bawn image ls, which lists those there are; bawn image commit SANDBOX {path} makes it",
	engine.ImageNotRemoved:    "bawn image ls",
	engine.PathEscapes:        "name the place that it leads to, if you mean that",
	engine.SpecialDestination: "bawn exec {sandbox} -- cat {path}",
	engine.SSHConfigQuoting:   "set XDG_STATE_HOME to a folder without line breaks and ${ in its name, and move bawn's there",
}

// stepFor is the next step after an error of the engine.
func stepFor(e *engine.Error) string {
	scope := "--all"
	if e.Sandbox != "" {
		scope = "--name " + e.Sandbox
	}
	return strings.NewReplacer(
		"{sandbox}", e.Sandbox, "{snapshot}", e.Snapshot,
		"{path}", pathArgument(e.Path), "{parent}", pathArgument(filepath.Dir(e.Path)),
		"{host}", strconv.Itoa(int(e.Port.Host)), "{guest}", strconv.Itoa(int(e.Port.Guest)),
		"{scope}", scope,
	).Replace(stepIn(e))
}

// stepIn is the entry of steps for an error, or the one that its other fields ask for.
func stepIn(e *engine.Error) string {
	port := e.Reason == engine.PortInUse || e.Reason == engine.PortPrivileged
	lost := e.Reason == engine.StartFailed || e.Reason == engine.SupervisorDied || e.Reason == engine.CommandFailed
	switch {
	case e.Reason == engine.NotFound && e.Path != "":
		return "bawn ls, or bawn run to make one here"
	case e.Reason == engine.Exists && e.Throwaway:
		return "bawn run --rm without --name"
	case e.Reason == engine.ProjectInvalid && e.Check != nil:
		return "mend it (bawn trust {path} shows it), or --no-project-file to go without"
	case port && e.Origin == engine.FromProject:
		return "another in " + project.Name + ", then bawn trust; or --no-project-file to go without"
	case port && e.Origin == engine.FromSandbox:
		return "bawn port --name {sandbox} --remove {host}, to go without it"
	case lost && e.Throwaway:
		return "the same without --rm, which keeps the sandbox and its logs"
	case (lost || e.Reason == engine.NotAnswering) && e.Sandbox == "": // it is gone
		return "bawn ls"
	}
	return steps[e.Reason]
}
