package compose

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"
)

// A compose file may name others: those that it includes, and those of which its services extend services. They are
// found before compose-go reads anything. In what compose-go reads, their names are replaced by words that nobody
// can guess; it asks for a file by such a word (load is its ResourceLoader), and gets the path of a copy in memory.
// It refuses what is named in any other way, so it opens nothing else. The same holds for the files of variables
// of an include: their values are written anew, with all variables replaced, or /dev/null takes their place, without
// which compose-go would look for a .env itself.
//
// What the files make compose-go do is counted: when it asks for a file, what that has, for it copies the services
// of an extended file for each that extends one; and what the services of a file get from one that has those of
// other files, as the values of all these files.

// DotEnv is the file that gives variables their values (compose-spec.io, Interpolation).
const DotEnv = ".env"

// none is the file of variables of an include that has none.
const none = "/dev/null"

// kind is how a file is read.
type kind int

const (
	main     kind = iota // by dockerComposeFile
	included             // by include
	extended             // by extends
)

// scope is what an include has of its own: the variables that count in its files.
type scope struct {
	env   types.Mapping
	chain []string // files that include each other, up to it
}

// place says how a file is read: relative paths start from the folder base of the project.
type place struct {
	kind  kind
	base  string
	scope *scope
}

// source is a file as compose-go reads it.
type source struct {
	place
	name string // relative to the project
	docs []document
	text []byte
	cost int // values that are counted each time that it is read

	copy *copied // of one that others name
}

// copied is a copy in memory of what compose-go reads.
type copied struct {
	of string // the file, for people
	*os.File
}

// document is one of a file.
type document struct {
	node           *yaml.Node
	weigher        weigher
	weight         int
	services, jobs yaml.Node
	changed        bool // names in it were replaced
}

// read reads all files.
func (l *load) read() error {
	l.secret = "bawn-" + rand.Text() + "-"
	l.env = types.Mapping{}
	if err := l.values(l.env, path.Join(l.dir, DotEnv), nil, false); err != nil {
		return err
	}
	root := &scope{env: l.env}
	for _, name := range l.Files {
		at, err := l.inside(".", name)
		if err != nil {
			return fmt.Errorf("the compose file %w", err)
		}
		if _, err := l.source(at, place{main, l.dir, root}); err != nil {
			return err
		}
	}
	if name := l.env["COMPOSE_PROJECT_NAME"]; name != "" {
		l.name, l.used["COMPOSE_PROJECT_NAME"] = name, true
	}
	return l.finish()
}

// inside returns a path that a file names, relative to the project, which it must lie in.
func (l *load) inside(base, name string) (string, error) {
	at := path.Join(base, name)
	if path.IsAbs(name) {
		rel, err := filepath.Rel(l.Project, path.Clean(name))
		if err != nil {
			return "", err
		}
		at = rel
	}
	switch {
	case name == "" || !filepath.IsLocal(at) || strings.Contains(name, "://") || strings.HasPrefix(name, "git@"):
		return "", fmt.Errorf("%.200q does not lie in the project", name)
	case len(at) > maxKey*maxDepth || !plain(at):
		return "", errors.New("has a name that is too long or cannot be shown")
	}
	return at, nil
}

// source reads a file, and those that it names. One that is read again in the same way is read once.
func (l *load) source(name string, at place) (*source, error) {
	if i := slices.IndexFunc(l.sources, func(s *source) bool { return s.kind != main && s.name == name && s.place == at }); i >= 0 {
		return l.sources[i], nil
	}
	if len(l.sources) == maxSources {
		return nil, fmt.Errorf("%s: more than %d files are included or extended", name, maxSources)
	}
	s := &source{place: at, name: name}
	l.sources = append(l.sources, s)
	var err error
	if l.hidden(name) {
		err = errors.New("it is hidden from the sandbox")
	} else if s.text, err = l.Read(name); err == nil {
		err = l.documents(s)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// documents reads the documents of a file.
func (l *load) documents(s *source) error {
	d := yaml.NewDecoder(bytes.NewReader(s.text))
	for {
		doc := document{node: &yaml.Node{}, weigher: weigher{}}
		switch err := d.Decode(doc.node); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return shown(err)
		}
		doc.weight = doc.weigher.weight(doc.node, 0)
		err := error(nil)
		if s.kind == main {
			err = l.spent.document(doc.weight)
		} else if doc.weight > maxNodes {
			err = l.spent.values(doc.weight)
		}
		if err == nil {
			err = l.document(s, &doc)
		}
		if err != nil {
			return shown(err)
		}
		s.docs = append(s.docs, doc)
	}
}

// document looks at the top of one document, which must be a mapping.
func (l *load) document(s *source, doc *document) error {
	var top struct {
		Name     string    `yaml:"name"`
		Include  yaml.Node `yaml:"include"`
		Services yaml.Node `yaml:"services"`
		Jobs     yaml.Node `yaml:"jobs"`
	}
	if err := doc.node.Decode(&top); err != nil {
		return err
	}
	if top.Name != "" && s.kind == main {
		l.name = top.Name
	}
	l.whole(doc.node)
	if top.Include.Kind != 0 {
		if err := l.includes(s, doc); err != nil {
			return fmt.Errorf("include: %w", err)
		}
	}
	for _, section := range []*yaml.Node{&top.Services, &top.Jobs} {
		if err := l.services(s, doc, section); err != nil {
			return err
		}
	}
	doc.services, doc.jobs = top.Services, top.Jobs
	return nil
}

// whole notes the names that stand alone, as those of variables in a list do: without a value, they have that of
// .env.
func (l *load) whole(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		if len(n.Value) <= maxKey && variableName.MatchString(n.Value) {
			l.used[n.Value] = true
		}
		return
	}
	for _, c := range n.Content {
		l.whole(c)
	}
}

