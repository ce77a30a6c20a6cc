package egress

import (
	"net/netip"
	"slices"
	"time"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/policy"
)

// Denial is a flow or a query that was refused.
type Denial struct {
	Time    time.Time  `json:"time"` // of the last one
	Proto   string     `json:"proto"`
	Name    string     `json:"name,omitempty"`
	Addr    netip.Addr `json:"addr,omitzero"`
	Port    uint16     `json:"port,omitempty"`
	Method  string     `json:"method,omitempty"` // of a request
	Path    string     `json:"path,omitempty"`   // of a request, without its query
	Reason  string     `json:"reason"`
	Rule    string     `json:"rule,omitempty"`    // that denied; empty is the default
	Suggest string     `json:"suggest,omitempty"` // the rule to add, if one would help
	Count   int        `json:"count"`
}

// key tells denials apart.
func (d Denial) key() Denial {
	d.Time, d.Count = time.Time{}, 0
	return d
}

// maxDenials bounds the recent denials that are kept.
const maxDenials = 128

// Denials lists the recent denials, the latest first.
func (g *Gateway) Denials() []Denial {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := slices.Clone(g.denials)
	slices.Reverse(out)
	return out
}

// deny logs a denial and adds it to the list of recent denials. suggest is the rule
// that would allow the flow, or empty.
func (g *Gateway) deny(e audit.Entry, d policy.Decision, suggest string, h *processHint) {
	e = e.Deny(d, suggest)
	g.write(e, h)
	g.remember(Denial{Time: time.Now(), Proto: e.Proto, Name: e.Name, Addr: e.Addr, Port: e.Port, Method: e.Method, Path: e.Path, Reason: e.Reason, Rule: e.Rule, Suggest: e.Suggest, Count: 1})
}

func (g *Gateway) remember(d Denial) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.denials, func(o Denial) bool { return o.key() == d.key() })
	if i >= 0 {
		d.Count += g.denials[i].Count
		g.denials = slices.Delete(g.denials, i, i+1)
	} else if len(g.denials) >= maxDenials {
		g.denials = slices.Delete(g.denials, 0, 1)
	}
	g.denials = append(g.denials, d)
}

// Text is a denial as one line for the agent, safe to print.
func (d Denial) Text() string {
	return audit.Entry{Time: d.Time, Verdict: audit.Denied, Proto: d.Proto, Name: d.Name, Addr: d.Addr, Port: d.Port, Method: d.Method, Path: d.Path, Reason: d.Reason, Rule: d.Rule, Suggest: d.Suggest, Count: d.Count}.Brief(allowCommand)
}
