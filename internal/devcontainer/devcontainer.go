// Package devcontainer reads devcontainer.json (containers.dev/implementors/json_reference): what a
// project asks of the container that it is worked on in. The file is hostile input, for the guest may
// write to it, and a proposal: nothing here reads the host's environment or runs anything. What would
// run on the host, mount its files or take its variables is refused or left out, and said.
//
// It is pure. Finding the file, asking the person and making a sandbox of it are of the engine.
package devcontainer

import (
	"fmt"
	"strings"

	"bawn.dev/bawn/internal/compose"
)

// Config is what a file asks for. A zero field asks for nothing.
type Config struct {
	Image string
	Build *Build // in place of Image
	// Compose says that there are compose files in place of both, which UseService adds to the rest.
	Compose *Compose

	Volumes []Volume
	Ports   []uint16 // of the container

	Setup Setup
}

// Build describes an image to be built. The paths are relative to the folder of the file.
type Build struct {
	Dockerfile string
	Context    string   // directory
	Target     string   // stage; empty is the last
	Args       []string // NAME=VALUE, by name
}

// Volume is a named volume.
type Volume struct {
	Name     string
	Target   string // path in the container
	ReadOnly bool
}

// Setup is what the file asks for beside a machine: the environment of commands, and commands.
type Setup struct {
	Env  []string `json:"env,omitempty"`  // NAME=VALUE, by name; ExpandEnv completes the values
	Root bool     `json:"root,omitempty"` // commands run as root unless a user is named

	Mount     string `json:"mount,omitempty"`     // path in the container by which the project is also reached
	Workspace string `json:"workspace,omitempty"` // directory of the container in which commands run

	Hooks []Hook `json:"hooks,omitempty"` // in the order of Events

	// Features are added to the image. FeatureOrder are those that are installed first, without their versions.
	Features     []FeatureRef `json:"features,omitempty"`
	FeatureOrder []string     `json:"featureOrder,omitempty"`
	// Installed are the features that were found, with what they depend on, in the order of their
	// installation. Parse leaves it empty.
	Installed []Installed `json:"installed,omitempty"`

	// HostEnv are the variables that would have had a value of the host's environment.
	HostEnv []string `json:"hostEnv,omitempty"`
	// ComposeFiles are compose files, relative to the folder of the file.
	ComposeFiles []string `json:"composeFiles,omitempty"`
	// Stack are the services that run beside the one that is worked in. Parse leaves it empty.
	Stack *compose.Stack `json:"compose,omitempty"`
	// Hidden are files of variables that are not taken, since the sandbox does not see them.
	Hidden []string `json:"hidden,omitempty"`
	// EnvFiles are what the compose files have of files of variables that the sandbox does not see: FILE: NAME, NAME.
	EnvFiles []string `json:"envFiles,omitempty"`
	// EnvFilesNotTaken are such files of which they have nothing, though they name variables.
	EnvFilesNotTaken []string `json:"envFilesNotTaken,omitempty"`
	// Unknown are the keys that have no effect and are not of an editor.
	Unknown []string `json:"unknown,omitempty"`
}

// Event is a point in the life of a container.
type Event string

// Events are the events that have commands, in their order. The first three are once for each
// container, then one for each start and one for each use.
var Events = []Event{OnCreate, UpdateContent, PostCreate, PostStart, PostAttach}

// The events, by their keys.
const (
	OnCreate      Event = "onCreateCommand"
	UpdateContent Event = "updateContentCommand"
	PostCreate    Event = "postCreateCommand"
	PostStart     Event = "postStartCommand"
	PostAttach    Event = "postAttachCommand"
)

// Once reports whether the event is once for each container.
func (e Event) Once() bool { return e == OnCreate || e == UpdateContent || e == PostCreate }

// EachUse reports whether the event is one for each use of a container.
func (e Event) EachUse() bool { return e == PostAttach }

// Hook has the commands of an event. They run one after the other.
type Hook struct {
	Event    Event     `json:"event"`
	Commands []Command `json:"commands"`
}

// Command is one command.
type Command struct {
	Name    string   `json:"name,omitempty"`    // in the object form
	Argv    []string `json:"argv"`              // a shell's, for the string form
	Feature string   `json:"feature,omitempty"` // that has it
}

func (c Command) String() string {
	if len(c.Argv) == 3 && c.Argv[0] == shell && c.Argv[1] == shellFlag {
		return c.Argv[2]
	}
	return fmt.Sprintf("%q", c.Argv)
}

// A string is a command of this shell.
const (
	shell     = "/bin/sh"
	shellFlag = "-c"
)

// Places are the paths that stand for variables of the file.
type Places struct {
	Local     string // ${localWorkspaceFolder}: the project on the host
	Container string // ${containerWorkspaceFolder}, unless the file has one
	ID        string // ${devcontainerId}
}

// ExpandEnv returns the environment of commands, NAME=VALUE, with each ${containerEnv:NAME} replaced by
// the value that NAME has in the container's own environment, base, or by the default that follows it
// (${containerEnv:NAME:DEFAULT}), or by nothing.
func (s *Setup) ExpandEnv(base []string) []string {
	own := map[string]string{}
	for _, v := range base {
		name, value, _ := strings.Cut(v, "=")
		own[name] = value
	}
	var list []string
	for _, v := range s.Env {
		list = append(list, variable.ReplaceAllStringFunc(v, func(ref string) string {
			kind, rest, _ := strings.Cut(ref[2:len(ref)-1], ":")
			if kind != "containerEnv" {
				return ref
			}
			name, fallback, _ := strings.Cut(rest, ":")
			if value, ok := own[name]; ok {
				return value
			}
			return fallback
		}))
	}
	return list
}
