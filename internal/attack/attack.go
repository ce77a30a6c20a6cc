// Package attack is a conformance suite for sandboxes: it runs the same attacks in any of
// them, and judges each by what happened on the host.
//
// # Theory of operation
//
// Run makes a project directory in the home directory, with baits around it: files with
// random tokens, a process, an environment variable. It starts servers on an address of
// the host, each of which counts what reaches it (host.go, servers.go). It copies this
// program into the project and has the adapter, a shell command line, run it inside the
// sandbox. That process, the probe (probe.go), tries each attack of the list in list.go and
// prints one line of JSON for each: that it tried, and what it got.
//
// The probe is hostile in a real sandbox, so its word counts against the sandbox only. An
// attack is not held if a server counted it, if a file or process of the host changed, or if
// the probe knows a token that is only outside. An attack that the probe did not try is
// never held: it is not applicable, if the probe says why, or not measured.
//
// Nothing here needs the Internet. The servers are on the loopback unless Config.Addr is
// another address of the host, such as the one that a bridged container reaches.
package attack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Verb is the first argument of the program with which it runs as the probe. The second
// is the specification, a file in the project.
const Verb = "__attack-probe"

// Outcome says how an attack ended.
type Outcome string

// All outcomes.
const (
	Held          Outcome = "held"
	NotHeld       Outcome = "NOT held"
	NotApplicable Outcome = "not applicable" // it cannot be tried in this sandbox, or not here
	NotMeasured   Outcome = "not measured"   // the probe did not report that it tried
)

// Result is the outcome of one attack.
type Result struct {
	Number  int     `json:"number"` // in the list of attacks by which the project is measured
	Kind    string  `json:"kind"`   // network, secrets or files
	ID      string  `json:"id"`
	Attack  string  `json:"attack"`
	Outcome Outcome `json:"outcome"`
	Why     string  `json:"why"` // what happened on the host, or what the probe got; not safe for a terminal
}

// Report is the outcome of all attacks, in the order of the list.
type Report struct {
	Adapter string   `json:"adapter"`
	Results []Result `json:"results"`
}

// Held reports whether each attack was held or is not applicable.
func (r *Report) Held() bool {
	for _, v := range r.Results {
		if v.Outcome == NotHeld || v.Outcome == NotMeasured {
			return false
		}
	}
	return true
}

// Config says what to attack.
type Config struct {
	// Adapter is the beginning of a shell command line to which the command to run in the
	// sandbox is appended. It starts in the project directory, and has these variables:
	//
	//	ATTACK_DIR      the project directory, which the sandbox must share at this path
	//	ATTACK_ADDR     the address of the servers
	//	ATTACK_ALLOWED  a name for it that the sandbox may allow, for ATTACK_PORTS
	//	ATTACK_PORTS    the ports of the allowed servers (HTTPS and HTTP), with a comma
	//	ATTACK_DENIED   a name for it that the sandbox does not allow
	//	ATTACK_LOOP     a name for 127.0.0.1 that the sandbox may allow
	Adapter string
	// Program is copied into the project and run there: a static program that calls Probe
	// if its first argument is Verb.
	Program string
	// Home is the directory in which the project and the baits are made and removed
	// again.
	Home string
	// Addr is the address of the servers; the zero value is one of the loopback.
	Addr netip.Addr
	// Limit bounds the run of the adapter; zero means five minutes.
	Limit time.Duration

	// loopbackOnly keeps the probe from asking resolvers and trying gateways: tests talk to
	// the loopback only.
	loopbackOnly bool
}

// defaultLimit is Config.Limit if that is zero.
const defaultLimit = 5 * time.Minute

// settleTime is how long datagrams may take to arrive after the probe has ended.
const settleTime = 500 * time.Millisecond

// Run makes all attacks once. The error is about the run; what did not hold is in the
// report.
func Run(ctx context.Context, c Config) (_ *Report, err error) {
	if c.Adapter == "" {
		return nil, errors.New("no adapter: say how to run a command in the sandbox")
	}
	if !c.Addr.IsValid() {
		c.Addr = netip.AddrFrom4([4]byte{127, 77, 66, 54})
	}
	if c.Limit == 0 {
		c.Limit = defaultLimit
	}
	h, err := newHost(c)
	if err != nil {
		return nil, fmt.Errorf("attack: %w", err)
	}
	defer func() { err = errors.Join(err, h.close()) }()
	answers, err := h.runProbe(ctx)
	if err != nil {
		return nil, fmt.Errorf("attack: %w", err)
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(settleTime):
	}
	r := &Report{Adapter: c.Adapter}
	for _, a := range attacks {
		v := Result{Number: a.number, Kind: a.kind, ID: a.id, Attack: a.title}
		v.Outcome, v.Why = h.judge(a, answers[a.id])
		r.Results = append(r.Results, v)
	}
	return r, nil
}

// judge decides by the host's evidence first; the probe's answer may be nil.
func (h *host) judge(a attack, got *answer) (Outcome, string) {
	var said string
	if got != nil {
		said = got.Said
	}
	switch evidence := a.evidence(h, said); {
	case evidence != "":
		return NotHeld, evidence
	case !strings.Contains(h.Adapter, a.needs):
		return NotApplicable, "the adapter gives no address to $" + a.needs
	case got == nil:
		return NotMeasured, "the probe reported nothing"
	case !got.Tried:
		return NotApplicable, said
	}
	return Held, said
}
