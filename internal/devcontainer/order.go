package devcontainer

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// This file finds all features that a devcontainer.json asks for, with what these depend on, and the order
// in which they are installed (containers.dev/implementors/features, "Installation order").

// maxFeatures bounds the features of one image, with what they depend on.
const maxFeatures = 64

// Found is a feature as a reference leads to it.
type Found struct {
	Name    string // REGISTRY/REPOSITORY, or the path of a folder
	Version string // the tag that was asked for
	Ref     string // as in Installed
	Path    string
	Digest  string
	Feature *Feature
}

// ErrNotFetched means that a feature lies in a registry, which was not asked.
var ErrNotFetched = errors.New("not fetched")

// node is a feature in the graph of features.
type node struct {
	*Found
	id       string
	options  map[string]string // as they are given
	before   []*node           // what it depends on
	priority int
}

// key identifies a feature with its options: two that are the same are installed once.
func (n *node) key() string {
	key := n.Path + "\x00" + n.Digest
	for _, name := range slices.Sorted(maps.Keys(n.options)) {
		key += fmt.Sprintf("\x00%q=%q", name, n.options[name])
	}
	return key
}

// Resolve returns the features that a setup asks for and all that these depend on, in the order of their
// installation. find finds one. If it returns ErrNotFetched for some, these are returned in pending, and
// nothing else.
func Resolve(s *Setup, find func(FeatureRef) (*Found, error)) (list []Installed, pending []string, err error) {
	g := &graph{find: find, known: map[string]*node{}}
	for _, ref := range s.Features {
		if _, err := g.add(ref); err != nil {
			return nil, nil, err
		}
	}
	if len(g.pending) > 0 {
		return nil, slices.Compact(slices.Sorted(slices.Values(g.pending))), nil
	}
	nodes, err := g.order(s.FeatureOrder)
	for _, n := range nodes {
		list = append(list, Installed{ID: n.id, Ref: n.Ref, Path: n.Path, Digest: n.Digest, Options: n.Feature.OptionVariables(n.options), Feature: *n.Feature})
	}
	return list, nil, err
}

// graph has the features, each with what it depends on.
type graph struct {
	find    func(FeatureRef) (*Found, error)
	nodes   []*node
	known   map[string]*node
	pending []string
	asked   int
}

// maxAsked bounds how often a feature is looked for: each may be asked for by all others.
const maxAsked = maxFeatures * maxItems

// add finds a feature, with what it depends on, unless it was found before. It returns nil for one that was
// not fetched. It calls itself once for each new feature at most, of which there are maxFeatures.
func (g *graph) add(ref FeatureRef) (*node, error) {
	if g.asked++; g.asked > maxAsked {
		return nil, fmt.Errorf("the features depend on each other more than %d times", maxAsked)
	}
	f, err := g.find(ref)
	if errors.Is(err, ErrNotFetched) {
		g.pending = append(g.pending, ref.ID)
		return nil, nil //nolint:nilnil // it is pending
	}
	if err != nil {
		return nil, fmt.Errorf("feature %s: %w", ref.ID, err)
	}
	n := &node{Found: f, id: ref.ID, options: ref.Options}
	if same := g.known[n.key()]; same != nil {
		return same, nil
	}
	if len(g.nodes) == maxFeatures {
		return nil, fmt.Errorf("there are more than %d features, with those that they depend on", maxFeatures)
	}
	g.nodes, g.known[n.key()] = append(g.nodes, n), n
	for _, on := range f.Feature.DependsOn {
		if on.Local() && !ref.Local() {
			return nil, fmt.Errorf("feature %s: it depends on %s, a folder of a project", ref.ID, on.ID)
		}
		d, err := g.add(on)
		if err != nil {
			return nil, err
		}
		if d != nil {
			n.before = append(n.before, d)
		}
	}
	return n, nil
}

// order sorts the features in rounds: in each those whose dependencies are installed, and of these the ones
// with the highest priority.
func (g *graph) order(override []string) (done []*node, err error) {
	after := map[*node][]*node{}
	for _, n := range g.nodes {
		after[n] = slices.Concat(n.before, g.softly(n))
		for i, name := range override {
			if n.called(name) {
				n.priority = max(n.priority, len(override)-i)
			}
		}
	}
	left := slices.Clone(g.nodes)
	for len(left) > 0 {
		var round []*node
		for _, n := range left {
			if !slices.ContainsFunc(after[n], func(o *node) bool { return !slices.Contains(done, o) }) {
				round = append(round, n)
			}
		}
		if len(round) == 0 {
			return nil, fmt.Errorf("features that are to be installed after each other: %s", strings.Join(names(left), ", "))
		}
		highest := slices.MaxFunc(round, func(a, b *node) int { return cmp.Compare(a.priority, b.priority) }).priority
		round = slices.DeleteFunc(round, func(n *node) bool { return n.priority < highest })
		slices.SortStableFunc(round, compare)
		done = append(done, round...)
		left = slices.DeleteFunc(left, func(n *node) bool { return slices.Contains(round, n) })
	}
	return done, nil
}

// softly returns the features that one is installed after if they are there.
func (g *graph) softly(n *node) (list []*node) {
	for _, name := range n.Feature.InstallsAfter {
		for _, o := range g.nodes {
			if o != n && o.called(name) {
				list = append(list, o)
			}
		}
	}
	return list
}

// called reports whether a name without a version is that of the feature, or was.
func (n *node) called(name string) bool {
	own := strings.ToLower(n.Name)
	if name == own || name == strings.ToLower(n.id) {
		return true
	}
	dir, _ := path.Split(own)
	return slices.ContainsFunc(n.Feature.LegacyIDs, func(old string) bool { return name == dir+old })
}

func names(nodes []*node) (list []string) {
	for _, n := range nodes {
		list = append(list, n.id)
	}
	return list
}

// compare is the order of the features in one round.
func compare(a, b *node) int {
	keysA, keysB := slices.Sorted(maps.Keys(a.options)), slices.Sorted(maps.Keys(b.options))
	return cmp.Or(
		cmp.Compare(a.Name, b.Name),
		compareVersions(a.Version, b.Version),
		cmp.Compare(len(keysB), len(keysA)), // the one with more options first
		slices.Compare(keysA, keysB),
		slices.CompareFunc(keysA, keysB, func(x, y string) int { return cmp.Compare(a.options[x], b.options[y]) }),
		cmp.Compare(a.Digest, b.Digest),
	)
}

// compareVersions compares tags: numbers by their values, others as text, latest last.
func compareVersions(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "latest":
		return 1
	case b == "latest":
		return -1
	}
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(x, y string) int {
		m, errM := strconv.Atoi(x)
		n, errN := strconv.Atoi(y)
		if errM != nil || errN != nil {
			return cmp.Compare(x, y)
		}
		return cmp.Compare(m, n)
	})
}
