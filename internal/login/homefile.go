package login

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
)

// HomeFile returns what the file in which an agent has its tokens shall be in one of the agent's homes, and
// its path there. has is what it is; nil if there is none. If text is nil, it stays as it is.
//
// A file that a guest's agent wrote with the placeholders of the login is remembered for other homes. One
// that is missing, or has no such placeholder, gets them; its other parts stay.
func (s *Store) HomeFile(agent string, has []byte) (text []byte, err error) {
	l, err := s.Get(agent)
	if errors.Is(err, ErrNone) {
		return nil, nil
	}
	if err != nil || !l.Kept() {
		return nil, err
	}
	p, err := s.placeholder(&l, accessToken)
	switch {
	case err != nil:
		return nil, err
	case bytes.Contains(has, []byte(p)):
		return nil, s.remember(&l, has)
	case len(l.File) == 0 || bytes.Equal(has, l.File):
		return nil, nil
	case has == nil:
		return l.File, nil
	}
	return merged(has, l.File), nil
}

// remember keeps the text of the file, if it is another one than before.
func (s *Store) remember(l *Login, text []byte) error {
	if len(text) > maxFile || bytes.Equal(l.File, text) {
		return nil
	}
	return s.changeDefined(l.Agent, func(l *Login) { l.File = text })
}

// merged returns a JSON object with the fields of another one put in; the other one, if it is none.
func merged(has, with []byte) []byte {
	var to, from map[string]json.RawMessage
	if json.Unmarshal(has, &to) != nil || to == nil || json.Unmarshal(with, &from) != nil {
		return with
	}
	maps.Copy(to, from)
	text, err := json.MarshalIndent(to, "", "  ")
	if err != nil {
		return with
	}
	return text
}

// FileOf returns the path in an agent's home of the file in which it has its tokens; "" if it is not known.
func (s *Store) FileOf(agent string) (string, error) {
	l, err := s.Get(agent)
	if errors.Is(err, ErrNone) {
		return "", nil
	}
	return l.Definition.File, err
}