// plainNode returns what an alias stands for, and the top of a document.
func plainNode(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode || n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		if n.Kind == yaml.DocumentNode {
			n = n.Content[0]
		} else {
			n = n.Alias
		}
	}
	return n
}

// entries calls see for the key and the value of each entry of a mapping, and of those that are merged into it (<<).
// see may change a value in the place that it gets.
func entries(n *yaml.Node, see func(key string, at **yaml.Node) error) error {
	n = plainNode(n)
	if n.Kind == yaml.SequenceNode { // of mappings to merge
		for _, c := range n.Content {
			if err := entries(c, see); err != nil {
				return err
			}
		}
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := scalar(n.Content[i])
		var err error
		if key == "<<" {
			err = entries(n.Content[i+1], see)
		} else {
			err = see(key, &n.Content[i+1])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// services replaces the names of the files that services extend.
func (l *load) services(s *source, doc *document, section *yaml.Node) error {
	return entries(section, func(name string, service **yaml.Node) error {
		return entries(*service, func(key string, value **yaml.Node) error {
			switch {
			case key == "develop" && s.kind != main: // compose-go would look at the folders that it names
				*value = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
				doc.changed = true
				return nil
			case key != "extends":
				return nil
			}
			return entries(*value, func(key string, file **yaml.Node) error {
				if n := plainNode(*file); key != "file" || n.Kind != yaml.ScalarNode || l.refs[n.Value] != nil {
					return nil
				}
				if err := l.extends(s, file); err != nil {
					return fmt.Errorf("services.%.200s: extends: %w", name, err)
				}
				doc.changed = true
				return nil
			})
		})
	})
}

// extends reads a file of which a service extends one, and replaces its name.
func (l *load) extends(s *source, file **yaml.Node) error {
	name, err := l.substitute(plainNode(*file).Value, s.scope.env.Resolve)
	if err == nil {
		name, err = l.inside(s.base, name)
	}
	if err != nil {
		return fmt.Errorf("the file %w", err)
	}
	from, err := l.source(name, place{extended, path.Dir(name), s.scope})
	if err == nil {
		*file = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: l.word(from)}
	}
	return err
}

// word returns what stands for a file.
func (l *load) word(s *source) string {
	for word, of := range l.refs {
		if of == s {
			return word
		}
	}
	word := fmt.Sprintf("%s%d", l.secret, len(l.refs))
	l.refs[word] = s
	return word
}

// includes reads what a document includes, and replaces it by what compose-go may have of it.
func (l *load) includes(s *source, doc *document) error {
	top := plainNode(doc.node)
	for i := 0; i+1 < len(top.Content); i += 2 {
		if scalar(top.Content[i]) != "include" {
			continue
		}
		if s.kind == extended { // where it does not count
			top.Content = slices.Delete(slices.Clone(top.Content), i, i+2)
			doc.changed = true
			return nil
		}
		list := plainNode(top.Content[i+1])
		if list.Kind != yaml.SequenceNode {
			return errors.New("it must be a list")
		}
		var out []map[string]any
		for _, n := range list.Content {
			one, err := l.include(s, plainNode(n))
			if err != nil {
				return err
			}
			out = append(out, one)
		}
		n := &yaml.Node{}
		err := n.Encode(out)
		top.Content[i+1], doc.changed = n, true
		return err
	}
	return errors.New("it must be written in the file, not merged into it")
}

// include reads the files of one entry of include.
func (l *load) include(s *source, n *yaml.Node) (map[string]any, error) {
	var files, envFiles []string
	folder := ""
	if n.Kind == yaml.ScalarNode {
		files = []string{n.Value}
	}
	err := entries(n, func(key string, value **yaml.Node) (err error) {
		switch key {
		case "path":
			files, err = texts(*value)
		case "env_file":
			envFiles, err = texts(*value)
		case "project_directory":
			folder = plainNode(*value).Value
		default:
			err = fmt.Errorf("it has no key %.100q", key)
		}
		return err
	})
	for _, list := range [][]string{files, envFiles} {
		for i := range list {
			if err == nil {
				list[i], err = l.substitute(list[i], s.scope.env.Resolve)
			}
		}
	}
	if err == nil {
		folder, err = l.substitute(folder, s.scope.env.Resolve)
	}
	if err != nil {
		return nil, err
	}
	if len(files) == 0 || len(files) > MaxFiles {
		return nil, fmt.Errorf("expected 1 to %d files in an entry, found %d", MaxFiles, len(files))
	}
	return l.includeFiles(s, files, folder, envFiles)
}

// texts returns a text, or those of a list.
func texts(n *yaml.Node) (list []string, err error) {
	n = plainNode(n)
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}, nil
	}
	err = n.Decode(&list)
	return list, err
}

