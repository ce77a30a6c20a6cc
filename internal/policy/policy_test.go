package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/publicsuffix"
)

func set(t testing.TB, lines ...string) *Set {
	t.Helper()
	rules, err := ParseFile("test", []byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return Compile(rules)
}

func TestDecide(t *testing.T) {
	s := set(t,
		"allow example.org", "allow *.one.test:8443", "allow **.deep.test", "deny bad.deep.test", "deny **.evil.deep.test:443",
		"allow 192.0.2.7", "allow 10.0.0.0/8:5432", "deny 10.1.0.0/16", "allow [2001:db8::]/32:22", "allow udp:time.test:123",
		"allow raw:raw.test:443", "allow host:5432", "allow Bücher.test", "allow *.mid.*.test:1-1000", "allow _svc.test:*")
	for flow, want := range map[string]bool{
		"example.org:443": true, "example.org:80": true, "EXAMPLE.org.:443": true, "example.org:22": false, "www.example.org:443": false,
		"udp:example.org:443": false, "a.one.test:8443": true, "one.test:8443": false, "a.b.one.test:8443": false, "a.one.test:443": false,
		"a.deep.test:443": true, "a.b.c.deep.test:80": true, "deep.test:443": true, "xdeep.test:443": false, "bad.deep.test:443": false, "x.bad.deep.test:443": true,
		"x.evil.deep.test:443": false, "x.evil.deep.test:80": true, "192.0.2.7:443": true, "192.0.2.8:443": false, "10.2.3.4:5432": true,
		"10.1.3.4:5432": false, "10.2.3.4:443": false, "[2001:db8::5]:22": true, "[2001:db9::5]:22": false, "[::ffff:192.0.2.7]:443": true,
		"udp:time.test:123": true, "time.test:123": false, "raw.test:443": true, "host:5432": true, "host:5433": false,
		"xn--bcher-kva.test:443": true, "bücher.test:443": true, "a.mid.b.test:999": true, "a.mid.test:999": false, "a.mid.b.test:1001": false,
		"_svc.test:60000":         true,
		"r3---sn-x.deep.test:443": true, "Host:5432": true, "host.bawn.internal:5432": true, "HOST.:5432": true, "host.bawn.internal:22": false,
		"EXAMPLE。org:443": true, "UDP:time.test:123": true, "[fe80::1%eth0]:443": false,
	} {
		f, err := ParseFlow(flow)
		if err != nil {
			t.Errorf("%s: %v", flow, err)
			continue
		}
		d := s.Decide(f)
		if d.Allow != want {
			t.Errorf("%s: %+v, want %v", flow, d, want)
		}
		if d.Reason == "" || d.Allow && d.Rule == nil {
			t.Errorf("%s: %+v explains nothing", flow, d)
		}
	}
	if f, _ := ParseFlow("raw.test:443"); !s.Decide(f).Raw {
		t.Error("raw is lost")
	}
	for name, want := range map[string]bool{
		"example.org": true, "time.test": true, "nobody.test": false, "bad.deep.test": false, "x.evil.deep.test": true, "192.0.2.7": false,
	} {
		if s.Resolves(name) != want {
			t.Errorf("resolves %s: not %v", name, want)
		}
	}
	if !s.HasHost() || set(t, "deny host:1").HasHost() {
		t.Error("host services")
	}
	if (&Set{}).Decide(Flow{Name: "x.test", Port: 443, Proto: TCP}).Allow {
		t.Error("the empty set allows something")
	}
}

// TestPrefix: of the rules that allow an address the narrowest is told, whatever
// their order.
func TestPrefix(t *testing.T) {
	var rules []Rule
	for _, text := range []string{"0.0.0.0/0", "10.0.0.0/8", "10.1.2.3:22", "raw:10.1.0.0/16"} {
		r, err := ParseRule(Allow, text)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r...)
	}
	s := Compile(rules)
	for addr, want := range map[string]string{"10.1.2.3": "10.1.0.0/16", "10.2.2.3": "10.0.0.0/8", "11.1.1.1": "0.0.0.0/0"} {
		d := s.Decide(Flow{Addr: netip.MustParseAddr(addr), Port: 443, Proto: TCP})
		if !d.Allow || d.Prefix.String() != want || d.Raw != (addr == "10.1.2.3") {
			t.Errorf("%s: %+v, want %s", addr, d, want)
		}
	}
	if d := s.Decide(Flow{Name: "a.test", Port: 443, Proto: TCP}); d.Prefix.IsValid() {
		t.Errorf("%+v", d)
	}
}

