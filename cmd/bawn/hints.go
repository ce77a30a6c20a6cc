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

// nextStep returns what to do about an error, or empty.
func nextStep(err error) string {
	var h hinted
	switch {
	case diskFull(err): // whatever failed because of it
		return "df -h shows which disk is full; free space there, or remove sandboxes (bawn ls, bawn rm) or images (bawn image ls, bawn image prune)"
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

// steps are the next steps after errors of the engine. {sandbox}, {snapshot}, {volume} and {path}
// stand for what the error is about, {parent} for the folder that the path is in, {host}
// and {guest} for the numbers of its port, {scope} for the flags of bawn policy that mean
// the rules. A reason that is not here has no step that fits every case, or its text says
// it.
var steps = map[engine.Reason]string{
	engine.NoSecret:        "bawn secret ls",
	engine.NoLogin:         "bawn login ls",
	engine.GitDirUnusable:  "--share-git=false goes on without it",
	engine.NothingToAccept: "bawn review {sandbox} lists the guest's versions",
	engine.NotFound:        "bawn ls",
	engine.Exists:          "use another name, or bawn rm --force {sandbox} to remove that sandbox",
	engine.OtherDirectory:  "use another --name",
	engine.Damaged:         "bawn rm --force {sandbox}",
	engine.StillRunning:    "bawn stop {sandbox}, or bawn rm --force {sandbox}",
	engine.NotSuspended:    "bawn exec {sandbox} -- COMMAND, which starts it",

	engine.NoDirectory:       "mkdir {path}, or use another directory",
	engine.NotADirectory:     "use the directory that holds it: --dir {parent}",
	engine.DirectoryGone:     "mkdir {path}",
	engine.MountGone:         "mkdir {path}, or bawn run --name {sandbox} --mount '' to share no other directories",
	engine.NoMountSource:     "mkdir {path}, or use another --mount",
	engine.ShareOfBawn:       "run bawn in a project directory",
	engine.ShareOfHome:       "run bawn in a project directory below it",
	engine.ShareNotReadOnly:  "run bawn in a project directory; to read this one in the sandbox, share it read-only (--mount {path}:/mnt:ro)",
	engine.NeedsRestart:      "bawn stop {sandbox}, then run the same command again",
	engine.ImageFixed:        "use another --name, or bawn rm {sandbox} and run the same command again",
	engine.DiskCannotShrink:  "use another --name, or bawn rm {sandbox} and run the same command again",
	engine.PortInUse:         "use another port of the host: HOST:{guest}",
	engine.PortPrivileged:    "use a port of the host above 1023: HOST:{guest}",
	engine.PortPublished:     "bawn port --remove {host} closes the port that is published now",
	engine.PortNotPublished:  "bawn port lists the published ports",
	engine.InvalidPoolSize:   "bawn pool 2",
	engine.PoolSizeDamaged:   "bawn pool 0",
	engine.ProjectCopyExists: "use another name for the fork, or move what is there",

	engine.NotApproved:        "bawn trust {path} to approve it, or --no-project-file to ignore it",
	engine.ProjectInvalid:     "correct the file, then bawn trust; or --no-project-file to ignore it",
	engine.ApprovalInvalid:    "bawn trust {path}",
	engine.ApprovalUnreadable: "bawn trust --forget {path}",
	engine.InvalidRule:        "bawn policy allow --help explains how to write a rule",
	engine.RuleNotFound:       "bawn policy show",
	engine.RemoteUnusable:     "write the rule with the repository: git:HOST/OWNER/REPO",
	engine.RulesSyntax:        "correct {path} in an editor, or bawn policy reset {scope} to remove all its rules",

	engine.NoVolume:        "bawn volume ls",
	engine.VolumeExists:    "use another name, or that volume",
	engine.VolumeInUse:     "bawn stop {sandbox}, use another volume, or read this one: --volume {volume}:PATH:ro",
	engine.VolumeHeld:      "bawn rm {sandbox}, or bawn run --name {sandbox} --volume '' -- true to start it without volumes",
	engine.VolumeNotForked: "stop the sandbox and start it with the volume read-only (--volume {volume}:PATH:ro) or without (--volume ''), then fork it",

	engine.NoAgent:           "bawn agents",
	engine.AgentsFile:        "correct {path}; docs/agents.md has its fields",
	engine.AgentNotInstalled: "check the network and npm config get registry, then run the same command again",

	engine.SigningNotSetUp:     "correct that on the host, or --sign=false to go on without signatures",
	engine.SigningNoRepository: "--allow git:origin:push=BRANCH names the branches that it may push to (or git:HOST/OWNER/REPO:push=...); or --sign=false to go on without signatures",

	engine.NoQEMU:         "bawn doctor",
	engine.NoMemory:       "bawn suspend another sandbox (bawn ls lists them)",
	engine.LimitReached:   "bawn suspend another sandbox (bawn ls lists them), or set a larger limit in " + engine.MaxSandboxesEnv + " or " + engine.MaxMemoryEnv,
	engine.StartFailed:    "bawn ls, then bawn logs {sandbox}",
	engine.SupervisorDied: "bawn logs --supervisor {sandbox}",
	engine.CommandFailed:  "bawn ls, then bawn logs {sandbox}",
	engine.StopFailed:     "bawn stop --force {sandbox}",
	engine.SuspendFailed:  "bawn logs --supervisor {sandbox}",
	engine.Attached:       "bawn suspend --force {sandbox}, which ends them",
	engine.OtherVersion:   "bawn stop, then run the same command again",
	engine.NoGuestUser:    "use --user root, or leave --user out",
	engine.Hangs:          "bawn ls names the sandboxes, and bawn stop --force NAME ends one with its supervisor",
	engine.NotAnswering:   "bawn logs {sandbox}, or bawn stop --force {sandbox} and run the same command again",

	engine.SnapshotExists:   "use another name, or bawn snapshot rm {sandbox} {snapshot}",
	engine.SnapshotNotFound: "bawn snapshot ls {sandbox}",
	engine.SnapshotDamaged:  "use another snapshot (bawn snapshot ls {sandbox} lists them)",
	engine.SnapshotFailed:   "bawn logs --supervisor {sandbox}",
	engine.StateWouldBeLost: "bawn snapshot create {sandbox} to save the present state first, or --force to discard it",

	engine.NoDevcontainer:     "name the file: --devcontainer=PATH; or --devcontainer= to go on without one",
	engine.NoDocker:           "take an image with Docker and docker compose for it (the feature docker-in-docker adds them; FROM bawn/default has them), or leave the others out (\"runServices\": []), then bawn rm {sandbox} and run again",
	engine.ServicesFailed:     "images come by the rules of the sandbox, too: bawn net log shows what was denied, --allow preset:dockerhub opens Docker Hub; bawn exec {sandbox} -- docker ps -a shows what is there",
	engine.SetupFailed:        "correct it and run the same command again; bawn exec {sandbox} -- COMMAND looks at what is there, --devcontainer= goes on without the file",
	engine.FeaturesUnfetched:  "bawn trust --devcontainer, which fetches and shows them",
	engine.BuildFailed:        "correct what is wrong and run the same command again; or --image default to start without it",
	engine.BuildContext:       "name a directory of this host: bawn image build DIRECTORY",
	engine.NoDockerfile:       "name it with --file, relative to the working directory: bawn image build --file FILE DIRECTORY",
	engine.ImageInUse:         "bawn rm the sandboxes that use it (bawn inspect NAME shows the image of a sandbox)",
	engine.ImageNotMade:       "bawn image ls lists the images; bawn image commit SANDBOX {path} or bawn image build --tag {path} makes this one",
	engine.ImageNotRemoved:    "bawn image ls",
	engine.PathEscapes:        "if you mean the place that the path leads to, write that path",
	engine.LinkOfGuest:        "if you mean the place that the link leads to, {path}, write that path",
	engine.SpecialDestination: "bawn exec {sandbox} -- cat {path}",
	engine.SSHConfigQuoting:   "move bawn's state folder to a path without line breaks and ${, and set XDG_STATE_HOME to its parent",
	engine.SSHTooOld:          "install OpenSSH 8.7 or later; nothing was changed. bawn shell and bawn exec need no ssh",
	engine.SSHConfigFile:      "make that line the first of the file yourself, or remove it to take bawn out again",
}

// stepFor returns the next step after an error of the engine.
func stepFor(e *engine.Error) string {
	scope := "--all"
	if e.Sandbox != "" {
		scope = "--name " + e.Sandbox
	}
	return strings.NewReplacer(
		"{sandbox}", e.Sandbox, "{snapshot}", e.Snapshot, "{volume}", e.Volume,
		"{path}", pathArgument(e.Path), "{parent}", pathArgument(filepath.Dir(e.Path)),
		"{host}", strconv.Itoa(int(e.Port.Host)), "{guest}", strconv.Itoa(int(e.Port.Guest)),
		"{scope}", scope,
	).Replace(stepIn(e))
}

// stepIn returns the entry of steps for an error, or the one that its other fields ask for.
func stepIn(e *engine.Error) string {
	if step := stepInFile(e); step != "" {
		return step
	}
	port := e.Reason == engine.PortInUse || e.Reason == engine.PortPrivileged
	lost := e.Reason == engine.StartFailed || e.Reason == engine.SupervisorDied || e.Reason == engine.CommandFailed
	switch {
	case e.Reason == engine.NotFound && e.Path != "":
		return "bawn run -- COMMAND creates one here; bawn ls lists those of other directories"
	case e.Reason == engine.Exists && e.Throwaway:
		return "bawn run --rm without --name"
	case port && e.Origin == engine.FromProject:
		return "write another port in " + project.Name + ", then bawn trust; or --no-project-file to ignore the file"
	case port && e.Origin == engine.FromSandbox:
		return "bawn port --name {sandbox} --remove {host} to no longer publish it"
	case lost && e.Throwaway:
		return "run the same command without --rm, which keeps the sandbox and its logs"
	case (lost || e.Reason == engine.NotAnswering) && e.Sandbox == "": // it is gone
		return "bawn ls"
	}
	return steps[e.Reason]
}

// stepInFile returns the entry for an error that a file of the project asks for, or an empty string.
func stepInFile(e *engine.Error) string {
	if e.Reason == engine.BuildFailed && len(e.Fields) > 0 {
		log := ""
		if e.Sandbox != "" {
			log = " (bawn net log --denied --name {sandbox})"
		}
		return fmt.Sprintf("the build was denied %s%s: write that to build: allow: in %s, then bawn trust", strings.Join(e.Fields, ", "), log, project.Name)
	}
	if len(e.Fields) > 0 && e.Reason == engine.ApprovalInvalid {
		return "bawn trust " + trustArguments(e.Path, e.Fields)
	}
	if len(e.Fields) > 0 && e.Reason == engine.ApprovalUnreadable {
		return "bawn trust --forget " + trustArguments(e.Path, e.Fields)
	}
	if e.Check == nil {
		return ""
	}
	other := otherFile(e.Check) != nil // a devcontainer.json
	file := trustArguments(e.Check.Dir, otherFile(e.Check))
	switch {
	case other && e.Reason == engine.ProjectInvalid:
		return "correct the file (bawn trust " + file + " shows it), or --devcontainer= to go on without it"
	case other && e.Reason == engine.NotApproved:
		return "bawn trust " + file + " to approve it, or --devcontainer= to go on without it"
	case e.Reason == engine.ProjectInvalid:
		return "correct the file (bawn trust {path} shows it), or --no-project-file to ignore it"
	}
	return ""
}
