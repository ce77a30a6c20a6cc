package policy

import (
	"net/netip"
	"strings"
	"testing"
)

// TestHostAddressRules: how rules host:ADDRESS are read, and in which form they are kept.
func TestHostAddressRules(t *testing.T) {
	for text, want := range map[string]string{
		"host:192.168.7.7:22": "host:192.168.7.7:22", "HOST:192.168.7.7:443,80": "host:192.168.7.7:443,80",
		"udp:host:192.168.7.7:53": "udp:host:192.168.7.7:53", "raw:host:[2001:db8::9]:443": "raw:host:[2001:db8::9]:443",
		"host:[::ffff:192.168.7.7]:22": "host:192.168.7.7:22", "host:192.168.7.7/32:22": "host:192.168.7.7:22",
	} {
		rules, err := ParseRule(Allow, text)
		if err != nil || rules[0].Text != want {
			t.Errorf("%s: %v, %v", text, rules, err)
			continue
		}
		again, err := ParseRule(Allow, rules[0].Text)
		if err != nil || again[0].Text != want {
			t.Errorf("%s again: %v, %v", want, again, err)
		}
		if e := rules[0].Exposure(Host{}); e.Severity() != OpensHost || !strings.Contains(e.Text, "SERVICES OF THE HOST") {
			t.Errorf("%s: %+v", text, e)
		}
	}
	for text, say := range map[string]string{
		"host:192.168.7.7": "host:192.168.7.7:PORT", "host:192.168.7.7:*": "host:192.168.7.7:PORT", "host:192.168.7.7:1-65": "host:192.168.7.7:PORT",
		"host:192.168.0.0/16:22": "one address", "host:a.test:22": "one address", "host:host:22": "", "host:127.0.0.1:22": "host:PORT", "host:[::1]:22": "host:PORT",
		"host:169.254.169.254:80": "metadata", "host:[64:ff9b::a00:5]:22": "host:10.0.0.5:PORT", "host:0.0.0.0:22": "no connection can match",
		"private:host:192.168.7.7:22": "names", "ech:host:192.168.7.7:22": "names", "host:preset:npm": "", "host:udp:192.168.7.7:22": "",
	} {
		if rules, err := ParseRule(Allow, text); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v, %v", text, rules, err)
		}
	}
	if rules, err := ParseRule(Deny, "host:192.168.7.7:22"); err == nil || !strings.Contains(err.Error(), "takes no \"host:\"") {
		t.Errorf("deny: %v, %v", rules, err)
	}
}

// TestAddressesOfTheHostAreATargetOfTheirOwn: rules about addresses mean other machines, and
// rules host:ADDRESS mean the host. A deny rule means both.
func TestAddressesOfTheHostAreATargetOfTheirOwn(t *testing.T) {
	s := set(t, "allow 10.0.0.0/8:80", "allow 10.0.0.5:80", "allow host:10.0.0.5:22", "allow host:10.0.0.6:22", "deny 10.0.0.6")
	for _, c := range []struct {
		addr   string
		port   uint16
		atHost bool
		allow  bool
		say    string
	}{
		{"10.0.0.5", 80, false, true, ""},
		{"10.0.0.5", 80, true, false, "allow host:10.0.0.5:80 if the guest is to reach"},
		{"10.9.9.9", 80, true, false, "allow host:10.9.9.9:80 if the guest is to reach"},
		{"10.0.0.5", 22, true, true, ""},
		{"::ffff:10.0.0.5", 22, true, true, ""},
		{"10.0.0.5", 22, false, false, "opens an address of the host only"},
		{"10.0.0.6", 22, true, false, "denies it"},
		{"10.0.0.7", 22, true, false, "no rule allows it"},
	} {
		f := Flow{Addr: netip.MustParseAddr(c.addr), Port: c.port, Proto: TCP, AtHost: c.atHost}
		d := s.Decide(f)
		if d.Allow != c.allow || !strings.Contains(d.Reason, c.say) {
			t.Errorf("%v, at the host %v: %+v", f, c.atHost, d)
		}
		if c.atHost && (Suggest(f) != "" || s.Suggest(f) != "") {
			t.Errorf("%v is suggested", f)
		}
	}
}
