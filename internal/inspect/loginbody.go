package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"bawn.dev/bawn/internal/login"
	"bawn.dev/bawn/internal/secret"
)

// maxLoginBody bounds the body of a request for tokens, in bytes.
const maxLoginBody = 64 << 10

// refreshField is the field of a request that carries the refresh token (RFC 6749, 6).
const refreshField = "refresh_token"

// loginFieldsAllowed are fields with credentials in their names that requests for tokens have: those of
// the client, which is a program that all have (RFC 8252, 8.5).
var loginFieldsAllowed = []string{"client_secret"}

// loginTexts are fields that are judged as texts.
var loginTexts = []string{"grant_type", "client_id", refreshField}

// loginForm is the body of a request for tokens: a form, or a JSON object. Each field is there once.
type loginForm struct {
	form url.Values                 // nil: it is JSON
	json map[string]json.RawMessage // nil: it is a form
	size int
}

// readLoginForm reads the body of a request.
func readLoginForm(r *http.Request) (*loginForm, error) {
	if coding, err := codingOf(r.Header.Values("Content-Encoding")); err != nil || coding != "" {
		return nil, &refusal{status: http.StatusUnsupportedMediaType, reason: "the body of a request for tokens has a content coding"}
	}
	b, over, err := wholeBody(r.Body, maxLoginBody)
	if err != nil {
		return nil, err
	}
	if over {
		return nil, &refusal{status: http.StatusRequestEntityTooLarge, reason: fmt.Sprintf("the body of a request for tokens has more than %d bytes", maxLoginBody)}
	}
	f, err := parseLoginForm(r.Header.Values("Content-Type"), b)
	if err != nil {
		return nil, forbidden("a request for tokens is not passed on: %v", err)
	}
	return f, nil
}

// parseLoginForm reads a form or a JSON object.
func parseLoginForm(kinds []string, b []byte) (f *loginForm, err error) {
	f = &loginForm{size: len(b)}
	if len(kinds) != 1 {
		return nil, errors.New("it has no Content-Type, or several")
	}
	switch kind, _, _ := mime.ParseMediaType(kinds[0]); kind {
	case urlencoded:
		f.form, err = url.ParseQuery(string(b))
		if err != nil {
			return nil, errors.New("its form cannot be read")
		}
		for name, values := range f.form {
			if len(values) != 1 {
				return nil, fmt.Errorf("the field %.100q is there %d times", name, len(values))
			}
		}
	case "application/json":
		d := json.NewDecoder(bytes.NewReader(b))
		if err := d.Decode(&f.json); err != nil || f.json == nil || d.More() {
			return nil, errors.New("its body is no JSON object")
		}
	default:
		return nil, fmt.Errorf("its Content-Type is %.100q", kind)
	}
	return f, nil
}

// kind is the Content-Type of what encode returns.
func (f *loginForm) kind() string {
	if f.json == nil {
		return urlencoded
	}
	return "application/json"
}

// get returns a field that is a text; "" if it is not there or is none.
func (f *loginForm) get(name string) (v string) {
	if f.json == nil {
		return f.form.Get(name)
	}
	_ = json.Unmarshal(f.json[name], &v)
	return v
}

// set changes a field that is there.
func (f *loginForm) set(name, v string) {
	if f.form.Has(name) {
		f.form.Set(name, v)
	}
	if _, ok := f.json[name]; ok {
		f.json[name], _ = json.Marshal(v) // a text
	}
}

// encode returns the body that is sent.
func (f *loginForm) encode() ([]byte, error) {
	if f.json == nil {
		return []byte(f.form.Encode()), nil
	}
	return json.Marshal(f.json)
}

// each calls check with each field, and a text with its whole value.
func (f *loginForm) each(check func(name, value string) error) error {
	for name, values := range f.form {
		if err := check(name, values[0]); err != nil {
			return err
		}
	}
	for name, raw := range f.json {
		value := string(raw)
		if text := f.get(name); text != "" {
			value = text
		}
		if err := check(name, value); err != nil {
			return err
		}
	}
	return nil
}

// loginFields judges the fields of a request for tokens. Whether a refresh token is ours is decided by
// package login; here it is a placeholder of that very field, or none.
func (j *judgement) loginFields(f *loginForm) error {
	return f.each(func(name, value string) error {
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return forbidden("a request for tokens has the field %.100q, which a server may take for another one: names have small letters, digits and _ only", name)
		}
		if name == refreshField {
			if slices.ContainsFunc(j.list, func(b secret.Bound) bool { return b.Token && b.Placeholder == value }) {
				return nil
			}
		}
		if slices.Contains(loginTexts, name) && f.get(name) == "" && value != `""` && value != "" {
			return forbidden("the field %s of a request for tokens is no text", name)
		}
		if carried := carries(j.all, name+"="+value); carried != "" {
			return j.misplaced(carried, "the field "+strconv.Quote(name)+" of a request for tokens")
		}
		known := slices.Contains(loginFieldsAllowed, name) || name == refreshField || name == "grant_type"
		if !known && (isCredentialField(j.s.t.Name, name, value) || slices.Contains(login.TokenFields, name)) {
			return j.foreign("the field " + strconv.Quote(name) + " of a request for tokens")
		}
		return nil
	})
}
