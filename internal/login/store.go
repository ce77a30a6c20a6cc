package login

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/xdg"
)

const (
	// indexFile is the index in the configuration folder.
	indexFile = "logins.json"
	// maxIndex bounds the index, in bytes.
	maxIndex = 16 << 20
	// maxLogins bounds the agents with a login.
	maxLogins = 64
	// lockTime bounds the wait for the index, which is locked for moments only.
	lockTime = 10 * time.Second
)

// ErrNone means that no login of that agent is kept.
var ErrNone = errors.New("no login is kept")

// Login is the entry of an agent. It has no token.
type Login struct {
	Agent      string           `json:"agent"`
	Definition Definition       `json:"definition"`
	ID         string           `json:"id"`               // the placeholders are derived from it
	Tokens     map[string]Token `json:"tokens,omitempty"` // by the answer's field; also those that are not kept any more
	// UseHost: the tokens are those in the host's own file.
	UseHost bool      `json:"useHost,omitempty"`
	Made    time.Time `json:"made,omitzero"`
	Renewed time.Time `json:"renewed,omitzero"` // when the latest tokens came
	Expires time.Time `json:"expires,omitzero"` // end of the access token, by the host's clock
	Account string    `json:"account,omitempty"`
	Sandbox string    `json:"sandbox,omitempty"` // in which the person logged in
	Client  string    `json:"client,omitempty"`  // client_id that got the tokens, and that may renew them
	// Refused is the error with which the server refused the latest refresh; empty if it did not.
	Refused string `json:"refused,omitempty"`
	// Serial counts the answers with tokens. Answer is the latest, with placeholders.
	Serial int             `json:"serial,omitempty"`
	Answer json.RawMessage `json:"answer,omitempty"`
	// File is the file in which the agent has its tokens, with placeholders; empty until one was seen.
	File []byte `json:"file,omitempty"`
	// Window, if it is not over, lets a sandbox log in anew.
	Window Window `json:"window,omitzero"`
}

// Window is a time in which a sandbox may log in.
type Window struct {
	Sandbox string    `json:"sandbox"` // its ID
	Until   time.Time `json:"until"`
}

// Token is where a token is kept.
type Token struct {
	Shape  secret.Shape  `json:"shape"` // of its placeholder, fixed by the first one
	Keeper secret.Keeper `json:"keeper,omitempty"`
	// Stored names it in its keeper; empty: none is kept. Without a keeper it is in the host's file.
	Stored string `json:"stored,omitempty"`
}

// Kept reports whether there is a login.
func (l *Login) Kept() bool { return l.has(accessToken) }

// has reports whether there is a token for a placeholder.
func (l *Login) has(field string) bool { return l.Tokens[field].Stored != "" }

// entry returns a token as a secret.
func (l *Login) entry(field string) secret.Secret {
	t := l.Tokens[field]
	return secret.Secret{ID: l.ID + " " + field, Name: l.Agent + " login (" + field + ")", Keeper: t.Keeper, Stored: t.Stored, Shape: t.Shape}
}

// Store holds the logins of one user. It is safe for concurrent use, also by several processes.
type Store struct {
	config, home string
	secrets      *secret.Store
	now          func() time.Time
}

// Open returns the user's store.
func Open() (*Store, error) {
	config, err := xdg.Config()
	if err != nil {
		return nil, err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	secrets, err := secret.Open()
	if err != nil {
		return nil, err
	}
	return OpenAt(config, home, secrets), nil
}

// OpenAt returns the store in bawn's configuration folder, which need not exist. home is the user's.
func OpenAt(config, home string, secrets *secret.Store) *Store {
	return &Store{config: config, home: home, secrets: secrets, now: time.Now}
}

type index struct {
	Logins []Login `json:"logins"`
}

func (s *Store) path() string { return filepath.Join(s.config, indexFile) }

// List returns all entries, by agent. An index that is damaged, or that other users can change, is an
// error.
func (s *Store) List() ([]Login, error) {
	b, err := secret.ReadOwn(s.path(), maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list of logins: %w", err)
	}
	list, err := parseIndex(b)
	if err != nil {
		return nil, fmt.Errorf("list of logins: %s: %w", s.path(), err)
	}
	return list, nil
}

// parseIndex reads the text of an index.
func parseIndex(b []byte) ([]Login, error) {
	var in index
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	if len(in.Logins) > maxLogins {
		return nil, fmt.Errorf("more than %d", maxLogins)
	}
	for _, l := range in.Logins {
		if err := l.Definition.Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", l.Agent, err)
		}
		for _, t := range l.Tokens {
			if strings.ContainsAny(t.Stored, "/.") { // it names a file
				return nil, fmt.Errorf("%s has a bad ID", l.Agent)
			}
		}
	}
	return in.Logins, nil
}

