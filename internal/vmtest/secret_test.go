//go:build vm

package vmtest

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// secretValue is a secret of this test's; no other test may write it anywhere.
const secretValue = "sk-ant-api03-TheValueThatIsNowhereInTheGuest0123456789"

// keyServer answers with the credential that it got, and counts.
type keyServer struct {
	good, other atomic.Int64
	pushed      atomic.Value // string: the branches that were pushed, each with a space behind it
	port        int
	roots       string // file with its certificate
}

func newKeyServer(t *testing.T) *keyServer {
	t.Helper()
	s := &keyServer{roots: filepath.Join(t.TempDir(), "roots.pem")}
	s.pushed.Store("")
	cert, text := certificate(t, "secret.test")
	writeFile(t, s.roots, string(text))
	var l net.Listener
	l, s.port = listen(t, serverAddr+":0")
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "Bearer "+secretValue {
				s.good.Add(1)
			} else {
				s.other.Add(1)
			}
			if strings.HasPrefix(r.URL.Path, "/own/app/") {
				s.push(w, r)
				return
			}
			fmt.Fprintf(w, "%s got %s\n", r.Proto, r.Header.Get("Authorization"))
		}),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ReadHeaderTimeout: time.Minute,
	}
	go func() { _ = server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { server.Close() })
	return s
}

// push answers git as an empty repository that takes every push (gitprotocol-http(5)).
func (s *keyServer) push(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		const service, caps = "# service=git-receive-pack\n", " capabilities^{}\x00report-status side-band-64k\n"
		w.Header().Set("Content-Type", "application/x-git-receive-pack-advertisement")
		fmt.Fprintf(w, "%04x%s0000%04x%040d%s0000", len(service)+4, service, len(caps)+44, 0, caps)
		return
	}
	body, err := io.ReadAll(r.Body)
	_, ref, _ := bytes.Cut(body, []byte("refs/heads/"))
	ref, _, _ = bytes.Cut(ref, []byte{0})
	if err != nil || len(ref) == 0 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.pushed.Store(s.pushed.Load().(string) + string(ref) + " ")
	report := fmt.Sprintf("000eunpack ok\n%04xok refs/heads/%s\n0000", len(ref)+19, ref)
	w.Header().Set("Content-Type", "application/x-git-receive-pack-result")
	fmt.Fprintf(w, "%04x\x01%s0000", len(report)+5, report)
}

// forgetAuthority removes bawn's certificate authority after the test: other sandboxes of this run
// shall be as if nobody had a secret.
func forgetAuthority(t *testing.T) {
	t.Cleanup(func() {
		for _, f := range []string{"inspect-ca.crt", "inspect-ca.key", "placeholder.key"} {
			os.Remove(filepath.Join(base, "state", "bawn", f))
		}
	})
}

// TestSecretsStayOnTheHost: curl, Python and Node in the guest use a key that the guest does
// not have; the server gets it. It is not in the guest's memory, on its disk or in bawn's files
// about the sandbox.
func TestSecretsStayOnTheHost(t *testing.T) {
	s := newKeyServer(t)
	dir := project(t, "secret")
	env := []string{"SSL_CERT_FILE=" + s.roots}
	at := "secret.test:" + strconv.Itoa(s.port)
	forgetAuthority(t)
	// The sandbox is older than the first secret: it trusts the authority when it is resumed.
	if r := bawnAt(t.Context(), dir, nil, env, "run", "--add-host", "secret.test:"+serverAddr, "--allow", at, "--allow", serverAddr+":"+strconv.Itoa(s.port), "--", "sh", "-euc", `
a=0; test -e /usr/local/share/ca-certificates/bawn.pem || a=1 # a host may have authorities of its own
b=0; test -L /run/bawn/oci/runc || b=1
test $a = $b # containers are changed only in a guest that trusts a certificate of the host`); r.code != 0 {
		t.Fatalf("%s%s", r.err, logs(dir))
	}
	must(t, dir, "suspend")
	if r := bawnAt(t.Context(), dir, strings.NewReader(secretValue+"\n"), nil, "secret", "set", "EXAMPLE_KEY", "--for", at); r.code != 0 {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { bawn(t, dir, "secret", "rm", "EXAMPLE_KEY") })
	r := bawnAt(t.Context(), dir, nil, env, "run", "--", "sh", "-euc", fmt.Sprintf(`
printenv EXAMPLE_KEY
test -L /run/bawn/oci/runc # containers started from now on trust it too
curl -sS -m 60 -H "Authorization: Bearer $EXAMPLE_KEY" https://%[1]s/
curl -sS -m 60 -H "Authorization: Bearer another" https://%[1]s/ -o refused -w '%%{http_code}\n'
python3 -c 'import os, urllib.request as u
print(u.urlopen(u.Request("https://%[1]s/", headers={"Authorization": "Bearer " + os.environ["EXAMPLE_KEY"]}), timeout=60).read().decode(), end="")'
node -e 'fetch("https://%[1]s/", {headers: {Authorization: "Bearer " + process.env.EXAMPLE_KEY}}).then(r => r.text()).then(t => process.stdout.write(t))'
`, at))
	if r.code != 0 {
		t.Fatalf("%d\n%s%s%s", r.code, r.out, r.err, logs(dir))
	}
	said := strings.Split(strings.TrimSpace(r.out), "\n")
	placeholder := said[0]
	want := []string{placeholder, "HTTP/2.0 got Bearer " + placeholder, "403", "HTTP/1.1 got Bearer " + placeholder, "HTTP/1.1 got Bearer " + placeholder}
	if strings.Join(said, "\n") != strings.Join(want, "\n") || !strings.HasPrefix(placeholder, "sk-ant-api03-") || len(placeholder) != len(secretValue) {
		t.Errorf("%s", r.out)
	}
	if good, other := s.good.Load(), s.other.Load(); good != 3 || other != 0 {
		t.Errorf("the server got the key %d times, and something else %d times", good, other)
	}
	if refused := readFile(t, filepath.Join(dir, "refused")); !strings.Contains(refused, "other-credentials") {
		t.Error(refused)
	}
	t.Run("requests", func(t *testing.T) { requestRules(t, dir, at) })
	t.Run("pushes", func(t *testing.T) { pushRules(t, dir, at, s) })
	must(t, dir, "exec", "secret", "sync") // what it wrote is on its disk
	st := inspect(t, dir)
	if n := searchMemory(t, st.State.PID, placeholder); n == 0 {
		t.Error("the search of the guest's memory does not find the placeholder either")
	}
	if n := searchMemory(t, st.State.PID, secretValue); n != 0 {
		t.Errorf("the value is in the guest's memory %d times", n)
	}
	searchFiles(t, secretValue, dir, filepath.Join(base, "state"))
}

