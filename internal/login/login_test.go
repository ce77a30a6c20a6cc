package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/sys/proc/proctest"
)

var testDefinition = Definition{
	Endpoints: []string{"auth.example.test/token"}, API: []string{"api.example.test"},
	File: ".credentials.json", Host: ".agent/.credentials.json",
	Fields: map[string]string{accessToken: "oauth.accessToken", refreshToken: "oauth.refreshToken"}, Expires: "oauth.expiresAt",
}

const realAccess, realRefresh = "sk-ant-oat01-the-REAL-access-token-0123456789", "sk-ant-ort01-the-REAL-refresh-token-0123456789"

// testStore is a store with the agent "a", whose clock is set by the test.
func testStore(t *testing.T) (s *Store, now *time.Time) {
	t.Helper()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	dir := t.TempDir()
	s = OpenAt(filepath.Join(dir, "config"), filepath.Join(dir, "home"), secret.OpenAt(filepath.Join(dir, "config"), filepath.Join(dir, "state")))
	clock := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return clock }
	if err := s.Define("a", testDefinition); err != nil {
		t.Fatal(err)
	}
	return s, &clock
}

func (s *Store) testSandbox() *Sandbox {
	b := s.Sandbox("id", "box")
	b.SetAgents([]string{"a"})
	return b
}

var at = []Endpoint{{Agent: "a"}}

// logIn makes a login.
func logIn(t *testing.T, b *Sandbox, answer string) Answer {
	t.Helper()
	x, err := b.Begin(t.Context(), at, Request{Grant: "authorization_code", Client: "c"})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	a, err := x.Done(200, []byte(answer))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func fields(t *testing.T, b []byte) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return m
}

var bothTokens = fmt.Sprintf(`{"access_token":%q,"refresh_token":%q,"expires_in":3600}`, realAccess, realRefresh)

// TestRepeatedAnswers: who waited for another refresh gets its answer while the access token is good, with
// what is left of its time, also after the host's clock was set back; and asks the server otherwise.
func TestRepeatedAnswers(t *testing.T) {
	for _, c := range []struct {
		passed time.Duration
		repeat bool
		left   float64
	}{
		{0, true, 3600}, {time.Minute, true, 3540}, {-24 * time.Hour, true, 3600}, {2 * time.Hour, false, 0},
	} {
		s, now := testStore(t)
		b := s.testSandbox()
		placeholder := fields(t, logIn(t, b, bothTokens).Body)[refreshToken].(string)
		*now = now.Add(c.passed)
		l, err := s.Get("a")
		if err != nil {
			t.Fatal(err)
		}
		x := &Exchange{b: b, login: l}
		if err := x.begin(t.Context(), Request{Grant: grantRefresh, Refresh: placeholder}, l.Serial-1); err != nil {
			t.Fatal(err)
		}
		if c.repeat != (x.Repeat != nil) || c.repeat == (x.Refresh == realRefresh) {
			t.Errorf("after %v: repeated %s, sends %q", c.passed, x.Repeat, x.Refresh)
			continue
		}
		if c.repeat {
			if m := fields(t, x.Repeat); m["expires_in"] != c.left || m[refreshToken] != placeholder || strings.Contains(string(x.Repeat), "REAL") {
				t.Errorf("after %v: %s", c.passed, x.Repeat)
			}
		}
	}
}

// TestRefreshKeepsWhatTheAnswerLeavesOut: many servers do not send the refresh token again.
func TestRefreshKeepsWhatTheAnswerLeavesOut(t *testing.T) {
	s, _ := testStore(t)
	b := s.testSandbox()
	m := fields(t, logIn(t, b, bothTokens).Body)
	x, err := b.Begin(t.Context(), at, Request{Grant: grantRefresh, Refresh: m[refreshToken].(string)})
	if err != nil {
		t.Fatal(err)
	}
	a, err := x.Done(200, []byte(`{"access_token":"a-new-token-of-another-shape"}`))
	x.Close()
	if err != nil || fields(t, a.Body)[accessToken] != m[accessToken] {
		t.Fatalf("%s, %v", a.Body, err)
	}
	l, err := s.Get("a")
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{accessToken: "a-new-token-of-another-shape", refreshToken: realRefresh} {
		if v, err := s.value(t.Context(), &l, field); v != want || err != nil {
			t.Errorf("%s: %q, %v", field, v, err)
		}
	}
	// A new login has none of the old one's.
	if err := s.Open("a", "id", time.Minute); err != nil {
		t.Fatal(err)
	}
	logIn(t, b, `{"access_token":"of-another-account-0123456789"}`)
	if l, _ = s.Get("a"); l.Tokens[refreshToken].Stored != "" || l.Expires != (time.Time{}) {
		t.Errorf("%+v", l)
	}
}

