package httpwire

import (
	"errors"
	"strconv"
	"strings"
)

// Answer is what matters of an answer's head.
type Answer struct {
	Status int
	Length int64 // of the body, in bytes, or LengthChunked or LengthUntilEOF
}

// Lengths of bodies that are not known from the head.
const (
	LengthChunked  = -1
	LengthUntilEOF = -2
)

// ParseAnswer reads an answer's head leniently. method is the request's. An
// error means: no HTTP/1, pass on what comes until it ends.
func ParseAnswer(head []byte, method string) (Answer, error) {
	lines := strings.Split(strings.ReplaceAll(string(head), "\r\n", "\n"), "\n")
	proto, rest, _ := strings.Cut(lines[0], " ")
	if !strings.HasPrefix(proto, "HTTP/1.") || len(rest) < 3 {
		return Answer{}, errors.New("the server's answer is not HTTP/1")
	}
	status, err := strconv.Atoi(rest[:3])
	if err != nil || status < 100 {
		return Answer{}, errors.New("the server's answer is not HTTP/1")
	}
	a := Answer{Status: status, Length: LengthUntilEOF}
	lengths, codings := map[string]bool{}, ""
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "content-length":
			lengths[value] = true
		case "transfer-encoding":
			codings = strings.ToLower(value)
		}
	}
	err = a.frame(method, codings, lengths)
	return a, err
}

// frame finds where the body ends.
func (a *Answer) frame(method, codings string, lengths map[string]bool) error {
	switch {
	case method == "HEAD" || a.Status < 200 || a.Status == 204 || a.Status == 304:
		a.Length = 0
	case strings.HasSuffix(codings, "chunked"):
		a.Length = LengthChunked
	case codings != "":
	case len(lengths) == 1:
		for text := range lengths {
			n, err := parseLength(text)
			if err != nil {
				return err
			}
			a.Length = n
		}
	case len(lengths) > 1:
		return errors.New("the server's answer gives its length twice")
	}
	return nil
}
