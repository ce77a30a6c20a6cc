package main

import (
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/review"
)

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 5, 6, 12, 0, 0, 0, time.Local)
	for s, want := range map[string]engine.Since{
		"": {}, "session": {}, "3": {Point: 3}, "all": {All: true}, "2h": {Time: now.Add(-2 * time.Hour)},
		"2026-05-06T11:30": {Time: now.Add(-30 * time.Minute)}, "2026-05-06": {Time: now.Add(-12 * time.Hour)},
	} {
		if got, err := parseSince(s, now); err != nil || got.Point != want.Point || got.All != want.All || !got.Time.Equal(want.Time) {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"0", "-1", "-2h", "yesterday", "2026-13-01", " 3"} {
		if _, err := parseSince(s, now); err == nil || !strings.Contains(err.Error(), "restore point") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestPagerCommand(t *testing.T) {
	for _, test := range []struct {
		env  map[string]string
		want string
	}{
		{nil, "less"}, {map[string]string{"PAGER": "more -s"}, "more -s"}, {map[string]string{"PAGER": ""}, ""},
		{map[string]string{"PAGER": "more", "GIT_PAGER": "cat"}, "cat"},
	} {
		got := pagerCommand(func(name string) (string, bool) { v, ok := test.env[name]; return v, ok })
		if got != test.want {
			t.Errorf("%v: %q", test.env, got)
		}
	}
}

// TestShowReview: everything is there, in the order of what matters, and nothing that a terminal
// obeys.
func TestShowReview(t *testing.T) {
	evil := "x\x1b[2J\u202ey\r"
	r := &engine.Review{
		Sandbox: "shop", Point: 3, Since: time.Now(),
		Findings: []review.Finding{{Path: evil, Class: review.Executable, Why: evil}, {Path: "node_modules/", Class: review.Build, Why: "in this directory", Paths: 12}},
		Kept:     []review.Kept{{Share: "/p", Path: evil, Status: review.Modified, Exec: true, Link: evil, Diff: "-" + evil + "\n+new\n", Note: evil, Cut: true}},
		Refused:  []engine.FileEvent{{Share: "/p", Path: "refused" + evil}},
		Changes:  []review.Stat{{Path: evil, Status: review.Modified, Added: 100, Removed: 1}, {Path: "b", From: "a", Status: review.Renamed}, {Path: "bin", Status: review.Added, Binary: true}},
		InGit:    2, Notes: []string{evil},
	}
	var b strings.Builder
	if err := showReview(&b, r); err != nil {
		t.Fatal(err)
	}
	out := b.String()
	if strings.ContainsAny(out, "\x1b\r\u202e") {
		t.Errorf("%q", out)
	}
	last := -1
	for _, want := range []string{"shop since", "restore point 3", "executable  x", "12 in this directory", "refused", "(changed, symbolic link", "    +new\n", "is longer", "bawn accept PATH", "All changes", "101 +++", "a/ -> b/", "| Bin", "3 paths, 100 lines (+), 1 line (-); 2 paths below .git", "Note:"} {
		i := strings.Index(out, want)
		if i < last || i < 0 {
			t.Errorf("%q is missing or at the wrong place in\n%s", want, out)
		}
		last = i
	}
	b.Reset()
	if err := showReview(&b, &engine.Review{Sandbox: "shop"}); err != nil || !strings.Contains(b.String(), "nothing to review") {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestOutcomeLine(t *testing.T) {
	for _, test := range []struct {
		o         engine.Outcome
		throwaway bool
		want      string
	}{
		{engine.Outcome{}, false, ""},
		{engine.Outcome{Runs: 1}, false, "1 change that your host may run or trust: bawn review"},
		{engine.Outcome{Runs: 3, Kept: 1, Refused: 1}, false, "3 changes that your host may run or trust, 1 guarded path kept from your host, 1 refused: bawn review"},
		{engine.Outcome{Runs: 3}, true, "3 changes that your host may run or trust"},
		{engine.Outcome{Runs: 9, More: true}, false, "more than 9 changes that your host may run or trust: bawn review"},
		{engine.Outcome{More: true}, false, "many changes: bawn review"},
	} {
		if got := outcomeLine(test.o, test.throwaway); got != test.want {
			t.Errorf("%+v: %q, want %q", test.o, got, test.want)
		}
	}
}
