package project

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/sys/size"
)

// Limits of what is read, so that the user can look at it.
const (
	maxLines  = 2000
	maxErrors = 10 // reported at once
)

// Error is a mistake in the file.
type Error struct {
	File         string
	Line, Column int // from 1
	Msg          string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg) }

// Parse reads the text of a file. It is strict: what it does not know is an
// error, and so is text that a user could misread (control
// characters, aliases, tags, a second document). file is for errors, which are
// *Error, joined.
func Parse(file string, text []byte) (*Proposal, error) {
	p := &parser{file: file}
	if !p.checkText(text) {
		return nil, errors.Join(p.errs...)
	}
	root, ok := p.document(string(text))
	if ok && root != nil {
		p.proposal(root)
	}
	if len(p.errs) > maxErrors {
		p.errs = append(p.errs[:maxErrors], fmt.Errorf("%s: and %d more mistakes", file, len(p.errs)-maxErrors))
	}
	if err := errors.Join(p.errs...); err != nil {
		return nil, err
	}
	return &p.out, nil
}

type parser struct {
	file string
	out  Proposal
	errs []error
}

func (p *parser) fail(line, column int, format string, args ...any) {
	p.errs = append(p.errs, &Error{p.file, max(1, line), max(1, column), fmt.Sprintf(format, args...)})
}

func (p *parser) failAt(n *yaml.Node, format string, args ...any) {
	p.fail(n.Line, n.Column, format, args...)
}

// checkText refuses text that a user could misread.
func (p *parser) checkText(text []byte) bool {
	line, column := 1, 1
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		crlf := r == '\r' && len(text) > 1 && text[1] == '\n'
		switch {
		case r == utf8.RuneError && n == 1:
			p.fail(line, column, "the file is not valid UTF-8")
			return false
		case r == '\n':
			line, column = line+1, 0
		case !crlf && r != '\t' && !unicode.IsPrint(r):
			p.fail(line, column, "the character %U is not allowed", r)
			return false
		}
		if line > maxLines {
			p.fail(line, 1, "more than %d lines", maxLines)
			return false
		}
		text, column = text[n:], column+1
	}
	return true
}

// document returns the root of the only document, or nil when the file is empty.
func (p *parser) document(text string) (root *yaml.Node, ok bool) {
	// The library may panic on hostile bytes.
	defer func() {
		if r := recover(); r != nil {
			p.fail(1, 1, "this is not valid YAML")
			root, ok = nil, false
		}
	}()
	d := yaml.NewDecoder(strings.NewReader(text))
	var doc, more yaml.Node
	err := d.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, true
	}
	if err == nil {
		if err = d.Decode(&more); err == nil {
			p.failAt(&more, "only one YAML document is allowed")
			return nil, false
		}
	}
	if !errors.Is(err, io.EOF) {
		p.syntax(err)
		return nil, false
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, true
	}
	root = doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" && root.Value == "" {
		return nil, true
	}
	return root, p.plain(root)
}

func (p *parser) syntax(err error) {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		p.fail(1, 1, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	at := e.Mark
	if at.Line == 0 {
		at = e.ContextMark
	}
	msg := e.Message
	if e.ContextMsg != "" {
		msg = e.ContextMsg + ": " + msg
	}
	p.fail(at.Line, at.Column, "%s", msg)
}

// plain refuses aliases, anchors and tags, with which a short text can mean a
// lot, or something else than it looks like.
func (p *parser) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		p.failAt(n, "anchors and aliases are not allowed")
		return false
	case n.Style&yaml.TaggedStyle != 0:
		p.failAt(n, "tags are not allowed")
		return false
	}
	for _, c := range n.Content {
		if !p.plain(c) {
			return false
		}
	}
	return true
}

