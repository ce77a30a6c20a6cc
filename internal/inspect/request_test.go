package inspect

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"bawn.dev/bawn/internal/secret"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// TestSecretIsPutWhereItBelongs: the server sees the value, for every place and way to write
// it, and the guest's own text around it.
func TestSecretIsPutWhereItBelongs(t *testing.T) {
	for _, c := range []struct {
		place      secret.Place
		name, sent string
		want       string
	}{
		{secret.Place{}, "Authorization", "Bearer " + standIn, "Bearer " + realValue},
		{secret.Place{}, "Authorization", "bearer " + standIn, "bearer " + realValue},
		{secret.Place{}, "Authorization", "token " + standIn, "token " + realValue},
		{secret.Place{}, "Authorization", standIn, realValue},
		{secret.Place{}, "X-Api-Key", standIn, realValue},
		{secret.Place{}, "Private-Token", standIn, realValue},
		{secret.Place{}, "X-Goog-Api-Key", standIn, realValue},
		{secret.Place{}, "Authorization", "Basic " + b64("me:"+standIn), "Basic " + b64("me:"+realValue)},
		{secret.Place{}, "Authorization", "Basic " + b64(standIn+":"), "Basic " + b64(realValue+":")},
		{secret.Place{}, "Authorization", "Basic " + b64(standIn+":x-oauth-basic"), "Basic " + b64(realValue+":x-oauth-basic")},
		{secret.Place{Where: secret.InBearer}, "Authorization", "Bearer " + standIn, "Bearer " + realValue},
		{secret.Place{Where: secret.InBasic, Arg: "me"}, "Authorization", "Basic " + b64("me:"+standIn), "Basic " + b64("me:"+realValue)},
		{secret.Place{Where: secret.InHeader, Arg: "x-my-key"}, "X-My-Key", standIn, realValue},
		{secret.Place{Where: secret.InHeader, Arg: "X-My-Key"}, "X-My-Key", "Key " + standIn, "Key " + realValue},
	} {
		s := &seen{}
		p := newPlace(t, s, bothProtocols, bound(c.place), boundElsewhere())
		res, body := p.do(p.client("h2"), request(t, "GET", "/v1?a=%20b", nil, c.name, c.sent, "X-Plain", "as it was"))
		if res.StatusCode != 200 || s.count() != 1 {
			t.Errorf("%v, %s: %s: %d %s", c.place, c.name, c.sent, res.StatusCode, body)
			continue
		}
		r, _ := s.last()
		if got := r.Header.Get(c.name); got != c.want || r.Header.Get("X-Plain") != "as it was" || r.URL.RawQuery != "a=%20b" {
			t.Errorf("%v: %s: %q, want %q; %s", c.place, c.name, got, c.want, r.URL)
		}
	}
}

func TestSecretInQueryAndBody(t *testing.T) {
	query := secret.Place{Where: secret.InQuery, Arg: "api_key"}
	inBody := secret.Place{Where: secret.InBody}
	for _, c := range []struct {
		place            secret.Place
		path, kind, body string
		wantQuery, want  string
	}{
		{query, "/?b=1&api_key=" + standIn + "&c=%2F", "", "", "b=1&api_key=" + url.QueryEscape(realValue) + "&c=%2F", ""},
		{query, "/?api_key=%73" + standIn[1:], "", "", "api_key=" + url.QueryEscape(realValue), ""},
		{inBody, "/", "application/json", `{"key":"` + standIn + `"}`, "", `{"key":"` + realValue + `"}`},
		{inBody, "/", "application/x-www-form-urlencoded", "a=1&key=" + standIn, "", "a=1&key=" + url.QueryEscape(realValue)},
		{inBody, "/", "text/plain", standIn + standIn, "", realValue + realValue},
	} {
		s := &seen{}
		p := newPlace(t, s, bothProtocols, bound(c.place))
		res, page := p.do(p.client("http/1.1"), request(t, "POST", c.path, strings.NewReader(c.body), "Content-Type", c.kind))
		if res.StatusCode != 200 {
			t.Errorf("%v: %d %s", c.place, res.StatusCode, page)
			continue
		}
		if r, body := s.last(); body != c.want || r.URL.RawQuery != c.wantQuery || r.ContentLength != int64(len(c.want)) {
			t.Errorf("%v: ?%s %q (length %d)", c.place, r.URL.RawQuery, body, r.ContentLength)
		}
	}
}

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	w.Close()
	return b.String()
}

