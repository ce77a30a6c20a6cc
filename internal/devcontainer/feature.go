package devcontainer

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
)

// A feature (containers.dev/implementors/features) is a script, install.sh, that adds something to an
// image, with a file of its own that describes it, devcontainer-feature.json. That file is as hostile as
// devcontainer.json is, and nothing of it counts before a person has approved it.

// FeatureFile is the name of the file that describes a feature, in its folder.
const FeatureFile = "devcontainer-feature.json"

// FeatureScript is the name of the script that installs a feature, in its folder.
const FeatureScript = "install.sh"

// FeatureRef asks for a feature.
type FeatureRef struct {
	// ID is a reference in a registry, or a path from the folder of devcontainer.json, which begins
	// with ./ or ../.
	ID      string            `json:"id"`
	Options map[string]string `json:"options,omitempty"` // as they are given
}

// Local reports whether the feature is a folder of the project.
func (r FeatureRef) Local() bool {
	return strings.HasPrefix(r.ID, "./") || strings.HasPrefix(r.ID, "../")
}

// Feature is what the file of a feature says. What the machine of a sandbox has no use for is in NoUse.
type Feature struct {
	ID       string            `json:"id"`
	Version  string            `json:"version,omitempty"`
	Defaults map[string]string `json:"defaults,omitempty"` // of the options

	DependsOn     []FeatureRef `json:"dependsOn,omitempty"`
	InstallsAfter []string     `json:"installsAfter,omitempty"` // references without a version
	LegacyIDs     []string     `json:"legacyIds,omitempty"`

	Env     []string `json:"env,omitempty"` // NAME=VALUE, in the order of the file; ExpandFeatureEnv completes the values
	Volumes []Volume `json:"volumes,omitempty"`
	Hooks   []Hook   `json:"hooks,omitempty"`

	NoUse []string `json:"noUse,omitempty"` // what is left out, and why
}

// Installed is a feature that was found: what is installed, and how.
type Installed struct {
	ID      string   `json:"id"`             // as it was asked for
	Ref     string   `json:"ref,omitempty"`  // REGISTRY/REPOSITORY@DIGEST, of a registry
	Path    string   `json:"path,omitempty"` // relative to the project, of a folder
	Digest  string   `json:"digest"`         // of the artifact, or of the folder's content
	Options []string `json:"options,omitempty"`
	Feature Feature  `json:"feature"`
}

// noUse are the keys of a feature that are left out where they are not empty, with the reason.
var noUse = map[string]string{
	"privileged":  "the sandbox is a machine of its own, in which root may do everything",
	"capAdd":      "the sandbox is a machine of its own, in which root may do everything",
	"securityOpt": "the sandbox is a machine of its own, in which root may do everything",
	"init":        "the sandbox has an init",
	"entrypoint":  "there is no container to enter, and Docker is there; start what you need of it by postStartCommand",
}

// featureKeys are the keys of a feature that have an effect.
var featureKeys = map[string]func(*featureParser, *hujson.Value){
	"id":            func(p *featureParser, v *hujson.Value) { p.name(v, &p.out.ID) },
	"version":       func(p *featureParser, v *hujson.Value) { p.name(v, &p.out.Version) },
	"options":       (*featureParser).options,
	"containerEnv":  (*featureParser).env,
	"mounts":        (*featureParser).mounts,
	"dependsOn":     func(p *featureParser, v *hujson.Value) { p.out.DependsOn = p.featureRefs(v) },
	"installsAfter": func(p *featureParser, v *hujson.Value) { p.out.InstallsAfter = p.featureNames(v) },
	"legacyIds":     func(p *featureParser, v *hujson.Value) { p.out.LegacyIDs = p.featureNames(v) },
}

// featureParser reads the file of a feature.
type featureParser struct {
	parser
	out Feature
}

// ParseFeature reads the text of the file of a feature. Errors are those of Parse.
func ParseFeature(file string, text []byte, places Places) (*Feature, error) {
	p := &featureParser{parser: parser{file: file, src: text, places: places}}
	if root := p.document(); root != nil {
		p.feature(root)
	}
	if err := p.mistakes(); err != nil {
		return nil, err
	}
	return &p.out, nil
}

