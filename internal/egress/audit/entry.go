package audit

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/text"
)

// Verdicts and events of an Entry.
const (
	Allowed = "allow"
	Denied  = "deny"
	Asked   = "ask" // the guest asks for the rule Suggest, for Reason

	EventOpen  = "open"  // a connection begins
	EventClose = "close" // it ended: bytes and duration are known

	EventRequest = "request" // a request on an inspected connection is over

	ProtoSign = "sign" // not about traffic: a commit or a tag was to be signed
)

// Entry is one line of the audit log.
type Entry struct {
	Time    time.Time     `json:"time"`
	Verdict string        `json:"verdict"`         // Allowed, Denied or Asked
	Event   string        `json:"event,omitempty"` // EventOpen, EventClose; empty for a single decision
	Flow    uint64        `json:"flow,omitempty"`  // joins the open and the close of a connection
	Proto   string        `json:"proto,omitempty"` // tcp, udp, icmp, dns, link, sign
	App     string        `json:"app,omitempty"`   // tls, inspected, http, http2, ssh (ended here), or the type of a DNS query
	Name    string        `json:"name,omitempty"`
	Addr    netip.Addr    `json:"addr,omitzero"` // dialled; for a denial the one the guest asked for
	Port    uint16        `json:"port,omitempty"`
	Via     string        `json:"via,omitempty"`     // host and port of the host's proxy that it went through
	Method  string        `json:"method,omitempty"`  // of a request
	Path    string        `json:"path,omitempty"`    // of a request, without its query
	Status  int           `json:"status,omitempty"`  // of its answer; 0: none, or not known
	Object  string        `json:"object,omitempty"`  // that was signed: commit or tag, and its name
	Of      string        `json:"of,omitempty"`      // the name of its tree, or of the object that the tag is for
	Rule    string        `json:"rule,omitempty"`    // that decided; empty is the default denial
	Reason  string        `json:"reason,omitempty"`  // of a denial, or of an end that was not the peers' own
	Suggest string        `json:"suggest,omitempty"` // the rule that would allow it
	Sent    int64         `json:"sent,omitempty"`    // bytes from the guest, of all Count
	Got     int64         `json:"got,omitempty"`     // bytes to the guest, likewise
	Lasted  time.Duration `json:"lasted_ns,omitempty"`
	Process string        `json:"process,omitempty"` // name and number, as the guest tells: it may lie
	Count   int           `json:"count,omitempty"`   // how many alike, if more than one
}

// EntryOf returns the part of a line that a flow and the decision about it
// determine. Verdict and Event are the caller's to set.
func EntryOf(to policy.Flow, d policy.Decision) Entry {
	e := Entry{Proto: string(to.Proto), Name: to.Name, Port: to.Port, Rule: d.RuleText()}
	if to.Name == "" {
		e.Addr = to.Addr
	}
	return e
}

// Deny returns the entry as that of a denial. suggest is the rule that would allow the
// flow, or empty.
func (e Entry) Deny(d policy.Decision, suggest string) Entry {
	e.Verdict, e.Reason, e.Rule, e.Suggest = Denied, d.Reason, d.RuleText(), suggest
	return e
}

// WantsHost reports whether the guest connected, or asked for a host's address in
// order to. Names of services (_http._tcp.example.org, RFC 2782) and questions
// for other records lead to no connection: a rule would not help.
func (e Entry) WantsHost() bool {
	if e.Proto != "dns" {
		return true
	}
	return (e.App == "A" || e.App == "AAAA") && !strings.HasPrefix(e.Name, "_") && !strings.Contains(e.Name, "._")
}

// Heading goes above lines made by Text.
var Heading = fmt.Sprintf("%-12s %-7s %-5s %-*s %s", "TIME", "VERDICT", "PROTO", processWidth, "PROCESS", "TARGET")

// processWidth holds the longest name that Linux keeps (15 bytes) and a number.
const processWidth = 20

// Text returns the entry as one line for people, below Heading, safe to print: the
// guest chose parts of it. allow is the command that a front end has for adding a rule;
// it is shown with the rule that is missing.
func (e Entry) Text(allow string) string { return e.text(allow, true) }

// Brief is Text without the column of the process, for the guest to read.
func (e Entry) Brief(allow string) string { return e.text(allow, false) }

func (e Entry) text(allow string, process bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-7s %-5s", e.Time.Local().Format("15:04:05.000"), e.Verdict, e.Proto)
	if process {
		fmt.Fprintf(&b, " %-*s", processWidth, cmp.Or(e.Process, "-"))
	}
	reason := e.Reason
	if e.Verdict == Asked {
		reason = fmt.Sprintf("the agent's reason: %q", e.Reason)
	}
	fmt.Fprintf(&b, " %s", e.target())
	for _, part := range []string{e.App, e.Event, reason} {
		if part != "" {
			fmt.Fprintf(&b, " %s", part)
		}
	}
	if e.Status != 0 && e.Event == EventRequest {
		fmt.Fprintf(&b, " %d", e.Status)
	}
	if e.Rule != "" {
		fmt.Fprintf(&b, " [%s]", e.Rule)
	}
	if e.Event == EventClose || e.Event == EventRequest {
		fmt.Fprintf(&b, " sent %d got %d", e.Sent, e.Got)
		if e.Count <= 1 {
			fmt.Fprintf(&b, " in %s", e.Lasted.Round(time.Millisecond))
		}
	}
	if e.Verdict != Allowed && e.Suggest != "" {
		fmt.Fprintf(&b, " (%s %s", allow, text.ShellWord(e.Suggest))
		if x, err := policy.ExposureOf(e.Suggest, policy.Host{}); err == nil && x.Opens != "" {
			fmt.Fprintf(&b, " would open %s", x.Opens)
		}
		b.WriteByte(')')
	}
	if e.Count > 1 {
		fmt.Fprintf(&b, " x%d", e.Count)
	}
	return text.Line(b.String())
}

// target returns what an entry is about: a host with its port, a request, what was signed, or the rule that
// an agent asks for.
func (e Entry) target() string {
	target := e.Name
	switch {
	case e.Proto == ProtoSign:
		return e.signed()
	case e.Verdict == Asked:
		target = e.Suggest
	case target == "" && e.Addr.IsValid():
		target = e.Addr.String()
	}
	if e.Port != 0 {
		target = fmt.Sprintf("%s:%d", target, e.Port)
	}
	if e.Method != "" {
		target = e.Method + " " + target + e.Path
	}
	return target
}

// signed says what was signed, or was not.
func (e Entry) signed() string {
	what := cmp.Or(e.Object, "an object")
	if e.Of != "" {
		what += " of " + e.Of
	}
	return what
}