// pushRules: git in the guest pushes to the branches that no rule denies, and prints why another one is
// refused.
func pushRules(t *testing.T, dir, at string, s *keyServer) {
	must(t, dir, "policy", "deny", "git:"+at+"/own/app:push=main")
	r := bawn(t, dir, "exec", "secret", "sh", "-euc", fmt.Sprintf(`
git init -q -b main /tmp/push; cd /tmp/push; git -c user.name=a -c user.email=a@b.test commit -q --allow-empty -m one
git push -q https://%[1]s/own/app HEAD:refs/heads/free
! git push https://%[1]s/own/app HEAD:refs/heads/main 2>&1`, at))
	if r.code != 0 || !strings.Contains(r.out, "remote: bawn: forbidden: creation of refs/heads/main is not allowed by the policy") {
		t.Errorf("%d %s%s", r.code, r.out, r.err)
	}
	if got := s.pushed.Load(); got != "free " {
		t.Errorf("the server got pushes to %q", got)
	}
}

// requestRules: a rule about requests holds in a sandbox that runs, and the log has the requests.
func requestRules(t *testing.T, dir, at string) {
	must(t, dir, "policy", "deny", "DELETE https://"+at+"/**")
	r := bawn(t, dir, "exec", "secret", "sh", "-euc", fmt.Sprintf(`
for method in GET DELETE; do curl -sS -m 60 -X $method https://%[1]s/v1/x?q=1 -o answer -w '%%{http_code} '; done
curl -sS -m 60 --path-as-is https://%[1]s/v1/%%2e%%2e/x -o answer -w '%%{http_code}'`, at))
	if r.code != 0 || r.out != "200 403 400" {
		t.Errorf("%d %q %s", r.code, r.out, r.err)
	}
	log := must(t, dir, "net", "log", "--json")
	for _, want := range []string{`"method":"GET","path":"/v1/x","status":200`, `"method":"DELETE","path":"/v1/x","status":403`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s: %s", want, log)
		}
	}
}

// searchMemory counts a text in the guest's memory, which is what a snapshot keeps of it: a
// memfd that the supervisor holds.
func searchMemory(t *testing.T, supervisor int, text string) (n int) {
	t.Helper()
	fds := fmt.Sprintf("/proc/%d/fd", supervisor)
	entries, err := os.ReadDir(fds)
	if err != nil {
		t.Fatal(err)
	}
	searched := int64(0)
	for _, e := range entries {
		path := filepath.Join(fds, e.Name())
		if link, _ := os.Readlink(path); strings.HasPrefix(link, "/memfd:") {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			found, size := searchSparse(t, f, text)
			n, searched = n+found, searched+size
			f.Close()
		}
	}
	if searched < 32<<20 {
		t.Fatalf("only %d bytes of memory were searched", searched)
	}
	return n
}

// searchSparse counts a text in the parts of a file that hold data.
func searchSparse(t *testing.T, f *os.File, text string) (n int, searched int64) {
	t.Helper()
	buf := make([]byte, 1<<20+len(text))
	for at := int64(0); ; {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err != nil { // ENXIO: no more
			return n, searched
		}
		to, err := unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			t.Fatal(err)
		}
		for from < to { // the next read begins with what a text may have begun in
			got, err := f.ReadAt(buf[:min(int64(len(buf)), to-from+int64(len(text))-1)], from)
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			n += bytes.Count(buf[:got], []byte(text))
			from += 1 << 20
			searched += int64(got)
		}
		at = to
	}
}

// searchFiles fails the test for each file below the folders that holds the text.
func searchFiles(t *testing.T, text string, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return nil // files come and go while the sandbox runs
			}
			f, err := os.Open(path)
			if err != nil {
				return nil
			}
			defer f.Close()
			if n, _ := searchSparse(t, f, text); n > 0 {
				t.Errorf("%s has the value", path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
