package inspect

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/secret"
)

// registry asks for a token of its own, as registries of container images do, and gives one to our
// account and to nobody's.
func registry(w http.ResponseWriter, r *http.Request) {
	user, pass, _ := r.BasicAuth()
	switch r.URL.Path {
	case "/token":
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"token": "token-of-%s%s", "expires_in": 300}`, user, map[bool]string{true: "-us"}[pass == realValue])
	case "/echo":
		fmt.Fprintf(w, `{"token": %q}`, r.URL.Query().Get("q"))
	default:
		if got := r.Header.Get("Authorization"); got != "" {
			_, _ = io.WriteString(w, got)
			return
		}
		w.Header().Set("Www-Authenticate", `Bearer realm="https://`+hostName+`/token",service="registry",scope="repository:a/b:pull,push"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// TestTokensThatTheHostGives to our account and to nobody are no other credentials; all others are.
func TestTokensThatTheHostGives(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		p := newPlace(t, http.HandlerFunc(registry), bothProtocols, bound(secret.Place{}))
		c := p.client(proto)
		get := func(path string, header ...string) (int, string) {
			res, body := p.do(c, request(t, "GET", path, nil, header...))
			return res.StatusCode, body
		}
		// Before the host names its token server, what looks like one is none.
		get("/token", "Authorization", "Basic "+b64("me:"+standIn))
		if status, body := get("/v2/", "Authorization", "Bearer token-of-me-us"); status != 403 {
			t.Errorf("without a token server: %d %s", status, body)
		}
		if status, _ := get("/v2/"); status != 401 {
			t.Fatal(status)
		}
		if _, body := get("/token?service=registry&scope=repository:a/b:pull&offline_token=true&account=me", "Authorization", "Basic "+b64("me:"+standIn)); !strings.Contains(body, "token-of-me-us") {
			t.Fatal(body)
		}
		if status, body := get("/v2/", "Authorization", "Bearer token-of-me-us"); status != 200 || body != "Bearer token-of-me-us" {
			t.Errorf("our own: %d %s", status, body)
		}
		get("/token?service=registry")
		if status, body := get("/v2/", "Authorization", "Bearer token-of-"); status != 200 {
			t.Errorf("nobody's: %d %s", status, body)
		}
		// The attacker's, from elsewhere or through the host.
		get("/echo?q=token-of-the-attacker", "X-Api-Key", standIn)
		get("/token?user=the-attacker", "Authorization", "Basic "+b64("the-attacker:key"))
		for _, header := range []string{"Authorization", "X-Auth-Token"} {
			if status, body := get("/v2/", header, "Bearer token-of-the-attacker"); status != 403 {
				t.Errorf("the attacker's: %d %s", status, body)
			}
		}
		if status, body := get("/v2/", "X-Auth-Token", "token-of-me-us"); status != 403 {
			t.Errorf("in another header: %d %s", status, body)
		}
	})
}

// TestAttackRealmsTakeMemory: what a host says about its token servers is kept for hosts with a secret only, of which there are
// few, and in few bytes. A wildcard rule about requests may lead to any number of an attacker's hosts.
func TestAttackRealmsTakeMemory(t *testing.T) {
	hostile := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Www-Authenticate", `Bearer realm="https://`+hostName+"/"+strings.Repeat(r.URL.Query().Get("c"), 100_000)+`"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	for _, list := range [][]secret.Bound{nil, {bound(secret.Place{})}} {
		p := newPlace(t, hostile, bothProtocols, list...)
		for _, c := range []string{"a", "b", "c"} {
			if res, _ := p.do(p.client("h2"), request(t, "GET", "/?c="+c, nil)); res.StatusCode != http.StatusUnauthorized {
				t.Fatal(res.Status)
			}
		}
		p.i.issued.mu.Lock()
		if n := len(p.i.issued.realms); n > 0 {
			t.Errorf("token servers of %d hosts are kept", n)
		}
		p.i.issued.mu.Unlock()
	}
	p := newPlace(t, http.HandlerFunc(registry), bothProtocols) // without a secret
	if res, _ := p.do(p.client("h2"), request(t, "GET", "/v2/", nil)); res.StatusCode != http.StatusUnauthorized || len(p.i.issued.realms) > 0 {
		t.Error(res.Status, p.i.issued.realms)
	}
}
