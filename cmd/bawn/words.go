package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/sys/text"
)

// flagOf are the flags that set fields of a spec.
var flagOf = map[string]string{"agents": "agent", "mounts": "mount", "ports": "publish", "hosts": "add-host", "noGitIdentity": "no-git-identity", "noGuard": "no-guard", "ownAddress": "own-address", "shareGit": "share-git", "volumes": "volume", "localDirs": "local-dir", "caches": "cache"}

func flagFor(field string) string {
	if f, ok := flagOf[field]; ok {
		return "--" + f
	}
	return "--" + field
}

// message returns the text of an error, with flags in place of the names of fields.
func message(err error) string {
	msg := err.Error()
	var field *sandbox.FieldError
	if errors.As(err, &field) {
		msg = strings.Replace(msg, field.Error(), flagFor(field.Field)+" "+field.Problem, 1)
	}
	if unsafe := (*secret.UnsafeError)(nil); errors.As(err, &unsafe) {
		msg += ": " + unsafe.Why.Error()
	}
	e := engine.As(err)
	if e == nil {
		return text.Block(msg)
	}
	switch {
	case e.Reason == engine.NeedsRestart && len(e.Fields) > 0:
		var flags []string
		for _, f := range e.Fields {
			flags = append(flags, flagFor(f))
		}
		slices.Sort(flags)
		msg = strings.Replace(msg, e.Error(), fmt.Sprintf("sandbox %s is running; changes to %s take effect at its next start", e.Sandbox, strings.Join(flags, ", ")), 1)
	case e.Reason == engine.Exists && e.Throwaway:
		msg = strings.Replace(msg, e.Error(), fmt.Sprintf("a sandbox named %s exists already, and --rm would remove it", e.Sandbox), 1)
	case e.Reason == engine.NotApproved: // it is one line, whatever the path
		return text.Line(msg)
	}
	return text.Block(msg)
}

// noticeWords returns a notice as it is shown, and the next step, if that goes into a line of
// its own.
func noticeWords(n engine.Notice) (msg, step string) {
	msg = n.Text
	switch n.Reason {
	case engine.NotApproved:
		msg += fmt.Sprintf("; to approve it: bawn trust %s", trustArguments(n.Path, n.Fields))
	case engine.ImageFixed:
		file := project.Name
		if n.Path != "" {
			file = n.Path
		}
		msg += fmt.Sprintf(", which differs from the one in %s; to use that one: bawn rm %s, then run the same command again", file, n.Sandbox)
	case engine.DevcontainerThere:
		msg += fmt.Sprintf("; to use it: bawn rm %s, then bawn run --devcontainer", n.Sandbox)
	case engine.ImageOlder:
		msg += fmt.Sprintf("; to begin anew with that: bawn rm %s, then run the same command again", n.Sandbox)
	case engine.NeedsRestart:
		msg += fmt.Sprintf("; to apply it now: bawn stop %s, then run the same command again", n.Sandbox)
	case engine.PoolMemberFailed, engine.StartRepeated:
		msg += ": " + n.Err.Error()
	case engine.StopSlow:
		step = fmt.Sprintf("bawn stop --force %s turns it off at once", n.Sandbox)
	case engine.RepositoryOutside:
		step = fmt.Sprintf("--mount %s shares it, from the sandbox's next start on; its hooks and settings stay as they are on the host", pathArgument(n.Path))
	case engine.GitDirOutside:
		step = "--share-git shares what git needs of it, from the sandbox's next start on; --share-git=false goes on without"
	case engine.ObjectsOutside:
		step = fmt.Sprintf("--mount %s shares it, from the sandbox's next start on; or copy the objects on the host with git repack -a -d, and remove .git/objects/info/alternates", pathArgument(n.Path+":ro"))
	case engine.LocalDirUseful:
		for _, dir := range n.Fields {
			msg += fmt.Sprintf(" (--local-dir %s, from the sandbox's next start on)", pathArgument(dir))
		}
	case engine.PathsHidden:
		msg += " (--show PATTERN shows them, from the sandbox's next start on)"
	case engine.SecretMissing:
		for _, name := range n.Fields {
			msg += "; to set it: " + setSecretCommand(name)
		}
	case engine.HostDiskFull:
		step = fmt.Sprintf("free space on the file system of %s, or bawn stop --force %s", n.Path, n.Sandbox)
	case engine.RulesSyntax:
		return text.Block(msg), text.Block(nextStep(n.Err)) // a line for each mistake
	}
	return text.Line(msg), text.Line(step)
}

// otherFile returns the file of a check as trustArguments takes it: none for bawn.yaml.
func otherFile(c *project.Check) []string {
	if c.Name == "" || c.Name == project.Name {
		return nil
	}
	return []string{c.Name}
}

// trustArguments returns the arguments of bawn trust for a project directory, or for the file in it that
// is named.
func trustArguments(dir string, file []string) string {
	if len(file) == 0 {
		return pathArgument(dir)
	}
	return "--devcontainer=" + pathArgument(filepath.Join(dir, file[0])) + " " + pathArgument(dir)
}

// pathArgument returns a path quoted for a shell.
func pathArgument(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") != "" {
		path = shellQuote(path)
	}
	return text.Line(path)
}
