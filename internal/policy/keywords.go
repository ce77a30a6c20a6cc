package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// The keywords before a rule's target: udp, raw or ech, then private, each with a colon.

// takeKeywords removes the keywords from the beginning of a rule and sets their
// fields. Only an allow rule can have others than udp.
func (r *Rule) takeKeywords(text string) (rest string, err error) {
	r.proto = TCP
	var first, last string // the keywords that were read
	for {
		word, rest, ok := nextKeyword(text)
		switch {
		case !ok:
			return text, nil
		case word != "udp" && r.Action == Deny:
			return "", fmt.Errorf("%s: has no meaning in a deny rule; leave it out", word)
		case word == "private" && last == "":
			last, r.private = word, true
		case first != "" || last != "":
			return "", fmt.Errorf("%s: is a keyword of the rules and cannot stand here: a rule is [udp:|raw:|ech:][private:]TARGET[:PORTS]", word)
		default:
			first = word
			r.raw, r.ech = word == "raw", word == "ech"
			if word == "udp" {
				r.proto = UDP
			}
		}
		text = rest
	}
}

// nextKeyword splits a keyword from the beginning of a rule.
func nextKeyword(text string) (word, rest string, ok bool) {
	for _, word := range []string{"udp", "raw", "ech", "private"} {
		if rest, ok := cutWord(text, word+":"); ok {
			return word, rest, true
		}
	}
	return "", text, false
}

// keywords returns the rule's keywords in their canonical order.
func (r *Rule) keywords() string {
	var b strings.Builder
	switch {
	case r.proto == UDP:
		b.WriteString("udp:")
	case r.raw:
		b.WriteString("raw:")
	case r.ech:
		b.WriteString("ech:")
	}
	if r.private {
		b.WriteString("private:")
	}
	return b.String()
}

// checkKeywords returns an error if a keyword does not fit the rule's target.
func (r *Rule) checkKeywords() error {
	switch {
	case !r.private && !r.ech:
		return nil
	case r.host:
		return errors.New("services of the host need neither private: nor ech:; write host:PORT")
	case r.prefix.IsValid() && r.private:
		return errors.New("private: is for names: a rule for an address needs no keyword to open a private one")
	case r.prefix.IsValid():
		return errors.New("ech: is for names: the ClientHello of a connection to an address is compared with no name")
	case r.private && anybodys(r.labels):
		return fmt.Errorf("private: needs a domain of one owner: anybody can register a name that %s matches, and point it at your network", strings.Join(r.labels, "."))
	}
	return nil
}

// anybodys reports whether a wildcard matches names that strangers can register. A top
// level domain that the public does not have (lan, internal, corp) is the network's own.
func anybodys(labels []string) bool {
	end := literalEnd(labels)
	if end == strings.Join(labels, ".") || end == "home.arpa" { // RFC 8375
		return false
	}
	if end == "" {
		return true
	}
	suffix, official := publicsuffix.PublicSuffix(end)
	return suffix == end && (official || strings.Contains(end, "."))
}

// Private reports whether the rule lets its names have private addresses.
func (r *Rule) Private() bool { return r.private }

// ECH reports whether the rule permits Encrypted Client Hello.
func (r *Rule) ECH() bool { return r.ech }

// Raw reports whether the rule turns off the inspection of its connections.
func (r *Rule) Raw() bool { return r.raw }

// SuggestPrivate returns the rule that lets the name of a flow have a private address, or
// "" if there is none.
func (s *Set) SuggestPrivate(f Flow) string { return s.suggestWith("private", f) }

// SuggestECH returns the rule that permits Encrypted Client Hello to the name of a flow, or
// "" if there is none.
func (s *Set) SuggestECH(f Flow) string { return s.suggestWith("ech", f) }

// suggestWith returns the narrowest rule for a flow's name with a keyword, in its
// canonical form.
func (s *Set) suggestWith(keyword string, f Flow) string {
	plain := s.Suggest(f)
	if f.Name == "" || f.Host || plain == "" {
		return ""
	}
	text := keyword + ":" + plain
	if rest, ok := strings.CutPrefix(plain, "udp:"); ok {
		text = "udp:" + keyword + ":" + rest
	}
	canonical, err := Canonical(Allow, text)
	if err != nil {
		return ""
	}
	return canonical
}

// isKeyword reports whether a word means something before a colon.
func isKeyword(word string) bool {
	return slices.Contains([]string{"udp", "raw", "ech", "private", "preset"}, word)
}