func TestBadRules(t *testing.T) {
	for text, say := range map[string]string{
		"":                         "no host name",
		"example.org:":             "no port follows",
		"example.org:0":            "is not a port",
		"example.org:65536":        "is not a port",
		"example.org:+1":           "is not a port",
		"example.org:9-3":          "empty",
		"example.org:x":            "is not a port",
		"exa mple":                 "cannot be part of a host name",
		"-x.org":                   "cannot be part of a host name",
		"a。。b.test":                "empty",
		"xn--zz--z.test":           "cannot be part of a host name",
		"example.org:443,":         "is not a port",
		"example.org:1-2-3":        "is not a port",
		"raw":                      "a keyword of the rules",
		"udp:raw:53":               "a keyword of the rules",
		"\xff.test":                "cannot be part of a host name",
		"127.0x1":                  "neither an address nor a name",
		"0x7f000001":               "neither an address nor a name",
		"x.localhost:80":           "host:PORT",
		"ＨＯＳＴ":                     "host:PORT",
		"a..b":                     "empty",
		".org":                     "empty",
		"x*.org":                   "a whole part",
		"a.**.org":                 "at the beginning",
		"pypi.*":                   "anybody can register",
		"**.pypi.*":                "anybody can register",
		"https://a.test":           "write /** for all of them",
		"http://u:p@a.test:8080?x": "no user name",
		"https://":                 "names no host",
		"ftp://a.test/x":           "not a scheme",
		"[a.test]:80":              "IPv6",
		"localhost:5432":           "host:PORT",
		"host.bawn.internal:80":    "host:PORT",
		"bawn.internal":            "bawn answers",
		"**.bawn.internal":         "bawn answers",
		"0.0.0.0":                  "not the address of any host",
		"[ff02::1]:80":             "multicast",
		"udp:224.0.0.0/8:5353":     "multicast",
		"255.255.255.255":          "broadcast",
		"198.18.0.0/16":            "about the name",
		"fd62:6177:6e00:1::7":      "about the name",
		"1.2.3":                    "neither an address nor a name",
		"1.2.3.4.5":                "neither an address nor a name",
		"10.0.0.1/8":               "write 10.0.0.0/8",
		"10.0.0.0/33":              "is not a network",
		"2001:db8::/32:443":        "[ADDRESS]/BITS:PORTS",
		"fe80::1%eth0":             "zone",
		"[2001:db8::1":             "closing bracket",
		"[2001:db8::1]x":           "after the bracket",
		"2001:db8::zz":             "is not an IPv6 address",
		"host":                     "host:PORT",
		"host:*":                   "host:PORT",
		"udp:example.org":          "udp:HOST:PORT",
		"preset:nothing":           "choose one of anthropic",
		strings.Repeat("a", 64):    "cannot be part of a host name",
		strings.Repeat("a.", 200):  "more than 253",
		strings.Repeat("a", 20000): "longer than",
	} {
		_, err := ParseRule(Allow, text)
		var se *SyntaxError
		if !errors.As(err, &se) || !strings.Contains(err.Error(), say) {
			t.Errorf("%.50q: %v, want it to say %q", text, err, say)
		}
	}
	if _, err := ParseRule(Deny, "raw:example.org"); err == nil {
		t.Error("deny raw")
	}
}

