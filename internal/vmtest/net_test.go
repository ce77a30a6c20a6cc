//go:build vm

package vmtest

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// servers are the guest's targets. They count the connections and requests that arrive.
type servers struct {
	tls, http, echo, host, secret                              int // ports
	gotTLS, gotHTTP, gotEcho, gotHost, gotSecret, gotWrongName atomic.Int64
}

const serverAddr = "127.77.66.55" // of the loopback, and nobody else's

func listen(t *testing.T, addr string) (net.Listener, int) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal(l.Addr())
	}
	return l, a.Port
}

func echo(l net.Listener, count *atomic.Int64) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		count.Add(1)
		go func() {
			defer c.Close()
			r := bufio.NewReader(c)
			line, err := r.ReadString('\n')
			if err == nil && line != "stay\n" {
				_, _ = io.WriteString(c, line)
				return
			}
			_, _ = io.WriteString(c, line)
			_, _ = io.Copy(c, r)
		}()
	}
}

func startServers(t *testing.T) *servers {
	t.Helper()
	s := &servers{}
	handler := func(count *atomic.Int64) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			count.Add(1)
			if !strings.HasPrefix(r.Host, "good.test") {
				s.gotWrongName.Add(1)
			}
			if r.Header.Get("Upgrade") != "" { // h2c would hide later requests
				s.gotWrongName.Add(1)
			}
			if r.URL.Path == "/redirect" {
				http.Redirect(w, r, fmt.Sprintf("http://other.test:%d/stolen", s.http), http.StatusFound)
				return
			}
			fmt.Fprint(w, "served\n")
		})
	}
	secure := httptest.NewUnstartedServer(handler(&s.gotTLS))
	secure.Listener.Close()
	secure.Listener, s.tls = listen(t, serverAddr+":8443")
	secure.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if !strings.EqualFold(h.ServerName, "good.test") {
			s.gotWrongName.Add(1)
		}
		return nil, nil
	}}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewUnstartedServer(handler(&s.gotHTTP))
	plain.Listener.Close()
	plain.Listener, s.http = listen(t, serverAddr+":8080")
	plain.Config.Protocols = new(http.Protocols)
	plain.Config.Protocols.SetHTTP1(true)
	plain.Config.Protocols.SetUnencryptedHTTP2(true)
	plain.Start()
	t.Cleanup(plain.Close)
	for _, e := range []struct {
		addr  string
		port  *int
		count *atomic.Int64
	}{{serverAddr + ":0", &s.echo, &s.gotEcho}, {"127.0.0.1:0", &s.host, &s.gotHost}, {"127.0.0.1:0", &s.secret, &s.gotSecret}} {
		var l net.Listener
		l, *e.port = listen(t, e.addr)
		go echo(l, e.count)
	}
	return s
}

// netProject starts a sandbox that may reach the servers by the name good.test.
func netProject(t *testing.T, s *servers) string {
	t.Helper()
	dir := project(t, "net")
	ports := fmt.Sprintf("%d,%d,%d", s.tls, s.http, s.echo)
	args := []string{"run", "--memory", "2G", "--allow", "good.test:" + ports, "--allow", serverAddr + ":" + ports, "--allow", fmt.Sprintf("host:%d", s.host)}
	for name, addr := range map[string]string{
		"good.test": serverAddr, "other.test": serverAddr, "meta.test": "169.254.169.254", "private.test": "10.0.0.1", "loop.test": "127.0.0.1",
		"mapped.test": "::ffff:10.0.0.1", "nat64.test": "64:ff9b::7f00:1", "sixtofour.test": "2002:7f00:1::1", "ula.test": "fd00::1",
	} {
		args = append(args, "--add-host", name+":"+addr)
		if name != "good.test" && name != "other.test" {
			args = append(args, "--allow", name)
		}
	}
	must(t, dir, append(args, "--", "true")...)
	return dir
}

// netTest is a sandbox and its targets.
type netTest struct {
	*servers
	dir string
}