func zlibbed(s string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	w.Close()
	return b.String()
}

func zstded(s string) string {
	w, _ := zstd.NewWriter(nil)
	defer w.Close()
	return string(w.EncodeAll([]byte(s), nil))
}

// inJSON writes each character as an escape.
func inJSON(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.WriteString(`\u00`)
		b.WriteByte("0123456789abcdef"[c>>4])
		b.WriteByte("0123456789abcdef"[c&15])
	}
	return b.String()
}

// inPercent writes each character as a percent-encoding.
func inPercent(s string) string {
	return strings.ReplaceAll(inJSON(s), `\u00`, "%")
}

// TestPlaceholderElsewhereIsRefused: in each position and encoding, of a secret for this host
// in another place (but as text in a body) and of a secret for another host. The server sees no request with it.
func TestPlaceholderElsewhereIsRefused(t *testing.T) {
	type attempt struct {
		name, method, path, body string
		header                   []string
	}
	long := strings.Repeat("some text of no interest, ", 4_000)
	attempts := func(ph string) []attempt {
		return []attempt{
			{"path", "GET", "/" + ph, "", nil},
			{"path, percent", "GET", "/" + inPercent(ph), "", nil},
			{"path, percent twice", "GET", "/" + strings.ReplaceAll(inPercent(ph), "%", "%25"), "", nil},
			{"path, base64", "GET", "/" + base64.RawURLEncoding.EncodeToString([]byte("x"+ph)), "", nil},
			{"query", "GET", "/?q=" + ph, "", nil},
			{"query name", "GET", "/?" + ph + "=1", "", nil},
			{"query, percent", "GET", "/?q=" + inPercent(ph), "", nil},
			{"query, base64", "GET", "/?q=" + url.QueryEscape(b64("ab"+ph)), "", nil},
			{"header", "GET", "/", "", []string{"X-Echo", "a " + ph}},
			{"header, percent", "GET", "/", "", []string{"X-Echo", inPercent(ph)}},
			{"header, base64", "GET", "/", "", []string{"X-Echo", b64("abc" + ph)}},
			{"user agent", "GET", "/", "", []string{"User-Agent", ph}},
			{"referer", "GET", "/", "", []string{"Referer", "https://x.example/?k=" + ph}},
			{"cookie", "GET", "/", "", []string{"Cookie", "k=" + ph}},
			{"header name", "GET", "/", "", []string{"X-" + ph, "1"}},
			{"basic, another password", "GET", "/", "", []string{"Authorization", "Basic " + b64(ph+":data")}},
			{"bearer with more", "GET", "/", "", []string{"Authorization", "Bearer " + ph + " and more"}},
			{"body", "POST", "/", ph, nil},
			{"body, behind much", "POST", "/", long + ph + long, nil},
			{"body, JSON", "POST", "/", `{"a":"` + inJSON(ph) + `"}`, []string{"Content-Type", "application/json"}},
			{"body, form", "POST", "/", "a=" + inPercent(ph), []string{"Content-Type", "application/x-www-form-urlencoded"}},
			{"body, base64", "POST", "/", b64("a" + ph + "b"), nil},
			{"body, gzip", "POST", "/", gzipped(long + ph), []string{"Content-Encoding", "gzip"}},
			{"body, deflate", "POST", "/", zlibbed(ph + long), []string{"Content-Encoding", "deflate"}},
			{"body, zstd", "POST", "/", zstded(long + ph), []string{"Content-Encoding", "zstd"}},
			{"body, gzip of JSON", "POST", "/", gzipped(`{"a":"` + inJSON(ph) + `"}`), []string{"Content-Encoding", "GZIP"}},
		}
	}
	everyProtocol(t, func(t *testing.T, proto string) {
		s := &seen{}
		p := newPlace(t, s, bothProtocols, bound(secret.Place{}), boundElsewhere())
		refused := 0
		for _, ph := range []string{standIn, elsewhere} {
			for _, a := range attempts(ph) {
				if ph == standIn && strings.HasPrefix(a.name, "body") && a.name != "body, form" {
					continue // TestAConversationMayHaveThePlaceholder
				}
				refused++
				res, err := p.client(proto).Do(request(t, a.method, a.path, io.MultiReader(strings.NewReader(a.body)), a.header...))
				if err == nil { // an upload that is cut may be an error of the client's
					b, _ := io.ReadAll(res.Body)
					res.Body.Close()
					if res.StatusCode != 403 || !strings.Contains(string(b), "placeholder") && !strings.Contains(string(b), "another credential") {
						t.Errorf("%s: %d %s", a.name, res.StatusCode, b)
					}
				} else if a.body == "" {
					t.Errorf("%s: %v", a.name, err)
				}
			}
		}
		if n := strings.Count(p.log(), "\n") + 1; n != refused {
			t.Errorf("%d refusals are logged", n)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, r := range s.heads {
			var head strings.Builder
			_ = r.Header.Write(&head)
			all := r.RequestURI + head.String() + s.body[i]
			if !strings.HasPrefix(s.body[i], "cut:") || strings.Contains(all, standIn) || strings.Contains(all, elsewhere) || strings.Contains(all, realValue) {
				t.Errorf("the server saw %.200s", all)
			}
		}
	})
}

// TestAConversationMayHaveThePlaceholder: an agent that has printed its environment sends the
// placeholder of its key to the model with each later request. It passes as it is; that of a secret
// for another host does not.
func TestAConversationMayHaveThePlaceholder(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		s := &seen{}
		p := newPlace(t, s, bothProtocols, bound(secret.Place{}), boundElsewhere())
		said := func(what string) string { return `{"messages":[{"content":"ANTHROPIC_API_KEY=` + what + `"}]}` }
		for _, body := range []string{said(standIn), said(inJSON(standIn)), said(standIn) + elsewhere} {
			res, text := p.do(p.client(proto), request(t, "POST", "/v1/messages", strings.NewReader(body), "Content-Type", "application/json", "Authorization", "Bearer "+standIn))
			if want := strings.Contains(body, elsewhere); want != (res.StatusCode == 403) {
				t.Errorf("%s: %d %s", body, res.StatusCode, text)
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.body[0] != said(standIn) || s.body[1] != said(inJSON(standIn)) {
			t.Errorf("the server saw %q", s.body)
		}
	})
}

// TestBodyPlaceholderSplitOverWrites: each byte is a write of its own.
func TestBodyPlaceholderSplitOverWrites(t *testing.T) {
	for _, text := range []string{elsewhere, inJSON(elsewhere)} {
		s := &seen{}
		p := newPlace(t, s, bothProtocols, bound(secret.Place{}), boundElsewhere())
		res, body := p.do(p.client("h2"), request(t, "POST", "/", oneByOne{strings.NewReader("before " + text)}))
		if res.StatusCode != 403 || !strings.Contains(body, "OTHER_KEY") {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
}

type oneByOne struct{ r io.Reader }

func (o oneByOne) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

// TestOtherCredentialsAreRefused on a host with a secret, unless the secret allows them.
func TestOtherCredentialsAreRefused(t *testing.T) {
	for _, c := range []struct{ path, name, value string }{
		{"/", "Authorization", "Bearer sk-of-the-attacker"},
		{"/", "Authorization", "Basic " + b64("attacker:key")},
		{"/", "X-Api-Key", "sk-of-the-attacker"},
		{"/", "Cookie", "session=of-the-attacker"},
		{"/", "X-Goog-Api-Key", "of-the-attacker"},
		{"/", "Private-Token", "glpat-of-the-attacker"},
		{"/", "Some-Vendors-Access-Key", "of-the-attacker"},
		{"/?api_key=of-the-attacker", "X-Plain", "1"},
		{"/?a=1&Access_Token=of-the-attacker", "X-Plain", "1"},
		{"/", "X-Rapidapi-Key", "of-the-attacker"},
		{"/", "Fastly-Key", "of-the-attacker"},
		{"/", "Token", "of-the-attacker"},
		{"/", "Authentication", "of-the-attacker"},
		{"/", "X_api_key", "of-the-attacker"},
		{"/", "X-Client-Passphrase", "of-the-attacker"},
		{"/", "Sec-Websocket-Protocol", "realtime, openai-insecure-api-key.of-the-attacker"},
		{"/", "Sec-Websocket-Protocol", "base64url.bearer.authorization.k8s.io.of-the-attacker"},
		{"/?apiKey=of-the-attacker", "X-Plain", "1"},
		{"/?subscription-key=of-the-attacker", "X-Plain", "1"},
		{"/?X-Amz-Signature=of-the-attacker", "X-Plain", "1"},
		{"/?sv=1&sig=of-the-attacker-long", "X-Plain", "1"},
		{"/?key=of-the-attacker-long", "X-Plain", "1"},
		{"/?client%5Fsecret=of-the-attacker", "X-Plain", "1"},
		{"/?a=1;access_token=of-the-attacker", "X-Plain", "1"},
		{"/?aCcEsS_tOkEn=of-the-attacker", "X-Plain", "1"},
		{"/?sUbScRiPtIoN-kEy=of-the-attacker", "X-Plain", "1"},
		{"/?appkey=of-the-attacker", "X-Plain", "1"},
		{"/?usertoken=of-the-attacker", "X-Plain", "1"},
		{"/?user=ghp_ATTACKERATTACKERATTACKERATTACKER0123", "X-Plain", "1"},
		{"/bot/ghp_ATTACKERATTACKERATTACKERATTACKER0123/send", "X-Plain", "1"},
		{"/bot/%67hp_ATTACKERATTACKERATTACKERATTACKER0123/send", "X-Plain", "1"},
		{"/", "X-User", "ghp_ATTACKERATTACKERATTACKERATTACKER0123"},
		{"/", "X-TrackerToken", "of-the-attacker"},
		{"/", "X-ClientSecret", "of-the-attacker"},
		{"/", "Signature", "keyId=\"of-the-attacker\""},
		{"/", "DPoP", "of-the-attacker"},
		{"/", "Client-Cert", ":of-the-attacker:"},
	} {
		s := &seen{}
		b := bound(secret.Place{})
		p := newPlace(t, s, bothProtocols, b)
		res, body := p.do(p.client("http/1.1"), request(t, "GET", c.path, nil, c.name, c.value))
		if res.StatusCode != 403 || !strings.Contains(body, "other-credentials") || s.count() != 0 || p.log() == "" || strings.Contains(body+p.log(), "attacker") {
			t.Errorf("%s %s: %d %s", c.path, c.name, res.StatusCode, body)
		}
		// Beside the secret's own.
		res, _ = p.do(p.client("http/1.1"), request(t, "GET", c.path, nil, "X-Auth-Token", standIn, c.name, c.value))
		if res.StatusCode != 403 || s.count() != 0 {
			t.Errorf("%s %s beside the secret: %d", c.path, c.name, res.StatusCode)
		}
		b.OtherCredentials = true
		p.bindings.list = []secret.Bound{b}
		if res, body = p.do(p.client("http/1.1"), request(t, "GET", c.path, nil, c.name, c.value)); res.StatusCode != 200 {
			t.Errorf("%s %s, allowed: %d %s", c.path, c.name, res.StatusCode, body)
		}
	}
	s := &seen{}
	p := newPlace(t, s, bothProtocols, bound(secret.Place{}))
	res, body := p.do(p.client("h2"), request(t, "GET", "/?offline_token=true&token_type=bearer&max_token=4096&key=of-a-map&token=page-2&pageToken=a-long-value-of-the-server&sort_key=name-of-the-field&author=someone-with-a-name", nil, "X-Csrf-Token", "1", "Idempotency-Key", "2",
		"Npm-Auth-Type", "web", "X-Use-Cookie", "1", "X-Auth-Scheme", "plain", "X-CsrfToken", "5", "X-NextToken", "6", "X-Tokens", "7", "Mcp-Session-Id", "8", "X-Monkey", "9", "X-Amz-Meta-Key", "3", "Sec-Websocket-Protocol", "graphql-transport-ws, v4.channel.k8s.io", "X-Authored-By", "4"))
	if res.StatusCode != 200 {
		t.Errorf("a request without credentials: %d %s", res.StatusCode, body)
	}
}

// TestHostOfRequestRulesTakesAnyCredential: it has no secret, and is inspected for its rules only.
func TestHostOfRequestRulesTakesAnyCredential(t *testing.T) {
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "session=1")
		_, _ = io.WriteString(w, r.Header.Get("Authorization")+r.Header.Get("Cookie")+r.URL.RawQuery)
	}), bothProtocols, boundElsewhere())
	res, body := p.do(p.client("h2"), request(t, "GET", "/?api_key=own", nil, "Authorization", "Bearer own", "Cookie", "own"))
	if res.StatusCode != 200 || body != "Bearer ownownapi_key=own" || res.Header.Get("Set-Cookie") == "" {
		t.Errorf("%d %s %v", res.StatusCode, body, res.Header)
	}
	if res, _ = p.do(p.client("h2"), request(t, "GET", "/", nil, "Authorization", "Bearer "+elsewhere)); res.StatusCode != 403 {
		t.Errorf("a placeholder of another host: %d", res.StatusCode)
	}
}

