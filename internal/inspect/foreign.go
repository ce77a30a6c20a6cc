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
// recognised, nor is a credential in a body.

// credentialWords are words in names of what carries credentials.
var credentialWords = []string{
	"authorization", "authentication", "auth", "oauth", "token", "apikey", "apitoken", "accesskey", "accesstoken", "authtoken", "authkey", "xapikey",
	"secret", "secretkey", "password", "passwd", "passphrase", "credential", "credentials", "bearer", "jwt", "cookie", "cookie2",
}

// harmlessWords in a name say that its token or key is no credential: it is a token against
// forgery or for the next page, or a key of a cache or of a customer's encryption.
var harmlessWords = []string{
	"csrf", "xsrf", "continuation", "page", "next", "sync", "cursor", "resume", "pagination", "idempotency", "cache", "surrogate", "partition", "encryption",
}

// harmlessPrefixes begin names of headers of browsers and of an object's metadata, in lower case.
var harmlessPrefixes = []string{"sec-", "x-amz-meta-", "x-goog-meta-", "x-ms-meta-"}

// keyOwners are words before "key" in fields of a query that carry credentials.
var keyOwners = []string{
	"api", "access", "app", "application", "subscription", "auth", "secret", "private", "consumer", "client", "public", "master", "admin", "service", "user", "account", "license",
}

// vagueFields are fields of a query that carry credentials or something else: a value of
// vagueLength bytes or more is taken for a credential.
var vagueFields = []string{"key", "token", "auth", "sig"}

const vagueLength = 16

// isCredential reports whether a header carries credentials, by its name.
func isCredential(name string) bool {
	if lower := strings.ToLower(name); slices.ContainsFunc(harmlessPrefixes, func(p string) bool { return strings.HasPrefix(lower, p) }) {
		return false
	}
	words := wordsOf(name)
	return !containsAny(words, harmlessWords) && (containsAny(words, credentialWords) || words[len(words)-1] == "key")
}

// isCredentialField reports whether a field of the query carries credentials on that host.
func isCredentialField(host, field, value string) bool {
	words := wordsOf(field)
	switch last := words[len(words)-1]; {
	case value == "" || containsAny(words, harmlessWords):
		return false
	case len(words) == 1 && slices.Contains(vagueFields, last):
		return len(value) >= vagueLength || last == "key" && strings.HasSuffix(host, ".googleapis.com")
	case last == "key" && len(words) > 1 && slices.Contains(keyOwners, words[len(words)-2]):
		return true
	}
	return containsAny(words, credentialWords) || slices.Contains(words, "signature")
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

func containsAny(words, of []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(of, w) })
}
