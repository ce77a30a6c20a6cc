package policy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// ownAddrs are the addresses of the host in these tests.
var ownAddrs = []netip.Addr{netip.MustParseAddr("192.168.7.7"), netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")}

// TestAttackRulesThatLookHarmless: what a rule opens is found in any form in which it can be
// written, and said in capitals; what a rule names and nothing more is shown as it is.
func TestAttackRulesThatLookHarmless(t *testing.T) {
	for _, c := range []struct {
		kinds Kind
		rules []string
	}{
		{0, []string{"a.test", "a.test:*", "*.example.com", "**.example.co.uk", "a.*.example.com", "192.0.2.7", "198.51.100.0/24:22", "evil.github.io", "*.bucket.s3.amazonaws.com", "preset:npm", "preset:dockerhub", "2606:4700::/32"}},
		{KindHost, []string{"host:5432", "HOST:5432", "host.:5432", "ｈost:5432", "udp:host:53", "host:1-64", "127.0.0.1:2375", "127.0.0.0/8:2375", "127.255.0.1", "[::1]:22", "[::ffff:127.0.0.1]:22", "::ffff:127.0.0.0/104", "0.0.0.0/8:22", "[::/127]:22", "192.168.7.7:22", "203.0.113.9", "[2001:db8::9]:443"}},
		{KindHost | KindRaw, []string{"raw:host:2375", "RAW:127.0.0.1:2375"}},
		{KindHost | KindHidden, []string{"[64:ff9b::7f00:1]:22", "[::127.0.0.1]:22", "[2002:7f00:1::]:22", "[::ffff:0:127.0.0.1]:22", "[64:ff9b:1::127.0.0.1]:22", "[2001:db8::5efe:7f00:1]:22", "[2001:0:1:2:3:4:80ff:fffe]:22", "[64:ff9b::cb00:7109]:22"}},
		{KindMetadata | KindLinkLocal, []string{"169.254.169.254", "169.254.0.0/16:*", "169.254.169.254/31", "[::ffff:169.254.169.254]:80", "169.254.170.2", "[fe80::a9fe:a9fe]:80"}},
		{KindMetadata, []string{"168.63.129.16"}},
		{KindMetadata | KindPrivate, []string{"[fd00:ec2::254]:80", "100.100.100.200", "100.64.0.0/10", "[fd00::]/8:80", "[fd20:ce::254]:80", "[fd00:c1::a9fe:a9fe]:80"}},
		{KindWide | KindHidden, []string{"64:ff9b::/95", "64:ff9b::/64", "64:ff9b::/32", "[64:ff9b::]/47:*", "::/95", "::/64"}},
		{KindMetadata | KindLinkLocal | KindHidden, []string{"[64:ff9b::a9fe:a9fe]:80", "[2002:a9fe:a9fe::1]:80", "[::169.254.169.254]:80"}},
		{KindMetadata | KindReserved, []string{"192.0.0.192"}},
		{KindLinkLocal, []string{"169.254.1.0/24", "fe80::1"}},
		{KindPrivate, []string{"10.0.0.0/8", "172.16.5.0/24:22", "192.168.7.8", "192.168.0.0/16:*", "fd12::/16", "100.64.1.1"}},
		{KindWide, []string{"**", "*", "*.*", "**:*", "0.0.0.0/0", "0.0.0.0/1:*", "128.0.0.0/1", "::/0", "2000::/3", "12.0.0.0/8", "192.0.0.0/2"}},
		{KindWide | KindRaw, []string{"raw:**:*", "raw:0.0.0.0/0"}},
		{KindWide | KindAnybody, []string{"*.com", "**.co.uk", "*.*.com", "**.internal", "*.xn--p1ai"}},
		{KindAnybody, []string{"*.github.io", "**.vercel.app", "*.amazonaws.com", "**.s3.amazonaws.com", "*.compute-1.amazonaws.com", "*.eu-west-2.amazonaws.com", "*.s3.eu-west-1.amazonaws.com", "*.blob.core.windows.net", "**.windows.net", "*.core.windows.net", "*.workers.dev", "*.pages.dev", "a.*.github.io", "*.ngrok.io", "*.trycloudflare.com", "*.a.run.app", "**.r2.cloudflarestorage.com", "**.cloudflarestorage.com", "*.westeurope.cloudapp.azure.com", "*.digitaloceanspaces.com"}},
		{KindRaw, []string{"raw:db.example.org:5432"}},
	} {
		for _, text := range c.rules {
			e, err := ExposureOf(text, Host{Own: ownAddrs})
			if err != nil || e.Kinds != c.kinds || (e.Opens == "") != (c.kinds == 0) || strings.Contains(e.Text, "\n") || e.Text == "" {
				t.Errorf("%s: %+v, %v; want kinds %b", text, e, err, c.kinds)
			}
			if c.kinds&KindHost != 0 && (e.Severity() != OpensHost || !strings.Contains(e.Text, "SERVICES OF THE HOST")) {
				t.Errorf("%s: severity %d, %s", text, e.Severity(), e.Text)
			}
			if c.kinds&KindMetadata != 0 && !strings.Contains(e.Text, "CLOUD METADATA") {
				t.Errorf("%s: %s", text, e.Text)
			}
		}
	}
	deny, err := ParseRule(Deny, "**")
	if err != nil || deny[0].Exposure(Host{}) != (Exposure{}) {
		t.Errorf("a deny rule opens %+v, %v", deny[0].Exposure(Host{}), err)
	}
}

// TestAttackEveryServiceOfTheHost: no rule opens all services of the host at once, or nearly
// all, however it is written; those of other machines may.
func TestAttackEveryServiceOfTheHost(t *testing.T) {
	for _, text := range []string{
		"host:*", "host:1-65535", "host:1-65534", "host:2-65535", "udp:host:*", "raw:host:*", "host:1-32767,32768-65535", "host:1-40,100-140",
		"127.0.0.1:*", "127.0.0.0/8:*", "127.0.0.1:1-65535", "127.0.0.1:1-40,50-90", "127.0.0.1:1-32767,32769-65535", "udp:127.0.0.53:*", "raw:127.0.0.1:*", "127.1.2.3/32:*",
		"[::1]:*", "[::ffff:127.0.0.1]:*", "[::ffff:127.0.0.0]/104:*", "0.0.0.0/8:*", "0.0.0.0/31:*", "[::]/127:*", "[64:ff9b::7f00:1]:*", "[2002:7f00::]/24:*",
	} {
		if r, err := ParseRule(Allow, text); err == nil || !strings.Contains(err.Error(), "host") {
			t.Errorf("%s: %v, %v", text, r, err)
		}
	}
	for _, text := range []string{"127.0.0.1:5432", "127.0.0.0/8:80,443", "[::1]:1-64", "192.168.7.7:*", "10.0.0.0/8:*", "0.0.0.0/0:*", "[::]/0:*", "a.test:*"} {
		if _, err := ParseRule(Allow, text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, ok := range map[string]bool{"192.168.7.7:*": false, "192.168.7.7:1-65": false, "[2001:db8::9]:*": false, "host:192.168.7.7:22": true, "192.168.7.7:22": false, "192.168.0.0/16:*": true} {
		rules, err := ParseRule(Allow, text)
		if err != nil || (rules[0].CheckHostPorts(Host{Own: ownAddrs}) == nil) != ok {
			t.Errorf("%s: %v, %v", text, err, rules[0].CheckHostPorts(Host{Own: ownAddrs}))
		}
	}
	if _, err := ParseRule(Deny, "127.0.0.0/8:*"); err != nil {
		t.Error(err)
	}
}

// TestAttackSuggestedAddresses: nobody is asked about the host's loopback, the cloud's
// metadata and the like, in any form.
func TestAttackSuggestedAddresses(t *testing.T) {
	for _, a := range []string{"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "169.254.169.254", "169.254.1.1", "fe80::1", "168.63.129.16", "fd00:ec2::254", "fd00:c1::a9fe:a9fe", "100.100.100.200", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "2001:0:1:2:3:4:5601:5601", "192.0.0.192", "240.0.0.1"} {
		f := Flow{Addr: netip.MustParseAddr(a), Port: 80, Proto: TCP}
		rules, alone := set(t).Propose([]Flow{f}, Host{Own: ownAddrs})
		if s := Suggest(f); s != "" || rules != nil || alone != nil {
			t.Errorf("%s: suggests %q, proposes %q and %q", a, s, rules, alone)
		}
	}
	rules, alone := set(t).Propose([]Flow{
		{Addr: ownAddrs[0], Port: 22, Proto: TCP}, {Addr: netip.MustParseAddr("10.1.2.3"), Port: 80, Proto: TCP}, {Host: true, Port: 631, Proto: TCP},
	}, Host{Own: ownAddrs})
	if rules != nil || !slices.Equal(alone, []string{"10.1.2.3:80", "host:631"}) {
		t.Errorf("%q, alone %q", rules, alone)
	}
}

// TestAttackProposedWildcards: no wildcard is proposed below a domain where strangers have
// names, though three of them were asked for.
func TestAttackProposedWildcards(t *testing.T) {
	for _, parent := range []string{"github.io", "vercel.app", "compute-1.amazonaws.com", "s3.amazonaws.com", "eu-west-2.amazonaws.com", "amazonaws.com", "core.windows.net", "blob.core.windows.net", "workers.dev", "co.uk", "com", "internal", "westeurope.cloudapp.azure.com"} {
		var flows []Flow
		for _, l := range []string{"a", "b", "c", "d"} {
			flows = append(flows, Flow{Name: l + "." + parent, Port: 443, Proto: TCP})
		}
		rules, _ := set(t).Propose(flows, Host{})
		if len(rules) != len(flows) || slices.ContainsFunc(rules, func(r string) bool { return strings.Contains(r, "*") }) {
			t.Errorf("%s: %q", parent, rules)
		}
	}
}

// TestAttackRulesForTheNetworksOfTheHost: a rule that looks like one for a site of the
// Internet opens the neighbours of the host, or by its network's NAT64 all of IPv4.
func TestAttackRulesForTheNetworksOfTheHost(t *testing.T) {
	host := Host{
		Own:        ownAddrs,
		Neighbours: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/25"), netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("2001:db8:7::/64")},
		Translated: []netip.Prefix{netip.MustParsePrefix("2001:db8:64::/96"), netip.MustParsePrefix("2001:db8:65::/48")},
	}
	for _, c := range []struct {
		kinds Kind
		say   string
		rules []string
	}{
		{KindNeighbours, "NEIGHBOURS OF THIS HOST (in the network 203.0.113.0/25,", []string{"203.0.113.0/25", "203.0.113.0/26:22", "203.0.113.77:22", "[::ffff:203.0.113.77]:22", "udp:203.0.113.77:53"}},
		{KindNeighbours, "NEIGHBOURS OF THIS HOST", []string{"[2001:db8:7::]/64:22", "2001:db8:7::1"}},
		{KindPrivate, "A PRIVATE NETWORK", []string{"192.168.7.0/24", "192.168.7.8"}},
		{KindHost, "SERVICES OF THE HOST", []string{"203.0.113.9:22"}},
		{KindHidden | KindNeighbours, "NEIGHBOURS OF THIS HOST", []string{"[64:ff9b::cb00:714d]:22", "[2001:db8:64::cb00:714d]:22"}},
		{KindHidden | KindWide, "EVERY IPv4 ADDRESS", []string{"2001:db8:64::/96", "2001:db8:64::/48", "2001:db8::/32", "2001:db8:65::/48", "[2001:db8:60::]/44:443"}},
		{KindHidden | KindWide | KindMetadata, "EVERY ADDRESS", []string{"64:ff9b::/96"}},
		{KindHidden, "198.51.100.7/32", []string{"[2001:db8:64::c633:6407]:443", "[2001:db8:65:c633:64:700::]:443"}},
		{KindHidden, "198.51.100.0/24", []string{"[2001:db8:64::c633:6400]/120:443"}},
		{KindHidden, "2001:db8:65::/48", []string{"2001:db8:65:c633::/64"}},
		{KindHidden | KindHost, "SERVICES OF THE HOST", []string{"[2001:db8:64::7f00:1]:22", "[2001:db8:64::cb00:7109]:22"}},
		{KindHidden | KindPrivate, "A PRIVATE NETWORK", []string{"[2001:db8:64::a00:5]:22", "[2001:db8:64::a00:0]/104:22", "[2001:db8:65:a00:0:500::]:22"}},
		{KindHidden | KindMetadata | KindLinkLocal, "CLOUD METADATA", []string{"[2001:db8:64::a9fe:a9fe]:80"}},
		{0, "", []string{"203.0.113.128/25", "203.0.113.0/24", "198.51.100.7", "2001:db8:8::/64", "2001:db8:66::/48"}},
	} {
		for _, text := range c.rules {
			e, err := ExposureOf(text, host)
			if err != nil || e.Kinds != c.kinds || !strings.Contains(e.Opens, c.say) || (c.kinds == 0) != (e.Severity() == Ordinary) {
				t.Errorf("%s: %+v, %v; want kinds %b and %q", text, e, err, c.kinds, c.say)
			}
		}
	}
	rules, alone := set(t).Propose([]Flow{{Addr: netip.MustParseAddr("203.0.113.77"), Port: 22, Proto: TCP}}, host)
	if rules != nil || !slices.Equal(alone, []string{"203.0.113.77:22"}) {
		t.Errorf("proposes %q, alone %q", rules, alone)
	}
}
