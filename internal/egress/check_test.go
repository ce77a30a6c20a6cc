package egress

import (
	"strings"
	"testing"

	"bawn.dev/bawn/internal/policy"
)

// TestCheck: what holds whatever the rules say is part of the answer.
func TestCheck(t *testing.T) {
	rules, err := policy.ParseFile("p", []byte("allow 0.0.0.0/0:*\nallow [::]/0:*\nallow **:*\nallow 10.1.0.0/16\nallow host:22\nallow 127.0.0.2\n"))
	if err != nil {
		t.Fatal(err)
	}
	set := policy.Compile(rules)
	for target, say := range map[string]string{
		"example.org": "", "8.8.8.8:53": "", "10.1.2.3": "", "host:22": "", "host.bawn.internal:22": "", "127.0.0.2:80": "",
		"10.2.0.1": "private", "127.0.0.1:80": "loopback", "169.254.169.254:80": "metadata", "[64:ff9b::7f00:1]:80": "hides 127.0.0.1", "[::1]:80": "loopback",
		"224.0.0.1": "multicast", "198.18.0.1:80": "about the name", "localhost:80": "localhost", "bawn.internal:80": "", "bawn.internal:81": "bawn answers", "100.127.255.1:80": "", "100.127.255.1:22": "bawn's own", "host:23": "no rule allows it",
	} {
		f, err := policy.ParseFlow(target)
		if err != nil {
			t.Fatal(err)
		}
		d := Check(set, f)
		if d.Allow != (say == "") || !strings.Contains(d.Reason, say) || d.Reason == "" {
			t.Errorf("%s: %+v, want %q", target, d, say)
		}
	}
}
