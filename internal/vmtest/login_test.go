//go:build vm

package vmtest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// tokenMark is in every real token of this test's; no other test may write it anywhere.
const tokenMark = "TheTokenThatIsNowhereInTheGuest"

// loginAgent is an agent that logs in, calls its API and refreshes, by curl.
const loginAgent = `stub:
  package: stub-agent
  program: cli
  env: {STUB_HOME: "{home}"}
  login: [auth.json]
  oauth:
    endpoints: ["login.test:%[1]d/token"]
    api: ["login.test:%[1]d"]
    command: [login]
    file: auth.json
`

// loginProgram is that agent's program. It prints what it has, and keeps it in its home.
const loginProgram = `#!/bin/sh -eu
f=$STUB_HOME/auth.json url=https://login.test:$PORT
field() { sed -n "s/.*\"$1\":\"\\([^\"]*\\)\".*/\\1/p" "$f"; }
ask() { curl -fsS -m 60 "$url/token" "$@" -o "$f.new" && mv "$f.new" "$f"; }
case $1 in
login) ask -d grant_type=authorization_code -d code=c -d client_id=stub ;;
refresh) ask -H 'Content-Type: application/json' -d "{\"grant_type\":\"refresh_token\",\"client_id\":\"stub\",\"refresh_token\":\"$(field refresh_token)\"}" ;;
call) ;;
esac
curl -sS -m 60 -H "Authorization: Bearer $(field access_token)" "$url/v1/x"
`

// loginServer gives out tokens, each of which it takes once, and has an API.
type loginServer struct {
	mu              sync.Mutex
	n               int
	access, refresh string
	good, other     int // calls of the API
}

func (s *loginServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path != "/token" {
		if r.Header.Get("Authorization") == "Bearer "+s.access {
			s.good++
		} else {
			s.other++
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprintf(w, "token %d: %s\n", s.n, r.Header.Get("Authorization"))
		return
	}
	b := make([]byte, 4<<10)
	n, _ := r.Body.Read(b)
	body := string(b[:n])
	if !strings.Contains(body, "authorization_code") && (s.refresh == "" || !strings.Contains(body, s.refresh)) {
		http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
		return
	}
	s.n++
	s.access, s.refresh = fmt.Sprintf("access-%d-%s", s.n, tokenMark), fmt.Sprintf("refresh-%d-%s", s.n, tokenMark)
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":%q,"refresh_token":%q,"expires_in":3600}`, s.access, s.refresh)
}

// TestLoginsStayOnTheHost: an agent logs in, calls its API and refreshes in one sandbox, and goes on in another
// one without a login. No token is in either guest's memory, on its disk, in the agent's homes or in bawn's
// files about the sandboxes.
func TestLoginsStayOnTheHost(t *testing.T) {
	s := &loginServer{}
	cert, roots := certificate(t, "login.test")
	rootsFile := filepath.Join(t.TempDir(), "roots.pem")
	writeFile(t, rootsFile, string(roots))
	l, port := listen(t, serverAddr+":0")
	server := &http.Server{Handler: s, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { server.Close() })

	config := filepath.Join(base, "home", ".config", "bawn")
	file := filepath.Join(config, "agents.yaml")
	if err := errors.Join(os.MkdirAll(config, 0o700), os.WriteFile(file, fmt.Appendf(nil, loginAgent, port), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.Remove(file)
		os.Remove(filepath.Join(config, "logins.json"))
	})
	forgetAuthority(t)
	env := []string{"SSL_CERT_FILE=" + rootsFile, "npm_config_registry=" + stubRegistry(t, loginProgram).URL}
	flags := []string{"--add-host", "login.test:" + serverAddr, "--allow", "login.test:" + strconv.Itoa(port), "--allow", serverAddr + ":" + strconv.Itoa(port), "--env", "PORT=" + strconv.Itoa(port)}
	run := func(dir string, words ...string) result {
		return bawnAt(t.Context(), dir, nil, env, words...)
	}
	agent := func(dir, word string, flags ...string) string {
		t.Helper()
		r := run(dir, append(append([]string{"run", "--agent", "stub"}, flags...), "--", word)...)
		if r.code != 0 {
			t.Fatalf("%s: %d\n%s%s%s", word, r.code, r.out, r.err, logs(dir))
		}
		return r.out
	}
	one := project(t, "login1")
	r := run(one, append(append([]string{"login"}, flags...), "stub")...)
	if r.code != 0 || !strings.Contains(r.err, "the login of stub is kept on this host") {
		t.Fatalf("%d\n%s%s%s", r.code, r.out, r.err, logs(one))
	}
	_, placeholder, _ := strings.Cut(strings.TrimSpace(r.out), "Bearer ")
	if want := "token 1: Bearer " + placeholder + "\n"; r.out != want || len(placeholder) < 20 {
		t.Errorf("%q", r.out)
	}
	if out := agent(one, "refresh", "--env", "PORT="+strconv.Itoa(port)); out != "token 2: Bearer "+placeholder+"\n" {
		t.Errorf("%q", out)
	}
	// Another login in the guest is refused: the person has one.
	if r := run(one, "exec", "login1", "sh", "-c", fmt.Sprintf("curl -sS -m 60 https://login.test:%d/token -d grant_type=authorization_code -d code=x", port)); !strings.Contains(r.out, "bawn login stub") {
		t.Errorf("%s%s", r.out, r.err)
	}
	two := project(t, "login2") // while the first one runs: it gets another home
	if out := agent(two, "call", flags...); out != "token 2: Bearer "+placeholder+"\n" {
		t.Errorf("%q", out)
	}
	if out := agent(two, "refresh", "--env", "PORT="+strconv.Itoa(port)); out != "token 3: Bearer "+placeholder+"\n" {
		t.Errorf("%q", out)
	}
	if out := agent(one, "call", "--env", "PORT="+strconv.Itoa(port)); out != "token 3: Bearer "+placeholder+"\n" {
		t.Errorf("%q", out)
	}
	if s.good != 5 || s.other != 0 {
		t.Errorf("the API got its token %d times, and something else %d times", s.good, s.other)
	}
	for _, dir := range []string{one, two} {
		must(t, dir, "exec", filepath.Base(dir), "sync")
		pid := inspect(t, dir).State.PID
		if searchMemory(t, pid, placeholder) == 0 {
			t.Error("the search of the guest's memory does not find the placeholder either")
		}
		if n := searchMemory(t, pid, tokenMark); n != 0 {
			t.Errorf("tokens are in the guest's memory %d times", n)
		}
		searchFiles(t, tokenMark, dir)
	}
	searchFiles(t, tokenMark, filepath.Join(base, "state"))
	must(t, one, "logout", "stub")
	if r := run(one, "run", "--agent", "stub", "--env", "PORT="+strconv.Itoa(port), "--", "refresh"); r.code == 0 || s.n != 3 {
		t.Errorf("after bawn logout: %d %s, %d tokens", r.code, r.out, s.n)
	}
}
