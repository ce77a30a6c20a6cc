package inspect

import (
	"encoding/base64"
	"net/textproto"
	"strings"

	"bawn.dev/bawn/internal/secret"
)

// placed returns how the value of a header reads with the secret in place of its
// placeholder. ok is false unless the header is the place of the secret, and holds the
// placeholder and nothing else but a scheme or a user.
func placed(b *secret.Bound, name, v string) (with func(value string) string, ok bool) {
	switch p := b.Place; p.Where {
	case secret.InCredential:
		if isCredential(name) && !isKept(name) && name != "Cookie" && name != "Proxy-Authorization" {
			return inHeader(b.Placeholder, v)
		}
	case secret.InHeader:
		if name == textproto.CanonicalMIMEHeaderKey(p.Arg) {
			return inHeader(b.Placeholder, v)
		}
	case secret.InBearer:
		if scheme, rest := cutScheme(v); name == "Authorization" && strings.EqualFold(scheme, "bearer") && b.Is(rest) {
			return func(value string) string { return scheme + " " + value }, true
		}
	case secret.InBasic:
		if scheme, rest := cutScheme(v); name == "Authorization" && strings.EqualFold(scheme, "basic") {
			if user, _, isPass, ok := basic(b.Placeholder, rest); ok && isPass && user == p.Arg {
				return inHeader(b.Placeholder, v)
			}
		}
	}
	return nil, false
}

// cutScheme splits SCHEME CREDENTIAL (RFC 9110, 11.4).
func cutScheme(v string) (scheme, rest string) {
	scheme, rest, ok := strings.Cut(v, " ")
	if !ok || len(scheme) > 32 || strings.ContainsFunc(scheme, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return "", v
	}
	return scheme, strings.Trim(rest, " ")
}

// inHeader is placed for a header that holds the placeholder alone, or after a scheme.
func inHeader(placeholder, v string) (with func(value string) string, ok bool) {
	if v == placeholder {
		return func(value string) string { return value }, true
	}
	scheme, rest := cutScheme(v)
	switch {
	case scheme == "":
	case rest == placeholder:
		return func(value string) string { return scheme + " " + value }, true
	case strings.EqualFold(scheme, "basic"):
		user, pass, isPass, ok := basic(placeholder, rest)
		return func(value string) string {
			pair := value + ":" + pass
			if isPass {
				pair = user + ":" + value
			}
			return scheme + " " + base64.StdEncoding.EncodeToString([]byte(pair))
		}, ok
	}
	return nil, false
}

// keyLength is the length from which on the user of Basic authentication may be a key, in bytes.
const keyLength = 20

// isKeyAsUser reports whether a header holds the placeholder as the password of Basic authentication, and a user that looks
// like a key: some services take their key as the user and no notice of the password. No name of a person, a program or a
// role has as many digits, or capitals among small letters; the ID of a pair of keys may.
func isKeyAsUser(placeholder, v string) bool {
	scheme, rest := cutScheme(v)
	if !strings.EqualFold(scheme, "basic") {
		return false
	}
	user, _, isPass, ok := basic(placeholder, rest)
	if !ok || !isPass {
		return false
	}
	count := func(from, to rune) (n int) {
		for _, c := range user {
			if c >= from && c <= to {
				n++
			}
		}
		return n
	}
	numbered := strings.ContainsAny(user, "+$") // as the users of deploy tokens of GitLab and robots of Harbor
	return secret.HasIssued(user) || len(user) >= keyLength && !strings.Contains(user, "@") &&
		(count('0', '9') >= 4 && !numbered || count('A', 'Z') >= 3 && count('a', 'z') >= 3)
}

// basic reads the credential of Basic authentication (RFC 7617). ok: the password is the
// placeholder (isPass), or the user is and the password is nothing of its own, as git and
// pip send tokens.
func basic(placeholder, credential string) (user, pass string, isPass, ok bool) {
	b, err := base64.StdEncoding.DecodeString(credential)
	if err != nil {
		if b, err = base64.RawStdEncoding.DecodeString(credential); err != nil {
			return "", "", false, false
		}
	}
	user, pass, found := strings.Cut(string(b), ":")
	switch {
	case !found:
		return "", "", false, false
	case pass == placeholder:
		return user, pass, true, user != placeholder
	}
	return user, pass, false, user == placeholder && (pass == "" || pass == "x-oauth-basic") //nolint:gosec // the fixed password beside a token as user
}
