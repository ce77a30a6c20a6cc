package inspect

import (
	"slices"
	"strings"
	"unicode"
)

// What is a credential.
//
// Theory of operation. An agent that was tricked may carry data out to an allowed host by
// another account there, whose credential it was given. No list has all headers that services
// take credentials in, so a header or a field of the query is judged by the words of its
// name, as X-Some-Vendor-Api-Key tells. A name that says nothing (X-User: NAME) is not
// recognised, nor is a credential in a body that is no form (formbody.go).
//
// HTTP/2 and Go write header names in one case, so the words of XApiToken arrive as one: the end of
// each word is judged too. Some servers read fields of the query in any case: the name of a field
// is judged as it is written and in lower case.
//
// A value in a form that only one service's keys have (ghp_…) is a credential under any name.

// credentialWords are words in names of what carries credentials.
var credentialWords = []string{
	"authorization", "authentication", "auth", "oauth", "token", "apikey", "accesskey", "authkey", "xapikey",
	"secret", "secretkey", "password", "passwd", "pwd", "passphrase", "credential", "credentials", "bearer", "jwt", "cookie", "cookie2",
	"signature", "hmac", "assertion", "macaroon", "dpop", "cert", "certificate",
}

// credentialEnds are ends of words that are several words in one (usertoken), the last of which says
// that the name carries a credential.
var credentialEnds = []string{"token", "secret", "secretkey", "password", "passwd", "passphrase", "apikey", "accesskey", "authkey", "credential", "credentials", "authorization"}

// harmlessWords in a name say that its token or key is no credential: it is a token against
// forgery or for the next page, or a key of a cache or of a customer's encryption.
var harmlessWords = []string{
	"csrf", "xsrf", "authenticity", "verification", "continuation", "page", "next", "sync", "cursor", "resume", "pagination", "idempotency", "cache", "surrogate", "partition", "encryption",
}

// harmlessEnds are last words of names about a credential that do not carry one (npm-auth-type,
// token_type).
var harmlessEnds = []string{"type", "types", "mode", "scheme", "version", "expires", "expiry", "ttl", "hint", "count", "limit", "status"}

// harmlessPrefixes begin names of headers of browsers and of an object's metadata, in lower case.
var harmlessPrefixes = []string{"sec-", "x-amz-meta-", "x-goog-meta-", "x-ms-meta-"}

// keptWords are words in names of headers that a server keeps with an object or sends on to somebody else, whatever they
// carry: metadata of object stores (X-Object-Meta-*, X-Bz-Info-*), headers for the target of queues, of tests of web
// pages and of proxies (Upstash-Forward-*, Spb-*), attributes of events (Ce-*).
var keptWords = []string{
	"meta", "metadata", "info", "property", "properties", "attribute", "attributes", "tag", "tags", "tagging", "label", "labels", "annotation", "custom",
	"forward", "forwarded", "passthrough", "upstream", "callback", "webhook", "spb", "ce",
}

// keyOwners are words before "key" in fields of a query that carry credentials.
var keyOwners = []string{
	"api", "access", "app", "application", "subscription", "auth", "secret", "private", "consumer", "client", "public", "master", "admin", "service", "session", "user", "account", "license",
}

// vagueFields are fields of a query that carry credentials or something else: a value of
// vagueLength bytes or more is taken for a credential.
var vagueFields = []string{"key", "token", "auth", "sig", "sign", "pass", "pat"}

const vagueLength = 16

// isCredential reports whether a header carries credentials, by its name.
func isCredential(name string) bool {
	lower := strings.ToLower(name)
	if slices.ContainsFunc(harmlessPrefixes, func(p string) bool { return strings.HasPrefix(lower, p) }) {
		return false
	}
	words := wordsOf(name)
	return !slices.ContainsFunc(words, isHarmless) && !slices.Contains(harmlessEnds, words[len(words)-1]) && (slices.ContainsFunc(words, isCredentialWord) || slices.Contains(words, "sig") || strings.HasSuffix(lower, "key") && endsInKey(words))
}

// isKept reports whether a header may be one that a server keeps or sends on, by its name. Other credentials are refused there
// as anywhere, but no secret is put in: somebody else would read it.
func isKept(name string) bool {
	return slices.ContainsFunc(wordsOf(name), func(w string) bool { return slices.Contains(keptWords, w) })
}

// endsInKey reports whether the last word is key, or that of an owner and key in one.
func endsInKey(words []string) bool {
	owner, ok := strings.CutSuffix(words[len(words)-1], "key")
	return ok && (owner == "" || slices.Contains(keyOwners, owner))
}

// isCredentialField reports whether a field of the query or of a form carries credentials on that
// host.
func isCredentialField(host, field, value string) bool {
	field, _, _ = strings.Cut(field, "\x00") // where it ends for programs in C
	return isCredentialWords(host, wordsOf(field), value) || isCredentialWords(host, wordsOf(strings.ToLower(field)), value)
}

func isCredentialWords(host string, words []string, value string) bool {
	switch last := words[len(words)-1]; {
	case isFlag(value) || slices.ContainsFunc(words, isHarmless) || slices.Contains(harmlessEnds, last):
		return false
	case len(words) == 1 && slices.Contains(vagueFields, last):
		return len(value) >= vagueLength || last == "key" && strings.HasSuffix(host, ".googleapis.com")
	case last == "key":
		return len(words) > 1 && slices.Contains(keyOwners, words[len(words)-2])
	case endsInKey(words):
		return true
	}
	return slices.ContainsFunc(words, isCredentialWord)
}

// isFlag reports whether a value is nothing, a switch (offline_token=true) or a small number.
func isFlag(value string) bool {
	return value == "" || value == "true" || value == "false" || len(value) <= 4 && strings.Trim(value, "0123456789") == ""
}

// isCredentialWord reports whether a word of a name says that it carries a credential.
func isCredentialWord(w string) bool {
	return slices.Contains(credentialWords, w) || slices.ContainsFunc(credentialEnds, func(end string) bool { return strings.HasSuffix(w, end) })
}

// isHarmless reports whether a word of a name says that the name carries no credential. A word that is
// several in one (pagetoken) says so by what stands before its end.
func isHarmless(w string) bool {
	if slices.Contains(harmlessWords, w) || strings.Contains(w, "csrf") || strings.Contains(w, "xsrf") {
		return true
	}
	return slices.ContainsFunc(credentialEnds, func(end string) bool {
		before, ok := strings.CutSuffix(w, end)
		return ok && slices.Contains(harmlessWords, before)
	})
}

// isCredentialProtocol reports whether a list of protocols of WebSocket carries credentials, as
// clients in browsers send them: they cannot set other headers.
func isCredentialProtocol(list string) bool {
	words := wordsOf(list)
	for i, w := range words {
		if slices.Contains(credentialWords, w) || w == "key" && i > 0 && words[i-1] == "api" {
			return true
		}
	}
	return false
}

// wordsOf splits a name into its words, in lower case: at what is no letter or digit, and
// before a capital behind a small letter. It returns at least one.
func wordsOf(name string) (words []string) {
	start, before := 0, rune(0)
	for i, c := range name {
		word := unicode.IsLetter(c) || unicode.IsDigit(c)
		if !word || unicode.IsUpper(c) && unicode.IsLower(before) {
			if i > start {
				words = append(words, strings.ToLower(name[start:i]))
			}
			if start = i; !word {
				start = i + len(string(c))
			}
		}
		before = c
	}
	if start < len(name) || len(words) == 0 {
		words = append(words, strings.ToLower(name[min(start, len(name)):]))
	}
	return words
}