// TestOtherCredentialsInForms are refused on a host with a secret, as those in the query are.
func TestOtherCredentialsInForms(t *testing.T) {
	const form, parts = "application/x-www-form-urlencoded", `multipart/form-data; boundary=b`
	part := func(name, value string) string {
		return "--b\r\ncontent-disposition: form-data; filename=x; name=\"" + name + "\"\r\nContent-Type: text/plain\r\n\r\n" + value + "\r\n"
	}
	long := strings.Repeat("x", 5000)
	for _, c := range []struct {
		kind, coding, body string
		passes             bool
	}{
		{form, "", "grant_type=client_credentials&client_id=1&client_secret=of-the-attacker", false},
		{form, "", "access_token=of-the-attacker", false},
		{form, "", "a=" + long + "&%61ccess_token=of-the-attacker&b=" + long, false},
		{form, "gzip", gzipped("a=1&refresh_token=of-the-attacker"), false},
		{parts, "", "--b\r\nContent-Disposition: form-data;\r\n name=client_secret\r\n\r\nof-the-attacker\r\n--b--", false},
		{parts, "", "--b\r\nContent-Disposition: form-data; filename=\"" + long + "\"; name=\"access_token\"\r\n\r\nof-the-attacker\r\n--b--", false},
		{parts, "", "--b\r\nContent-Disposition: form-data; name=a; name=access_token\r\n\r\nof-the-attacker\r\n--b--", false},
		{"text/plain, " + form + "; ;", "", "client_secret=of-the-attacker", false},
		{"Application/X-WWW-Form-Urlencoded; charset=utf-8", "", "token=of-the-attacker-long", false},
		{form, "", "user=ghp_ATTACKERATTACKERATTACKERATTACKER0123", false},
		{form, "", "a=1&+access_token=of-the-attacker", false}, // PHP takes off spaces, and makes _ of those within
		{form, "", "a=1&%20access%20token=of-the-attacker", false},
		{form, "", "a=1&access_token%00_type=of-the-attacker", false}, // what C reads ends at NUL
		{"", "", "a=1&access_token=of-the-attacker", false},           // Rack, cgi.py
		{"multipart/mixed; boundary=b", "", part("access_token", "of-the-attacker") + "--b--", false},
		{"multipart/related; boundary=b", "", part("access_token", "of-the-attacker") + "--b--", false},
		{"multipart/related; boundary=b", "", "--b\r\nContent-Type: application/json\r\n\r\n{\"name\":\"access_token\"}\r\n--b\r\n\r\naccess_token=x\r\n--b--", true},
		{parts, "", "--b\r\nContent-Disposition: form-data; name='access_token'\r\n\r\nof-the-attacker\r\n--b--", false},                 // PHP
		{parts, "", "--b\r\nContent-Disposition: form-data; name=\"=?utf-8?Q?access=5Ftoken?=\"\r\n\r\nof-the-attacker\r\n--b--", false}, // Tomcat
		{form + "; charset=ibm037", "", "%81%83%83%85%A2%A2m%A3%96%92%85%95=of-the-attacker", false},                                     // ASP.NET
		{form + `; charset="UTF-8"`, "", "a=1", true},
		{form, "", "%u0061ccess%u005ftoken=of-the-attacker", false}, // ASP.NET
		{form, "", "acc%65ss_tok%65n%00%zz%=of-the-attacker", false},
		{form, "", "a=1;access_token=of-the-attacker", false}, // CGI.pm, older Python
		{parts, "", part("access_token\x00type", "of-the-attacker") + "--b--", false},
		{form, "", `{"a":"how do I send my access token=x; with spaces"}`, true},
		{parts, "", part("a", long) + part("token", "of-the-attacker-long") + "--b--", false},
		{parts, "", part("client_secret", "of-the-attacker"), false},
		{form, "", "grant_type=x&a=" + long + "&page_token=of-a-page-of-answers&max_tokens=5&csrfmiddlewaretoken=123&q=the+access_token=", true},
		{form, "", `{"a":"client_secret","b":"access_token=x&y"}`, true}, // as curl -d sends it
		{parts, "", part("file", "client_secret=none\r\ntoken: x") + part("page_token", "5") + "--b--", true},
		{"application/json", "", `{"messages":[{"content":"what is access_token=of-someone, ghp_ATTACKERATTACKERATTACKERATTACKER0123?"}]}`, true},
	} {
		for _, body := range []io.Reader{strings.NewReader(c.body), oneByOne{strings.NewReader(c.body)}} {
			s := &seen{}
			b := bound(secret.Place{})
			p := newPlace(t, s, bothProtocols, b)
			res, page := p.do(p.client("h2"), request(t, "POST", "/", body, "Content-Type", c.kind, "Content-Encoding", c.coding, "X-Api-Key", standIn))
			if want := map[bool]int{true: 200, false: 403}[c.passes]; res.StatusCode != want || !c.passes && !strings.Contains(page, "other-credentials") {
				t.Errorf("%.150q: %d %s", c.body, res.StatusCode, page)
			}
			if strings.Contains(p.log(), "attacker") {
				t.Error(p.log())
			}
		}
		b := bound(secret.Place{})
		b.OtherCredentials = true
		p := newPlace(t, &seen{}, bothProtocols, b)
		if res, page := p.do(p.client("h2"), request(t, "POST", "/", strings.NewReader(c.body), "Content-Type", c.kind, "Content-Encoding", c.coding)); res.StatusCode != 200 {
			t.Errorf("%.150q, allowed: %d %s", c.body, res.StatusCode, page)
		}
	}
	// Also where the body is held, since a secret may belong in it: it is said once, and as what it is.
	held := newPlace(t, &seen{}, bothProtocols, bound(secret.Place{Where: secret.InBody}))
	res, page := held.do(held.client("h2"), request(t, "POST", "/", strings.NewReader("client_secret=of-the-attacker"), "Content-Type", form))
	if res.StatusCode != 403 || !strings.Contains(page, "other-credentials") || held.log() == "" || strings.Contains(held.log(), "\n") {
		t.Errorf("%d %s; log: %s", res.StatusCode, page, held.log())
	}
	// The secret's own place in a form is no other credential.
	s := &seen{}
	p := newPlace(t, s, bothProtocols, bound(secret.Place{Where: secret.InBody}))
	for kind, body := range map[string]string{form: "a=1&client_secret=" + standIn, parts: part("client_secret", standIn)} {
		res, page := p.do(p.client("h2"), request(t, "POST", "/", strings.NewReader(body), "Content-Type", kind))
		if res.StatusCode != 200 {
			t.Fatalf("%d %s", res.StatusCode, page)
		}
		if _, got := s.last(); strings.Contains(got, standIn) || !strings.Contains(got, "client_secret") {
			t.Errorf("%q", got)
		}
	}
}

