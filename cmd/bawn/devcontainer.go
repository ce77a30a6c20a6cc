package main

import (
	"errors"
	"fmt"
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
	list = append(list, featureWords(s)...)
	list = append(list, stackWords(s)...)
	for _, h := range s.Hooks {
		when := "at each start"
		switch {
		case h.Event.Once():
			when = "once for each sandbox"
		case h.Event.EachUse():
			when = "before each command of bawn run"
		}
		for _, c := range h.Commands {
			by := string(h.Event)
			if c.Feature != "" {
				by += " of the feature " + c.Feature
			}
			list = append(list, "the guest runs "+when+" ("+by+"): "+c.String())
		}
	}
	for _, f := range s.EnvFiles {
		list = append(list, "the compose files GET the values of these variables, from a file that the sandbox does not see otherwise: "+f)
	}
	if len(s.HostEnv) > 0 {
		instead := "-e NAME or bawn secret gives them"
		if s.Stack != nil {
			instead += " to commands, and ${NAME:-VALUE} in a compose file to services"
		}
		list = append(list, "NOT taken: "+strings.Join(s.HostEnv, ", ")+", which would have values of the host's environment; "+instead)
	}
	if len(s.EnvFilesNotTaken) > 0 {
		list = append(list, "NOT read: "+strings.Join(s.EnvFilesNotTaken, ", ")+", which the sandbox does not see; bawn trust --devcontainer --env-file "+s.EnvFilesNotTaken[0]+" lets the compose files have the values of the variables that they name")
	}
	if len(s.Hidden) > 0 {
		list = append(list, "NOT taken: the variables in "+strings.Join(s.Hidden, ", ")+", which the sandbox does not see; --show shows such a file to the services beside it")
	}
	if len(s.Unknown) > 0 {
		list = append(list, "without effect: "+strings.Join(s.Unknown, ", "))
	}
	return list
}

// stackWords lists what the compose files of a devcontainer.json ask for beside the sandbox itself.
func stackWords(setup *project.Setup) (list []string) {
	s := setup.Stack
	if s == nil {
		return nil
	}
	list = append(list, "the sandbox is the service "+s.Service+" of "+strings.Join(s.Files, ", "))
	for _, o := range s.Services {
		words := "the sandbox's own Docker runs the service " + o.Name + " at each start, from the image " + o.Image
		if o.Build != "" {
			words = "the sandbox's own Docker runs the service " + o.Name + " at each start, from an image that it builds of " + o.Build
		}
		list = append(list, words)
		if len(o.Machine) > 0 {
			list = append(list, "  with "+strings.Join(o.Machine, ", ")+": of the sandbox, never of the host")
		}
	}
	return list
}

// featureWords lists the features of a devcontainer.json: those that were found, with what they are, else
// those that it names.
func featureWords(s *project.Setup) (list []string) {
	if len(s.Installed) == 0 {
		for _, f := range s.Features {
			list = append(list, "the feature "+f.ID+", of which is not known yet what it asks for: it is fetched when you agree to that")
		}
		return list
	}
	for _, f := range s.Installed {
		words := "the feature " + f.ID + " (" + f.Digest
		if f.Feature.Version != "" {
			words += ", version " + f.Feature.Version
		}
		words += ")"
		if len(f.Options) > 0 {
			words += fmt.Sprintf(", with %q", f.Options)
		}
		list = append(list, words)
		for _, v := range f.Feature.Env {
			list = append(list, "  which sets "+v)
		}
		for _, why := range f.Feature.NoUse {
			list = append(list, "  of which is left out "+why)
		}
	}
	return append(list, "these are installed in the image by their scripts, as root, in a machine of its own that does not see the project and may reach "+strings.Join(engine.BuildRules, ", ")+", and what build: allow: in an approved "+project.Name+" adds")
}