func TestFileErrorsNameThePlace(t *testing.T) {
	rules, err := ParseFile("p", []byte("allow ok.test # fine\n\n  allow  bad..name\npermit x\ndeny a b\n"))
	if len(rules) != 1 || err == nil {
		t.Fatalf("%v, %v", rules, err)
	}
	for _, want := range []string{"p:3:10:", "p:4:1:", "p:5:1:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

func TestOneWayOfWriting(t *testing.T) {
	for in, want := range map[string]string{
		"EXAMPLE.org.:443,80": "example.org", "example.org:80,443": "example.org", "x.test:9,22,1-8,10,9": "x.test:1-10,22", "Host.:22": "host:22", "x.test:1-65535": "x.test:*", "[2001:DB8::1]:443,80": "2001:db8::1",
		"[2001:db8::1]:22": "[2001:db8::1]:22", "::ffff:10.0.0.1": "10.0.0.1", "udp:x.test:1-2": "udp:x.test:1-2", "x.test:*": "x.test:*",
		"[2001:db8::]/32:22": "[2001:db8::]/32:22", "10.0.0.0/8": "10.0.0.0/8",
	} {
		r, err := ParseRule(Allow, in)
		if err != nil || r[0].Text != want {
			t.Errorf("%s: %v, %v, want %s", in, r, err, want)
			continue
		}
		again, err := ParseRule(Allow, r[0].Text)
		if err != nil || again[0].Text != want || !reflect.DeepEqual(again[0].ports, r[0].ports) {
			t.Errorf("%s again: %v, %v", want, again, err)
		}
	}
}

// TestDenyTheHost: one by one is for what is allowed.
func TestDenyTheHost(t *testing.T) {
	for _, text := range []string{"host", "host:*", "host:1-65535"} {
		if s := set(t, "allow host:5432", "deny "+text); s.Decide(Flow{Host: true, Port: 5432, Proto: TCP}).Allow {
			t.Errorf("deny %s does not", text)
		}
	}
}

// TestHostPorts: what lists nearly all ports is as little one by one as *.
func TestHostPorts(t *testing.T) {
	for text, ok := range map[string]bool{"host:1-65535": false, "host:1-65534": false, "host:1-64": true, "host:1-32,33-65": false, "host:1-64,64": true} {
		if _, err := ParseRule(Allow, text); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestOverruled: what stays denied is told to who allows it.
func TestOverruled(t *testing.T) {
	s := set(t, "deny a.test", "deny b.test:443", "deny **.c.test:1-1000", "deny 10.0.0.0/8", "deny host:22", "deny udp:u.test:*")
	for text, by := range map[string]string{
		"a.test": "deny a.test", "a.test:8080": "deny a.test", "b.test": "", "b.test:443": "deny b.test:443", "x.c.test": "deny **.c.test:1-1000",
		"x.c.test:999-1001": "", "10.1.2.3:22": "deny 10.0.0.0/8", "10.0.0.0/8": "", "host:22": "deny host:22", "host:23": "", "*.test": "",
		"u.test": "", "udp:u.test:53": "deny udp:u.test:*", "d.test": "",
	} {
		rules, err := ParseRule(Allow, text)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if r := s.Overruled(&rules[0]); r != nil {
			got = r.String()
		}
		if got != by {
			t.Errorf("%s: overruled by %q, want %q", text, got, by)
		}
	}
}

func TestPresets(t *testing.T) {
	for _, p := range Presets() {
		if rules, err := ParseRule(Allow, "preset:"+p.Name); err != nil || len(rules) != len(p.Rules) || rules[0].Preset != p.Name {
			t.Errorf("%s: %v, %v", p.Name, rules, err)
		}
		for _, text := range p.Rules { // each domain has one owner
			rules, err := ParseRule(Allow, text)
			if err != nil {
				t.Fatal(err)
			}
			end := literalEnd(rules[0].labels)
			if suffix, official := publicsuffix.PublicSuffix(end); suffix == end && (official || !strings.Contains(end, ".")) {
				t.Errorf("%s: %s is not one owner's", p.Name, text)
			}
		}
	}
}

func TestPropose(t *testing.T) {
	flow := func(s string) Flow {
		f, err := ParseFlow(s)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	got, alone := set(t, "allow known.test").Propose([]Flow{
		flow("known.test"), flow("a.cdn.test"), flow("b.cdn.test"), flow("c.cdn.test"), flow("one.test"), flow("one.test:80"), flow("one.test:8080"),
		flow("x.npmjs.org"), flow("y.npmjs.org"), flow("udp:t.test:123"), flow("192.0.2.1:22"),
		flow("a.co.uk"), flow("b.co.uk"), flow("c.co.uk"), // whose parent is not one owner's
		{Host: true, Port: 5432, Proto: TCP},
	}, Host{})
	want := []string{"preset:npm", "*.cdn.test:443", "192.0.2.1:22", "a.co.uk:443", "b.co.uk:443", "c.co.uk:443", "one.test:80,443,8080", "udp:t.test:123"}
	if !reflect.DeepEqual(got, want) || !slices.Equal(alone, []string{"host:5432"}) {
		t.Errorf("%q, alone %q\nwant %q", got, alone, want)
	}
	for _, c := range []struct{ flows, want []string }{
		// A preset is proposed for what no other preset has.
		{[]string{"github.com", "api.github.com"}, []string{"api.github.com:443", "github.com:443"}},
		{[]string{"github.com", "api.github.com", "codeload.github.com"}, []string{"preset:github"}},
		{[]string{"github.com", "api.githubcopilot.com"}, []string{"preset:copilot"}},
		// What a rule denies, or nothing can allow, is not proposed.
		{[]string{"denied.test", "localhost:80", "224.0.0.1:80"}, nil},
	} {
		var flows []Flow
		for _, f := range c.flows {
			flows = append(flows, flow(f))
		}
		s := set(t, "deny denied.test")
		got, _ := s.Propose(flows, Host{})
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %q, want %q", c.flows, got, c.want)
		}
		for _, text := range got { // and it is enough
			rules, err := ParseRule(Allow, text)
			if err != nil {
				t.Fatal(err)
			}
			s = Compile(append(s.Rules(), rules...))
		}
		for _, f := range flows {
			if len(c.want) > 0 && !s.Decide(f).Allow {
				t.Errorf("%q does not allow %s", got, f)
			}
		}
	}
}

func TestSuggest(t *testing.T) {
	for in, want := range map[string]string{
		"a.test": "a.test:443", "a.test:80": "a.test:80", "a.test:22": "a.test:22", "udp:a.test:53": "udp:a.test:53", "[2001:db8::1]:22": "[2001:db8::1]:22", "host:1": "host:1",
	} {
		f, err := ParseFlow(in)
		if err != nil {
			t.Fatal(err)
		}
		rules, err := ParseRule(Allow, Suggest(f))
		if Suggest(f) != want || err != nil || !Compile(rules).Decide(f).Allow {
			t.Errorf("%s: %q, %v", in, Suggest(f), err)
		}
	}
	for _, in := range []string{"localhost:80", "x.localhost", "bawn.internal:80", "224.0.0.251:5353", "udp:[ff02::fb]:5353", "0.0.0.0:80", "198.18.0.7:443"} {
		f, err := ParseFlow(in)
		if err != nil || Suggest(f) != "" || f.Unreachable() == nil {
			t.Errorf("%s: %q, %v", in, Suggest(f), err)
		}
	}
	// What a guest asked DNS for, and what would be a wider rule.
	for _, name := range []string{"**", "*.test", "0.0.0.0/0", "10.0.0.1", "preset:github", "host:5432", "host", "raw:a.test", "a.test:22", "A.test", "a b", ".", "[::1]"} {
		for _, port := range []uint16{443, 5432} {
			if s := Suggest(Flow{Name: name, Port: port, Proto: TCP}); s != "" {
				t.Errorf("%q, port %d: %q", name, port, s)
			}
		}
	}
}

// TestNoFlow: what is asked of `policy check` is one target.
func TestNoFlow(t *testing.T) {
	for text, say := range map[string]string{
		"raw:a.test": "is a rule", "preset:npm": "is a rule", "**.a.test": "several", "10.0.0.0/8": "several", "a.test:1,2": "several",
		"a.test:1-2": "is not a port", "https://a.test/": "not a URL", "": "is not a host name",
	} {
		if _, err := ParseFlow(text); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%q: %v, want it to say %q", text, err, say)
		}
	}
}

// FuzzParseFlow: what is read is written so that it is read as the same again, and
// what is suggested allows it.
func FuzzParseFlow(f *testing.F) {
	for _, s := range []string{"a.test:1", "[::1]:22", "udp:x.test:53", "host:1", "ü.test", "10.0.0.1", "udp", "\x92"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		flow, err := ParseFlow(s)
		if err != nil {
			return
		}
		if again, err := ParseFlow(flow.String()); err != nil || again != flow {
			t.Fatalf("%q became %+v became %+v, %v", s, flow, again, err)
		}
		if text := Suggest(flow); text != "" {
			rules, err := ParseRule(Allow, text)
			if err != nil || !Compile(rules).Decide(flow).Allow {
				t.Fatalf("%q: the suggestion %q does not allow it: %v", s, text, err)
			}
		}
	})
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"a.test:1-2", "**.x", "[::1]:*", "10.0.0.0/8", "preset:npm", "raw:ü.test", "udp:host:1", "raw", "\x92", "git:a.test:1/~o/r%20.git:push=a,refs/x/**:delete", "github:o/r:read", "gitlab:g/s/p", "gitlab:g/p:write", "git:o:push=a", "GET https://a.test/%23"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, a := range []Action{Allow, Deny} {
			rules, err := ParseRule(a, s)
			if err != nil {
				continue
			}
			for _, r := range rules {
				again, err := ParseRule(a, r.Text)
				if err != nil || again[0].Text != r.Text {
					t.Fatalf("%q became %q became %v, %v", s, r.Text, again, err)
				}
				if again, err := ParseFile("f", []byte(r.String())); err != nil || len(again) != 1 || again[0].Text != r.Text {
					t.Fatalf("%q became %q, and in a file %v, %v", s, r.Text, again, err)
				}
			}
		}
	})
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte("allow a.test\ndeny b.test:1 # c\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		rules, _ := ParseFile("f", b)
		s := Compile(rules)
		s.Decide(Flow{Name: "a.b.test", Port: 443, Proto: TCP})
		s.Decide(Flow{Addr: netip.MustParseAddr("10.0.0.1"), Port: 443, Proto: TCP})
	})
}

