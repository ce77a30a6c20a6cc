package control

import (
	"net/netip"
	"sync"
	"time"

	"bawn.dev/bawn/internal/sandbox"
)

// Kind is the kind of an Event. Its values are stable.
type Kind string

// The kinds of events. The fields of Event that each one fills stand beside it.
const (
	// KindStatus is the first event of every stream (Status).
	KindStatus Kind = "status"
	// KindPhase: the sandbox entered another phase (Phase; Message when it ended by
	// itself).
	KindPhase Kind = "phase"
	// KindAttached: a command, a shell or an SSH client attached (Attached).
	KindAttached Kind = "attached"
	// KindDetached: one of them detached (Attached).
	KindDetached Kind = "detached"
	// KindDenial: traffic of the guest was denied (Denial).
	KindDenial Kind = "denial"
	// KindAccess: the guest asks the person for a rule (Access).
	KindAccess Kind = "access-request"
	// KindSpace: the machine is paused because the host's disk is full (Starved), or runs
	// again.
	KindSpace Kind = "space"
	// KindLagged is the last event of a stream whose subscriber did not keep up: later
	// events were lost. The subscriber may subscribe again.
	KindLagged Kind = "lagged"
)

// Event is something that happened to a sandbox.
type Event struct {
	Kind     Kind          `json:"kind"`
	Time     time.Time     `json:"time"`
	Status   *Status       `json:"status,omitempty"`
	Phase    sandbox.Phase `json:"phase,omitempty"`
	Message  string        `json:"message,omitempty"`
	Attached int           `json:"attached,omitempty"` // how many are attached now
	Denial   *Denial       `json:"denial,omitempty"`
	Access   *Access       `json:"access,omitempty"`
	Starved  bool          `json:"starved,omitempty"`
}

// Denial is traffic that the policy denied. The guest chose parts of it.
type Denial struct {
	Proto   string     `json:"proto,omitempty"` // tcp, udp, icmp, dns, link
	App     string     `json:"app,omitempty"`   // tls, http, http2, or the type of a DNS query
	Name    string     `json:"name,omitempty"`
	Addr    netip.Addr `json:"addr,omitzero"`
	Port    uint16     `json:"port,omitempty"`
	Rule    string     `json:"rule,omitempty"` // the rule that denied it; empty for the default denial
	Reason  string     `json:"reason,omitempty"`
	Suggest string     `json:"suggest,omitempty"` // the rule that would allow it
	Process string     `json:"process,omitempty"` // name and number, as the guest reports them: it may lie
	Count   int        `json:"count,omitempty"`   // how many alike, if more than one
}

// Access is a rule that the guest asks the person for, and the reason that it gives: the guest
// chose both, and the reason may be a lie.
type Access struct {
	Rule   string    `json:"rule"` // in its canonical form
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// maxPending bounds the events that wait for one subscriber.
const maxPending = 256

// Broadcaster passes events to subscribers. Send never blocks: a subscriber that does not
// keep up is dropped. Its methods may be called by several goroutines at once. The zero
// value is ready.
type Broadcaster struct {
	mu     sync.Mutex
	subs   map[*Subscription]bool
	closed bool
}

// Send passes an event to all subscribers. An event without a time gets the present.
func (b *Broadcaster) Send(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		if !s.add(e) {
			s.lagged = true
			b.end(s)
		}
	}
}

// Subscribe begins a subscription to all events from now on. The first one is that of the
// status: what happened before Subscribe is in it, what happens after it is called is an event,
// and what happens meanwhile is an event and may be in the status too. status may take any
// lock, also one that is held when Send is called. The caller closes the subscription.
func (b *Broadcaster) Subscribe(status func() Status) *Subscription {
	s := &Subscription{from: b, events: make(chan Event, maxPending), starting: true}
	b.begin(s)
	now := status()
	b.mu.Lock()
	defer b.mu.Unlock()
	s.starting = false
	s.events <- Event{Kind: KindStatus, Time: time.Now(), Status: &now}
	for _, e := range s.early {
		s.events <- e // there is room for all
	}
	s.early = nil
	if !b.subs[s] { // ended meanwhile
		close(s.events)
	}
	return s
}

// begin adds a subscription, unless there are to be none any more.
func (b *Broadcaster) begin(s *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	if b.subs == nil {
		b.subs = map[*Subscription]bool{}
	}
	b.subs[s] = true
}

// Close ends all subscriptions, once their subscribers have the events sent before, and
// those that begin later.
func (b *Broadcaster) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for s := range b.subs {
		b.end(s)
	}
}

// end ends a subscription; b.mu is held.
func (b *Broadcaster) end(s *Subscription) {
	if b.subs[s] {
		delete(b.subs, s)
		if !s.starting { // otherwise Subscribe closes it
			close(s.events)
		}
	}
}

// Subscription is one subscriber's stream of events.
type Subscription struct {
	from   *Broadcaster
	events chan Event
	lagged bool // written before events is closed

	starting bool    // the first event is not there yet
	early    []Event // sent before it; they follow it
}

// add passes an event on and reports whether there was room; from.mu is held.
func (s *Subscription) add(e Event) bool {
	if s.starting {
		room := len(s.early) < maxPending-1 // one is for the status
		if room {
			s.early = append(s.early, e)
		}
		return room
	}
	select {
	case s.events <- e:
		return true
	default:
		return false
	}
}

// Events returns the channel of events. It is closed when the sandbox ends, when the
// subscription is closed, or when the subscriber did not keep up (Lagged).
func (s *Subscription) Events() <-chan Event { return s.events }

// Lagged reports whether events were lost. It is valid once Events is closed.
func (s *Subscription) Lagged() bool { return s.lagged }

// Close ends the subscription.
func (s *Subscription) Close() {
	s.from.mu.Lock()
	defer s.from.mu.Unlock()
	s.from.end(s)
}
