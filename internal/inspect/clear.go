package inspect

import (
	"iter"
	"net/textproto"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/secret"
)

// RefusedInClear returns why the head of a request in plain HTTP must not be sent to a host; nil: it
// may. No secret is put into plain HTTP. But a host that has one, on whatever port, is not to
// be reached there with the placeholder or with the credential of another account, nor with a form, which
// may have one. target is the request target as it is sent. It may run concurrently.
func (i *Inspector) RefusedInClear(name string, port uint16, target string, header iter.Seq2[string, string]) error {
	list, err := i.bindings()
	if err != nil {
		return ErrNoList // connections to the host over TLS log the reason
	}
	has, other := false, false
	for _, b := range list {
		if slices.ContainsFunc(b.For, func(h secret.Host) bool { return h.Name == name }) {
			has, other = true, other || b.OtherCredentials
		}
	}
	if !has {
		return nil
	}
	j := judgement{s: &session{i: i, t: Target{Name: name, Port: port}}, all: needlesOf(list), other: other}
	if err := j.target(target); err != nil {
		return err
	}
	var kinds []string
	body := false
	for name, v := range header {
		if carried := inName(j.all, name); carried != "" {
			return j.misplaced(carried, "the name of a header")
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if _, err := j.header(name, v); err != nil {
			return err
		}
		switch name {
		case "Content-Type":
			kinds = append(kinds, v)
		case "Content-Length", "Transfer-Encoding":
			body = body || v != "0"
		}
	}
	if !other && (isForm(kinds) || body && strings.Join(kinds, "") == "") { // see formTypes
		return forbidden("a form in plain HTTP is not looked into, and may have another credential than the secret for %s: use TLS, or the user sets the secret with --other-credentials", j.s.t.Name)
	}
	return nil
}

// target judges a request target in which no secret belongs.
func (j *judgement) target(target string) error {
	if carried := carries(j.all, target); carried != "" {
		return j.misplaced(carried, "the request target")
	}
	path, query, _ := strings.Cut(target, "?")
	if !j.other && secret.HasIssued(unescaped(path)) {
		return j.foreign("the path")
	}
	for f := range strings.SplitSeq(query, "&") {
		if err := j.field(f); err != nil {
			return err
		}
	}
	return nil
}
