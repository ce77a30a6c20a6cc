package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// siblings is how many names below one parent make a wildcard of the proposal.
const siblings = 3

// Propose is a small set of allow rules for flows: those of a name together, names
// of one parent as a wildcard when there are several, a preset where its rules
// cover a flow and it covers at least two. What the set allows already is left
// out.
func (s *Set) Propose(flows []Flow) []string {
	var open []Flow
	for _, f := range flows {
		if !s.Decide(f).Allow && !slices.Contains(open, f) {
			open = append(open, f)
		}
	}
	var out []string
	for _, p := range presets {
		rules, err := expand(Allow, p.Name, Source{})
		if err != nil {
			continue
		}
		set := Compile(rules)
		covered := func(f Flow) bool { return set.Decide(f).Allow }
		if len(slices.DeleteFunc(slices.Clone(open), func(f Flow) bool { return !covered(f) })) >= 2 {
			out = append(out, "preset:"+p.Name)
			open = slices.DeleteFunc(open, covered)
		}
	}
	return append(out, proposeRest(open)...)
}

// proposeRest groups flows by target, then names by parent, unless that is a
// suffix below which anybody can get a name.
func proposeRest(open []Flow) []string {
	type group struct {
		target string
		proto  Proto
		ports  []uint16
	}
	var groups []group
	for _, f := range open {
		i := slices.IndexFunc(groups, func(g group) bool { return g.target == f.target() && g.proto == f.Proto })
		if i < 0 {
			groups = append(groups, group{target: f.target(), proto: f.Proto})
			i = len(groups) - 1
		}
		if !slices.Contains(groups[i].ports, f.Port) {
			groups[i].ports = append(groups[i].ports, f.Port)
		}
	}
	for i := range groups {
		slices.Sort(groups[i].ports)
	}
	count := map[string]int{} // of names below a parent, with the same ports
	parent := func(g group) string {
		_, up, ok := strings.Cut(g.target, ".")
		if suffix, _ := publicsuffix.PublicSuffix(up); !ok || suffix == up || strings.Trim(g.target, "0123456789.") == "" || g.target[0] == '[' {
			return ""
		}
		return fmt.Sprint("*.", up, g.proto, g.ports)
	}
	for _, g := range groups {
		if p := parent(g); p != "" {
			count[p]++
		}
	}
	var out []string
	for _, g := range groups {
		if p := parent(g); count[p] >= siblings {
			_, up, _ := strings.Cut(g.target, ".")
			g.target = "*." + up
		}
		var ports []string
		for _, p := range g.ports {
			ports = append(ports, fmt.Sprint(p))
		}
		text := g.target + ":" + strings.Join(ports, ",")
		if g.proto == UDP {
			text = "udp:" + text
		}
		if rules, err := ParseRule(Allow, text); err == nil && len(rules) == 1 {
			if text = rules[0].Text; !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	slices.SortFunc(out, cmp.Compare[string])
	return out
}
