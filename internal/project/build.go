package project

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"bawn.dev/bawn/internal/policy"
)

// Build describes the image that is built for a project's sandboxes. Its paths are relative to the
// project, and lie in it.
type Build struct {
	Context string   `json:"context"`          // directory; "." is the project itself
	File    string   `json:"file,omitempty"`   // Dockerfile; empty is the context's
	Target  string   `json:"target,omitempty"` // stage; empty is the last
	Args    []string `json:"args,omitempty"`   // NAME=VALUE
	Allow   []string `json:"allow,omitempty"`  // rules of the build alone, in canonical form
}

// Dockerfile returns the path of the Dockerfile, relative to the project.
func (b *Build) Dockerfile() string {
	if b.File != "" {
		return b.File
	}
	return filepath.Join(b.Context, "Dockerfile")
}

const (
	maxBuildArgs = 64
	maxBuildText = 4096 // of a path, a target or an argument, in bytes
)

var (
	// argName matches the names of build arguments, which are those of shell variables.
	argName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	// stageRule matches the names and the numbers of stages.
	stageRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
)

// Check returns what is wrong with a build, with the name of the key, or an empty string and nil.
func (b *Build) Check() (key string, err error) {
	for _, p := range []struct{ key, path string }{{"context", b.Context}, {"file", b.File}} {
		if err := checkInside(p.path); p.path != "" && err != nil {
			return p.key, err
		}
	}
	if b.Target != "" && (!stageRule.MatchString(b.Target) || len(b.Target) > maxBuildText) {
		return "target", fmt.Errorf("%q is not the name of a stage", b.Target)
	}
	if len(b.Args) > maxBuildArgs {
		return "args", fmt.Errorf("more than %d arguments", maxBuildArgs)
	}
	var names []string
	for _, a := range b.Args {
		name, _, given := strings.Cut(a, "=")
		switch {
		case !argName.MatchString(name):
			return "args", fmt.Errorf("%q is not the name of an argument", name)
		case !given:
			return "args", fmt.Errorf("the argument %s has no value: write %s=VALUE; the environment of the host is not handed in", name, name)
		case slices.Contains(names, name):
			return "args", fmt.Errorf("the argument %s is given twice", name)
		case len(a) > maxBuildText:
			return "args", fmt.Errorf("the argument %s has more than %d bytes", name, maxBuildText)
		}
		names = append(names, name)
	}
	return "", nil
}

// checkInside returns an error unless a path is relative and leads to nothing outside the project.
func checkInside(path string) error {
	switch {
	case len(path) > maxBuildText:
		return fmt.Errorf("a path of more than %d bytes", maxBuildText)
	case !filepath.IsLocal(path):
		return fmt.Errorf("%q does not lie in the project: write a path relative to the project", path)
	}
	return nil
}

// build reads the value of build: a directory, or a mapping.
func (p *parser) build(n *yaml.Node) {
	b := &Build{Context: "."}
	at := map[string]*yaml.Node{}
	text := func(key string, into *string) func(*parser, *yaml.Node) {
		return func(p *parser, n *yaml.Node) {
			at[key] = n
			if s, ok := p.scalar(n, "!!str"); ok {
				*into = s
			}
		}
	}
	switch n.Kind {
	case yaml.MappingNode:
		p.mapping(n, map[string]func(*parser, *yaml.Node){
			"context": text("context", &b.Context),
			"file":    text("file", &b.File),
			"target":  text("target", &b.Target),
			"args":    func(p *parser, n *yaml.Node) { at["args"] = n; p.buildArgs(n, &b.Args) },
			"allow":   func(p *parser, n *yaml.Node) { p.list(n, p.rule(policy.Allow, &b.Allow)) },
		})
	default:
		text("context", &b.Context)(p, n)
	}
	if key, err := b.Check(); err != nil {
		where := n
		if at[key] != nil {
			where = at[key]
		}
		p.failAt(where, "build: %v", err)
		return
	}
	b.Context = filepath.Clean(b.Context)
	if b.File != "" {
		b.File = filepath.Clean(b.File)
	}
	p.out.Build = b
}

// buildArgs reads the arguments of a build: a mapping of names to values, or a list of NAME=VALUE.
func (p *parser) buildArgs(n *yaml.Node, into *[]string) {
	if n.Kind != yaml.MappingNode {
		p.list(n, func(n *yaml.Node) {
			if s, ok := p.scalar(n, "!!str"); ok {
				*into = append(*into, s)
			}
		})
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, ok := p.scalar(n.Content[i], "!!str")
		value := n.Content[i+1]
		if value.Kind == yaml.ScalarNode && value.Tag == "!!str" && value.Value == "" { // scalar wants a value
			*into = append(*into, name+"=")
			continue
		}
		if v, valid := p.scalar(value, "!!str", "!!int", "!!float", "!!bool"); ok && valid {
			*into = append(*into, name+"="+v)
		}
	}
}
