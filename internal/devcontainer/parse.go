package devcontainer

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tailscale/hujson"
)

// Limits of what is read, so that the person can look at it.
const (
	maxValue    = 16 << 10 // of a text, in bytes
	maxItems    = 64       // of a list or an object
	maxKeys     = 256      // of an object whose keys are names of settings
	maxDepth    = 32       // of values in values
	maxMistakes = 10       // reported at once
	maxPort     = 65535
)

// Error is a mistake in the file.
type Error struct {
	File string
	Line int // from 1
	Msg  string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg) }

// Parse reads the text of a file: JSON with comments and trailing commas. file is for errors, which
// are *Error, joined.
func Parse(file string, text []byte, places Places) (*Config, error) {
	p := &parser{file: file, src: text, places: places}
	if root := p.document(); root != nil {
		p.config(root)
	}
	if err := p.mistakes(); err != nil {
		return nil, err
	}
	return &p.out, nil
}

// mistakes returns the mistakes that were found, within limits.
func (p *parser) mistakes() error {
	if len(p.errs) > maxMistakes {
		p.errs = append(p.errs[:maxMistakes], fmt.Errorf("%s: and %d more mistakes", p.file, len(p.errs)-maxMistakes))
	}
	return errors.Join(p.errs...)
}

type parser struct {
	file   string
	src    []byte
	places Places
	out    Config
	errs   []error

	containerEnv, remoteEnv map[string]string
}

func (p *parser) fail(offset int, format string, args ...any) {
	line := 1 + bytes.Count(p.src[:min(max(offset, 0), len(p.src))], []byte("\n"))
	p.errs = append(p.errs, &Error{p.file, line, fmt.Sprintf(format, args...)})
}

func (p *parser) failAt(v *hujson.Value, format string, args ...any) {
	p.fail(v.StartOffset, format, args...)
}

// document returns the object that the file consists of.
func (p *parser) document() *hujson.Value {
	if !utf8.Valid(p.src) {
		p.fail(0, "the file is not valid UTF-8")
		return nil
	}
	if tooDeep(p.src) {
		p.fail(0, "more than %d values in one another", maxDepth)
		return nil
	}
	v, err := hujson.Parse(p.src)
	if err != nil {
		p.notJSON(err)
		return nil
	}
	if _, ok := v.Value.(*hujson.Object); !ok {
		p.failAt(&v, "expected an object: { ... }")
		return nil
	}
	return &v
}

// notJSON reports an error of hujson.Parse, whose text begins with the place.
func (p *parser) notJSON(err error) {
	line, column := 1, 1
	what := err.Error()
	if _, scanErr := fmt.Sscanf(what, "hujson: line %d, column %d:", &line, &column); scanErr == nil {
		_, what, _ = strings.Cut(what, ", column ")
		_, what, _ = strings.Cut(what, ": ")
	}
	p.errs = append(p.errs, &Error{p.file, line, fmt.Sprintf("this is not JSON, in column %d: %s", column, printable(what))})
}

// tooDeep reports whether values are nested too deeply for a parser that calls itself. Brackets in texts
// and comments do not count: closing ones there would hide how deep the others are.
func tooDeep(text []byte) bool {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i += endOfText(text[i:])
		case '/':
			i += endOfComment(text[i:])
		case '{', '[':
			if depth++; depth > maxDepth {
				return true
			}
		case '}', ']':
			depth = max(depth-1, 0)
		}
	}
	return false
}

// endOfText returns the place of the quote that ends the text at the beginning of b, or of the end of b.
func endOfText(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(b)
}

// endOfComment returns the place of the last byte of the comment at the beginning of b; 0 if there is
// none.
func endOfComment(b []byte) int {
	for open, end := range map[string]string{"//": "\n", "/*": "*/"} {
		if rest, ok := bytes.CutPrefix(b, []byte(open)); ok {
			if i := bytes.Index(rest, []byte(end)); i >= 0 {
				return len(open) + i + len(end) - 1
			}
			return len(b)
		}
	}
	return 0
}

// printable returns a text with what cannot be shown quoted.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		return strconv.Quote(s)
	}
	return s
}

