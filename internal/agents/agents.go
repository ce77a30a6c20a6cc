// Package agents knows the coding agents that bawn starts by one word, and installs their
// programs on the host.
//
// Theory of operation. An agent is data (Agent): builtin.yaml has those that come with bawn, and
// the person's agents.yaml adds to them. Its programs are packages of npm's registry. Install
// fetches them with a client of its own (package registry, below): no program of a package and
// no install script runs on the host, every archive is checked against the SHA-512 that the registry
// names, and the result is an entry of the cache, which a guest gets read-only:
//
//	bin/NAME         a shell script that prepares the agent's home and starts the program
//	lib/             the package with the program
//	node/            Node.js, where the program needs it
//	instructions.md  what the agent reads about the sandbox
//
// What install scripts of these packages do is put the platform's binary in the place of a stub.
// The script in bin starts that binary instead.
package agents

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"bawn.dev/bawn/internal/login"
)

// Agent describes a coding agent. In paths and package names {cpu} stands for npm's name of the
// processor (x64, arm64) and {machine} for the kernel's (x86_64, aarch64).
type Agent struct {
	Name     string `json:"name"` // the word that starts it
	Summary  string `json:"summary,omitempty"`
	Package  string `json:"package"`            // of npm's registry; its version is the agent's
	Platform string `json:"platform,omitempty"` // package with the program for Linux, which Package names; empty: Package itself
	Program  string `json:"program"`            // file in that package
	Node     string `json:"node,omitempty"`     // major version of Node.js that runs the program; empty: it runs by itself

	Autonomy []string `json:"autonomy,omitempty"` // arguments for full autonomy, before all others
	// Subcommands holds, by subcommand, the arguments for full autonomy that follow it and replace
	// Autonomy; an empty list is none. It is for programs that do not take Autonomy before a
	// subcommand.
	Subcommands map[string][]string `json:"subcommands,omitempty"`
	Allow       []string            `json:"allow,omitempty"` // rules that it needs at work

	Env     map[string]string `json:"env,omitempty"`     // variables in the guest; {home} is the agent's home
	Pass    []string          `json:"pass,omitempty"`    // variables of the host that it gets
	Secrets []string          `json:"secrets,omitempty"` // secrets that it takes (bawn secret)

	Links        map[string]string `json:"links,omitempty"` // path below the user's home: path in the agent's home
	Login        []string          `json:"login,omitempty"` // files in its home that hold the login
	Instructions string            `json:"instructions,omitempty"`

	OAuth *login.Definition `json:"oauth,omitempty"` // how it logs in; nil: bawn does not know
}

//go:embed builtin.yaml
var builtin []byte

// FileName is the file in the configuration folder that adds agents and changes them.
const FileName = "agents.yaml"

// Builtin returns the agents that come with bawn.
func Builtin() []Agent {
	list, err := Parse("builtin.yaml", builtin, nil)
	if err != nil {
		panic(err) // TestBuiltin parses it
	}
	return list
}

// maxFile bounds agents.yaml, in bytes.
const maxFile = 1 << 20

// Parse reads a file of agents: a mapping from names to their fields. The fields of an agent
// that is in base replace that one's; other agents are added. The order is that of base, then
// of the file. Everything that is not known is an error with its line.
func Parse(file string, text []byte, base []Agent) (list []Agent, err error) {
	defer func() { // the library may panic on hostile bytes
		if r := recover(); r != nil {
			list, err = nil, fmt.Errorf("%s: this is not valid YAML", file)
		}
	}()
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: more than %d bytes", file, maxFile)
	}
	list = slices.Clone(base)
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(doc.Content) == 0 {
		return list, nil
	}
	root := doc.Content[0]
	var errs []error
	seen := map[string]bool{}
	each(file, root, &errs, func(key, value *yaml.Node) {
		name := key.Value
		if seen[name] {
			errs = append(errs, fmt.Errorf("%s:%d: %q is there twice", file, key.Line, name))
			return
		}
		seen[name] = true
		at := slices.IndexFunc(list, func(a Agent) bool { return a.Name == name })
		a := Agent{Name: name}
		if at >= 0 {
			a = list[at]
		}
		parseAgent(file, value, &a, &errs)
		if err := a.Check(); err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", file, key.Line, err))
		}
		if at >= 0 {
			list[at] = a
		} else {
			list = append(list, a)
		}
	})
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return list, nil
}

// each calls f for the keys of a mapping.
func each(file string, n *yaml.Node, errs *[]error, f func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		*errs = append(*errs, fmt.Errorf("%s:%d: write a mapping, NAME: VALUE", file, n.Line))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		f(n.Content[i], n.Content[i+1])
	}
}

// parseAgent reads the fields of one agent.
func parseAgent(file string, n *yaml.Node, a *Agent, errs *[]error) {
	fields := map[string]any{
		"summary": &a.Summary, "package": &a.Package, "platform": &a.Platform, "program": &a.Program, "node": &a.Node,
		"autonomy": &a.Autonomy, "subcommands": &a.Subcommands, "allow": &a.Allow, "env": &a.Env, "pass": &a.Pass, "secrets": &a.Secrets,
		"links": &a.Links, "login": &a.Login, "instructions": &a.Instructions, "oauth": &a.OAuth,
	}
	parseFields(file, n, fields, errs)
}