// TestUserInTheURL: a client that writes the user into the request target or :authority.
func TestUserInTheURL(t *testing.T) {
	s := &seen{}
	p := newPlace(t, s, bothProtocols, bound(secret.Place{}))
	raw := p.dial(t, "http/1.1")
	defer raw.Close()
	fmt.Fprintf(raw, "GET https://attacker:key@%[1]s/ HTTP/1.1\r\nHost: %[1]s\r\nConnection: close\r\n\r\n", hostName)
	if b, _ := io.ReadAll(raw); !strings.HasPrefix(string(b), "HTTP/1.1 403") || s.count() != 0 {
		t.Errorf("%.200s, %d", b, s.count())
	}
	r := request(t, "GET", "/", nil)
	r.Host = "attacker:key@" + hostName
	if res, err := p.client("h2").Do(r); err == nil {
		res.Body.Close()
		if res.StatusCode != 403 && res.StatusCode != 400 || s.count() != 0 {
			t.Errorf(":authority: %d", res.StatusCode)
		}
	}
}

// TestNoClientCertificate: a certificate of the guest's does not reach the server.
func TestNoClientCertificate(t *testing.T) {
	got := make(chan int, 1)
	p := newPlace(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- len(r.TLS.PeerCertificates) }), bothProtocols, bound(secret.Place{}))
	p.upstreamTLS.ClientAuth = tls.RequestClientCert
	attacker, err := OpenCA(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := attacker.leaf("attacker.test")
	if err != nil {
		t.Fatal(err)
	}
	asked := false
	c := p.client("http/1.1")
	c.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return cert, nil
	}
	if res, body := p.do(c, request(t, "GET", "/", nil)); res.StatusCode != 200 || <-got != 0 || asked {
		t.Errorf("%d %s, asked %v", res.StatusCode, body, asked)
	}
}

