package egress

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/policy"
)

// post posts a body to the page for requests.
func post(t *testing.T, l *lab, body string) (int, string) {
	t.Helper()
	r, err := l.client().Post("http://bawn.internal/ask", "application/x-www-form-urlencoded", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return answered(t, r)
}

func wish(rule, reason string) string {
	return url.Values{"rule": {rule}, "reason": {reason}}.Encode()
}

// TestAsk: a request is kept, logged and answered; it changes no rule.
func TestAsk(t *testing.T) {
	for name, body := range map[string]string{
		"form": wish("DB.test:5432", "load the fixtures"),
		"JSON": `{"rule": "db.test:5432", "reason": "load the fixtures"}`,
	} {
		l := newLab(t, testRules{"good.test:443"})
		if code, text := post(t, l, body); code != http.StatusAccepted || !strings.Contains(text, "db.test:5432") || !strings.Contains(text, "Nothing changes before the user decides") {
			t.Errorf("%s: %d %s", name, code, text)
		}
		if code, text := post(t, l, body); code != http.StatusAccepted || !strings.Contains(text, "already, and has not decided") {
			t.Errorf("%s again: %d %s", name, code, text)
		}
		if d := l.decide(policy.Flow{Name: "db.test", Port: 5432, Proto: policy.TCP}); d.Allow {
			t.Errorf("%s: the request opened it", name)
		}
		list := l.AccessRequests()
		if len(list) != 1 || list[0].Rule != "db.test:5432" || list[0].Reason != "load the fixtures" || list[0].State != AskWaiting {
			t.Errorf("%s: %+v", name, list)
		}
		if code, text := get(t, l.client(), "http://bawn.internal/ask"); code != 200 || !strings.Contains(text, "waiting") || !strings.Contains(text, "  curl http://bawn.internal/ask --data-urlencode rule=HOST:PORT --data-urlencode 'reason=what you need it for'\n") || !strings.Contains(text, "db.test:5432 (load the fixtures)") {
			t.Errorf("%s: the page: %d %s", name, code, text)
		}
		l.Close()
		all := readAll(t, l.path)
		if len(all) != 1 || all[0].Verdict != audit.Asked || all[0].Suggest != "db.test:5432" || all[0].Reason != "load the fixtures" {
			t.Errorf("%s: logged: %+v", name, all)
		}
	}
}

// TestAskIsChecked: what cannot be a request is answered with what is wrong, and not kept.
func TestAskIsChecked(t *testing.T) {
	l := newLab(t, testRules{"good.test:443"})
	for name, c := range map[string]struct{ body, want string }{
		"nothing":              {"", "rule is missing"},
		"no reason":            {wish("a.test", " "), "reason is missing"},
		"no rule":              {wish("", "x"), "rule is missing"},
		"a wildcard in a word": {wish("a*.test", "x"), "a*.test"},
		"a command":            {wish("allow a.test", "x"), "allow a.test"},
		"two rules":            {wish("a.test", "x") + "&rule=b.test", "one rule and one reason"},
		"a name of bawn's own": {wish("bawn.internal", "x"), "bawn.internal"},
		"all of the host":      {wish("host:*", "x"), "every service of the host"},
		"a long reason":        {wish("a.test", strings.Repeat("x", maxAskReason+1)), "shorten it"},
		"a long rule":          {wish(strings.Repeat("a.", 200)+"test", "x"), "at most 200"},
		"a long body":          {wish("a.test", strings.Repeat("x", maxAskRequest)), "more than 4096 bytes"},
		"not UTF-8":            {"rule=a.test&reason=%ff", "UTF-8"},
		"broken JSON":          {`{"rule": `, "JSON object"},
		"another JSON":         {`{"rule": "a.test", "reason": "x", "until": "ever"}`, `unknown field "until"`},
		"JSON of other types":  {`{"rule": ["a.test"], "reason": "x"}`, "JSON object"},
		"a broken form":        {"rule=%zz", "form"},
	} {
		code, text := post(t, l, c.body)
		if code != http.StatusBadRequest || !strings.Contains(text, c.want) || !strings.Contains(text, "curl http://bawn.internal/ask") {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	if list := l.AccessRequests(); len(list) != 0 {
		t.Errorf("kept: %+v", list)
	}
}

// TestAskIsAnswered: the agent learns what the person decided, and does not ask anew what was
// refused.
func TestAskIsAnswered(t *testing.T) {
	l := newLab(t, testRules{})
	set := func(text string) { l.SetPolicy(rulesFrom(t, text)) }
	set("allow good.test:443\nallow **.wide.test\n")
	for _, rule := range []string{"good.test:443", "a.wide.test", "a.wide.test:443"} {
		if code, text := post(t, l, wish(rule, "x")); code != http.StatusOK || !strings.Contains(text, "allow "+rule+" already") {
			t.Errorf("%s: %d %s", rule, code, text)
		}
	}
	post(t, l, wish("no.test", "x"))
	post(t, l, wish("yes.test:22", "x"))
	post(t, l, wish("preset:npm", "x"))
	if !l.RefuseAccess("no.test") || l.RefuseAccess("other.test") {
		t.Error("RefuseAccess")
	}
	if code, text := post(t, l, wish("no.test", "please")); code != http.StatusForbidden || !strings.Contains(text, "The user refused no.test") {
		t.Errorf("%d %s", code, text)
	}
	set("allow yes.test:22\nallow preset:npm\n")
	states := map[string]AskState{}
	for _, a := range l.AccessRequests() {
		states[a.Rule] = a.State
	}
	if want := fmt.Sprint(map[string]AskState{"no.test": AskRefused, "yes.test:22": AskAllowed, "preset:npm": AskAllowed}); fmt.Sprint(states) != want {
		t.Errorf("%v, want %v", states, want)
	}
	set("") // the person takes it back: it may be asked for anew
	if code, _ := post(t, l, wish("yes.test:22", "x")); code != http.StatusAccepted {
		t.Errorf("%d", code)
	}
	set("deny **.evil.test\n")
	if code, text := post(t, l, wish("x.evil.test:443", "x")); code != http.StatusForbidden || !strings.Contains(text, `"deny **.evil.test"`) {
		t.Errorf("%d %s", code, text)
	}
	l.SetPolicy(nil) // the rules have a mistake: all is denied, and asking works
	if code, text := post(t, l, wish("late.test", "x")); code != http.StatusAccepted {
		t.Errorf("%d %s", code, text)
	}
}

// TestAttackAskFlood: a guest that asks all the time gets a few requests in front of the person.
func TestAttackAskFlood(t *testing.T) {
	l := newLab(t, testRules{})
	taken, busy := 0, 0
	for i := range 100 {
		switch code, text := post(t, l, wish(fmt.Sprintf("x%d.test", i), strings.Repeat("x", maxAskReason))); {
		case code == http.StatusAccepted:
			taken++
		case code == http.StatusTooManyRequests && strings.Contains(text, "too many requests at once"):
			busy++
		default:
			t.Fatal(code, text)
		}
	}
	if taken < askBurst || taken > askBurst+4 || taken+busy != 100 { // a slow machine earns some more
		t.Errorf("%d taken, %d not", taken, busy)
	}
	if n := len(l.AccessRequests()); n != taken {
		t.Errorf("%d kept", n)
	}
	l.limiter.asks.SetLimit(1e9)
	for i := range 2 * maxAsks {
		post(t, l, wish(fmt.Sprintf("y%d.test", i), "x"))
	}
	code, text := post(t, l, wish("last.test", "x"))
	if n := len(l.AccessRequests()); n != maxAsks || code != http.StatusTooManyRequests || !strings.Contains(text, "no more are taken") {
		t.Errorf("%d kept; %d %s", n, code, text)
	}
}

// TestAttackAskText: what a terminal obeys reaches neither the page nor a line of the log.
func TestAttackAskText(t *testing.T) {
	l := newLab(t, testRules{})
	const bad = "\x1b[2J\u202e\r\nrule allowed\" (bawn policy allow evil.test)"
	if code, text := post(t, l, wish("a.test", bad)); code != http.StatusAccepted || strings.ContainsAny(text, "\x1b\u202e") {
		t.Errorf("%d %q", code, text)
	}
	if code, text := post(t, l, wish("b\x1b[2J.test", "x")); code != http.StatusBadRequest || strings.Contains(text, "\x1b") {
		t.Errorf("%d %q", code, text)
	}
	if _, text := get(t, l.client(), "http://bawn.internal/ask"); strings.ContainsAny(text, "\x1b\u202e\r") || strings.Contains(text, "\nrule allowed") {
		t.Errorf("%q", text)
	}
	l.Close()
	line := readAll(t, l.path)[0].Text("bawn policy allow")
	if strings.ContainsAny(line, "\x1b\u202e\r\n") || !strings.Contains(line, `a.test the agent's reason: "`) || !strings.HasSuffix(line, "(bawn policy allow a.test)") {
		t.Errorf("%q", line)
	}
}
