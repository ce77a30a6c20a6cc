package main

import (
	"errors"
	"strings"

	"github.com/spf13/pflag"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/project"
)

// devcontainerFlag is the flag that names a devcontainer.json.
const devcontainerFlag = "devcontainer"

// usualDevcontainer is the value of the flag without a path.
const usualDevcontainer = "find"

func registerDevcontainer(flags *pflag.FlagSet, value *string, usage string) {
	flags.StringVar(value, devcontainerFlag, "", usage)
	flags.Lookup(devcontainerFlag).NoOptDefVal = usualDevcontainer
}

// findDevcontainer returns the file that a value of the flag means, relative to the project directory;
// "" means none.
func findDevcontainer(dir, value string) (string, error) {
	switch value {
	case "":
		return "", nil
	case usualDevcontainer:
		return engine.FindDevcontainer(dir, "")
	}
	return engine.FindDevcontainer(dir, value)
}

// trustedDevcontainer returns the file that a value of the flag of bawn trust means, relative to the project
// directory. One that is named may be gone: its removal is approved, and its approval withdrawn, like that.
func trustedDevcontainer(dir, value string) (string, error) {
	switch value {
	case "":
		return "", hint(errors.New("--devcontainer names no file"), "bawn trust --devcontainer")
	case usualDevcontainer:
		return engine.FindDevcontainer(dir, "")
	}
	return engine.DevcontainerPath(dir, value)
}

// useDevcontainer adds to a request the devcontainer.json that the flag means, if it was given.
func (f *specFlags) useDevcontainer(e *engine.Engine, r *engine.Request) error {
	if !f.flags.Changed(devcontainerFlag) {
		return nil
	}
	dir := r.Dir
	if r.Name != "" {
		if spec, err := e.Named(r.Name); err == nil {
			dir = spec.Dir
		}
	} else if spec, err := e.Find(dir); err == nil && !r.Throwaway {
		dir = spec.Dir
	}
	name, err := findDevcontainer(dir, f.devcontainer)
	if err == nil {
		r.Change.Devcontainer = &name
	}
	return err
}

// setupWords lists what a devcontainer.json asks for beside what bawn.yaml can ask for; nil asks for
// nothing.
func setupWords(s *project.Setup) (list []string) {
	if s == nil {
		return nil
	}
	for _, v := range s.Env {
		list = append(list, "the variable "+v+" for every command")
	}
	if s.Root {
		list = append(list, "commands run as root of the guest, unless --user names another")
	}
	if s.Mount != "" {
		list = append(list, "the guest reaches the project at "+s.Mount+", too")
	}
	for _, h := range s.Hooks {
		when := "at each start"
		switch {
		case h.Event.Once():
			when = "once for each sandbox"
		case h.Event.EachUse():
			when = "before each command of bawn run"
		}
		for _, c := range h.Commands {
			list = append(list, "the guest runs "+when+" ("+string(h.Event)+"): "+c.String())
		}
	}
	if len(s.HostEnv) > 0 {
		list = append(list, "NOT taken: "+strings.Join(s.HostEnv, ", ")+", which would have values of the host's environment; -e NAME or bawn secret gives them")
	}
	if len(s.Unknown) > 0 {
		list = append(list, "without effect: "+strings.Join(s.Unknown, ", "))
	}
	return list
}