// member is one key of an object with its value.
type member struct {
	key   string
	value *hujson.Value
}

// members returns the members of an object, in the order of the file. Keys that are given twice are
// mistakes: readers of JSON disagree on which one counts.
func (p *parser) members(v *hujson.Value) (list []member) {
	o, ok := v.Value.(*hujson.Object)
	if !ok {
		p.failAt(v, "expected an object: { ... }")
		return nil
	}
	if len(o.Members) > maxKeys {
		p.failAt(v, "more than %d keys", maxKeys)
		return nil
	}
	seen := map[string]bool{}
	for i := range o.Members {
		m := &o.Members[i]
		key := m.Name.Value.(hujson.Literal).String()
		if seen[key] {
			p.failAt(&m.Name, "the key %q is given twice", key)
			continue
		}
		seen[key] = true
		list = append(list, member{key, &m.Value})
	}
	return list
}

// bounded returns the members of an object, of which there are at most maxItems.
func (p *parser) bounded(v *hujson.Value, what string) []member {
	list := p.members(v)
	if len(list) > maxItems {
		p.failAt(v, "more than %d %s", maxItems, what)
		return nil
	}
	return list
}

// editors are keys of editors and of hosting services, which mean nothing here.
var editors = []string{
	"$schema", "name", "customizations", "settings", "extensions", "devPort", "portsAttributes", "otherPortsAttributes",
	"hostRequirements", "secrets", "userEnvProbe", "waitFor", "shutdownAction", "overrideCommand", "updateRemoteUserUID",
}

// refused are the keys that are an error, with what to do instead.
var refused = map[string]string{
	"initializeCommand": "it would run on the host: run it yourself, and take it out of a copy of the file (--devcontainer=COPY)",
}

// keys are the keys that have an effect, with the functions that read their values.
var keys = map[string]func(*parser, *hujson.Value){
	"image":           (*parser).image,
	"build":           (*parser).build,
	"dockerFile":      func(p *parser, v *hujson.Value) { p.buildText(v, "dockerFile") }, // the older form
	"context":         func(p *parser, v *hujson.Value) { p.buildText(v, "context") },
	"containerEnv":    func(p *parser, v *hujson.Value) { p.containerEnv = p.env(v) },
	"remoteEnv":       func(p *parser, v *hujson.Value) { p.remoteEnv = p.env(v) },
	"remoteUser":      func(*parser, *hujson.Value) {}, // user
	"containerUser":   func(*parser, *hujson.Value) {},
	"workspaceFolder": func(*parser, *hujson.Value) {}, // workspace
	"workspaceMount":  func(*parser, *hujson.Value) {},
	"forwardPorts":    (*parser).ports,
	"appPort":         (*parser).ports,
	"mounts":          (*parser).mounts,
	"features":        (*parser).features,

	"dockerComposeFile": (*parser).composeFiles,
	"service":           (*parser).composeService,
	"runServices":       (*parser).runServices,

	"overrideFeatureInstallOrder": func(p *parser, v *hujson.Value) { p.out.Setup.FeatureOrder = p.featureNames(v) },
}

// features reads the features to be installed.
func (p *parser) features(v *hujson.Value) {
	if !empty(v) {
		p.out.Setup.Features = p.featureRefs(v)
	}
}

func (p *parser) config(root *hujson.Value) {
	list := p.members(root)
	if slices.ContainsFunc(list, func(m member) bool { return m.key == "dockerComposeFile" && !empty(m.value) }) {
		p.out.Compose = &Compose{}
	}
	p.workspace(list)
	for _, m := range list {
		read, known := keys[m.key]
		switch why, no := refused[m.key]; {
		case no && !empty(m.value):
			p.failAt(m.value, "%s: %s", m.key, why)
		case no, slices.Contains(editors, m.key), slices.Contains(Events, Event(m.key)):
		case !known:
			p.out.Setup.Unknown = append(p.out.Setup.Unknown, printable(clip(m.key)))
		default:
			read(p, m.value)
		}
	}
	p.hooks(list)
	p.user(list)
	p.joinEnv()
	if p.out.Build != nil && p.out.Build.Dockerfile == "" {
		p.failAt(root, "a build without the name of a Dockerfile: write \"build\": {\"dockerfile\": \"Dockerfile\"}")
	}
	if p.out.Image != "" && p.out.Build != nil {
		p.failAt(root, "image and build are both given: keep one")
	}
	p.checkCompose(root)
}

