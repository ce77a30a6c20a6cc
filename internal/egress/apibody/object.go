package apibody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxNesting bounds how deep arrays and objects of a body nest.
const maxNesting = 64

var errJSON = errors.New("the body is not one JSON object in UTF-8")

// object reads a body that is one JSON object. Numbers are json.Number.
func object(body []byte) (map[string]any, error) {
	if len(body) > MaxBody {
		return nil, fmt.Errorf("the body is longer than %d bytes", MaxBody)
	}
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, errJSON
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	v, err := value(d, 0)
	if err != nil {
		return nil, err
	}
	o, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("the body is not one JSON object: several queries in an array are refused, send them one by one")
	}
	return o, nil
}

// value reads the next value. Names that are in an object twice are refused: some servers take the first,
// others the last.
func value(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, errJSON
	}
	if depth > maxNesting {
		return nil, fmt.Errorf("the body nests deeper than %d levels", maxNesting)
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '[' {
			return array(d, depth)
		}
		return members(d, depth)
	case string:
		return t, checkString(t)
	default:
		return t, nil
	}
}

func array(d *json.Decoder, depth int) (any, error) {
	list := []any{}
	for d.More() {
		v, err := value(d, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := d.Token()
	return list, err
}

func members(d *json.Decoder, depth int) (any, error) {
	o := map[string]any{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, errJSON
		}
		if err := checkString(name); err != nil {
			return nil, err
		}
		if _, twice := o[name]; twice {
			return nil, fmt.Errorf("the body has the name %s twice in one object", short(name))
		}
		if o[name], err = value(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return o, err
}

// checkString refuses a string with a character that has no UTF-8 (half of a pair, \ud800), which the
// decoder has replaced.
func checkString(s string) error {
	if strings.ContainsRune(s, utf8.RuneError) {
		return errors.New("a string in the body has a character that cannot be read in one way only (U+FFFD, or half of a pair)")
	}
	return nil
}

// short returns a name of the guest's as it is shown.
func short(name string) string {
	const most = 60
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "..."
	}
	return fmt.Sprintf("%q", name)
}
