package nameserver

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxNames bounds the names that hold a synthetic address at a time. The
	// guest can ask for endless names below a `**` rule.
	maxNames = 16384
	// answerTTL is how long a guest may keep an answer, in seconds.
	answerTTL = 60
	// nameRest is how long a name keeps its address after the last answer and
	// the last connection, when others need the place.
	nameRest = 10 * answerTTL * time.Second
)

// ErrFull means that each synthetic address is in use.
var ErrFull = errors.New("all addresses for names are in use; stop the sandbox and start it again")

// synthetic is a name with its two addresses.
type synthetic struct {
	name  string
	slot  uint32
	used  time.Time // last answer or connection
	flows int       // open connections
}

// Table is the stable map between names and synthetic addresses. An address is
// given to another name only when all are taken, the oldest unused one first.
// Safe for concurrent use.
type Table struct {
	pool4, pool6 netip.Prefix
	size         uint32 // slots
	now          func() time.Time

	mu     sync.Mutex
	byName map[string]*synthetic
	bySlot map[uint32]*synthetic
	next   uint32
}

// NewTable returns an empty table of addresses in two ranges, of which either may be
// missing (the zero Prefix).
func NewTable(pool4, pool6 netip.Prefix) *Table {
	n := &Table{
		pool4: pool4.Masked(), pool6: pool6.Masked(), size: maxNames, now: time.Now,
		byName: map[string]*synthetic{}, bySlot: map[uint32]*synthetic{},
	}
	// The first and the last address of the v4 pool stay free: some systems
	// take them for network and broadcast.
	if bits := 32 - pool4.Bits(); pool4.IsValid() && bits < 20 {
		if n.size = 0; bits >= 2 {
			n.size = min(maxNames, uint32(1)<<bits-2)
		}
	}
	return n
}

// Addresses returns a name's addresses, the same as before if it has some. The error
// is ErrFull.
func (n *Table) Addresses(name string) (v4, v6 netip.Addr, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	s := n.byName[name]
	if s == nil {
		slot, ok := n.free(now)
		if !ok {
			return v4, v6, ErrFull
		}
		s = &synthetic{name: name, slot: slot}
		n.byName[name], n.bySlot[slot] = s, s
	}
	s.used = now
	return at(n.pool4, s.slot+1), at(n.pool6, s.slot+1), nil
}

// free finds a slot for a new name.
func (n *Table) free(now time.Time) (uint32, bool) {
	if n.next < n.size {
		n.next++
		return n.next - 1, true
	}
	var oldest *synthetic
	for _, s := range n.bySlot {
		if s.flows == 0 && (oldest == nil || s.used.Before(oldest.used)) {
			oldest = s
		}
	}
	if oldest == nil || now.Sub(oldest.used) < nameRest {
		return 0, false
	}
	delete(n.byName, oldest.name)
	delete(n.bySlot, oldest.slot)
	return oldest.slot, true
}

// Contains reports whether an address is one that names get.
func (n *Table) Contains(a netip.Addr) bool {
	return n.pool4.Contains(a) || n.pool6.Contains(a)
}

// Name returns the name behind an address, or "".
func (n *Table) Name(a netip.Addr) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.find(a); s != nil {
		return s.name
	}
	return ""
}

// Hold keeps a name's address while a connection is open; release ends that. name is
// empty if no name has the address.
func (n *Table) Hold(a netip.Addr) (name string, release func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.find(a)
	if s == nil {
		return "", func() {}
	}
	s.flows++
	s.used = n.now()
	return s.name, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		s.flows--
		s.used = n.now()
	}
}

func (n *Table) find(a netip.Addr) *synthetic {
	var base netip.Prefix
	switch {
	case n.pool4.Contains(a):
		base = n.pool4
	case n.pool6.Contains(a):
		base = n.pool6
	default:
		return nil
	}
	slot, ok := offset(base, a)
	if !ok || slot == 0 {
		return nil
	}
	return n.bySlot[slot-1]
}

// at is the i-th address of a prefix, or none if there is no such prefix.
func at(p netip.Prefix, i uint32) netip.Addr {
	switch {
	case !p.IsValid():
		return netip.Addr{}
	case p.Addr().Is4():
		b := p.Addr().As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+i)
		return netip.AddrFrom4(b)
	}
	b := p.Addr().As16()
	binary.BigEndian.PutUint32(b[12:], binary.BigEndian.Uint32(b[12:])+i)
	return netip.AddrFrom16(b)
}

// offset is the inverse of at.
func offset(p netip.Prefix, a netip.Addr) (uint32, bool) {
	if a.Is4() {
		x, y := a.As4(), p.Addr().As4()
		return binary.BigEndian.Uint32(x[:]) - binary.BigEndian.Uint32(y[:]), true
	}
	x, y := a.As16(), p.Addr().As16()
	if [12]byte(x[:12]) != [12]byte(y[:12]) {
		return 0, false
	}
	return binary.BigEndian.Uint32(x[12:]) - binary.BigEndian.Uint32(y[12:]), true
}

// Save returns the place of each name, for Load.
func (n *Table) Save() map[string]uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := map[string]uint32{}
	for name, s := range n.byName {
		m[name] = s.slot
	}
	return m
}

// Load gives names the places that they had. Call it before any other name has one.
func (n *Table) Load(m map[string]uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, slot := range m {
		if slot >= n.size || n.bySlot[slot] != nil {
			continue
		}
		s := &synthetic{name: name, slot: slot, used: n.now()}
		n.byName[name], n.bySlot[slot] = s, s
		n.next = max(n.next, slot+1)
	}
}