// matches says whether a pattern stands for a name.
func matches(pattern, name []string) bool {
	if pattern[0] == "**" {
		pattern = pattern[1:]
		if len(name) < len(pattern) {
			return false
		}
		name = name[len(name)-len(pattern):]
	}
	if len(name) != len(pattern) {
		return false
	}
	for i, p := range pattern {
		if p != "*" && p != name[i] {
			return false
		}
	}
	return true
}

// TestTree: names are found in the tree as if each pattern were tried.
func TestTree(t *testing.T) {
	words := []string{"a", "b", "*"}
	var patterns [][]string
	for _, x := range append(words, "**") {
		patterns = append(patterns, []string{x})
		for _, y := range words {
			patterns = append(patterns, []string{x, y})
			for _, z := range words {
				patterns = append(patterns, []string{x, y, z})
			}
		}
	}
	for _, p := range patterns {
		s := Compile([]Rule{{Action: Allow, labels: p}})
		for _, name := range []string{"a", "b", "c", "a.b", "b.a", "c.b", "a.a.a", "a.b.c", "c.b.a", "b.a.b", "a.b.a.b", "c.c.c.a"} {
			found := 0
			s.about(Flow{Name: name}, func(*Rule) { found++ })
			want := 0
			if matches(p, strings.Split(name, ".")) {
				want = 1
			}
			if found != want {
				t.Errorf("%q about %s: found %d times, want %d", p, name, found, want)
			}
		}
	}
}