// includeFiles reads files as one include, with the variables of its own.
func (l *load) includeFiles(s *source, files []string, folder string, envFiles []string) (map[string]any, error) {
	chain := append(slices.Clone(s.scope.chain), s.name)
	for i, name := range files {
		at, err := l.inside(s.base, name)
		if err != nil {
			return nil, fmt.Errorf("the file %w", err)
		}
		if slices.Contains(chain, at) {
			return nil, fmt.Errorf("%s includes itself", at)
		}
		files[i] = at
	}
	base := path.Dir(files[0])
	if folder != "" {
		at, err := l.inside(s.base, folder)
		if err != nil {
			return nil, fmt.Errorf("project_directory %w", err)
		}
		base = at
	}
	own, err := l.includeValues(s, base, envFiles)
	if err != nil {
		return nil, err
	}
	in := place{included, base, &scope{env: s.scope.env.Clone().Merge(own), chain: chain}}
	var words []string
	for _, name := range files {
		from, err := l.source(name, in)
		if err != nil {
			return nil, err
		}
		words = append(words, l.word(from))
	}
	env := none
	if back, err := Variables(files[0], written(own)); err != nil || !maps.Equal(back, own) {
		return nil, fmt.Errorf("a variable for %s has a value that is not taken", files[0])
	} else if len(own) > 0 {
		c, err := l.keep("the variables of "+files[0], written(own))
		if err != nil {
			return nil, err
		}
		env = c.Name()
	}
	return map[string]any{"path": words, "project_directory": path.Join(l.Project, base), "env_file": []string{env}}, nil
}

// includeValues returns the variables of the files of an include, or of its folder's .env.
func (l *load) includeValues(s *source, base string, files []string) (types.Mapping, error) {
	own := types.Mapping{}
	if len(files) == 0 {
		return own, l.values(own, path.Join(base, DotEnv), s.scope.env, false)
	}
	for _, name := range files {
		if name == none {
			continue
		}
		at, err := l.inside(s.base, name)
		if err == nil {
			err = l.values(own, at, s.scope.env, true)
		}
		if err != nil {
			return nil, fmt.Errorf("env_file: %w", err)
		}
	}
	return own, nil
}

// values adds the variables of a file, whose own variables may be in outer. Of a hidden file these are the ones
// that the person lets the compose files have.
func (l *load) values(vars types.Mapping, name string, outer types.Mapping, required bool) error {
	if l.hidden(name) {
		return l.hiddenValues(vars, name)
	}
	text, err := l.Read(name)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil
	}
	if err == nil {
		err = l.variables(name, text, vars, outer, "")
	}
	if err == nil && len(vars) > maxEnvValues {
		err = fmt.Errorf("more than %d variables", maxEnvValues)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// hiddenValues adds the variables of a hidden file that the person lets the compose files have, if any.
func (l *load) hiddenValues(vars types.Mapping, name string) error {
	var given map[string]string
	taken, err := false, error(nil)
	if l.Values != nil {
		given, taken, err = l.Values(name)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case !taken:
		if !slices.Contains(l.kept, name) {
			l.kept = append(l.kept, name)
		}
		return nil
	}
	for name, value := range given {
		if variableName.MatchString(name) && plain(value) {
			vars[name] = value
		}
	}
	l.given[name] = given
	return nil
}

// taken returns the variables of hidden files that the compose files name.
func (l *load) taken() (list []FileValues) {
	for _, name := range slices.Sorted(maps.Keys(l.given)) {
		f := FileValues{File: name, Vars: maps.Clone(l.given[name])}
		maps.DeleteFunc(f.Vars, func(v, _ string) bool { return !l.used[v] })
		list = append(list, f)
	}
	return list
}

// Variables reads a file of variables by itself.
func Variables(name string, text []byte) (map[string]string, error) {
	l := &load{unset: map[string]bool{}, used: map[string]bool{}}
	vars := map[string]string{}
	err := l.variables(name, text, vars, nil, "")
	if err == nil && len(vars) > maxEnvValues {
		err = fmt.Errorf("more than %d variables", maxEnvValues)
	}
	return vars, err
}

// written returns a file of variables in which no value has a variable.
func written(vars types.Mapping) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		fmt.Fprintf(&b, "%s=\"%s\"\n", name, strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(vars[name]))
	}
	return b.Bytes()
}

