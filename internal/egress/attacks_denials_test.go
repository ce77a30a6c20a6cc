package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"bawn.dev/bawn/internal/egress/gitssh"
	"bawn.dev/bawn/internal/egress/sshlogin"
	"bawn.dev/bawn/internal/inspect"
)

// TestAttackFaultsAmongTheDenials: the guest reads its denials, and what is wrong on the host is not among them in words that
// name its files, its user or its resolver. The log has it.
func TestAttackFaultsAmongTheDenials(t *testing.T) {
	fault := errors.New("open /home/ada/.config/bawn/x: input/output error, asked 10.9.8.7:53")
	server := newCounter(t, true, nil)
	s := &secrets{}
	l, authority := newInspectedLab(t, s, server, testRules{"example.com:443"})
	l.cfg.SSH = gitssh.New(func(context.Context) (*gitssh.Authority, error) { return nil, fault }, sshlogin.Config)
	resolve := l.dialer.resolve
	l.dialer.resolve = func(ctx context.Context, name string) ([]netip.Addr, error) {
		if name == "six.example" {
			return addrs("2600:1::1"), nil
		}
		return resolve(ctx, name)
	}
	l.dialer.guard.nat64 = &nat64{resolve: func(context.Context, string) ([]netip.Addr, error) { return nil, fault }}
	l.SetPolicy(rulesFrom(t, "allow example.com:443", "allow udp:example.com:443", "allow six.example:80", "allow git:git.example/own/app", "allow GET https://rules.example/**"))
	l.serve("example.com", "203.0.113.7:443", server.addr())
	told := ""
	web := func(url string) {
		if answer, err := l.trusting(authority).Get(url); err == nil {
			b, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			told += string(b)
		}
	}
	web("https://example.com/ok") // a connection that is inspected goes on
	for _, name := range []string{"its list of secrets", "its authority"} {
		s.err = fault
		if name == "its authority" {
			s.err = nil
			l.cfg.Inspect = inspect.New(inspect.Config{Bindings: s, CA: func(context.Context) (*inspect.CA, error) { return nil, fault }})
		}
		web("https://example.com/")
		address, _ := netip.AddrFromSlice(l.ask("example.com.", dns.TypeA).Answer[0].(*dns.A).A.To4())
		_, _ = l.packets(netip.AddrPortFrom(address, 443))
	}
	web("http://six.example/")
	c := l.mustDial("git.example", 22)
	b, _ := io.ReadAll(c)
	told += string(b)
	_, page := get(t, l.client(), "http://bawn.internal/")
	_, list := get(t, l.client(), "http://bawn.internal/denials.json")
	told += page + list
	for _, secret := range []string{"/home", "ada", "10.9.8.7", "input/output"} {
		if i := strings.Index(told, secret); i >= 0 {
			t.Errorf("the guest reads %q: %q", secret, told[max(0, i-200):min(len(told), i+100)])
		}
	}
	l.Close()
	n := 0
	for _, e := range readAll(t, l.path) {
		if strings.Contains(fmt.Sprint(e.Reason), "/home/ada") {
			n++
		}
	}
	if n < 3 {
		t.Errorf("the log names the fault %d times", n)
	}
}
