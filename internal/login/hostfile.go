package login

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/regular"
)

// maxFile bounds a file in which an agent has its tokens, in bytes.
const maxFile = 64 << 10

// HostFile returns the file with the agent's login on the host; "" if there is none that can be used.
func (s *Store) HostFile(d *Definition) string {
	if d.Host == "" {
		return ""
	}
	p := filepath.Join(s.home, d.Host)
	if t, _, err := s.readHost(d); err != nil || t.values[accessToken] == "" {
		return ""
	}
	return p
}

// readHost reads the agent's file on the host, and returns its tokens and its text.
func (s *Store) readHost(d *Definition) (*tokens, []byte, error) {
	file := filepath.Join(s.home, d.Host)
	text, err := regular.Read(file, maxFile, 0)
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err // a guest reads this, and the path is none of its business
	}
	if err != nil {
		return nil, nil, err
	}
	if proc.Trusted(file) != nil { // a guest would put another account in its place
		return nil, nil, errors.New("a guest or another user could have written its file")
	}
	t := &tokens{values: map[string]string{}}
	for field, place := range d.Fields {
		var v string
		if raw := dig(text, place); raw != nil && json.Unmarshal(raw, &v) == nil && v != "" {
			t.values[field] = v
		}
	}
	t.expires = d.end(text, t.values[accessToken])
	return t, text, nil
}

// end returns when an access token ends, by the file or by the token itself; zero if neither says it.
func (d *Definition) end(text []byte, token string) time.Time {
	var n float64
	if raw := dig(text, d.Expires); raw != nil && json.Unmarshal(raw, &n) == nil && n > 0 {
		return time.UnixMilli(int64(n))
	}
	if claims, ok := payload(token); ok && json.Unmarshal(claims["exp"], &n) == nil && n > 0 {
		return time.Unix(int64(n), 0)
	}
	return time.Time{}
}

// dig returns the field of a JSON text whose nested names are joined by dots; nil if there is none.
func dig(text []byte, place string) json.RawMessage {
	if place == "" {
		return nil
	}
	at := json.RawMessage(text)
	for name := range strings.SplitSeq(place, ".") {
		var m map[string]json.RawMessage
		if json.Unmarshal(at, &m) != nil {
			return nil
		}
		at = m[name]
	}
	return at
}

// hostTokens returns the tokens of a login that is the host's own.
func (s *Store) hostTokens(l *Login) (*tokens, error) {
	t, _, err := s.readHost(&l.Definition)
	if err == nil && t.values[accessToken] == "" {
		err = errors.New("it has no access token")
	}
	if err != nil {
		return nil, fmt.Errorf("the login of %s on the host cannot be read: %w", l.Agent, err)
	}
	for field, v := range t.values {
		if err := secret.CheckValue(v); err != nil {
			return nil, fmt.Errorf("the login of %s on the host: %s cannot be used: %w", l.Agent, field, err)
		}
		if _, ok := l.Tokens[field]; !ok {
			delete(t.values, field) // it has no placeholder
		}
	}
	return t, nil
}

// UseHostFile makes the agent's login on the host the one of its sandboxes. bawn only reads its file.
func (s *Store) UseHostFile(agent string) error {
	var old Login
	err := s.change(agent, func(l *Login) error {
		t, text, err := s.readHost(&l.Definition)
		if err != nil {
			return fmt.Errorf("the login of %s on the host cannot be read: %w", agent, err)
		}
		if t.values[accessToken] == "" {
			return fmt.Errorf("the login of %s on the host has no access token", agent)
		}
		old = *l
		next := Login{
			Agent: l.Agent, Definition: l.Definition, ID: l.ID, UseHost: true, Made: s.now(), Renewed: s.now(), Expires: t.expires,
			Serial: l.Serial + 1, Tokens: map[string]Token{},
		}
		for field, o := range l.Tokens {
			next.Tokens[field] = Token{Shape: o.Shape}
		}
		for field, v := range t.values {
			k, ok := next.Tokens[field]
			if !ok {
				k.Shape = shapeOf(v)
			}
			k.Stored = "host " + field
			next.Tokens[field] = k
		}
		next.File, err = s.fileOf(&next, text, t)
		*l = next
		return err
	})
	if err != nil {
		return err
	}
	return s.forget(&old, TokenFields)
}

// fileOf returns the text of the agent's file with placeholders in place of its tokens.
func (s *Store) fileOf(l *Login, text []byte, t *tokens) ([]byte, error) {
	doc, err := decode(text)
	if err != nil {
		return nil, err
	}
	_, to, err := s.shownAll(l, t)
	if err != nil {
		return nil, err
	}
	if m, ok := doc.(map[string]any); ok { // other parts of the file may have other credentials
		keep := l.Definition.kept()
		maps.DeleteFunc(m, func(name string, _ any) bool { return !slices.Contains(keep, name) })
	}
	return json.MarshalIndent(replaced(doc, to), "", "  ")
}

// kept returns the names of those parts of the agent's file that are about its tokens.
func (d *Definition) kept() []string {
	list := []string{"token_type", "scope", "scopes"}
	for _, place := range append(slices.Collect(maps.Values(d.Fields)), d.Expires) {
		name, _, _ := strings.Cut(place, ".")
		list = append(list, name)
	}
	return list
}

// decode reads a JSON value, with numbers as they are written.
func decode(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// replaced returns a JSON value with parts of its texts replaced by others.
func replaced(v any, to *strings.Replacer) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = replaced(e, to)
		}
	case []any:
		for i, e := range v {
			v[i] = replaced(e, to)
		}
	case string:
		return to.Replace(v)
	}
	return v
}