func TestTwoAuthorizationHeaders(t *testing.T) {
	s := &seen{}
	p := newPlace(t, s, bothProtocols, bound(secret.Place{}))
	r := request(t, "GET", "/", nil, "Authorization", "Bearer "+standIn, "Authorization", "Bearer sk-of-the-attacker")
	if res, _ := p.do(p.client("http/1.1"), r); res.StatusCode != 403 || s.count() != 0 {
		t.Error(res.StatusCode)
	}
}

// TestUnavailableValue: the request fails with the reason, and the placeholder is not sent on.
func TestUnavailableValue(t *testing.T) {
	s := &seen{}
	b := bound(secret.Place{})
	b.Value = func(context.Context) (string, error) { return "", errors.New("the keyring is locked") }
	p := newPlace(t, s, bothProtocols, b)
	res, body := p.do(p.client("h2"), request(t, "GET", "/", nil, "Authorization", "Bearer "+standIn))
	if res.StatusCode != 503 || !strings.Contains(body, "the keyring is locked") || s.count() != 0 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	p.bindings.mu.Lock()
	p.bindings.err = errors.New("/home/me/secrets.json is damaged")
	p.bindings.mu.Unlock()
	if res, body = p.do(p.client("h2"), request(t, "GET", "/", nil)); res.StatusCode != 503 || s.count() != 0 || strings.Contains(body, "/home/me") || !strings.Contains(p.log(), "/home/me") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if _, err := p.i.Wants("any.example.test", 443); err == nil {
		t.Error("Wants without a list")
	}
}