// parseOAuth reads how an agent logs in.
func parseOAuth(file string, n *yaml.Node, errs *[]error) *login.Definition {
	var d login.Definition
	parseFields(file, n, map[string]any{
		"endpoints": &d.Endpoints, "api": &d.API, "command": &d.Command, "refuse": &d.Refuse, "claims": &d.Claims,
		"file": &d.File, "host": &d.Host, "fields": &d.Fields, "expires": &d.Expires,
	}, errs)
	return &d
}

// parseFields reads a mapping into fields.
func parseFields(file string, n *yaml.Node, fields map[string]any, errs *[]error) {
	seen := map[string]bool{}
	each(file, n, errs, func(key, value *yaml.Node) {
		into, ok := fields[key.Value]
		switch {
		case !ok:
			*errs = append(*errs, fmt.Errorf("%s:%d: there is no field %q; the fields are %s", file, key.Line, key.Value, strings.Join(slices.Sorted(maps.Keys(fields)), ", ")))
			return
		case seen[key.Value]:
			*errs = append(*errs, fmt.Errorf("%s:%d: %q is there twice", file, key.Line, key.Value))
			return
		}
		seen[key.Value] = true
		switch m := into.(type) { // replaced, not merged into the map of the base
		case **login.Definition:
			*m = parseOAuth(file, value, errs)
			return
		case *map[string]string:
			*m = nil
		case *map[string][]string:
			*m = nil
		}
		if err := value.Decode(into); err != nil {
			*errs = append(*errs, fmt.Errorf("%s:%d: %s: %w", file, value.Line, key.Value, err))
		}
	})
}

var (
	nameRule     = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)
	packageRule  = regexp.MustCompile(`^(@[a-z0-9._-]+/)?[a-z0-9][a-z0-9._-]*$`) // with {cpu} replaced
	variableRule = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	nodeRule     = regexp.MustCompile(`^[1-9][0-9]{0,2}$`)
)

// Check returns what is wrong with the agent.
func (a *Agent) Check() error {
	switch {
	case !nameRule.MatchString(a.Name):
		return fmt.Errorf("%q cannot be the name of an agent: use lower-case letters, digits and hyphens", a.Name)
	case !packageRule.MatchString(a.Package):
		return fmt.Errorf("%s: package %q is not the name of a package of npm", a.Name, a.Package)
	case a.Platform != "" && !packageRule.MatchString(expand(a.Platform, "amd64")):
		return fmt.Errorf("%s: platform %q is not the name of a package of npm", a.Name, a.Platform)
	case !inside(a.Program):
		return fmt.Errorf("%s: program %q is not the path of a file in the package", a.Name, a.Program)
	case a.Node != "" && !nodeRule.MatchString(a.Node):
		return fmt.Errorf("%s: node %q is not a major version, such as 22", a.Name, a.Node)
	case a.Instructions != "" && !inside(a.Instructions):
		return fmt.Errorf("%s: instructions %q is not a path in the agent's home", a.Name, a.Instructions)
	}
	for _, p := range slices.Concat(a.Login, slices.Collect(maps.Keys(a.Links)), slices.Collect(maps.Values(a.Links))) {
		if !inside(p) {
			return fmt.Errorf("%s: %q is not a path within a home", a.Name, p)
		}
	}
	for _, v := range slices.Concat(a.Pass, a.Secrets, slices.Collect(maps.Keys(a.Env))) {
		if !variableRule.MatchString(v) {
			return fmt.Errorf("%s: %q cannot be the name of a variable", a.Name, v)
		}
	}
	if a.OAuth != nil {
		if err := a.OAuth.Check(); err != nil {
			return fmt.Errorf("%s: oauth: %w", a.Name, err)
		}
	}
	return nil
}

// Arguments returns the arguments of the agent's program for those that the person gave, with the
// ones for full autonomy.
func (a *Agent) Arguments(args []string) []string {
	if len(args) > 0 {
		if own, ok := a.Subcommands[args[0]]; ok {
			return slices.Concat(args[:1], own, args[1:])
		}
	}
	return slices.Concat(a.Autonomy, args)
}

// inside reports whether p is a clean path that stays within its directory.
func inside(p string) bool {
	return p != "" && p == path.Clean(p) && !path.IsAbs(p) && p != "." && p != ".." && !strings.HasPrefix(p, "../") && !strings.ContainsAny(p, "\x00\n")
}

// expand replaces {cpu} and {machine} for a processor, by Go's name.
func expand(s, arch string) string {
	cpu, machine := "x64", "x86_64"
	if arch == "arm64" {
		cpu, machine = "arm64", "aarch64"
	}
	return strings.NewReplacer("{cpu}", cpu, "{machine}", machine).Replace(s)
}
