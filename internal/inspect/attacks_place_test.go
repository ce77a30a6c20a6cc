package inspect

import (
	"net/http"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/secret"
)

// TestAttackHeadersThatAreKept: headers whose names speak of a key or a token, and which servers keep with an object or send
// on to wherever the request says. There the guest, or its accomplice, reads them.
func TestAttackHeadersThatAreKept(t *testing.T) {
	s := &seen{}
	p := newPlace(t, s, bothProtocols, bound(secret.Place{}))
	for _, name := range []string{
		"X-Bz-Info-Api-Key", "X-Object-Meta-Token", "X-Container-Meta-Temp-URL-Key", "X-Oss-Meta-Secret", "x-amz-meta-api-key", "X-Custom-Metadata-Token", // kept
		"Upstash-Forward-Authorization", "Upstash-Callback-Forward-X-Api-Key", "Spb-Authorization", "X-Forwarded-Authorization", "Ce-Token", // sent on
	} {
		for _, v := range []string{standIn, "Bearer " + standIn} {
			res, page := p.do(p.client("h2"), request(t, "PUT", "/", nil, name, v))
			if res.StatusCode != http.StatusForbidden || !strings.Contains(page, "belongs in") {
				t.Errorf("%s: %s: %d %s", name, v, res.StatusCode, page)
			}
		}
		// Nor is a stranger's account possible by one of them.
		if res, page := p.do(p.client("h2"), request(t, "PUT", "/", nil, "X-Forwarded-Authorization", "Bearer of-the-attacker")); res.StatusCode != http.StatusForbidden {
			t.Errorf("another account: %d %s", res.StatusCode, page)
		}
	}
	if s.count() > 0 {
		r, _ := s.last()
		t.Errorf("the server got %v", r.Header)
	}
	// Whoever needs one of them names it.
	p = newPlace(t, s, bothProtocols, bound(secret.Place{Where: secret.InHeader, Arg: "X-Forwarded-Authorization"}))
	if res, page := p.do(p.client("h2"), request(t, "PUT", "/", nil, "X-Forwarded-Authorization", "Bearer "+standIn)); res.StatusCode != http.StatusOK {
		t.Error(res.StatusCode, page)
	}
}

// TestAttackFieldsThatEndAtNUL: in the query, as in forms.
func TestAttackFieldsThatEndAtNUL(t *testing.T) {
	s := &seen{}
	p := newPlace(t, s, bothProtocols, bound(secret.Place{}))
	for _, query := range []string{"access_token%00_type=of-the-attacker", "key%00x=of-the-attacker-0123456789", "%20key%20=of-the-attacker-0123456789", "%u0074oken=of-the-attacker-0123456789", "tok%65n%00%zz=of-the-attacker-0123456789"} {
		if res, page := p.do(p.client("h2"), request(t, "GET", "/?a=1&"+query, nil)); res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d %s", query, res.StatusCode, page)
		}
	}
	if s.count() > 0 {
		t.Error("a request passed")
	}
}

// TestAttackKeyAsUser: services that take their key as the user of Basic authentication do not look at the password, in which the
// placeholder may be.
func TestAttackKeyAsUser(t *testing.T) {
	s := &seen{}
	p := newPlace(t, s, bothProtocols, bound(secret.Place{}))
	for _, key := range []string{"sk_live_4eC39HqLyjWDarjtT1zdp7dc", "test_Q2hhcmdlYmVlS2V5c0FyZUxvbmc", "0123456789abcdef0123456789abcdef", "aB+dEfGhIjKlMnOpQrStUvWx", "ghp_ATTACKERATTACKERATTACKERATTACKER0123"} {
		for _, header := range []string{"Authorization", "X-Api-Auth"} {
			res, page := p.do(p.client("h2"), request(t, "POST", "/", nil, header, "Basic "+b64(key+":"+standIn)))
			if res.StatusCode != http.StatusForbidden || !strings.Contains(page, "--basic") {
				t.Errorf("%s: %d %s", key, res.StatusCode, page)
			}
		}
	}
	if s.count() > 0 {
		t.Error(s.count(), "requests passed")
	}
	for _, user := range []string{"me", "x-access-token", "oauth2accesstoken", "gitlab+deploy-token-12345678", "first.last@department.example.org", "my-very-long-organization-bot-1", "robot$library+builder", "_json_key"} {
		if res, page := p.do(p.client("h2"), request(t, "POST", "/", nil, "Authorization", "Basic "+b64(user+":"+standIn))); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", user, res.StatusCode, page)
		}
	}
	// The person may name the user, whatever it looks like.
	p = newPlace(t, s, bothProtocols, bound(secret.Place{Where: secret.InBasic, Arg: "0123456789abcdef0123456789abcdef"}))
	if res, page := p.do(p.client("h2"), request(t, "POST", "/", nil, "Authorization", "Basic "+b64("0123456789abcdef0123456789abcdef:"+standIn))); res.StatusCode != http.StatusOK {
		t.Error(res.StatusCode, page)
	}
}