// hooks reads the commands of all events, in their order.
func (p *parser) hooks(list []member) {
	for _, event := range Events {
		for _, m := range list {
			if m.key == string(event) {
				p.hook(event, m.value)
			}
		}
	}
}

// maxKey bounds an unknown key as it is shown, in bytes.
const maxKey = 60

func clip(s string) string {
	if len(s) > maxKey {
		return strings.ToValidUTF8(s[:maxKey], "") + "..."
	}
	return s
}

// empty reports whether a value asks for nothing.
func empty(v *hujson.Value) bool {
	switch v := v.Value.(type) {
	case hujson.Literal:
		return v.Kind() == 'n' || v.Kind() == '"' && v.String() == ""
	case *hujson.Object:
		return len(v.Members) == 0
	case *hujson.Array:
		return len(v.Elements) == 0
	}
	return false
}

// text returns a text with its variables replaced.
func (p *parser) text(v *hujson.Value) (string, bool) {
	_, s, host, ok := p.replaced(v)
	switch {
	case !ok:
	case len(host) > 0:
		p.failAt(v, "%s would take a variable of the host's environment, which is not handed in: write its value, or a default (${localEnv:%s:DEFAULT})", host[0], host[0])
	case strings.Contains(s, "${containerEnv:"):
		p.failAt(v, "${containerEnv:...} is known in remoteEnv and containerEnv only")
	default:
		return s, true
	}
	return "", false
}

// replaced returns a text as it is written, and with its variables replaced. host are the names of
// those of the host's environment that have no default.
func (p *parser) replaced(v *hujson.Value) (raw, s string, host []string, ok bool) {
	if raw, ok = p.raw(v); !ok {
		return "", "", nil, false
	}
	s, host, bad := p.replace(raw)
	if bad != "" {
		p.failAt(v, "the variable %s is not known here", printable(bad))
		return "", "", nil, false
	}
	return raw, s, host, true
}

// raw returns a text as it is written.
func (p *parser) raw(v *hujson.Value) (string, bool) {
	l, ok := v.Value.(hujson.Literal)
	if !ok || l.Kind() != '"' {
		p.failAt(v, "expected text")
		return "", false
	}
	s := l.String()
	if len(s) > maxValue || strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }) >= 0 {
		p.failAt(v, "a text that is too long or cannot be shown")
		return "", false
	}
	return s, true
}

// list returns the elements of a list within limits.
func (p *parser) list(v *hujson.Value) []hujson.Value {
	a, ok := v.Value.(*hujson.Array)
	if !ok {
		p.failAt(v, "expected a list")
		return nil
	}
	if len(a.Elements) > maxItems {
		p.failAt(v, "more than %d items", maxItems)
		return nil
	}
	return a.Elements
}

func (p *parser) image(v *hujson.Value) {
	if s, ok := p.text(v); ok {
		p.out.Image = s
	}
}

func (p *parser) build(v *hujson.Value) {
	for _, m := range p.members(v) {
		switch m.key {
		case "dockerfile", "context", "target":
			p.buildText(m.value, m.key)
		case "args":
			p.buildArgs(m.value)
		default: // options of docker build, caches: they change nothing of the result, or cannot be
			p.out.Setup.Unknown = append(p.out.Setup.Unknown, "build."+printable(clip(m.key)))
		}
	}
	p.theBuild()
}

func (p *parser) theBuild() *Build {
	if p.out.Build == nil {
		p.out.Build = &Build{Context: "."}
	}
	return p.out.Build
}

func (p *parser) buildText(v *hujson.Value, key string) {
	s, ok := p.text(v)
	if !ok {
		return
	}
	b := p.theBuild()
	switch key {
	case "context":
		b.Context = s
	case "target":
		b.Target = s
	default:
		b.Dockerfile = s
	}
}

