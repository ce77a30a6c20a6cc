package secret

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// KeyPair is an access key of AWS, or of a service that takes the same signatures. As the value of a secret it
// is kept in JSON, in the format of credential_process.
type KeyPair struct {
	ID      string    `json:"AccessKeyId"`
	Secret  string    `json:"SecretAccessKey"`
	Token   string    `json:"SessionToken,omitempty"` // of a key that ends
	Expires time.Time `json:"Expiration,omitzero"`    // when the key ends; zero: never, or it is not known
}

// keyPairLines are the names of the parts in files and variables, in lower case, in the order in which lines
// without a name have them.
var keyPairLines = []string{"aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_credential_expiration"}

// ParseKeyPair reads a key pair: JSON as credential_process, aws configure export-credentials and aws sts print
// it, or two or three lines: ID, secret and session token, or lines of NAME=VALUE as in a credentials file.
func ParseKeyPair(text string) (KeyPair, error) {
	var p KeyPair
	var err error
	if text = strings.TrimSpace(text); strings.HasPrefix(text, "{") {
		p, err = keyPairJSON(text)
	} else {
		p, err = keyPairText(text)
	}
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return KeyPair{}, err
	}
	return p, nil
}

// errKeyPair does not have what was read.
var errKeyPair = errors.New("it is not a pair of keys: write the access key ID, the secret access key and, if there is one, the session token, one a line, or JSON as aws configure export-credentials prints it")

func keyPairJSON(text string) (KeyPair, error) {
	var in struct {
		KeyPair
		Credentials KeyPair // of aws sts
	}
	if json.Unmarshal([]byte(text), &in) != nil {
		return KeyPair{}, errKeyPair
	}
	if in.KeyPair == (KeyPair{}) {
		return in.Credentials, nil
	}
	return in.KeyPair, nil
}

func keyPairText(text string) (p KeyPair, err error) {
	var parts [4]string
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	if len(lines) > len(parts) {
		return p, errKeyPair
	}
	for i, line := range lines {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "export "))
		for n, name := range keyPairLines {
			if key, value, ok := strings.Cut(line, "="); ok && strings.EqualFold(strings.TrimSpace(key), name) {
				i, line = n, strings.Trim(strings.TrimSpace(value), `"'`)
			}
		}
		if parts[i] != "" {
			return p, errKeyPair
		}
		parts[i] = line
	}
	p = KeyPair{ID: parts[0], Secret: parts[1], Token: parts[2]}
	if parts[3] != "" {
		if p.Expires, err = time.Parse(time.RFC3339, parts[3]); err != nil {
			err = errKeyPair
		}
	}
	return p, err
}

// keyPairPart matches what is visible in ASCII, without spaces; keyID the ID of an access key.
var (
	keyPairPart = regexp.MustCompile(`^[\x21-\x7e]+$`)
	keyID       = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
)

// check returns an error unless a request can be signed with the pair, and each of its parts be found in
// answers. The error has no part of it.
func (p *KeyPair) check() error {
	switch {
	case !keyID.MatchString(p.ID) || !keyPairPart.MatchString(p.Secret) || p.Token != "" && !keyPairPart.MatchString(p.Token):
		return errKeyPair
	case len(p.ID) < MinValue || len(p.Secret) < MinValue || p.Token != "" && len(p.Token) < MinValue:
		return fmt.Errorf("a part of it has less than %d bytes", MinValue)
	case len(p.ID) > maxKeyID:
		return fmt.Errorf("the access key ID has more than %d bytes", maxKeyID)
	}
	return nil
}

// maxKeyID is the longest ID of an access key, in bytes.
const maxKeyID = 128

// over returns an error if the pair has ended.
func (p *KeyPair) over(now time.Time) error {
	if !p.Expires.IsZero() && !now.Before(p.Expires) {
		return fmt.Errorf("the access key ended at %s: get a new one and set the secret again, or set it with --command, which is asked for a new one by itself", p.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// cleanKeyPair reads a pair and writes it as the value of a secret. One that has ended is an error.
func cleanKeyPair(text string) (string, KeyPair, error) {
	p, err := ParseKeyPair(text)
	if err == nil {
		err = p.over(time.Now())
	}
	if err != nil {
		return "", KeyPair{}, err
	}
	b, err := json.Marshal(p)
	if err == nil {
		err = CheckValue(string(b))
	}
	return string(b), p, err
}

// expiry returns when a value that a command printed is asked for again: at that time, or if it is a pair that
// ends earlier, then.
func expiry(value string, at time.Time) time.Time {
	if p, err := ParseKeyPair(value); err == nil && !p.Expires.IsZero() && p.Expires.Before(at) {
		return p.Expires
	}
	return at
}

// keyPairShapes returns the shapes of the placeholders. p is the zero value if the pair is not known. There is
// a placeholder for a session token in any case: a command may give one at any time.
func keyPairShapes(p KeyPair) *KeyPairShape {
	s := &KeyPairShape{ID: Shape{"AKIA", 20}, Secret: 40, Token: maxShape, HasToken: p.Token != ""}
	if p.ID != "" {
		if s.ID.Prefix = ""; len(p.ID) == 20 && (strings.HasPrefix(p.ID, "AKIA") || strings.HasPrefix(p.ID, "ASIA")) {
			s.ID.Prefix = p.ID[:4]
		}
		s.ID.Length, s.Secret = max(len(p.ID), 20), len(p.Secret)
	}
	if p.Token != "" {
		s.Token = len(p.Token)
	}
	s.Secret, s.Token = min(max(s.Secret, minRandom), maxShape), min(max(s.Token, minRandom), maxShape)
	return s
}

// keep takes over the lengths of the pair before, whose placeholders programs may have that run; nil: there
// is none.
func (s *KeyPairShape) keep(before *KeyPairShape) {
	if s != nil && before != nil && s.ID.Prefix == before.ID.Prefix {
		s.ID, s.Secret, s.Token = before.ID, before.Secret, before.Token
	}
}

// KeyPairShape is the form of the placeholders for a pair.
type KeyPairShape struct {
	ID       Shape `json:"id"`
	Secret   int   `json:"secret"` // its length, in bytes
	Token    int   `json:"token"`
	HasToken bool  `json:"hasToken,omitempty"` // the guest gets one for the session token
}

// idAlphabet are the characters of an access key's ID behind its prefix.
const idAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

// deriveKeyPair makes the placeholders for a pair, as derive makes that of another secret.
func deriveKeyPair(key []byte, sec *Secret, sandboxID string) (p KeyPair, err error) {
	s := sec.KeyPair
	for _, one := range []struct {
		to       *string
		part     string
		shape    Shape
		alphabet string
	}{
		{&p.ID, "id", Shape{s.ID.Prefix, min(max(s.ID.Length, 20), maxKeyID)}, idAlphabet},
		{&p.Secret, "secret", Shape{Length: s.Secret}.Bounded(), alphabet},
		{&p.Token, "token", Shape{Length: s.Token}.Bounded(), alphabet},
	} {
		if *one.to, err = deriveText(key, sec, sandboxID+" "+one.part, one.shape, one.alphabet); err != nil {
			return KeyPair{}, err
		}
	}
	return p, nil
}