// keys are the file's keys with the functions that read their values.
var keys = map[string]func(*parser, *yaml.Node){
	"image":   (*parser).image,
	"build":   (*parser).build,
	"cpus":    (*parser).cpus,
	"memory":  func(p *parser, n *yaml.Node) { p.out.Memory = p.size(n, sandbox.MinMemory, 1<<50) },
	"disk":    func(p *parser, n *yaml.Node) { p.out.Disk = p.size(n, sandbox.MinDisk, sandbox.MaxDisk) },
	"mounts":  func(p *parser, n *yaml.Node) { p.list(n, p.mount) },
	"volumes": func(p *parser, n *yaml.Node) { p.list(n, p.volume) },
	"ports":   func(p *parser, n *yaml.Node) { p.list(n, p.port) },
	"allow":   func(p *parser, n *yaml.Node) { p.list(n, p.rule(policy.Allow, &p.out.Allow)) },
	"guard":   func(p *parser, n *yaml.Node) { p.list(n, p.pattern(&p.out.Guard)) },
	"hide":    func(p *parser, n *yaml.Node) { p.list(n, p.pattern(&p.out.Hide)) },
	"deny":    func(p *parser, n *yaml.Node) { p.list(n, p.rule(policy.Deny, &p.out.Deny)) },

	"local_dirs": func(p *parser, n *yaml.Node) { p.list(n, p.localDir) },
	"caches":     func(p *parser, n *yaml.Node) { p.list(n, p.cache) },

	"secrets": func(p *parser, n *yaml.Node) { p.list(n, p.secret) },
}

func (p *parser) proposal(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		p.failAt(n, "expected keys with values, such as memory: 4g")
		return
	}
	p.mapping(n, keys)
	if p.out.Image != "" && p.out.Build != nil {
		p.failAt(n, "image and build are both given: keep one; a build names its base image in the Dockerfile (FROM)")
	}
}

// mapping reads each key of a mapping by the function that it has in keys.
func (p *parser) mapping(n *yaml.Node, keys map[string]func(*parser, *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		readValue, ok := keys[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || !ok:
			p.failAt(key, "unknown key %q: must be one of %s", key.Value, strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
		case seen[key.Value] > 0:
			p.failAt(key, "the key %q is given twice, first in line %d", key.Value, seen[key.Value])
		default:
			seen[key.Value] = key.Line
			readValue(p, value)
		}
	}
}

// scalar returns a value of text or, where it may be, a number as it is written.
func (p *parser) scalar(n *yaml.Node, tags ...string) (string, bool) {
	switch {
	case n.Kind != yaml.ScalarNode || !slices.Contains(tags, n.Tag) || n.Value == "":
		what := "text"
		if tags[0] == "!!int" {
			what = "a number"
		}
		p.failAt(n, "expected %s", what)
		return "", false
	case strings.IndexFunc(n.Value, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0:
		p.failAt(n, "%q has characters that cannot be printed", n.Value)
		return "", false
	}
	return n.Value, true
}

// list reads each item of a list.
func (p *parser) list(n *yaml.Node, item func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		p.failAt(n, "expected a list")
		return
	}
	for _, c := range n.Content {
		item(c)
	}
}

// imageRule is a reference to an image in a registry, or a digest of one in the
// cache. An archive on this host is not for a project to name: the guest could
// write one, or the path could lead anywhere.
var imageRule = regexp.MustCompile(`^[a-z0-9][A-Za-z0-9._:/@-]*$`)

func (p *parser) image(n *yaml.Node) {
	s, ok := p.scalar(n, "!!str")
	if !ok {
		return
	}
	if err := CheckImage(s); err != nil {
		p.failAt(n, "%v", err)
		return
	}
	p.out.Image = s
}

// CheckImage returns an error unless a project may name the image.
func CheckImage(ref string) error {
	switch {
	case strings.HasPrefix(ref, "docker-archive:"), strings.HasPrefix(ref, "oci:"):
		return errors.New("an image file of the host cannot be named here; name it when the sandbox is created")
	case !imageRule.MatchString(ref) || len(ref) > 512:
		return fmt.Errorf("%q is not an image reference", ref)
	}
	return nil
}

func (p *parser) cpus(n *yaml.Node) {
	s, ok := p.scalar(n, "!!int")
	if !ok {
		return
	}
	c, err := strconv.Atoi(s)
	if err != nil || c < 1 || c > sandbox.MaxCPUs || s[0] == '+' {
		p.failAt(n, "%q: must be 1 to %d", s, sandbox.MaxCPUs)
		return
	}
	p.out.CPUs = c
}

func (p *parser) size(n *yaml.Node, least, most int64) int64 {
	s, ok := p.scalar(n, "!!str", "!!int")
	if !ok {
		return 0
	}
	v, err := size.Parse(s)
	switch {
	case err != nil:
		p.failAt(n, "%v", err)
	case v < least || v > most:
		p.failAt(n, "%s: must be %s to %s", s, size.Format(least), size.Format(most))
	}
	return v
}

// pattern returns a function that reads a pattern of paths into a list.
func (p *parser) pattern(into *[]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		s, ok := p.scalar(n, "!!str")
		if !ok {
			return
		}
		var bad *guard.PatternError
		if errors.As(guard.CheckPattern(s), &bad) {
			column := n.Column + bad.Column - 1
			if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
				column++
			}
			p.fail(n.Line, column, "pattern %q: %s", s, bad.Problem)
			return
		}
		*into = append(*into, s)
	}
}