func (p *parser) buildArgs(v *hujson.Value) {
	args := p.env(v)
	for _, name := range slices.Sorted(maps.Keys(args)) {
		if strings.Contains(args[name], "${containerEnv:") {
			p.failAt(v, "%s: a build has no ${containerEnv:...}", name)
		}
		p.theBuild().Args = append(p.theBuild().Args, name+"="+args[name])
	}
}

// envName matches names of variables.
var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// env returns variables with their values. What would take a value of the host's is left out.
func (p *parser) env(v *hujson.Value) map[string]string {
	vars := map[string]string{}
	p.variables(v, func(name, value string) { vars[name] = value }, func(name string) {
		p.out.Setup.HostEnv = append(p.out.Setup.HostEnv, name)
	})
	return vars
}

// variables calls set for variables with their values, in the order of the file, or fromHost for those
// that would take a value of the host's.
func (p *parser) variables(v *hujson.Value, set func(name, value string), fromHost func(name string)) {
	for _, m := range p.bounded(v, "variables") {
		if !envName.MatchString(m.key) {
			p.failAt(m.value, "%q is not the name of a variable", clip(m.key))
			continue
		}
		if empty(m.value) { // the variable is set, and empty
			set(m.key, "")
			continue
		}
		_, s, host, ok := p.replaced(m.value)
		switch {
		case !ok:
		case len(host) > 0:
			fromHost(m.key)
		default:
			set(m.key, s)
		}
	}
}

// joinEnv joins the two environments. Those of remoteEnv count more, and refer to those of containerEnv.
func (p *parser) joinEnv() {
	vars := maps.Clone(p.containerEnv)
	if vars == nil {
		vars = map[string]string{}
	}
	for name, value := range p.remoteEnv {
		vars[name] = withOwn(value, p.containerEnv)
	}
	p.out.Setup.Env = envList(vars)
	slices.Sort(p.out.Setup.HostEnv)
	p.out.Setup.HostEnv = slices.Compact(p.out.Setup.HostEnv)
}

// withOwn returns a value with each ${containerEnv:NAME} replaced that own has.
func withOwn(value string, own map[string]string) string {
	return variable.ReplaceAllStringFunc(value, func(ref string) string {
		of, ok := strings.CutPrefix(ref, "${containerEnv:")
		of, _, _ = strings.Cut(strings.TrimSuffix(of, "}"), ":")
		if value, known := own[of]; ok && known {
			return value
		}
		return ref
	})
}

// envList returns variables as NAME=VALUE, by name.
func envList(vars map[string]string) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		list = append(list, name+"="+vars[name])
	}
	return list
}

func (p *parser) user(list []member) {
	for _, key := range []string{"remoteUser", "containerUser"} {
		for _, m := range list {
			if m.key != key || empty(m.value) {
				continue
			}
			if s, ok := p.text(m.value); ok {
				p.out.Setup.Root = isRoot(s)
			}
			if p.out.Compose != nil {
				p.out.Compose.user = true
			}
			return
		}
	}
}

// isRoot reports whether a user, NAME or NAME:GROUP, is root.
func isRoot(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	return name == "root" || name == "0"
}

func (p *parser) ports(v *hujson.Value) {
	one := []hujson.Value{*v}
	if _, ok := v.Value.(*hujson.Array); ok {
		one = p.list(v)
	}
	for i := range one {
		n, ok := p.port(&one[i])
		if ok && !slices.Contains(p.out.Ports, n) {
			p.out.Ports = append(p.out.Ports, n)
		}
	}
}

func (p *parser) port(v *hujson.Value) (uint16, bool) {
	l, ok := v.Value.(hujson.Literal)
	number := string(l)
	if ok && l.Kind() == '"' {
		number = l.String()
		host, port, two := strings.Cut(number, ":")
		switch {
		case two && (host == "localhost" || host == "127.0.0.1" || host == port):
			number = port
		case two && p.out.Compose != nil:
			p.otherPort(v, host, port)
			return 0, false
		case two:
			p.failAt(v, "the port %q: only ports of the container itself can be forwarded, at the same number: write one number", printable(number))
			return 0, false
		}
	}
	return p.portNumber(v, number)
}