// TestNetwork is attacks on the network by root in the guest: each fails at once, and
// nothing reaches what it was aimed at.
func TestNetwork(t *testing.T) {
	s := startServers(t)
	n := &netTest{s, netProject(t, s)}
	n.attacks(t)
	n.denials(t)
	t.Run("two sandboxes", n.twoSandboxes)
	t.Run("redirect", n.redirect)
	t.Run("reload", n.reload)
	t.Run("learn", n.learn)
	t.Run("ask", n.ask)
	t.Run("broken", n.brokenPolicy)
	t.Run("containers", n.containers)
}

// wantOfAttacks is what net.py prints of each attack, by its name: a part of the line.
func (n *netTest) wantOfAttacks() map[string]string {
	refused := "ConnectionRefusedError"
	want := map[string]string{
		"ok name": "True", "ok tls": "200 OK", "ok http": "served", "ok echo": "hello", "ok host": "hello", "ok page": "True", "still alive": "hello",
		"name": "gaierror", "query txt of good": "rcode 0 answers 0", "query https of good": "rcode 0 answers 0",
		"udp resolver": "Error", "udp resolver 6": "Error", "tcp resolver 53": refused, "tcp resolver 853": refused, "tcp resolver 443": refused,
		"raw ip": refused, "raw ip 6": refused, "unused synthetic": refused, "other port": refused,
		"sni": "Error", "no sni": "Error", "not tls": "Error", "host header": "403", "absolute form": "403", "connect": "40", "second request": "403",
		"smuggled": "400", "udp": "Error", "udp to an address": "Error", "ping": "iltered",
		"query mixed case": "rcode 0 answers 1", "query over tcp": `b'\x81\x83'`,
		"ok hello in records": `b'\x16'`, "ok hello in segments": `b'\x16'`, "ok hello in capitals": `b'\x16'`,
		"ech": `\x15\x03`, "http to tls": "403 Forbidden", "ssh to http": "ConnectionResetError", "tls to http": `\x15\x03`,
		"ok no h2c": "served", "quic": "Error", "frames": "many", "another sandbox": refused, "another sandbox 6": refused,
		"no host": "403 Forbidden", "user in the address": "403 Forbidden",
		"gateway 22": refused, "gateway 1": refused, "gateway 6": refused, "host, other port": refused,
	}
	want[fmt.Sprintf("gateway %d", n.host)] = refused
	for _, q := range []int{1, 28, 16, 10, 5, 15, 255, 65} {
		want[fmt.Sprintf("query %d", q)] = "rcode 3 answers 0"
	}
	for _, x := range []string{"meta", "private", "loop", "mapped", "nat64", "sixtofour", "ula"} {
		want["floor "+x+".test"] = `\x15\x03` // a TLS alert
	}
	for _, x := range []string{"in records", "in segments", "with a dot", "twice", "list"} {
		want["sni "+x] = `\x15\x03`
	}
	for _, x := range []string{"two hosts", "folded host", "bare lf", "blank before colon", "blank before all", "long method", "coding", "two lengths"} {
		want[x] = "HTTP/1.1 400"
	}
	for _, x := range []string{"authority", "continuation", "second stream", "two authorities"} {
		want["h2 "+x] = "True"
	}
	return want
}

// attacks is attacks 1 to 7: names, addresses, protocols and frames that no rule allows.
// Each must fail quickly; a time-out could pass for a block.
func (n *netTest) attacks(t *testing.T) {
	writeFile(t, filepath.Join(n.dir, "net.py"), testdata(t, "net.py"))
	out := must(t, n.dir, "run", "--user", "root", "--", "python3", "net.py", strconv.Itoa(n.tls), strconv.Itoa(n.http), strconv.Itoa(n.echo), strconv.Itoa(n.host))
	got := map[string]string{}
	for line := range strings.Lines(out) {
		name, result, _ := strings.Cut(strings.TrimSpace(line), ": ")
		got[name] = result
	}
	for name, say := range n.wantOfAttacks() {
		if !strings.HasPrefix(got[name], "quick: ") && !strings.HasPrefix(name, "ok ") || !strings.Contains(got[name], say) {
			t.Errorf("%s: %q, want it quick and with %q", name, got[name], say)
		}
	}
	if count := n.gotWrongName.Load(); count != 0 {
		t.Errorf("%d requests with another name arrived", count)
	}
	if count := n.gotSecret.Load(); count != 0 {
		t.Errorf("%d connections to a port that no rule names", count)
	}
	if n.gotTLS.Load() != 1 || n.gotHost.Load() != 1 || n.gotEcho.Load() != 2 {
		t.Errorf("arrived: %d TLS, %d host, %d echo", n.gotTLS.Load(), n.gotHost.Load(), n.gotEcho.Load())
	}
}