// finish counts what the files have of each other, and completes what compose-go reads.
func (l *load) finish() error {
	all := 0
	for _, s := range l.sources {
		for _, doc := range s.docs {
			all += doc.weight
		}
	}
	for _, s := range l.sources {
		n, err := s.count(min(all, maxNodes+1))
		if err == nil && s.kind == main {
			err = l.spent.values(n)
		}
		if err == nil {
			err = s.write()
		}
		if err == nil && s.kind != main {
			s.copy, err = l.keep(s.name, s.text)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, shown(err))
		}
		if s.cost = n; s.kind == main {
			l.files = append(l.files, types.ConfigFile{Filename: s.name, Content: s.text})
		}
	}
	return nil
}

// count returns how many values a file is read as. Those of the documents of a main file were counted.
func (s *source) count(foreign int) (total int, err error) {
	for i, doc := range s.docs {
		if s.kind != main {
			total += doc.weight * (len(s.docs) - i)
		}
		for _, section := range []*yaml.Node{&doc.services, &doc.jobs} {
			n, err := doc.weigher.extended(section, foreign)
			if err != nil {
				return 0, err
			}
			total += n
		}
	}
	return total, nil
}

// write writes a file anew if names in it were replaced.
func (s *source) write() error {
	if !slices.ContainsFunc(s.docs, func(d document) bool { return d.changed }) {
		return nil
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	var before, after []string
	for _, doc := range s.docs {
		full(doc.node)
		before = form(before, doc.node)
		if err := e.Encode(doc.node); err != nil { // which changes it
			return err
		}
	}
	if err := e.Close(); err != nil {
		return err
	}
	s.text = b.Bytes()
	d := yaml.NewDecoder(bytes.NewReader(s.text))
	for range s.docs {
		var back yaml.Node
		if err := d.Decode(&back); err != nil {
			return err
		}
		after = form(after, &back)
	}
	if !slices.Equal(before, after) {
		return errors.New("it has values that cannot be written anew: write it more simply")
	}
	return nil
}

// full writes out the values that are null by being left out, which would become empty texts.
func full(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		n.Value = "null"
	}
	for _, c := range n.Content {
		full(c)
	}
}

// form adds to a list what a value says, without how it is written.
func form(list []string, n *yaml.Node) []string {
	list = append(list, fmt.Sprintf("%d %s %q %d %s", n.Kind, n.ShortTag(), n.Anchor, len(n.Content), n.Value))
	for _, c := range n.Content {
		list = form(list, c)
	}
	return list
}

// keep makes a copy in memory.
func (l *load) keep(of string, text []byte) (*copied, error) {
	fd, err := unix.MemfdCreate("compose", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	c := &copied{of, os.NewFile(uintptr(fd), fmt.Sprintf("/proc/self/fd/%d", fd))}
	l.copies = append(l.copies, c)
	_, err = c.Write(text)
	return c, err
}

func (l *load) close() {
	for _, c := range l.copies {
		c.Close()
	}
}

// named returns an error of compose-go with the names of files for what stands for them.
func (l *load) named(err error) error {
	text := err.Error()
	for word, s := range l.refs {
		text = strings.ReplaceAll(text, word, s.name)
	}
	longest := func(a, b *copied) int { return len(b.Name()) - len(a.Name()) } // /proc/self/fd/1 is in /proc/self/fd/10
	for _, c := range slices.SortedFunc(slices.Values(l.copies), longest) {
		text = strings.ReplaceAll(text, c.Name(), c.of)
	}
	return errors.New(text)
}

// Accept is called by compose-go: the load answers for all files.
func (l *load) Accept(string) bool { return true }

// Load is called by compose-go before it reads a file that another one names.
func (l *load) Load(_ context.Context, word string) (string, error) {
	s := l.refs[word]
	if s == nil || s.copy == nil {
		return "", fmt.Errorf("the file %.200q is not read: name it where it is included or extended", word)
	}
	return s.copy.Name(), l.spent.values(max(1, s.cost))
}

// Dir is called by compose-go for the folder that relative paths in a file start from.
func (l *load) Dir(word string) string {
	if s := l.refs[word]; s != nil {
		return path.Join(l.Project, s.base)
	}
	return ""
}
