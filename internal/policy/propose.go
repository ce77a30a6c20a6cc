package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// siblings is how many names below one parent make a wildcard of the proposal.
const siblings = 3

// Propose returns a small list of allow rules for flows: those of a name together,
// names of one parent as a wildcard when there are several, a preset where its rules
// cover at least two flows, one of which no other preset covers. Flows that the set
// allows already are left out, and those that it denies: no rule helps there.
//
// All rules in it are Ordinary. Those that open more, of those that Suggest returns, are in
// alone: for the user to decide one by one.
func (s *Set) Propose(flows []Flow, host Host) (rules, alone []string) {
	var open []Flow
	for _, f := range flows {
		text := Suggest(f)
		if d := s.Decide(f); d.Rule != nil || text == "" || slices.Contains(open, f) {
			continue
		}
		switch e, err := ExposureOf(text, host); {
		case err != nil || !f.Host && e.Severity() == OpensHost:
		case e.Severity() > Ordinary && !slices.Contains(alone, text):
			alone = append(alone, text)
		case e.Severity() == Ordinary:
			open = append(open, f)
		}
	}
	slices.Sort(alone)
	return proposeRules(open), alone
}

// proposeRules returns the rules for flows, each of which has an Ordinary one.
func proposeRules(open []Flow) []string {
	sets := presetSets()
	covering := func(f Flow) (names []string) {
		for name, set := range sets {
			if set.Decide(f).Allow {
				names = append(names, name)
			}
		}
		return names
	}
	covered, own := map[string]int{}, map[string]bool{}
	for _, f := range open {
		names := covering(f)
		for _, n := range names {
			covered[n]++
		}
		if len(names) == 1 {
			own[names[0]] = true
		}
	}
	var out []string
	for _, p := range presets {
		if covered[p.Name] >= 2 && own[p.Name] {
			out = append(out, "preset:"+p.Name)
			open = slices.DeleteFunc(open, func(f Flow) bool { return sets[p.Name].Decide(f).Allow })
		}
	}
	return append(out, proposeRest(open)...)
}

// presetSets compiles each preset by name.
func presetSets() map[string]*Set {
	sets := map[string]*Set{}
	for _, p := range presets {
		rules, err := expand(Allow, p.Name, Source{})
		if err != nil {
			continue // a mistake in the table, which a test finds
		}
		sets[p.Name] = Compile(rules)
	}
	return sets
}

// group is the flows to one target over one protocol.
type group struct {
	target string
	proto  Proto
	ports  []uint16 // in order
}

// groupFlows puts flows to the same target over the same protocol together.
func groupFlows(flows []Flow) (groups []*group) {
	for _, f := range flows {
		i := slices.IndexFunc(groups, func(g *group) bool { return g.target == f.target() && g.proto == f.Proto })
		if i < 0 {
			i = len(groups)
			groups = append(groups, &group{target: f.target(), proto: f.Proto})
		}
		if !slices.Contains(groups[i].ports, f.Port) {
			groups[i].ports = append(groups[i].ports, f.Port)
		}
	}
	for _, g := range groups {
		slices.Sort(g.ports)
	}
	return groups
}

// wildcard returns the wildcard for the names beside the group's; "" for an address,
// and where anybody can get a name below the parent.
func (g *group) wildcard() string {
	_, parent, ok := strings.Cut(g.target, ".")
	address := g.target[0] == '[' || strings.Trim(g.target, "0123456789.") == ""
	if !ok || address || ownerOf(parent) != oneOwner {
		return ""
	}
	return "*." + parent
}

// rule returns the text of the rule that allows the group, with another target if
// there is one.
func (g *group) rule(target string) string {
	var ports []string
	for _, p := range g.ports {
		ports = append(ports, fmt.Sprint(p))
	}
	text := cmp.Or(target, g.target) + ":" + strings.Join(ports, ",")
	if g.proto == UDP {
		text = "udp:" + text
	}
	return text
}

// proposeRest returns rules for flows that no preset covers: grouped by target, and
// names of one parent with the same ports as a wildcard.
func proposeRest(open []Flow) []string {
	groups := groupFlows(open)
	count := map[string]int{} // groups by their rule as a wildcard
	for _, g := range groups {
		if w := g.wildcard(); w != "" {
			count[g.rule(w)]++
		}
	}
	var out []string
	for _, g := range groups {
		text := g.rule("")
		if w := g.wildcard(); w != "" && count[g.rule(w)] >= siblings {
			text = g.rule(w)
		}
		rules, err := ParseRule(Allow, text)
		if err == nil && len(rules) == 1 && !slices.Contains(out, rules[0].Text) {
			out = append(out, rules[0].Text)
		}
	}
	slices.Sort(out)
	return out
}
