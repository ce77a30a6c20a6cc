package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// This file helps who is used to docker, podman, lima or ssh: words and flags of theirs that bawn
// does not have are answered with what does the same here.

// habitualVerbs says for words that are no commands of bawn which command does the same.
var habitualVerbs = map[string]string{
	"attach": "shell", "enter": "shell", "connect": "shell", "sh": "shell", "bash": "shell",
	"create": "run -- COMMAND", "start": "run -- COMMAND", "up": "run -- COMMAND", "restart": "stop",
	"kill": "stop", "down": "stop", "halt": "stop", "shutdown": "stop", "poweroff": "stop",
	"pause": "suspend", "unpause": "resume", "wake": "resume",
	"top": "stats", "info": "inspect", "show": "inspect", "status": "ls",
	"images": "image ls", "pull": "image pull", "build": "image build", "commit": "image commit", "rmi": "image rm",
	"delete": "rm", "destroy": "rm", "prune": "rm --help", "copy": "cp", "diff": "review", "revert": "undo",
	"allow": "policy allow", "deny": "policy deny", "network": "net", "ports": "port", "publish": "port",
	"secrets": "secret", "volumes": "volume", "clone": "fork", "ssh": "ssh-config",
}

// suggestVerb returns what to type instead of a word that is no command of c, or "".
func suggestVerb(c *cobra.Command, word string) string {
	if verb, ok := habitualVerbs[strings.ToLower(word)]; ok && !c.HasParent() {
		return verb
	}
	if c.SuggestionsMinimumDistance <= 0 {
		c.SuggestionsMinimumDistance = 2 // cobra's own default
	}
	if len(word) < 5 {
		c.SuggestionsMinimumDistance = 1 // two letters of a short word make nearly any other
	}
	if near := c.SuggestionsFor(word); len(near) > 0 {
		return near[0]
	}
	return ""
}

// habitualFlags says for flags that bawn does not have what does the same.
var habitualFlags = []struct {
	flags  []string // without hyphens
	verbs  []string // the commands where it is known
	answer string
}{
	{[]string{"d", "detach"}, []string{"run", "exec"}, "bawn run -- COMMAND & (a sandbox goes on without it)"},
	{[]string{"v"}, []string{"run", "shell"}, "--mount SRC[:DST][:ro] for a directory of the host, --volume NAME:PATH for a named volume"},
	{[]string{"m"}, []string{"run", "shell"}, "--memory SIZE"},
	{[]string{"w", "workdir"}, []string{"run"}, "cd DIRECTORY && bawn run -- COMMAND, or bawn exec -w DIRECTORY NAME -- COMMAND"},
	{[]string{"env-file"}, []string{"run", "exec"}, "-e NAME for each variable, or bawn secret for keys"},
	{[]string{"network", "net"}, []string{"run", "shell"}, "--allow RULE (bawn policy --help)"},
	{[]string{"privileged", "cap-add", "security-opt", "device"}, []string{"run", "exec", "shell"}, "-u root: the sandbox is a machine of its own, in which root may do anything"},
	{[]string{"tail"}, []string{"logs"}, "bawn logs | tail"},
	{[]string{"f", "format"}, []string{"inspect", "ls", "stats"}, "--json, and jq"},
	{[]string{"t", "time"}, []string{"stop"}, "bawn stop without it: it ends the sandbox in bounded time"},
	{[]string{"c", "command"}, []string{"shell"}, "bawn run -- sh -c COMMAND"},
}

// habitualFlag returns an error that says what does the same as a flag that a command does not
// have, or nil.
func habitualFlag(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return nil
	}
	flag := unknown.GetSpecifiedName()
	for _, h := range habitualFlags {
		if slices.Contains(h.flags, flag) && slices.Contains(h.verbs, c.Name()) {
			dash := "--"
			if len(flag) == 1 {
				dash = "-"
			}
			return hint(fmt.Errorf("%s has no %s%s", c.CommandPath(), dash, flag), "%s", h.answer)
		}
	}
	return nil
}

// acceptHabits accepts flags without which docker gives a command no input and no terminal. A
// command of bawn has the input, and a terminal where bawn has one.
func acceptHabits(c *cobra.Command) {
	for _, name := range []string{"interactive", "tty"} {
		c.Flags().BoolP(name, name[:1], true, "accepted, and always so (see -n and -T)")
		_ = c.Flags().MarkHidden(name)
	}
}