// denials tests that the attacks are in the log.
func (n *netTest) denials(t *testing.T) {
	log := must(t, n.dir, "net", "log", "--denied")
	for _, want := range []string{"evil.test", "other.test", "source MAC", "not the guest's", "a fragment", "IP options", "extension header", "ECH", "malformed", "meta.test", "ping"} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in the log of denials", want)
		}
	}
}

// twoSandboxes is attack 21, that two sandboxes have no address in common, and attack 7,
// that neither can reach the other.
func (n *netTest) twoSandboxes(t *testing.T) {
	const own = "cat /sys/class/net/eth0/address; ip -o addr show dev eth0 scope global | awk '{print $4}' | sort"
	mine := strings.Fields(sh(t, n.dir, own))
	theirs := strings.Fields(sh(t, shared(t), own))
	for i := range min(len(mine), len(theirs)) {
		if mine[i] == theirs[i] {
			t.Errorf("both have %s", mine[i])
		}
	}
	if len(mine) != 3 || len(theirs) != 3 {
		t.Errorf("%q, %q", mine, theirs)
	}
	// Attack 7: the other one does not exist for this one.
	for _, a := range theirs[1:] {
		a, _, _ = strings.Cut(a, "/")
		if strings.Contains(a, ":") {
			a = "[" + a + "]"
		}
		if r := bawn(t, n.dir, "run", "--", "curl", "-sS", "-m", "30", "telnet://"+a+":22"); r.code != 7 { // refused
			t.Errorf("%s: %+v", a, r)
		}
	}
}

// redirect is attack 8: a redirect to another host.
func (n *netTest) redirect(t *testing.T) {
	r := bawn(t, n.dir, "run", "--", "curl", "-sSL", "-m", "30", fmt.Sprintf("http://good.test:%d/redirect", n.http))
	if r.code == 0 || !strings.Contains(r.err, "resolve host: other.test") || n.gotWrongName.Load() != 0 {
		t.Errorf("%+v", r)
	}
}

// reload is attack 10, that a rule that is withdrawn cuts the connections that it allowed,
// and attack 3, that an address that was learned earlier leads nowhere.
func (n *netTest) reload(t *testing.T) {
	c := command(t.Context(), n.dir, "run", "--", "python3", "-c", fmt.Sprintf(`
import socket
s = socket.create_connection(("good.test", %d))
s.sendall(b"stay\n"); print(s.recv(9).decode().strip(), flush=True)
learned = s.getpeername()[:2]
try: print("end", s.recv(9))
except OSError as e: print(type(e).__name__)
try: socket.create_connection(learned) # attack 3: an address learned earlier
except OSError as e: print(type(e).__name__)
`, n.echo))
	pipe, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	if !lines.Scan() || lines.Text() != "stay" {
		t.Fatalf("%q", lines.Text())
	}
	begin := time.Now()
	must(t, n.dir, "policy", "deny", fmt.Sprintf("good.test:%d", n.echo))
	told := time.Since(begin)
	for i, want := range []string{"ConnectionResetError", "ConnectionRefusedError"} {
		if !lines.Scan() || lines.Text() != want {
			t.Errorf("%q, want %s", lines.Text(), want)
		}
		if i == 0 { // the guest's own time is in it; BenchmarkChange of internal/supervisor has the host's
			t.Logf("the verb took %v, the guest saw its connection cut after %v", told, time.Since(begin))
		}
	}
	_ = c.Wait()
	fails(t, n.dir, 1, "", "policy", "check", fmt.Sprintf("good.test:%d", n.echo))
	must(t, n.dir, "policy", "deny", "--remove", fmt.Sprintf("good.test:%d", n.echo))
	must(t, n.dir, "policy", "check", fmt.Sprintf("good.test:%d", n.echo))
	if got := sh(t, n.dir, fmt.Sprintf("printf 'x\\n' | python3 -c 'import socket,sys; s=socket.create_connection((\"good.test\",%d)); s.sendall(b\"x\\n\"); print(s.recv(9))'", n.echo)); !strings.Contains(got, "x") {
		t.Errorf("%q", got)
	}
}