func (p *parser) portNumber(v *hujson.Value, number string) (uint16, bool) {
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		p.failAt(v, "a port is a number of 1 to %d", maxPort)
		return 0, false
	}
	return uint16(n), true
}

// hook reads the commands of an event: a text for a shell, a list of arguments, or an object of named
// commands.
func (p *parser) hook(event Event, v *hujson.Value) {
	if empty(v) {
		return
	}
	h := Hook{Event: event}
	if _, ok := v.Value.(*hujson.Object); !ok {
		h.Commands = p.command("", v)
	} else {
		for _, m := range p.bounded(v, "commands") {
			h.Commands = append(h.Commands, p.command(printable(clip(m.key)), m.value)...)
		}
	}
	if len(h.Commands) > 0 {
		p.out.Setup.Hooks = append(p.out.Setup.Hooks, h)
	}
}

func (p *parser) command(name string, v *hujson.Value) []Command {
	if empty(v) {
		return nil
	}
	if _, ok := v.Value.(*hujson.Array); !ok {
		s, ok := p.text(v)
		if !ok {
			return nil
		}
		return []Command{{Name: name, Argv: []string{shell, shellFlag, s}}}
	}
	c := Command{Name: name}
	for _, e := range p.list(v) {
		s, ok := p.text(&e)
		if !ok {
			return nil
		}
		c.Argv = append(c.Argv, s)
	}
	return []Command{c}
}

// workspace reads where the container has the project, before all else: variables refer to it.
func (p *parser) workspace(list []member) {
	var at *hujson.Value // the value that says where
	for _, m := range list {
		switch m.key {
		case "workspaceMount":
			if empty(m.value) {
				continue
			}
			at = m.value
			p.out.Setup.Mount = p.workspaceMount(m.value)
		case "workspaceFolder":
			if at == nil {
				at = m.value
			}
			if s, ok := p.text(m.value); ok {
				p.out.Setup.Workspace = p.place(m.value, s)
			}
		}
	}
	if p.out.Compose == nil || p.out.Setup.Mount != "" { // else its files say where
		if err := p.out.Setup.mountProject(p.places); err != nil {
			p.failAt(at, "%v", err)
		}
	}
	if folder := p.out.Setup.Workspace; folder != "" {
		p.places.Container = folder
	}
}

// mountProject sets by which other path the guest reaches the project.
func (s *Setup) mountProject(places Places) error {
	own := places.Container
	usual := "/workspaces/" + path.Base(places.Local)
	switch {
	case s.Workspace == "" && s.Mount != "":
		s.Workspace = s.Mount
	case s.Mount == "" && beneath(usual, s.Workspace):
		s.Mount = usual
	case s.Mount == "" && !beneath(own, s.Workspace): // else the project is there anyway
		s.Mount = s.Workspace
	}
	switch {
	case s.Mount == own:
		s.Mount = ""
	case s.Mount != "" && (beneath(own, s.Mount) || beneath(s.Mount, own)):
		return fmt.Errorf("%s: the guest has the project at %s, and cannot have it in or around that place, too: write another path", s.Mount, own)
	}
	return nil
}

// workspaceMount returns where a workspaceMount has the project, or "" after a mistake.
func (p *parser) workspaceMount(v *hujson.Value) string {
	fields := p.mountFields(v)
	if fields == nil {
		return ""
	}
	if fields["type"] != "bind" || fields["source"] != p.places.Local {
		p.failAt(v, "workspaceMount: only the project itself can be mounted (source=${localWorkspaceFolder},type=bind)")
		return ""
	}
	return p.place(v, fields["target"])
}

// place returns a path of the container, or "" after a mistake.
func (p *parser) place(v *hujson.Value, s string) string {
	clean := path.Clean(s)
	if !path.IsAbs(s) || clean == "/" {
		p.failAt(v, "%q: expected an absolute path in the container, below /", s)
		return ""
	}
	return clean
}