// Get returns the entry of an agent. ErrNone: there is none.
func (s *Store) Get(agent string) (Login, error) {
	list, err := s.List()
	if err != nil {
		return Login{}, err
	}
	for _, l := range list {
		if l.Agent == agent {
			return l, nil
		}
	}
	return Login{}, fmt.Errorf("%w: %s", ErrNone, agent)
}

// change calls f with the entry of an agent, which is empty if there is none, and writes what f made of it.
func (s *Store) change(agent string, f func(*Login) error) error {
	if err := os.MkdirAll(s.config, 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockTime)
	defer cancel()
	lock, err := lockfile.Acquire(ctx, s.path()+".lock")
	if err != nil {
		return fmt.Errorf("list of logins: %w", err)
	}
	defer lock.Close()
	list, err := s.List()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(list, func(l Login) bool { return l.Agent == agent })
	if at < 0 {
		at, list = len(list), append(list, Login{Agent: agent, ID: rand.Text()})
	}
	if err := f(&list[at]); err != nil {
		return err
	}
	if len(list) > maxLogins {
		return fmt.Errorf("there are %d logins already", maxLogins)
	}
	slices.SortFunc(list, func(a, b Login) int { return strings.Compare(a.Agent, b.Agent) })
	b, err := json.Marshal(index{list})
	if err == nil && len(b) > maxIndex {
		err = fmt.Errorf("the list of logins is larger than %d bytes", maxIndex)
	}
	if err != nil {
		return err
	}
	return atomicfile.Write(s.path(), b)
}

// Define keeps how an agent logs in, for the gateways of its sandboxes.
func (s *Store) Define(agent string, d Definition) error {
	if err := d.Check(); err != nil {
		return err
	}
	if l, err := s.Get(agent); err == nil && reflect.DeepEqual(l.Definition, d) {
		return nil
	}
	return s.change(agent, func(l *Login) error {
		l.Definition = d
		return nil
	})
}

// Open lets a sandbox log in anew, for a time.
func (s *Store) Open(agent, sandboxID string, d time.Duration) error {
	return s.changeDefined(agent, func(l *Login) { l.Window = Window{sandboxID, s.now().Add(d)} })
}

// Shut ends what Open allowed.
func (s *Store) Shut(agent string) error {
	return s.changeDefined(agent, func(l *Login) { l.Window = Window{} })
}

// changeDefined changes an entry that exists. ErrNone: there is none.
func (s *Store) changeDefined(agent string, f func(*Login)) error {
	return s.change(agent, func(l *Login) error {
		if len(l.Definition.Endpoints) == 0 {
			return fmt.Errorf("%w: %s", ErrNone, agent)
		}
		f(l)
		return nil
	})
}