// TestAttackTokensInOtherFields: a server that names a token elsewhere in its answer or in an error brings it neither to
// a guest, also not to one that waited for that answer, nor into the index.
func TestAttackTokensInOtherFields(t *testing.T) {
	s, _ := testStore(t)
	b := s.testSandbox()
	said := fmt.Sprintf(`{"access_token":%q,"refresh_token":%q,"expires_in":3600,"note":"it is %s","more":[{"x":["\u0073%s"]}],"n":12345678901234567890}`,
		realAccess, realRefresh, realAccess, realRefresh[1:])
	a := logIn(t, b, said)
	m := fields(t, a.Body)
	if strings.Contains(string(a.Body), "REAL") || m["note"] != "it is "+m[accessToken].(string) || !strings.Contains(string(a.Body), `"n":12345678901234567890`) {
		t.Errorf("%s", a.Body)
	}
	refresh := Request{Grant: grantRefresh, Refresh: m[refreshToken].(string)}
	l, err := s.Get("a")
	if err != nil {
		t.Fatal(err)
	}
	x := &Exchange{b: b, login: l}
	if err := x.begin(t.Context(), refresh, l.Serial-1); err != nil || x.Repeat == nil || strings.Contains(string(x.Repeat), "REAL") {
		t.Errorf("repeated: %s, %v", x.Repeat, err)
	}
	if x, err = b.Begin(t.Context(), at, refresh); err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if _, err := x.Done(400, []byte(`{"error":"bad token `+realRefresh+`"}`)); err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(s.path())
	if err != nil || strings.Contains(string(index), "REAL") || !strings.Contains(string(index), "bad token") {
		t.Errorf("the index: %s, %v", index, err)
	}
}

