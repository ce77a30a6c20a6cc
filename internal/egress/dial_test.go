package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"bawn.dev/bawn/internal/policy"
)

// testRules is a policy for tests: "name:port", "addr:port" or "CIDR:port", with
// "udp " before and " raw" after; "-" before denies, "private:", "ech:" and "host:" are as in rules.
type testRules []string

// set compiles the rules as they would be written in a policy file; nil is no policy.
func (r testRules) set() *policy.Set {
	if r == nil {
		return nil
	}
	var all []policy.Rule
	for _, text := range r {
		action := policy.Allow
		text, deny := strings.CutPrefix(text, "-")
		text, raw := strings.CutSuffix(text, " raw")
		text, udp := strings.CutPrefix(text, "udp ")
		keyword := ""
		for _, k := range []string{"private:", "ech:", "host:"} {
			if rest, ok := strings.CutPrefix(text, k); ok && strings.Contains(rest, ":") {
				text, keyword = rest, k
			}
		}
		i := strings.LastIndexByte(text, ':')
		if host := text[:i]; strings.Contains(host, ":") {
			addr, bits, _ := strings.Cut(host, "/")
			text = "[" + addr + "]/" + bits + text[i:]
		}
		switch {
		case deny:
			action = policy.Deny
		case raw:
			text = "raw:" + text
		case udp:
			text = "udp:" + text
		}
		rules, err := policy.ParseRule(action, keyword+text)
		if err != nil {
			panic(err)
		}
		all = append(all, rules...)
	}
	return policy.Compile(all)
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// testHostNet is a host with one address and a network of neighbours.
func testHostNet() HostNet {
	return HostNet{Own: prefixes("203.0.113.200/32"), OnLink: prefixes("203.0.113.128/25", "2001:db8:1::/64")}
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// fakeNet records what is dialled and what is resolved.
type fakeNet struct {
	mu      sync.Mutex
	answers [][]netip.Addr // one for each lookup, the last again and again
	lookups int
	dialled []string
	fail    map[string]bool // addresses that refuse
	hang    map[string]bool // addresses that do not answer
}

func (f *fakeNet) resolve(context.Context, string) ([]netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := min(f.lookups, len(f.answers)-1)
	f.lookups++
	return f.answers[i], nil
}

func (f *fakeNet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	f.mu.Lock()
	f.dialled = append(f.dialled, addr)
	fail, hang := f.fail[addr], f.hang[addr]
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if fail {
		return nil, errors.New("refused")
	}
	a, _ := net.Pipe()
	return a, nil
}

func (f *fakeNet) dialer(r testRules) *dialer {
	return &dialer{
		resolve: f.resolve, dial: f.dial,
		guard: addressGuard{
			decide:  r.set().Decide,
			hostNet: testHostNet,
			pools:   []netip.Prefix{testPool4, testPool6},
		},
	}
}

func TestDialReserved(t *testing.T) {
	want := policy.Flow{Name: "a.example", Port: 443, Proto: "tcp"}
	for _, bad := range []string{
		"127.0.0.1", "10.0.0.1", "169.254.169.254", "fd00::1", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
		"64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1%eth0", "203.0.113.200", "198.18.0.5", "0.0.0.0", "::",
	} {
		f := &fakeNet{answers: [][]netip.Addr{addrs(bad)}}
		_, _, err := f.dialer(testRules{"a.example:443"}).connect(t.Context(), want)
		var denied *deniedError
		if !errors.As(err, &denied) || len(f.dialled) != 0 {
			t.Errorf("%s: %v, dialled %v", bad, err, f.dialled)
		}
	}
	f := &fakeNet{answers: [][]netip.Addr{addrs("10.0.0.1", "::ffff:203.0.113.5")}}
	_, got, err := f.dialer(testRules{"a.example:443"}).connect(t.Context(), want)
	if err != nil || got != netip.MustParseAddr("203.0.113.5") || len(f.dialled) != 1 {
		t.Fatalf("a mixed answer: %v %v %v", got, err, f.dialled)
	}
	f = &fakeNet{answers: [][]netip.Addr{addrs("10.0.0.1")}}
	if _, _, err := f.dialer(testRules{"a.example:443", "10.0.0.0/8:443"}).connect(t.Context(), want); err != nil {
		t.Fatalf("a rule for the block: %v", err)
	}
	for addr, rule := range map[string]string{ // wider than the block: not about it
		"10.0.0.1": "0.0.0.0/0", "127.0.0.1": "0.0.0.0/0", "169.254.169.254": "160.0.0.0/3", "fd00::1": "::/0", "::1": "::/0",
		"203.0.113.200": "203.0.113.0/24", "::ffff:10.0.0.1": "0.0.0.0/0", "64:ff9b::7f00:1": "::/0",
	} {
		f = &fakeNet{answers: [][]netip.Addr{addrs(addr)}}
		for _, to := range []policy.Flow{want, {Addr: netip.MustParseAddr(addr), Port: 443, Proto: "tcp"}} {
			if _, _, err := f.dialer(testRules{"a.example:443", rule + ":443"}).connect(t.Context(), to); err == nil || len(f.dialled) != 0 {
				t.Errorf("the rule %s opened %s", rule, addr)
			}
		}
	}
	for addr, rule := range map[string]string{ // an address of the host; what the kernel takes for its loopback
		"203.0.113.200": "203.0.113.200:443", "0.0.0.0": "0.0.0.0/8:443", "::": "::/96:443",
	} {
		f = &fakeNet{answers: [][]netip.Addr{addrs(addr)}}
		if _, _, err := f.dialer(testRules{"a.example:443", rule}).connect(t.Context(), want); err == nil || len(f.dialled) != 0 {
			t.Errorf("the rule %s opened %s", rule, addr)
		}
	}
	for addr, rule := range map[string]string{"127.0.0.1": "127.0.0.1", "169.254.1.1": "169.254.0.0/16", "203.0.113.200": "host:203.0.113.200", "fd00::1": "fd00::/8"} {
		f = &fakeNet{answers: [][]netip.Addr{addrs(addr)}}
		if _, _, err := f.dialer(testRules{"a.example:443", rule + ":443"}).connect(t.Context(), want); err != nil {
			t.Errorf("the rule %s: %v", rule, err)
		}
	}
	f = &fakeNet{answers: [][]netip.Addr{addrs("10.0.0.1")}}
	if _, _, err := f.dialer(testRules{"a.example:443", "10.0.0.0/8:80"}).connect(t.Context(), want); err == nil {
		t.Fatal("a rule for another port opened a reserved range")
	}
	f = &fakeNet{answers: [][]netip.Addr{addrs("203.0.113.5")}}
	if _, _, err := f.dialer(testRules{"a.example:443", "-203.0.113.0/24:*"}).connect(t.Context(), want); err == nil {
		t.Fatal("an address that a rule denies was dialled")
	}
}

func TestDialRebinding(t *testing.T) {
	f := &fakeNet{answers: [][]netip.Addr{addrs("203.0.113.5"), addrs("127.0.0.1")}}
	d := f.dialer(testRules{"a.example:443"})
	for range 3 {
		_, got, err := d.connect(t.Context(), policy.Flow{Name: "a.example", Port: 443, Proto: "tcp"})
		if err != nil || got.String() != "203.0.113.5" {
			t.Fatal(got, err)
		}
	}
	d.cache = nil // time passes
	if _, _, err := d.connect(t.Context(), policy.Flow{Name: "a.example", Port: 443, Proto: "tcp"}); err == nil {
		t.Fatal("the new answer was dialled")
	}
	for _, a := range f.dialled {
		if a != "203.0.113.5:443" {
			t.Errorf("%s was dialled", a)
		}
	}
	if f.lookups != 2 {
		t.Errorf("%d lookups", f.lookups)
	}
}

func TestDialEyeballs(t *testing.T) {
	f := &fakeNet{
		answers: [][]netip.Addr{addrs("2001:db8::1", "2001:db8::2", "203.0.113.1", "203.0.113.2")},
		hang:    map[string]bool{"[2001:db8::1]:443": true},
		fail:    map[string]bool{"203.0.113.1:443": true},
	}
	_, got, err := f.dialer(testRules{"a.example:443"}).connect(t.Context(), policy.Flow{Name: "a.example", Port: 443, Proto: "tcp"})
	if err != nil || got.String() != "2001:db8::2" {
		t.Fatal(got, err, f.dialled)
	}
	if strings.Join(f.dialled, " ") != "[2001:db8::1]:443 203.0.113.1:443 [2001:db8::2]:443" {
		t.Error(f.dialled)
	}
	f.fail = map[string]bool{"203.0.113.1:443": true, "203.0.113.2:443": true, "[2001:db8::1]:443": true, "[2001:db8::2]:443": true}
	f.hang = nil
	if _, _, err := f.dialer(testRules{"a.example:443"}).connect(t.Context(), policy.Flow{Name: "a.example", Port: 443, Proto: "tcp"}); err == nil {
		t.Fatal("connected to none")
	}
}

func TestDialHost(t *testing.T) {
	f := &fakeNet{fail: map[string]bool{"127.0.0.1:3000": true}}
	_, got, err := f.dialer(testRules{"host:3000"}).connect(t.Context(), policy.Flow{Name: policy.HostName, Host: true, Port: 3000, Proto: "tcp"})
	if err != nil || got != netip.IPv6Loopback() || strings.Join(f.dialled, " ") != "127.0.0.1:3000 [::1]:3000" {
		t.Fatal(got, err, f.dialled)
	}
}

// dialTo dials one place whatever is asked for.
func dialTo(real string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, real)
	}
}