func (p *parser) secret(n *yaml.Node) {
	s, ok := p.scalar(n, "!!str")
	if !ok {
		return
	}
	switch err := secret.CheckName(s); {
	case err != nil:
		p.failAt(n, "%v", err)
	case slices.Contains(p.out.Secrets, s):
		p.failAt(n, "the secret %s is named twice", s)
	case len(p.out.Secrets) == secret.MaxSecrets:
		p.failAt(n, "more than %d secrets", secret.MaxSecrets)
	default:
		p.out.Secrets = append(p.out.Secrets, s)
	}
}

func (p *parser) mount(n *yaml.Node) {
	s, ok := p.scalar(n, "!!str")
	if !ok {
		return
	}
	m, err := sandbox.ParseMount(s)
	if err != nil {
		p.failAt(n, "%v", err)
		return
	}
	if strings.HasPrefix(m.Host, "~") && m.Host != "~" && !strings.HasPrefix(m.Host, "~/") {
		p.failAt(n, "mount %q: write ~/ for your home directory; those of other users cannot be named", s)
		return
	}
	if m.Host == "" || filepath.Clean(m.Host) == "." {
		p.failAt(n, "mount %q: the project directory is always shared", s)
		return
	}
	p.out.Mounts = append(p.out.Mounts, m)
}

func (p *parser) volume(n *yaml.Node) {
	s, ok := p.scalar(n, "!!str")
	if !ok {
		return
	}
	v, err := sandbox.ParseVolume(s)
	if err != nil {
		p.failAt(n, "%v", err)
		return
	}
	for _, o := range p.out.Volumes {
		if o.Name == v.Name || o.Guest == v.Guest {
			p.failAt(n, "volume %q: %s is in the list already", s, o)
			return
		}
	}
	p.out.Volumes = append(p.out.Volumes, v)
}

func (p *parser) localDir(n *yaml.Node) {
	s, ok := p.scalar(n, "!!str")
	if !ok {
		return
	}
	dir, err := sandbox.ParseLocalDir(s)
	if err != nil {
		p.failAt(n, "%v", err)
		return
	}
	for _, o := range p.out.LocalDirs {
		if sandbox.OverlappingDirs(o, dir) {
			p.failAt(n, "local directory %q lies in, or is the same as, %q", s, o)
			return
		}
	}
	if len(p.out.LocalDirs) == sandbox.MaxLocalDirs {
		p.failAt(n, "more than %d local directories", sandbox.MaxLocalDirs)
		return
	}
	p.out.LocalDirs = append(p.out.LocalDirs, dir)
}

func (p *parser) cache(n *yaml.Node) {
	s, ok := p.scalar(n, "!!str")
	if !ok {
		return
	}
	list, err := sandbox.ParseCaches(s)
	if err != nil || len(list) != 1 {
		p.failAt(n, "%v", cmp.Or(err, fmt.Errorf("cache %q: write one in each item", s)))
		return
	}
	if slices.Contains(p.out.Caches, list[0]) {
		p.failAt(n, "cache %q is in the list already", s)
		return
	}
	p.out.Caches = append(p.out.Caches, list[0])
}

func (p *parser) port(n *yaml.Node) {
	s, ok := p.scalar(n, "!!int", "!!str")
	if !ok {
		return
	}
	port, err := sandbox.ParsePort(s)
	if err != nil {
		p.failAt(n, "%v", err)
		return
	}
	for _, o := range p.out.Ports {
		if o == port || o.Host == port.Host && o.Host != 0 {
			p.failAt(n, "port %s is published twice", s)
			return
		}
	}
	p.out.Ports = append(p.out.Ports, port)
}

func (p *parser) rule(action policy.Action, into *[]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		s, ok := p.scalar(n, "!!str")
		if !ok {
			return
		}
		text, err := policy.Canonical(action, s)
		if err != nil {
			p.failAt(n, "%v", err)
			return
		}
		*into = append(*into, text)
	}
}