func (p *featureParser) feature(root *hujson.Value) {
	list := p.members(root)
	for _, m := range list {
		if read, known := featureKeys[m.key]; known && !empty(m.value) {
			read(p, m.value)
		}
		if why, known := noUse[m.key]; known && !empty(m.value) && !isFalse(m.value) {
			p.leaveOut("%s: %s", m.key, why)
		}
	}
	p.hooks(list)
	p.out.Hooks = p.parser.out.Setup.Hooks
	if p.out.ID == "" {
		p.failAt(root, "a feature without an id")
	}
}

func (p *featureParser) leaveOut(format string, args ...any) {
	p.out.NoUse = append(p.out.NoUse, fmt.Sprintf(format, args...))
}

func isFalse(v *hujson.Value) bool {
	l, ok := v.Value.(hujson.Literal)
	return ok && l.Kind() == 'f'
}

// maxName bounds the reference of a feature, its version and the name of an option, in bytes.
const maxName = 512

// name reads a short text without blanks.
func (p *parser) name(v *hujson.Value, into *string) {
	s, ok := p.raw(v)
	if ok && (len(s) > maxName || strings.ContainsAny(s, " \t\n")) {
		p.failAt(v, "%s: expected a name without blanks, of at most %d bytes", printable(clip(s)), maxName)
		return
	}
	*into = s
}

func (p *featureParser) options(v *hujson.Value) {
	p.out.Defaults = map[string]string{}
	for _, m := range p.bounded(v, "options") {
		p.checkOption(m)
		for _, f := range p.members(m.value) {
			if f.key == "default" {
				p.out.Defaults[m.key], _ = p.scalar(f.value)
			}
		}
	}
}

// checkOption checks the name of an option.
func (p *parser) checkOption(m member) {
	if len(m.key) > maxName || OptionVariable(m.key) == "" {
		p.failAt(m.value, "%s is not the name of an option", printable(clip(m.key)))
	}
}

// scalar returns a text, a truth value or a number as text; null is empty.
func (p *parser) scalar(v *hujson.Value) (string, bool) {
	l, ok := v.Value.(hujson.Literal)
	switch {
	case !ok:
		p.failAt(v, "expected text, a number, true or false")
		return "", false
	case l.Kind() == 'n':
		return "", true
	case l.Kind() == '"':
		return p.raw(v)
	}
	return string(l), true
}

// option returns the value of an option. Of a list, which some people write, it is the values with commas
// between them.
func (p *parser) option(v *hujson.Value) string {
	if _, ok := v.Value.(*hujson.Array); !ok {
		s, _ := p.scalar(v)
		return s
	}
	var values []string
	for _, e := range p.list(v) {
		s, _ := p.scalar(&e)
		values = append(values, s)
	}
	return strings.Join(values, ",")
}

// env reads the environment that a feature adds to the image.
func (p *featureParser) env(v *hujson.Value) {
	p.variables(v, func(name, value string) { p.out.Env = append(p.out.Env, name+"="+value) }, func(name string) {
		p.leaveOut("%s, which would have a value of the host's environment", name)
	})
}

// engineFolders are the folders of container engines, which a sandbox has on its own disk.
var engineFolders = []string{"/var/lib/docker", "/var/lib/containerd", "/var/lib/containers"}

// mounts reads the volumes of a feature.
func (p *featureParser) mounts(v *hujson.Value) {
	for _, e := range p.list(v) {
		fields := p.mountFields(&e)
		if fields == nil {
			continue
		}
		_, ro := fields["readonly"]
		switch source, target := fields["source"], fields["target"]; {
		case fields["type"] == "bind":
			p.leaveOut("the mount of the host's %s: files of the host are not shared by features", printable(clip(source)))
		case fields["type"] != "volume" || source == "":
			p.leaveOut("a mount at %s that is no named volume", printable(clip(target)))
		case slices.Contains(engineFolders, target):
			p.leaveOut("the volume at %s: the sandbox has it on its own disk", target)
		default:
			p.out.Volumes = append(p.out.Volumes, Volume{Name: source, Target: target, ReadOnly: ro})
		}
	}
}

// featureRefs reads features with their options.
func (p *parser) featureRefs(v *hujson.Value) (list []FeatureRef) {
	for _, m := range p.bounded(v, "features") {
		ref := FeatureRef{ID: p.featureID(m)}
		if _, ok := m.value.Value.(*hujson.Object); ok {
			ref.Options = map[string]string{}
			for _, o := range p.bounded(m.value, "options") {
				p.checkOption(o)
				ref.Options[o.key] = p.option(o.value)
			}
		} else if s, ok := p.scalar(m.value); ok && !empty(m.value) { // the short form
			ref.Options = map[string]string{"version": s}
		}
		list = append(list, ref)
	}
	return list
}