func beneath(dir, s string) bool { return s == dir || strings.HasPrefix(s, dir+"/") }

func (p *parser) mounts(v *hujson.Value) {
	for _, e := range p.list(v) {
		fields := p.mountFields(&e)
		if fields == nil {
			continue
		}
		switch fields["type"] {
		case "volume":
			if fields["source"] == "" {
				p.failAt(&e, "a volume needs a name (source)")
				continue
			}
			_, ro := fields["readonly"]
			p.out.Volumes = append(p.out.Volumes, Volume{Name: fields["source"], Target: fields["target"], ReadOnly: ro})
		case "bind":
			p.failAt(&e, "a mount of the host's %s: files of the host are not shared by this file; share it with --mount SRC:DST[:ro], and take it out of a copy of the file (--devcontainer=COPY)", printable(fields["source"]))
		default:
			p.failAt(&e, "a mount of the type %q: only volumes can be mounted", fields["type"])
		}
	}
}

// mountFields returns the fields of a mount, which is an object, or a text as docker run --mount takes
// it. Other names of a field become the usual one. nil is a mistake.
func (p *parser) mountFields(v *hujson.Value) map[string]string {
	fields := map[string]string{}
	set := func(key, value string) {
		switch key {
		case "src":
			key = "source"
		case "dst", "destination":
			key = "target"
		case "ro":
			key = "readonly"
		}
		if key == "readonly" && (value == "false" || value == "0") {
			return
		}
		fields[key] = value
	}
	if _, ok := v.Value.(*hujson.Object); ok {
		for _, m := range p.members(v) {
			if l, ok := m.value.Value.(hujson.Literal); ok && (l.Kind() == 't' || l.Kind() == 'f') {
				set(m.key, string(l))
				continue
			}
			s, ok := p.mountText(m.value)
			if !ok {
				return nil
			}
			set(m.key, s)
		}
	} else {
		s, ok := p.mountText(v)
		if !ok {
			return nil
		}
		for f := range strings.SplitSeq(s, ",") {
			key, value, _ := strings.Cut(strings.TrimSpace(f), "=")
			set(key, value)
		}
	}
	if _, ok := fields["type"]; !ok {
		fields["type"] = "volume" // docker run --mount
	}
	if fields["type"] != "bind" {
		if fields["target"] = p.place(v, fields["target"]); fields["target"] == "" {
			return nil
		}
	}
	return fields
}

// mountText is text. The host's environment, which sources of the host are often named by, stays as
// it is written: these are refused as a whole.
func (p *parser) mountText(v *hujson.Value) (string, bool) {
	raw, s, host, ok := p.replaced(v)
	if len(host) > 0 {
		return raw, ok
	}
	return s, ok
}

// variable matches a variable of the file.
var variable = regexp.MustCompile(`\$\{[A-Za-z]+(:[^{}]*)?\}`)

// replace replaces the variables of a text, but for ${containerEnv:...}, whose values only the container
// has. host are the names of those of the host's environment that have no default, bad is one that is
// not known. A ${NAME} of a shell stays.
func (p *parser) replace(s string) (out string, host []string, bad string) {
	out = variable.ReplaceAllStringFunc(s, func(ref string) string {
		kind, rest, has := strings.Cut(ref[2:len(ref)-1], ":")
		switch kind {
		case "localWorkspaceFolder":
			return p.places.Local
		case "localWorkspaceFolderBasename":
			return path.Base(p.places.Local)
		case "containerWorkspaceFolder":
			return p.places.Container
		case "containerWorkspaceFolderBasename":
			return path.Base(p.places.Container)
		case "devcontainerId":
			return p.places.ID
		case "containerEnv":
			return ref
		case "localEnv", "env":
			name, fallback, given := strings.Cut(rest, ":")
			if given {
				return fallback
			}
			if !has || !envName.MatchString(name) {
				bad = ref
			}
			host = append(host, name)
			return ""
		}
		if has && slices.Contains([]string{"command", "config", "input"}, kind) {
			bad = ref
		}
		return ref
	})
	return out, host, bad
}
