package sandbox

import (
	"strings"
	"testing"
)

func TestNameFor(t *testing.T) {
	for dir, want := range map[string]string{
		"/a/My Project": "my-project", "/": "sandbox", "/x/...": "sandbox", "/x/_api_v2_": "api-v2",
		"/x/" + strings.Repeat("a", 200): strings.Repeat("a", 50), "/x/日本": "sandbox",
	} {
		got := NameFor(dir)
		if got != want {
			t.Errorf("NameFor(%q) = %q, want %q", dir, got, want)
		}
		if err := CheckName(got); err != nil {
			t.Error(err)
		}
	}
}

func TestParsePort(t *testing.T) {
	for in, want := range map[string]Port{
		"3000": {Host: 3000, Guest: 3000}, "8080:80": {Host: 8080, Guest: 80}, "0:80": {Guest: 80},
	} {
		if got, err := ParsePort(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "0", "80:", ":80", "80:0", "65536", "-1", "http", "1:2:3", " 80"} {
		if got, err := ParsePort(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
