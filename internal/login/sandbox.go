package login

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/sys/fileid"
)

// Sandbox is the logins of the agents of one sandbox, as they are on disk. Safe for concurrent use.
type Sandbox struct {
	store    *Store
	id, name string

	mu        sync.Mutex
	agents    []string
	seen      fileid.Stamp // of the index
	read      bool
	list      []secret.Bound
	endpoints []Endpoint
}

// Sandbox returns the logins of the sandbox with that ID and name; it has no agents at first.
func (s *Store) Sandbox(id, name string) *Sandbox {
	return &Sandbox{store: s, id: id, name: name}
}

// SetAgents tells the sandbox's agents.
func (b *Sandbox) SetAgents(names []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.agents, b.read = slices.Clone(names), false
}

// List returns the tokens of the sandbox's logins, as secrets of the API hosts. Access tokens are put into
// requests there; others are not, but are looked for in answers. The slice is not to be changed.
func (b *Sandbox) List() ([]secret.Bound, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.refresh()
	return b.list, err
}

// Endpoints returns the token endpoints of the sandbox's agents on a host.
func (b *Sandbox) Endpoints(h secret.Host) (list []Endpoint, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.refresh(); err != nil {
		return nil, err
	}
	for _, e := range b.endpoints {
		if e.Host == h {
			list = append(list, e)
		}
	}
	return list, nil
}

// refresh reads the index if it changed. b.mu is held.
func (b *Sandbox) refresh() error {
	if len(b.agents) == 0 {
		b.list, b.endpoints = nil, nil
		return nil
	}
	now, err := fileid.StampOf(b.store.path())
	if err != nil {
		return fmt.Errorf("list of logins: %w", err)
	}
	if b.read && now == b.seen {
		return nil
	}
	all, err := b.store.List()
	if err != nil {
		return err
	}
	var list []secret.Bound
	var endpoints []Endpoint
	for _, l := range all {
		if !slices.Contains(b.agents, l.Agent) {
			continue
		}
		own, err := b.store.bound(&l)
		if err != nil {
			return err
		}
		at, err := l.Definition.endpoints(l.Agent)
		if err != nil {
			return err
		}
		if !l.Kept() { // the API hosts are not inspected
			at = at[:len(l.Definition.Endpoints)]
		}
		list, endpoints = append(list, own...), append(endpoints, at...)
	}
	b.list, b.endpoints, b.seen, b.read = list, endpoints, now, true
	return nil
}

// bound returns the tokens of a login as secrets. A placeholder of which no token is kept is
// one of no host.
func (s *Store) bound(l *Login) (list []secret.Bound, err error) {
	hosts, err := l.Definition.hosts()
	if err != nil {
		return nil, err
	}
	for field := range l.Tokens {
		p, err := s.placeholder(l, field)
		if err != nil {
			return nil, err
		}
		b := secret.Bound{Secret: l.entry(field), Placeholder: p, Token: true}
		if l.has(field) {
			b.For, b.Place = hosts, secret.Place{Where: secret.InExchange}
		}
		if field == accessToken {
			b.Place.Where = secret.InBearer
		}
		b.Value = func(ctx context.Context) (string, error) { return s.value(ctx, l, field) }
		list = append(list, b)
	}
	return list, nil
}

// value returns a token.
func (s *Store) value(ctx context.Context, l *Login, field string) (string, error) {
	if l.UseHost {
		t, err := s.hostTokens(l)
		if err != nil {
			return "", err
		}
		if v := t.values[field]; v != "" {
			return v, nil
		}
		return "", fmt.Errorf("the login of %s on the host has no %s", l.Agent, field)
	}
	e := l.entry(field)
	if e.Stored == "" {
		return "", fmt.Errorf("%w: %s", ErrNone, l.Agent)
	}
	return s.secrets.Value(ctx, &e)
}