// BenchmarkDecideOneDomain: that all rules are about one domain changes nothing.
func BenchmarkDecideOneDomain(b *testing.B) {
	var lines []string
	for i := range 10000 {
		lines = append(lines, fmt.Sprintf("allow h%d.*.zone.test", i))
	}
	s := set(b, lines...)
	for b.Loop() {
		s.Decide(Flow{Name: "h9999.x.zone.test", Port: 443, Proto: TCP})
	}
}

func BenchmarkDecide(b *testing.B) {
	var lines []string
	for i := range 10000 {
		switch i % 4 {
		case 0:
			lines = append(lines, fmt.Sprintf("allow host%d.example%d.test", i, i%100))
		case 1:
			lines = append(lines, fmt.Sprintf("allow **.zone%d.test:443", i))
		case 2:
			lines = append(lines, fmt.Sprintf("deny *.sub%d.zone%d.test", i, i-1))
		default:
			lines = append(lines, fmt.Sprintf("allow 10.%d.%d.0/24:22", i/250%250, i%250))
		}
	}
	s := set(b, lines...)
	flows := []Flow{
		{Name: "host400.example0.test", Port: 443, Proto: TCP}, {Name: "a.b.c.zone9001.test", Port: 443, Proto: TCP},
		{Name: "nobody.knows.this.test", Port: 443, Proto: TCP}, {Addr: netip.MustParseAddr("10.1.2.3"), Port: 22, Proto: TCP},
	}
	b.ResetTimer()
	for i := range b.N {
		s.Decide(flows[i%len(flows)])
	}
}