// Remove removes the tokens of a login. Its placeholders stay valid for the next one. ErrNone: none is
// kept.
func (s *Store) Remove(agent string) error {
	var old Login
	err := s.change(agent, func(l *Login) error {
		if !l.Kept() {
			return fmt.Errorf("%w: %s", ErrNone, agent)
		}
		old = *l
		*l = Login{Agent: l.Agent, Definition: l.Definition, ID: l.ID, File: l.File, Serial: l.Serial + 1, Tokens: map[string]Token{}}
		for field, t := range old.Tokens {
			l.Tokens[field] = Token{Shape: t.Shape}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.forget(&old, TokenFields)
}

// forget removes the tokens of an entry as it was, in these fields.
func (s *Store) forget(old *Login, fields []string) (err error) {
	for _, f := range fields {
		if e := old.entry(f); e.Stored != "" {
			err = errors.Join(err, s.secrets.Forget(&e))
		}
	}
	return err
}

// tokens are those of one answer.
type tokens struct {
	values  map[string]string // by field
	made    bool              // they are a new login, not a refresh of the one that is kept
	answer  map[string]json.RawMessage
	serial  int // of the login when they were asked for
	expires time.Time
	client  string
	by      *Sandbox // which asked for them
}

// errChanged means that the person removed or replaced the login while tokens were asked for.
var errChanged = errors.New("the login was removed or replaced on the host meanwhile")

// put keeps the tokens of an answer, and returns the entry with them. The new ones are on disk before
// the old ones are removed. What the person did meanwhile stays.
func (s *Store) put(agent string, t *tokens) (l Login, err error) {
	kept := map[string]Token{}
	for field, v := range t.values {
		e := secret.Secret{Name: agent + " login (" + field + ")"}
		if err := s.secrets.Keep(&e, v); err != nil {
			return l, errors.Join(err, s.forget(&Login{Tokens: kept}, TokenFields))
		}
		kept[field] = Token{Shape: shapeOf(v), Keeper: e.Keeper, Stored: e.Stored}
	}
	var old Login
	err = s.change(agent, func(now *Login) error {
		if now.Serial != t.serial {
			return errChanged
		}
		old = *now
		l = old.with(kept, t, s.now())
		text, err := s.answer(&l, t)
		l.Answer = text
		*now = l
		return err
	})
	if err != nil {
		return l, errors.Join(err, s.forget(&Login{Tokens: kept}, TokenFields))
	}
	var gone []string
	for _, f := range TokenFields {
		if old.Tokens[f].Stored != l.Tokens[f].Stored {
			gone = append(gone, f)
		}
	}
	return l, s.forget(&old, gone)
}

// with returns the entry with the tokens of an answer.
func (l Login) with(kept map[string]Token, t *tokens, now time.Time) Login {
	next := map[string]Token{}
	for field, old := range l.Tokens {
		if t.made {
			old = Token{Shape: old.Shape} // of another login
		}
		next[field] = old
	}
	for field, k := range kept {
		if old, ok := next[field]; ok {
			k.Shape = old.Shape
		}
		next[field] = k
	}
	l.Tokens, l.Renewed, l.Expires, l.Refused, l.Serial = next, now, t.expires, "", l.Serial+1
	if t.made {
		l.UseHost, l.Made, l.Account, l.Client, l.Sandbox = false, now, "", t.client, t.by.name
		if l.Window.Sandbox == t.by.id {
			l.Window = Window{}
		}
	}
	if account := accountOf(t.answer); account != "" {
		l.Account = account
	}
	return l
}

// answer returns an answer with placeholders in place of its tokens, wherever they stand in it.
func (s *Store) answer(l *Login, t *tokens) (json.RawMessage, error) {
	shown, to, err := s.shownAll(l, t)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	for name, raw := range t.answer {
		if out[name], err = decode(raw); err != nil {
			return nil, err
		}
	}
	replaced(out, to)
	for field, text := range shown {
		out[field] = text
	}
	return json.Marshal(out)
}

// shownAll returns what the guest gets for tokens, by field, and what replaces them in a text.
func (s *Store) shownAll(l *Login, t *tokens) (shown map[string]string, to *strings.Replacer, err error) {
	shown = map[string]string{}
	var pairs []string
	for field, v := range t.values {
		if shown[field], err = s.shown(l, field, v); err != nil {
			return nil, nil, err
		}
		pairs = append(pairs, v, shown[field])
	}
	return shown, strings.NewReplacer(pairs...), nil
}

// shown returns what the guest gets for a token.
func (s *Store) shown(l *Login, field, token string) (string, error) {
	p, err := s.placeholder(l, field)
	return shown(token, p, l.Definition.Claims), err
}

// placeholder returns that of a token.
func (s *Store) placeholder(l *Login, field string) (string, error) {
	e := l.entry(field)
	return s.secrets.Placeholder(&e, "login")
}

// refused notes that the server refused a refresh.
func (s *Store) refused(agent string, serial int, why string) error {
	return s.change(agent, func(l *Login) error {
		if l.Serial == serial {
			l.Refused = clip(why)
		}
		return nil
	})
}