// featureID returns the key of a member of features. References of registries are lower case.
func (p *parser) featureID(m member) string {
	if len(m.key) > maxName || m.key == "" || strings.ContainsAny(m.key, " \t\n") || printable(m.key) != m.key {
		p.failAt(m.value, "%s is not the name of a feature", printable(clip(m.key)))
		return ""
	}
	if (FeatureRef{ID: m.key}).Local() {
		return m.key
	}
	return strings.ToLower(m.key)
}

// featureNames reads a list of features without options.
func (p *parser) featureNames(v *hujson.Value) (list []string) {
	for _, e := range p.list(v) {
		var s string
		if p.name(&e, &s); s != "" {
			list = append(list, strings.ToLower(s))
		}
	}
	return list
}

var (
	notInVariable = regexp.MustCompile(`[^A-Za-z0-9_]`)
	notFirst      = regexp.MustCompile(`^[0-9_]+`)
)

// OptionVariable returns the name of the variable by which a script has an option: in upper case, with
// what no name of a variable has replaced by _. It is empty if there is none.
func OptionVariable(option string) string {
	if option == "" {
		return ""
	}
	return strings.ToUpper(notFirst.ReplaceAllString(notInVariable.ReplaceAllString(option, "_"), "_"))
}

// OptionVariables returns the variables of a feature's options, NAME=VALUE, by name: what is given, else
// the defaults.
func (f *Feature) OptionVariables(given map[string]string) (list []string) {
	vars := map[string]string{}
	for _, options := range []map[string]string{f.Defaults, given} {
		for _, option := range slices.Sorted(maps.Keys(options)) {
			vars[OptionVariable(option)] = options[option]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		list = append(list, name+"="+vars[name])
	}
	return list
}

// inEnv matches a variable in the environment of a feature: as in the ENV of a Dockerfile, or as in
// devcontainer.json.
var inEnv = regexp.MustCompile(`\$(\{(containerEnv:)?[A-Za-z_][A-Za-z0-9_]*\}|[A-Za-z_][A-Za-z0-9_]*)`)

// maxEnv bounds an environment with what features add, in bytes: a value may refer to others many times.
const maxEnv = 256 << 10

// ExpandFeatureEnv returns an environment, NAME=VALUE, with the variables of a feature added, whose values
// may refer to those before them.
func ExpandFeatureEnv(base, add []string) ([]string, error) {
	list := slices.Clone(base)
	for _, v := range add {
		name, text, _ := strings.Cut(v, "=")
		size := 0
		for _, o := range list {
			size += len(o)
		}
		var value strings.Builder
		from := 0
		for _, at := range inEnv.FindAllStringIndex(text, -1) {
			value.WriteString(text[from:at[0]])
			value.WriteString(valueOf(list, strings.TrimPrefix(strings.Trim(text[at[0]:at[1]], "${}"), "containerEnv:")))
			if from = at[1]; value.Len()+size > maxEnv {
				break
			}
		}
		value.WriteString(text[from:])
		if value.Len()+size > maxEnv {
			return nil, fmt.Errorf("the variable %s makes an environment of more than %d bytes", name, maxEnv)
		}
		list = append(slices.DeleteFunc(list, func(o string) bool { return strings.HasPrefix(o, name+"=") }), name+"="+value.String())
	}
	return list, nil
}

// valueOf returns the value of a variable in a list, or "".
func valueOf(list []string, name string) string {
	for _, v := range list {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// WithFeatures returns the hooks of a devcontainer.json after those of its features, which are in the order
// of their installation: those of one event together, as they run.
func WithFeatures(own []Hook, features []Installed) (list []Hook) {
	for _, event := range Events {
		h := Hook{Event: event}
		add := func(hooks []Hook, of string) {
			for _, one := range hooks {
				for _, c := range one.Commands {
					if one.Event == event {
						h.Commands = append(h.Commands, Command{Name: c.Name, Argv: c.Argv, Feature: of})
					}
				}
			}
		}
		for _, f := range features {
			add(f.Feature.Hooks, f.ID)
		}
		if add(own, ""); len(h.Commands) > 0 {
			list = append(list, h)
		}
	}
	return list
}