// TestSuggestOfSet: a name that a rule denies is not offered as one to allow.
func TestSuggestOfSet(t *testing.T) {
	s := set(t, "deny a.test")
	if r := s.Suggest(Flow{Name: "a.test", Port: 443, Proto: TCP}); r != "" {
		t.Errorf("%q", r)
	}
	for port, want := range map[uint16]string{443: "b.test:443", 0: "b.test"} { // 0: only the name is known
		if r := s.Suggest(Flow{Name: "b.test", Port: port, Proto: TCP}); r != want {
			t.Errorf("port %d: %q", port, r)
		}
	}
}

// TestFlowAtTheGateway: flows as the guest makes them, not as people write them: the
// host by its name, and IPv4 mapped into IPv6.
func TestFlowAtTheGateway(t *testing.T) {
	s := set(t, "allow host:22\nallow 192.0.2.0/24:80\nallow **:443\ndeny 198.51.100.1")
	host := Flow{Name: HostName, Host: true, Port: 22, Proto: TCP}
	mapped := Flow{Addr: netip.MustParseAddr("::ffff:192.0.2.7"), Port: 80, Proto: TCP}
	for _, f := range []Flow{host, mapped} {
		if d := s.Decide(f); !d.Allow || d.RuleText() == "" {
			t.Errorf("%v: %+v", f, d)
		}
	}
	if d := s.Decide(Flow{Addr: netip.MustParseAddr("::ffff:198.51.100.1"), Port: 80, Proto: TCP}); d.Allow || d.RuleText() != "deny 198.51.100.1" {
		t.Errorf("%+v", d)
	}
	host.Port, mapped.Port = 23, 81
	for f, want := range map[Flow]string{host: "host:23", mapped: "192.0.2.7:81"} {
		if d := s.Decide(f); d.Allow || d.RuleText() != "" || s.Suggest(f) != want {
			t.Errorf("%v: %+v, suggests %q", f, d, s.Suggest(f))
		}
	}
	// ** is about names that resolve somewhere, not about the host's loopback.
	if !s.Resolves(HostName) || set(t, "allow **:443").Resolves(HostName) {
		t.Error("the host's name does not follow the rules about the host")
	}
}