// learn tests that learn proposes a rule for names that were denied, and applies none.
func (n *netTest) learn(t *testing.T) {
	sh(t, n.dir, "for n in a b c; do getent hosts $n.cdn.test || true; done")
	wait(t, "the last name's line", func() bool { // which names its process, asked of the guest
		return strings.Contains(must(t, n.dir, "net", "log", "--denied"), "c.cdn.test")
	})
	if got := must(t, n.dir, "policy", "learn"); !strings.Contains(got, "+allow *.cdn.test") {
		t.Errorf("%s", got)
	}
	if got := must(t, n.dir, "policy", "show"); strings.Contains(got, "cdn.test") {
		t.Error("a proposal took effect by itself")
	}
}

// ask tests that what a person allows once passes at once, until the sandbox stops.
func (n *netTest) ask(t *testing.T) {
	try := func() result {
		return bawn(t, n.dir, "run", "--", "python3", "-c", fmt.Sprintf(
			"import socket; s=socket.create_connection(('other.test',%d)); s.sendall(b'asked\\n'); print(s.recv(9).decode())", n.echo))
	}
	before := n.gotEcho.Load()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	c := command(t.Context(), n.dir, "net", "ask")
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	r := bufio.NewReader(master)
	until := func(text string) {
		t.Helper()
		_ = master.SetReadDeadline(time.Now().Add(3 * time.Minute))
		seen := ""
		for !strings.HasSuffix(seen, text) {
			b, err := r.ReadByte()
			if err != nil {
				t.Fatalf("waiting for %q: %v after %q", text, err, seen)
			}
			seen += string(b)
		}
	}
	until("Ctrl-C.")
	for _, rule := range []string{"other.test", fmt.Sprintf("other.test:%d", n.echo)} {
		if got := try(); got.code == 0 || n.gotEcho.Load() != before {
			t.Errorf("%+v", got)
		}
		until("allow " + rule + "? [o]nce, [s]andbox, [a]lways, [N]o: ")
		if _, err := master.WriteString("o\n"); err != nil {
			t.Fatal(err)
		}
		until(rule + " allowed until the sandbox stops")
	}
	// The agent asks for a rule, and reads the answer.
	said := sh(t, n.dir, "curl -sS http://bawn.internal/ask --data-urlencode rule=wish.test:22 --data-urlencode 'reason=to push'")
	if !strings.Contains(said, "The user is asked to allow wish.test:22") {
		t.Error(said)
	}
	until("allow wish.test:22? [o]nce, [s]andbox, [a]lways, [N]o: ")
	wait(t, "bawn ls to show what the agent asks for", func() bool { // which leaves out what a busy host answers late
		return strings.Contains(must(t, n.dir, "ls"), "The agent in net asks for wish.test:22")
	})
	if _, err := master.WriteString("n\n"); err != nil {
		t.Fatal(err)
	}
	until("wish.test:22 is refused")
	if said := sh(t, n.dir, "curl -sS http://bawn.internal/ask"); !strings.Contains(said, "refused") || !strings.Contains(said, "wish.test:22 (to push)") {
		t.Error(said)
	}
	if got := try(); got.code != 0 || !strings.Contains(got.out, "asked") || n.gotEcho.Load() != before+1 {
		t.Errorf("%+v", got)
	}
	if _, err := master.WriteString("\x03"); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	_ = c.Wait()
	if got := must(t, n.dir, "policy", "check", fmt.Sprintf("other.test:%d", n.echo)); !strings.Contains(got, "allowed until the sandbox stops") {
		t.Errorf("%s", got)
	}
}

