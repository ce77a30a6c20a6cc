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
// cover at least two flows and one of them is its own: no other preset covers it.
// What the set allows already is left out, and what it denies: no rule helps there.
func (s *Set) Propose(flows []Flow) []string {
	var open []Flow
	for _, f := range flows {
		if d := s.Decide(f); d.Rule == nil && f.Unreachable() == nil && !slices.Contains(open, f) {
			open = append(open, f)
		}
	}
	sets := map[string]*Set{}
	for _, p := range presets {
		rules, err := expand(Allow, p.Name, Source{})
		if err != nil {
			continue // a mistake of ours, which a test finds
		}
		sets[p.Name] = Compile(rules)
	}
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
