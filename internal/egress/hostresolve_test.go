//go:build linux

package egress

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/policy"
)

// inNamespace says that the test runs in namespaces of its own.
const inNamespace = "BAWN_TEST_NAMESPACE"

// ownNamespaces runs the test again as root of a user namespace, with a network
// of its own and files of its own in /etc. It returns true there, and false when
// that is done.
func ownNamespaces(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return true
	}
	c := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = []string{inNamespace + "=1", "TMPDIR=" + t.TempDir()}
	id := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	gid := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, UidMappings: id, GidMappings: gid,
	}
	out, err := c.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skip("this host lets nobody make user namespaces:", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// cover puts a file over one of /etc.
func cover(t *testing.T, path, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return file
}

func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	r.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		t.Fatal(err)
	}
}

// nameServer is a company's resolver.
type nameServer struct {
	mu    sync.Mutex
	zone  map[string][]string // answers, one after the other
	asked []string
}

func (s *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.ToLower(q.Question[0].Name)
	s.asked = append(s.asked, name)
	m := new(dns.Msg).SetReply(q)
	list := s.zone[name]
	switch {
	case len(list) == 0:
		m.Rcode = dns.RcodeNameError
	case list[0] == "hang":
		return
	case q.Question[0].Qtype == dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(list[0]).To4()}}
		if len(list) > 1 {
			s.zone[name] = list[1:]
		}
	}
	_ = w.WriteMsg(m)
}

func serveNames(t *testing.T, addr string, s *nameServer) *dns.Server {
	t.Helper()
	started := make(chan struct{})
	server := &dns.Server{Addr: addr, Net: "udp", Handler: s, NotifyStartedFunc: func() { close(started) }}
	go func() {
		if err := server.ListenAndServe(); err != nil {
			t.Error(err)
		}
	}()
	<-started
	return server
}

// TestHostResolver: names are resolved by this host's /etc/hosts and its resolver, at the
// moment of dialling, and exactly as the rules judged them: no search domain completes
// them, or hears of them. A resolver that lies, hangs, is down or was changed does no harm.
func TestHostResolver(t *testing.T) {
	if !ownNamespaces(t) {
		return
	}
	loopbackUp(t)
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	const options = "options timeout:1 attempts:1 ndots:5\n"
	resolv := cover(t, "/etc/resolv.conf", "nameserver 127.0.0.53\nsearch corp.test eng.corp.test\n"+options)
	cover(t, "/etc/hosts", "127.0.0.1 localhost\n203.0.113.9 pinned.test\n203.0.113.10 printer\n")
	company := &nameServer{zone: map[string][]string{
		"wiki.corp.test.": {"203.0.113.1"}, "build.eng.corp.test.": {"203.0.113.2"}, "www.test.": {"203.0.113.3"},
		"rebind.test.": {"203.0.113.4", "127.0.0.1", "169.254.169.254"}, "slow.test.": {"hang"}, "pinned.test.": {"203.0.113.99"},
		"intranet.": {"203.0.113.8"}, "www.test.corp.test.": {"203.0.113.66"}, "gone.test.corp.test.": {"203.0.113.66"},
	}}
	server := serveNames(t, "127.0.0.53:53", company)

	var dialled []string
	allowed := testRules{"wiki:443", "build:443", "printer:443", "intranet:443", "wiki.corp.test:443", "www.test:443", "rebind.test:443", "slow.test:443", "pinned.test:443", "gone.test:443", "moved.test:443"}
	l := newLab(t, allowed, func(c *Config) {
		c.Resolve = nil // the host's
		c.Dial = func(_ context.Context, _, addr string) (net.Conn, error) {
			dialled = append(dialled, addr)
			return nil, errors.New("only asked")
		}
	})
	try := func(name string) (string, error) {
		dialled = nil
		l.dialer.cache = nil // time passes
		_, _, err := l.dialer.connect(t.Context(), policy.Flow{Name: name, Port: 443, Proto: "tcp"})
		return strings.Join(dialled, " "), err
	}
	for name, want := range map[string]string{
		"wiki": "", "build": "", "printer": "203.0.113.10:443", "intranet": "203.0.113.8:443",
		"wiki.corp.test": "203.0.113.1:443", "www.test": "203.0.113.3:443", "pinned.test": "203.0.113.9:443",
	} {
		if got, err := try(name); got != want {
			t.Errorf("%s: dialled %q, want %s (%v) %q", name, got, want, err, company.asked)
		}
	}
	if got, _ := try("rebind.test"); got != "203.0.113.4:443" {
		t.Errorf("rebind.test: %q", got)
	}
	for range 2 { // its answers from now on lead inside
		var denied *deniedError
		if got, err := try("rebind.test"); got != "" || !errors.As(err, &denied) {
			t.Errorf("rebound: dialled %q, %v", got, err)
		}
	}
	if got, err := try("gone.test"); got != "" || err == nil || !strings.Contains(err.Error(), "resolve gone.test on the host") {
		t.Errorf("gone.test: %q, %v", got, err)
	}
	start := time.Now()
	if got, err := try("slow.test"); got != "" || err == nil || time.Since(start) > dialTimeout {
		t.Errorf("slow.test: %q, %v, after %v", got, err, time.Since(start))
	}
	// What no rule allows is never asked.
	if m := l.ask("secret.evil.test.", dns.TypeTXT); m.Rcode != dns.RcodeNameError {
		t.Error(m)
	}
	_ = server.Shutdown()
	if got, err := try("www.test"); got != "" || err == nil {
		t.Errorf("with the resolver down: %q, %v", got, err)
	}
	// Another network with another resolver: without a restart.
	moved := &nameServer{zone: map[string][]string{"moved.test.": {"203.0.113.7"}}}
	defer serveNames(t, "127.0.0.54:53", moved).Shutdown()
	if err := os.WriteFile(resolv, []byte("nameserver 127.0.0.54\n"+options), 0o644); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // Go's resolver looks every five seconds
		got, err := try("moved.test")
		if got == "203.0.113.7:443" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a change of networks: %q, %v", got, err)
		}
	}
	company.mu.Lock()
	defer company.mu.Unlock()
	for _, name := range company.asked {
		completed := strings.HasSuffix(name, ".corp.test.") && name != "wiki.corp.test."
		if completed || strings.Contains(name, "evil") || strings.HasPrefix(name, "pinned") {
			t.Errorf("the resolver was asked for %s", name)
		}
	}
}