// brokenPolicy tests that a policy that cannot be loaded lets nothing pass.
func (n *netTest) brokenPolicy(t *testing.T) {
	file := filepath.Join(base, "state", "bawn", "sandboxes", "net", "policy")
	good := readFile(t, file)
	writeFile(t, file, good+"allow no..name\n")
	must(t, n.dir, "stop")
	if r := bawn(t, n.dir, "run", "--", "curl", "-sS", "-m", "30", fmt.Sprintf("http://good.test:%d/", n.http)); r.code == 0 || !strings.Contains(r.err, "resolve") || !strings.Contains(r.err, "all network traffic is denied") {
		t.Errorf("%+v", r)
	}
	fails(t, n.dir, 125, "policy:", "policy", "show")
	writeFile(t, file, good)
	must(t, n.dir, "policy", "allow", "harmless.test")
	fails(t, n.dir, 1, "", "policy", "check", fmt.Sprintf("other.test:%d", n.echo)) // once was until the stop
	if got := sh(t, n.dir, fmt.Sprintf("curl -sS -m 30 http://good.test:%d/", n.http)); got != "served\n" {
		t.Errorf("%q", got)
	}
}

// containers is attack 9: containers are bound by the same rules.
func (n *netTest) containers(t *testing.T) {
	writeFile(t, filepath.Join(n.dir, "container.sh"), testdata(t, "container.sh"))
	got := must(t, n.dir, "run", "--", "bash", "container.sh", strconv.Itoa(n.http))
	want := []string{"namespace name: served", "namespace address: 7"}
	for _, where := range []string{"build", "compose"} {
		// curl: 7 is a refused connection, 6 a name that does not exist.
		want = append(want, where+" name: served", where+" address: 7", where+" unknown: 6", where+" header: 403")
	}
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%q is missing in:\n%s", w, got)
		}
	}
	if count := n.gotWrongName.Load(); count != 0 {
		t.Errorf("%d requests with another name arrived", count)
	}
}

// TestNetworkProcess: the log names the process of a query and of a connection, also if it
// was denied and has ended.
func TestNetworkProcess(t *testing.T) {
	s := startServers(t)
	dir := netProject(t, s)
	missing := map[string]bool{
		"dns allow  good.test": true, "tcp allow open good.test": true, "tcp allow close good.test": true,
		"dns deny  unknown.test": true, "tcp deny  192.0.2.1": true, "tcp deny  2001:db8::1": true,
	}
	// On a busy host the guest may answer too late for an entry: it has no process then.
	for try := 0; try < 5 && len(missing) > 0; try++ {
		for _, url := range []string{fmt.Sprintf("http://good.test:%d/", s.http), "http://unknown.test/", "http://192.0.2.1:81/", "http://[2001:db8::1]:81/"} {
			bawn(t, dir, "run", "--", "curl", "-sS", "-m", "60", url)
		}
		for line := range strings.Lines(must(t, dir, "net", "log", "--json")) {
			if entry := processEntry(t, s, line); entry != "" {
				delete(missing, entry)
			}
		}
	}
	log := must(t, dir, "net", "log")
	if len(missing) > 0 || !strings.Contains(log, "PROCESS") || !strings.Contains(log, " curl[") {
		t.Errorf("no process for %v in\n%s", missing, log)
	}
}

// processEntry returns what an entry of the network log is about, if it names curl as the process.
// It fails the test if one about the end of a connection is not complete.
func processEntry(t *testing.T, s *servers, line string) string {
	t.Helper()
	var e struct {
		Proto, Verdict, Event, Name, Addr, Process, Rule string
		Port                                             int
		Time                                             time.Time
		Sent, Got                                        int64
		Lasted                                           int64 `json:"lasted_ns"`
	}
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	unused := e.Sent == 0 && e.Got == 0 // curl opens a second connection if the first one takes long
	if e.Event == "close" && (e.Time.IsZero() || e.Addr != serverAddr || e.Port != s.http || !unused && (e.Sent < 50 || e.Got < 50) ||
		e.Lasted <= 0 || !strings.HasPrefix(e.Rule, "allow good.test:")) {
		t.Errorf("a connection that ended: %s", line)
	}
	if !regexp.MustCompile(`^curl\[[0-9]+\]$`).MatchString(e.Process) {
		return ""
	}
	return strings.Join([]string{e.Proto, e.Verdict, e.Event, cmp.Or(e.Name, e.Addr)}, " ")
}