// TestAttackExchangeWhileThePersonActs: a refresh or a login that was under way does not undo what the person did
// meanwhile.
func TestAttackExchangeWhileThePersonActs(t *testing.T) {
	begin := func(s *Store, b *Sandbox, r Request) *Exchange {
		t.Helper()
		x, err := b.Begin(t.Context(), at, r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(x.Close)
		return x
	}
	t.Run("logout", func(t *testing.T) {
		s, _ := testStore(t)
		b := s.testSandbox()
		m := fields(t, logIn(t, b, bothTokens).Body)
		x := begin(s, b, Request{Grant: grantRefresh, Refresh: m[refreshToken].(string)})
		if err := s.Remove("a"); err != nil {
			t.Fatal(err)
		}
		if a, err := x.Done(200, []byte(bothTokens)); err == nil {
			t.Errorf("%s", a.Body)
		}
		if l, err := s.Get("a"); err != nil || l.Kept() {
			t.Errorf("the login is back: %+v, %v", l, err)
		}
		if des, err := os.ReadDir(filepath.Join(s.config, "secrets")); err != nil || len(des) > 0 {
			t.Errorf("tokens are left: %v, %v", des, err)
		}
	})
	t.Run("host login", func(t *testing.T) {
		s, now := testStore(t)
		b := s.testSandbox()
		x := begin(s, b, Request{Grant: "authorization_code"})
		hostFile(t, s, now.Add(time.Hour))
		if err := s.UseHostFile("a"); err != nil {
			t.Fatal(err)
		}
		if a, err := x.Done(200, []byte(`{"access_token":"of-the-attacker-0123456789"}`)); err == nil {
			t.Errorf("%s", a.Body)
		}
		l, err := s.Get("a")
		if err != nil || !l.UseHost {
			t.Fatalf("the host's login is replaced: %+v, %v", l, err)
		}
		if v, err := s.value(t.Context(), &l, accessToken); v != realAccess || err != nil {
			t.Errorf("%q, %v", v, err)
		}
	})
}

// TestAttackLoginBesideASecretOfAnotherProject: the login would be used in that project's sandboxes too, which could
// use no other account so far.
func TestAttackLoginBesideASecretOfAnotherProject(t *testing.T) {
	s, _ := testStore(t)
	b := s.testSandbox()
	key := secret.Secret{Name: "API_KEY", Dir: "/another/project", For: []secret.Host{{Name: "api.example.test", Port: 443}}}
	if _, err := s.secrets.Set(t.Context(), key, "key-0123456789"); err != nil {
		t.Fatal(err)
	}
	x, err := b.Begin(t.Context(), at, Request{Grant: "authorization_code"})
	if err == nil {
		x.Close()
	}
	if denied := Denied(""); !errors.As(err, &denied) || !strings.Contains(err.Error(), "bawn login a") || strings.Contains(err.Error(), "API_KEY") {
		t.Error(err)
	}
	if err := s.Open("a", "id", time.Minute); err != nil {
		t.Fatal(err)
	}
	logIn(t, b, bothTokens)
}

// TestAttackLoginOfASecondAgent: the login that is kept holds the API host to the person's account, whatever agent asks.
func TestAttackLoginOfASecondAgent(t *testing.T) {
	s, _ := testStore(t)
	b := s.testSandbox()
	logIn(t, b, bothTokens)
	if err := s.Define("A", testDefinition); err != nil {
		t.Fatal(err)
	}
	b.SetAgents([]string{"A", "a"})
	list, err := b.Endpoints(secret.Host{Name: "auth.example.test", Port: 443})
	if err != nil || len(list) != 2 || list[0].Agent != "A" {
		t.Fatalf("%+v, %v", list, err)
	}
	x, err := b.Begin(t.Context(), list, Request{Grant: "authorization_code"})
	if err == nil {
		x.Close()
	}
	if denied := Denied(""); !errors.As(err, &denied) {
		t.Error(err)
	}
}

// TestWaitForAnExchangeEnds with the request that waits, and takes nothing then.
func TestWaitForAnExchangeEnds(t *testing.T) {
	s, _ := testStore(t)
	b := s.testSandbox()
	x, err := b.Begin(t.Context(), at, Request{Grant: "authorization_code"})
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	for range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := b.Begin(ctx, at, Request{Grant: "authorization_code"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		cancel()
	}
	if n := runtime.NumGoroutine(); n > before+10 {
		t.Errorf("%d goroutines are left", n-before)
	}
	x.Close()
	x.Close()
	logIn(t, b, bothTokens)
}

// hostFile writes the agent's file on the host.
func hostFile(t *testing.T, s *Store, expires time.Time) string {
	t.Helper()
	p := filepath.Join(s.home, testDefinition.Host)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"oauth":{"accessToken":%q,"refreshToken":%q,"expiresAt":%d,"plan":"max"},"mcp":{"x":"another-REAL-token"}}`, realAccess, realRefresh, expires.UnixMilli())
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestHostLogin: the host's file is read and never written, and the guest's refresh never reaches the server.
func TestHostLogin(t *testing.T) {
	s, now := testStore(t)
	if s.HostFile(&testDefinition) != "" {
		t.Error("there is no file yet")
	}
	if err := s.UseHostFile("a"); err == nil || strings.Contains(err.Error(), s.home) {
		t.Error(err)
	}
	p := hostFile(t, s, now.Add(time.Hour))
	before, _ := os.Stat(p)
	logIn(t, s.testSandbox(), `{"access_token":"sk-ant-oat01-0123456789","id_token":"0123456789"}`) // the host's file has no ID token
	if s.HostFile(&testDefinition) != p {
		t.Error("the file is not found")
	}
	if err := s.UseHostFile("a"); err != nil {
		t.Fatal(err)
	}
	text, err := s.HomeFile("a", nil)
	if err != nil || strings.Contains(string(text), "REAL") {
		t.Fatalf("%s, %v", text, err)
	}
	oauth := fields(t, text)["oauth"].(map[string]any)
	if len(fields(t, text)) != 1 || oauth["plan"] != "max" || !strings.HasPrefix(oauth["accessToken"].(string), "sk-ant-oat01-") {
		t.Errorf("%s", text)
	}
	b := s.testSandbox()
	list, err := b.List()
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, l := range list {
		if len(l.For) == 0 {
			continue // the ID token of before
		}
		v, err := l.Value(t.Context())
		want := map[string]string{oauth["accessToken"].(string): realAccess, oauth["refreshToken"].(string): realRefresh}[l.Placeholder]
		if err != nil || v != want || v == "" || (v == realAccess) != (l.Place.Where == secret.InBearer) || !l.IsFor("api.example.test", 443) {
			t.Errorf("%s: %q, %v", l.Name, v, err)
		}
	}
	refresh := Request{Grant: grantRefresh, Refresh: oauth["refreshToken"].(string)}
	x, err := b.Begin(t.Context(), at, refresh)
	if err != nil {
		t.Fatal(err)
	}
	x.Close()
	if m := fields(t, x.Repeat); m[accessToken] != oauth["accessToken"] || m["expires_in"] != 3600.0 || x.Refresh != "" {
		t.Errorf("%s", x.Repeat)
	}
	*now = now.Add(2 * time.Hour)
	if _, err := b.Begin(t.Context(), at, refresh); err == nil || !strings.Contains(err.Error(), "on the host") {
		t.Error("a login that is over:", err)
	}
	hostFile(t, s, now.Add(time.Hour)) // the agent on the host renewed it
	if x, err = b.Begin(t.Context(), at, refresh); err != nil {
		t.Fatal(err)
	}
	x.Close()
	if _, err := b.Begin(t.Context(), at, Request{Grant: "authorization_code"}); err == nil {
		t.Error("another login takes the place of the host's")
	}
	index, _ := os.ReadFile(s.path())
	if strings.Contains(string(index), "REAL") {
		t.Errorf("%s", index)
	}
	if err := s.Remove("a"); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(p)
	if err != nil || after.Mode() != before.Mode() {
		t.Error("bawn logout touches the host's file:", err)
	}
	if text, err := s.HomeFile("a", nil); text != nil || err != nil {
		t.Errorf("after bawn logout: %s, %v", text, err)
	}
}

// TestHomeFile: a file with placeholders is remembered for other homes, and put where it is missing.
func TestHomeFile(t *testing.T) {
	s, _ := testStore(t)
	m := fields(t, logIn(t, s.testSandbox(), bothTokens).Body)
	if text, err := s.HomeFile("a", nil); text != nil || err != nil {
		t.Errorf("before the agent wrote one: %s, %v", text, err)
	}
	wrote := fmt.Sprintf(`{"oauth":{"accessToken":%q}}`, m[accessToken])
	if text, err := s.HomeFile("a", []byte(wrote)); text != nil || err != nil {
		t.Errorf("%s, %v", text, err)
	}
	if text, err := s.HomeFile("a", nil); string(text) != wrote || err != nil {
		t.Errorf("%s, %v", text, err)
	}
	text, err := s.HomeFile("a", []byte(`{"oauth":{"accessToken":"of-before"},"mcp":{"x":"y"}}`))
	if got := fields(t, text); err != nil || got["mcp"] == nil || got["oauth"].(map[string]any)["accessToken"] != m[accessToken] {
		t.Errorf("%s, %v", text, err)
	}
	for _, odd := range []string{"", "{", "[]", "null"} {
		if text, err := s.HomeFile("a", []byte(odd)); string(text) != wrote || err != nil {
			t.Errorf("%q: %s, %v", odd, text, err)
		}
	}
	long := wrote + strings.Repeat(" ", maxFile)
	if _, err := s.HomeFile("a", []byte(long)); err != nil {
		t.Fatal(err)
	}
	if text, _ := s.HomeFile("a", nil); string(text) != wrote {
		t.Error("a file that is too long is remembered")
	}
	if text, err := s.HomeFile("unknown", nil); text != nil || err != nil {
		t.Errorf("%s, %v", text, err)
	}
}

// TestDefinitions: what is wrong is said.
func TestDefinitions(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                "needs endpoints",
		`{"endpoints":["a.example.org/t"]}`: "needs endpoints and api",
		`{"endpoints":["a.example.org"],"api":["a.example.org"]}`:                                                   "not a token endpoint",
		`{"endpoints":["a.example.org/t/../u"],"api":["a.example.org"]}`:                                            "not a token endpoint",
		`{"endpoints":["a.example.org/t?x"],"api":["a.example.org"]}`:                                               "not a token endpoint",
		`{"endpoints":["*.example.org/t"],"api":["a.example.org"]}`:                                                 "whole name",
		`{"endpoints":["a.example.org/t"],"api":["**.example.org"]}`:                                                "whole name",
		`{"endpoints":["a.example.org/t"],"api":["a.example.org:80"]}`:                                              "plain HTTP",
		`{"endpoints":["a.example.org/t"],"api":["a.example.org"],"file":"../x"}`:                                   "not a path",
		`{"endpoints":["a.example.org/t"],"api":["a.example.org"],"host":".x"}`:                                     "host needs file",
		`{"endpoints":["a.example.org/t"],"api":["a.example.org"],"fields":{"access_token":"a"}}`:                   "host needs file",
		`{"endpoints":["a.example.org/t"],"api":["a.example.org"],"file":"f","host":"h","fields":{"x":"a"}}`:        "fields has no",
		`{"endpoints":["a.example.org/t"],"api":["a.example.org"],"refuse":["/x"]}`:                                 "not",
		`{"endpoints":["a.example.org/t"],"api":["a.example.org"],"file":"f","host":"/h","fields":{"x":"a"}}`:       "not a path",
		`{"endpoints":["a.example.org/t"],"api":["a.example.org"],"file":"f","host":"h","fields":{"id_token":"a"}}`: "access_token",
	} {
		var d Definition
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			t.Fatal(err)
		}
		if err := d.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestDamagedIndex: it is an error, never an empty list, and so is one that others can change.
func TestDamagedIndex(t *testing.T) {
	s, _ := testStore(t)
	b := s.testSandbox()
	for _, text := range []string{"{", `{"logins":[{"agent":"a"}]}`, `{"logins":[{"agent":"a","definition":{"endpoints":["a.example.org/t"],"api":["a.example.org"]},"tokens":{"access_token":{"stored":"../../x"}}}]}`} {
		if err := os.WriteFile(s.path(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.List(); err == nil {
			t.Errorf("%s is taken", text)
		}
		if _, err := b.Endpoints(secret.Host{Name: "auth.example.test", Port: 443}); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
	if err := os.WriteFile(s.path(), []byte(`{"logins":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.path(), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(); err == nil {
		t.Error("an index that others can change is taken")
	}
}

// FuzzPlaceholder: what the guest gets for a token has nothing of its signature, whatever the server sent.
func FuzzPlaceholder(f *testing.F) {
	f.Add("eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjF9.c2lnbmF0dXJl")
	f.Add("ey.ey.")
	f.Add("opaque")
	f.Fuzz(func(t *testing.T, token string) {
		const placeholder = "PLACEHOLDERPLACEHOLDERPLACEHOLDERPLACEHOLDER"
		got := shown(token, placeholder, []string{"plan"})
		if got == placeholder {
			return
		}
		b := secret.Bound{Placeholder: placeholder, Token: true}
		if !b.Is(got) {
			t.Errorf("%q is not recognised", got)
		}
		if _, ok := payload(got); !ok {
			t.Errorf("%q is no JWT", got)
		}
	})
}

// TestAttackLoginsThatAGuestWrites: the list of logins, or the agent's login on the host, lies in a project with the
// person's dotfiles, so that a guest would put another account in the place of the person's.
func TestAttackLoginsThatAGuestWrites(t *testing.T) {
	s, now := testStore(t)
	hostFile(t, s, now.Add(time.Hour))
	if err := s.UseHostFile("a"); err != nil {
		t.Fatal(err)
	}
	l, err := s.Get("a")
	if err != nil {
		t.Fatal(err)
	}
	proctest.Share(t, s.home)
	if s.HostFile(&testDefinition) != "" {
		t.Error("the host's login is offered")
	}
	if err := s.UseHostFile("a"); err == nil || strings.Contains(err.Error(), s.home) {
		t.Error(err)
	}
	if v, err := s.value(t.Context(), &l, accessToken); v != "" || err == nil || strings.Contains(err.Error(), s.home) {
		t.Errorf("%q, %v", v, err)
	}
	proctest.Share(t, s.config)
	if list, err := s.List(); len(list) != 0 || err == nil || strings.Contains(err.Error(), s.config) {
		t.Errorf("%+v, %v", list, err)
	}
	proctest.Share(t)
	if v, err := s.value(t.Context(), &l, accessToken); v != realAccess || err != nil {
		t.Errorf("%q, %v", v, err)
	}
}