// TestRequestForAnotherHost is refused: Host, absolute form, another port.
func TestRequestForAnotherHost(t *testing.T) {
	s := &seen{}
	p := newPlace(t, s, bothProtocols, bound(secret.Place{}))
	for _, host := range []string{"other.example.test", hostName + ":8443", hostName + ".other.test", ""} {
		r := request(t, "GET", "/", nil, "Authorization", "Bearer "+standIn)
		if r.Host = host; host == "" {
			r.Host, r.Method = "other.example.test:443", "CONNECT"
			r.URL.Opaque = "other.example.test:443"
		}
		if res, body := p.do(p.client("http/1.1"), r); res.StatusCode != 403 || s.count() != 0 {
			t.Errorf("%q: %d %s", host, res.StatusCode, body)
		}
	}
	for _, host := range []string{hostName, strings.ToUpper(hostName), hostName + ":443"} {
		r := request(t, "GET", "/", nil)
		r.Host = host
		if res, body := p.do(p.client("http/1.1"), r); res.StatusCode != 200 {
			t.Errorf("%q: %d %s", host, res.StatusCode, body)
		}
	}
}

func TestBodyThatCannotBeDecodedIsRefused(t *testing.T) {
	s := &seen{}
	p := newPlace(t, s, bothProtocols, bound(secret.Place{}))
	for coding, body := range map[string]string{
		"br": "anything", "gzip": "not gzip at all", "gzip, gzip": gzipped(gzipped("a")), "deflate": zlibbed("a") + "behind", "zstd": zstded("abcabcabc")[:6],
	} {
		res, err := p.client("http/1.1").Do(request(t, "POST", "/", strings.NewReader(body), "Content-Encoding", coding))
		if err != nil {
			t.Error(err)
			continue
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d", coding, res.StatusCode)
		}
	}
	s.mu.Lock()
	for i, b := range s.body {
		if !strings.HasPrefix(b, "cut:") {
			t.Errorf("the server took %q, %q", s.heads[i].Header.Get("Content-Encoding"), b)
		}
	}
	s.mu.Unlock()
	s = &seen{} // requests that were cut may still end at the first one
	p = newPlace(t, s, bothProtocols, bound(secret.Place{}))
	for coding, body := range map[string]string{"gzip": gzipped("fine"), "deflate": zlibbed("fine"), "zstd": zstded("fine"), "identity": "fine"} {
		res, _ := p.do(p.client("h2"), request(t, "POST", "/", strings.NewReader(body), "Content-Encoding", coding))
		if _, got := s.last(); res.StatusCode != 200 || got != body {
			t.Errorf("%s: %d %q", coding, res.StatusCode, got)
		}
	}
}
