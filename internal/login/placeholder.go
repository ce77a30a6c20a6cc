package login

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/secret"
)

// Placeholders of tokens. One of an opaque token has the token's prefix and length. A JWT (RFC 7519) is
// replaced by another JWT with some of its claims, which agents read, and the placeholder as its signature:
// whatever claims stand before it, the signature is what is recognised.

// signatureLength is the length of a placeholder that is the signature of a JWT, in characters: 33 bytes.
const signatureLength = 44

// prefixes are the beginnings of tokens that agents check.
var prefixes = []string{"sk-ant-oat01-", "sk-ant-ort01-", "ya29.", "rt_", "gho_", "ghu_", "ghr_"}

// keptClaims are those about time and identity (RFC 7519, 4.1; OpenID Connect Core 1.0, 5.1).
var keptClaims = []string{"exp", "iat", "nbf", "auth_time", "iss", "aud", "sub", "email", "email_verified", "name"}

// shapeOf returns the shape of the placeholder for a token.
func shapeOf(token string) secret.Shape {
	if _, ok := payload(token); ok {
		return secret.Shape{Length: signatureLength}
	}
	s := secret.Shape{Length: len(token)}
	for _, p := range prefixes {
		if strings.HasPrefix(token, p) {
			s.Prefix = p
			break
		}
	}
	return s.Bounded()
}

// payload returns the claims of a JWT; ok is false if the token is none.
func payload(token string) (claims map[string]json.RawMessage, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || !strings.HasPrefix(token, "ey") {
		return nil, false
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	return claims, err == nil && json.Unmarshal(b, &claims) == nil
}

// shown returns what the guest gets for a token.
func shown(token, placeholder string, claims []string) string {
	all, ok := payload(token)
	if !ok {
		return placeholder
	}
	for name := range all {
		if !slices.Contains(keptClaims, name) && !slices.Contains(claims, name) {
			delete(all, name)
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		return placeholder
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode(b) + "." + placeholder
}

// accountOf returns whose login an answer is, for the person: an address of mail in the ID token or
// in the answer itself; "" if there is none.
func accountOf(answer map[string]json.RawMessage) string {
	var token, account string
	if json.Unmarshal(answer[idToken], &token) == nil {
		if claims, ok := payload(token); ok && json.Unmarshal(claims["email"], &account) == nil && account != "" {
			return clip(account)
		}
	}
	for _, name := range []string{"account", "user"} {
		var inner map[string]json.RawMessage
		if json.Unmarshal(answer[name], &inner) != nil {
			continue
		}
		for _, field := range []string{"email_address", "email"} {
			if json.Unmarshal(inner[field], &account) == nil && account != "" {
				return clip(account)
			}
		}
	}
	return ""
}

// maxNote bounds a text of the server's that is kept for the person, in bytes.
const maxNote = 256

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxNote)], "") }
