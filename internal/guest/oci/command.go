package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// command is what a call of runc is about.
type command struct {
	verb    string // create, run, exec, delete or another one
	root    string // where runc keeps the states of containers
	bundle  string // folder of config.json
	process string // file with the process of an exec
	id      string
}

// withValue are the global options of runc(8) that a value follows.
var withValue = []string{"root", "log", "log-format", "rootless", "criu"}

// parse reads the arguments of runc.
func parse(args []string) command {
	c := command{root: "/run/runc", bundle: "."}
	i := 0
	for ; i < len(args) && strings.HasPrefix(args[i], "-"); i++ {
		name, value, joined := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if !joined && slices.Contains(withValue, name) && i+1 < len(args) {
			i++
			value = args[i]
		}
		if name == "root" {
			c.root = value
		}
	}
	if i == len(args) {
		return c
	}
	c.verb, args = args[i], args[i+1:]
	for i, a := range args {
		name, value, joined := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !joined && i+1 < len(args) {
			value = args[i+1]
		}
		switch {
		case !strings.HasPrefix(a, "-"):
		case name == "bundle" || name == "b":
			c.bundle = value
		case name == "process" || name == "p":
			c.process = value
		}
	}
	if len(args) > 0 {
		c.id = args[len(args)-1]
	}
	return c
}

// validID reports whether a container's name is the name of a file.
func validID(id string) bool { return id != "" && id != "." && id != ".." && id == filepath.Base(id) }

// initRoot returns the root of a container that runs and has the certificates, as the guest
// sees it; otherwise "".
func (c command) initRoot() string {
	var state struct {
		PID int `json:"init_process_pid"`
	}
	if !validID(c.id) || readJSON(filepath.Join(c.root, c.id, "state.json"), &state) != nil || state.PID <= 0 {
		return ""
	}
	root := fmt.Sprintf("/proc/%d/root", state.PID)
	if _, err := os.Lstat(root + inContainer); err != nil {
		return ""
	}
	return root
}
