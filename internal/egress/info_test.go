package egress

import (
	"strings"
	"testing"
)

func TestInfoPage(t *testing.T) {
	empty := newLab(t, testRules{})
	if _, body := get(t, empty.client(), "http://192.0.2.1/"); !strings.Contains(body, "none: all network traffic is denied") {
		t.Error(body)
	}
	for page, want := range map[string]string{"policy": `{"rules":[]}`, "denials": `{"denials":[]}`} {
		if _, body := get(t, empty.client(), "http://192.0.2.1/"+page+".json"); strings.TrimSpace(body) != want {
			t.Error(body)
		}
	}
	l := newLab(t, testRules{"good.example:443"})
	_, _ = l.dialName("evil.example", 443)
	code, body := get(t, l.client(), "http://bawn.internal/")
	if code != 200 || !strings.Contains(body, "good.example:443") || !strings.Contains(body, "evil.example") {
		t.Error(code, body)
	}
	if code, body := get(t, l.client(), "http://192.0.2.1/denials.json"); code != 200 || !strings.Contains(body, `"evil.example"`) {
		t.Error(code, body)
	}
}
