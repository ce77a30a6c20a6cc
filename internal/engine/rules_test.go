package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// userPlace is an engine for a user who has a home of their own, and the sandbox "shop" of
// a directory in it, which is stopped.
func userPlace(t *testing.T) (e *engine.Engine, home string, shop store.Dir) {
	t.Helper()
	home = enginetest.TempHome(t)
	sandboxes, err := store.Open()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(home, "shop")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	shop, err = sandboxes.Create(&sandbox.Spec{ID: "1", Name: "shop", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}})
	if err != nil {
		t.Fatal(err)
	}
	return engine.New(sandboxes, engine.Options{}), home, shop
}

// supervisor is a process that only answers for a sandbox, and keeps what it is asked.
type supervisor struct {
	control.Service // nil: no other method is called

	snapshot func(path string) error // nil: no snapshot is made

	mu    sync.Mutex
	calls []string
}

func (s *supervisor) ReloadPolicy() error { s.add("reload"); return nil }

func (s *supervisor) AllowOnce(rule string) error { s.add("once " + rule); return nil }

func (s *supervisor) ForgetOnce() error { s.add("forget"); return nil }

func (s *supervisor) AllowedOnce() ([]string, error) { return []string{"once.test"}, nil }

func (s *supervisor) SettleLog(context.Context) error { s.add("settle"); return nil }

func (s *supervisor) Snapshot(_ context.Context, path string) error {
	s.add("snapshot " + filepath.Base(path))
	return s.snapshot(path)
}

func (s *supervisor) add(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

func (s *supervisor) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// run makes a sandbox seem to run until the test ends. It allows once.test until it stops.
func run(t *testing.T, d store.Dir) *supervisor {
	t.Helper()
	s := &supervisor{}
	enginetest.Serve(t, d, s)
	return s
}

var (
	shopRules   = engine.Scope{Sandbox: "shop"}
	commonRules = engine.Scope{All: true}
)

func allow(rules ...string) engine.RuleChange {
	return engine.RuleChange{Action: policy.Allow, Rules: rules}
}

// change changes rules without a failure.
func change(t *testing.T, e *engine.Engine, s engine.Scope, c engine.RuleChange) []engine.Overruled {
	t.Helper()
	overruled, err := e.ChangeRules(t.Context(), s, c)
	if err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
	return overruled
}

// rulesOf are the rules in force, as text.
func rulesOf(t *testing.T, e *engine.Engine, s engine.Scope) (list []string) {
	t.Helper()
	rules, err := e.Rules(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		list = append(list, r.String())
	}
	return list
}

func write(t *testing.T, file, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o700)
	if err == nil {
		err = os.WriteFile(file, []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func TestRulesOfBothScopes(t *testing.T) {
	e, home, shop := userPlace(t)
	change(t, e, commonRules, allow("all.test"))
	change(t, e, shopRules, allow("shop.test"))
	change(t, e, shopRules, engine.RuleChange{Action: policy.Deny, Rules: []string{"bad.test"}})
	if got, want := rulesOf(t, e, shopRules), []string{"allow all.test", "allow shop.test", "deny bad.test"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := rulesOf(t, e, commonRules), []string{"allow all.test"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := read(t, filepath.Join(home, ".config", "bawn", "policy")); got != "allow all.test\n" {
		t.Errorf("the common file: %q", got)
	}
	if got := read(t, shop.File(store.PolicyFile)); got != "allow shop.test\ndeny bad.test\n" {
		t.Errorf("the sandbox's file: %q", got)
	}
}

// TestChangeKeepsTheRest: comments and other lines stay, and rules are the same however
// they are written.
func TestChangeKeepsTheRest(t *testing.T) {
	e, _, shop := userPlace(t)
	file := shop.File(store.PolicyFile)
	const hand = "# mine\n\n  allow  EXAMPLE.org.:80,443  # the same\ndeny evil.test\n"
	write(t, file, hand)
	change(t, e, shopRules, allow("example.org", "example.org:443,80"))
	if got := read(t, file); got != hand {
		t.Errorf("after adding what is there: %q", got)
	}
	change(t, e, shopRules, engine.RuleChange{Action: policy.Allow, Rules: []string{"example.org:443,80"}, Remove: true})
	if got, want := read(t, file), "# mine\n\ndeny evil.test\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestRulesAboutARemote name the repository that the remote had when they were given; a change of the
// remote changes no rule.
func TestRulesAboutARemote(t *testing.T) {
	e, home, _ := userPlace(t)
	config := filepath.Join(home, "shop/.git/config")
	write(t, config, "[remote \"origin\"]\n\turl = git@github.com:own/shop.git\n")
	change(t, e, shopRules, allow("git:origin:push=feature/*", "GIT:origin"))
	write(t, config, "[remote \"origin\"]\n\turl = https://github.com/stranger/shop\n")
	if got, want := rulesOf(t, e, shopRules), []string{"allow git:github.com/own/shop:push=feature/*", "allow git:github.com/own/shop"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, c := range []struct {
		scope  engine.Scope
		rule   string
		reason engine.Reason
	}{
		{shopRules, "git:upstream", engine.RemoteUnusable},
		{commonRules, "git:origin", engine.RemoteUnusable},
		{shopRules, "git:origin:push=fea*", engine.InvalidRule},
	} {
		if _, err := e.ChangeRules(t.Context(), c.scope, allow(c.rule)); engine.ReasonOf(err) != c.reason {
			t.Errorf("%s: %v", c.rule, err)
		}
	}
	if err := allow("git:origin:push=main").Check(); err != nil {
		t.Error(err)
	}
	if err := allow("git:origin:push=").Check(); engine.ReasonOf(err) != engine.InvalidRule {
		t.Error(err)
	}
}

// TestRuleBesideAWiderOne: who adds a rule about a repository is told that another rule opens its host,
// and what a remote leads to.
func TestRuleBesideAWiderOne(t *testing.T) {
	_, home, _ := userPlace(t)
	write(t, filepath.Join(home, "shop/.git/config"), "[remote \"origin\"]\n\turl = https://me:password@github.com/own/shop\n")
	sandboxes, err := store.Open()
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	e := engine.New(sandboxes, engine.Options{Events: func(ev engine.Event) {
		if n, ok := ev.(engine.Notice); ok {
			told = append(told, string(n.Reason)+" "+n.Text)
		}
	}})
	change(t, e, shopRules, allow("preset:copilot"))
	change(t, e, shopRules, allow("git:origin:push=feature/*", "github:own/shop"))
	change(t, e, shopRules, allow("git:git.test/own/shop"))
	want := []string{"rule-remote the remote origin is github.com/own/shop", "rule-widened git:github.com/own/shop:push=feature/* keeps nothing out", "rule-widened github:own/shop keeps nothing out"}
	if len(told) != len(want) {
		t.Fatalf("%q", told)
	}
	for i := range want {
		if !strings.HasPrefix(told[i], want[i]) || strings.Contains(told[i], "password") {
			t.Errorf("%q", told[i])
		}
	}
}

// TestChangeFails: what cannot be changed has a reason, and nothing is changed.
func TestChangeFails(t *testing.T) {
	e, _, shop := userPlace(t)
	file := shop.File(store.PolicyFile)
	for _, c := range []struct {
		name, text string
		change     engine.RuleChange
		scope      engine.Scope
		reason     engine.Reason
		says       string
	}{
		{"a rule that makes no sense", "allow a.test\n", allow("b.test", "a*.test"), shopRules, engine.InvalidRule, "wildcard"},
		{"no such rule", "allow a.test\n", engine.RuleChange{Action: policy.Deny, Rules: []string{"a.test"}, Remove: true}, shopRules, engine.RuleNotFound, `there is no rule "deny a.test" in ` + file},
		{"one of two", "allow a.test\n", engine.RuleChange{Action: policy.Allow, Rules: []string{"a.test", "b.test"}, Remove: true}, shopRules, engine.RuleNotFound, "allow b.test"},
		{"a file that makes no sense", "allow a.test\n permit b.test\n", allow("b.test"), shopRules, engine.RulesSyntax, file + `:2:2: rule "permit"`},
		{"no such sandbox", "allow a.test\n", allow("b.test"), engine.Scope{Sandbox: "nope"}, engine.NotFound, "nope"},
		{"no name", "allow a.test\n", allow("b.test"), engine.Scope{}, "", "invalid sandbox name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, file, c.text)
			_, err := e.ChangeRules(t.Context(), c.scope, c.change)
			if err == nil || engine.ReasonOf(err) != c.reason || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q: %v", engine.ReasonOf(err), err)
			}
			if got := read(t, file); got != c.text {
				t.Errorf("the file is now %q", got)
			}
		})
	}
}

// TestSyntaxErrors: a file that makes no sense puts no rule in force, and the error names
// every mistake, the file, and the sandbox if the file is its own.
func TestSyntaxErrors(t *testing.T) {
	e, home, shop := userPlace(t)
	common := filepath.Join(home, ".config", "bawn", "policy")
	for _, c := range []struct{ file, sandbox string }{
		{common, ""}, {shop.File(store.PolicyFile), "shop"}, {shop.File(store.ProjectPolicyFile), "shop"},
	} {
		write(t, c.file, "allow good.test\n  allow bad!.test\npermit x.test\n")
		_, ruleErr := e.Rules(t.Context(), shopRules)
		_, decideErr := e.Decide(t.Context(), shopRules, []string{"good.test"})
		_, learnErr := e.ProposeRules(t.Context(), "shop")
		for _, err := range []error{ruleErr, decideErr, learnErr, e.CheckRules("shop")} {
			var failed *engine.Error
			if !errors.As(err, &failed) || failed.Reason != engine.RulesSyntax || failed.Path != c.file || failed.Sandbox != c.sandbox {
				t.Errorf("%s: %+v", c.file, failed)
			}
			var wrong *policy.SyntaxError
			if !errors.As(err, &wrong) || wrong.Line != 2 || wrong.Column != 9 || !strings.Contains(err.Error(), "policy:3:1") && c.file != shop.File(store.ProjectPolicyFile) {
				t.Errorf("%s: %v", c.file, err)
			}
		}
		if err := os.Remove(c.file); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.CheckRules("shop"); err != nil {
		t.Error(err)
	}
}

// TestConcurrentChanges: changes at once follow one another; none is lost.
func TestConcurrentChanges(t *testing.T) {
	e, _, _ := userPlace(t)
	const n = 20
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if _, err := e.ChangeRules(t.Context(), shopRules, allow(fmt.Sprintf("host%d.test", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := rulesOf(t, e, shopRules)
	for i := range n {
		if want := fmt.Sprintf("allow host%d.test", i); !slices.Contains(got, want) {
			t.Errorf("%s is lost", want)
		}
	}
	if len(got) != n {
		t.Errorf("%d rules, want %d", len(got), n)
	}
}

// TestChangeOfLink: a symbolic link stays, and the file that it leads to is changed; one that
// leads nowhere is an error, and nothing is written.
func TestChangeOfLink(t *testing.T) {
	e, home, shop := userPlace(t)
	elsewhere, file := filepath.Join(home, "dotfiles", "policy"), shop.File(store.PolicyFile)
	write(t, elsewhere, "allow a.test\n")
	if err := os.Symlink(elsewhere, file); err != nil {
		t.Fatal(err)
	}
	change(t, e, shopRules, allow("b.test"))
	if got := read(t, elsewhere); got != "allow a.test\nallow b.test\n" {
		t.Errorf("%q", got)
	}
	if to, err := os.Readlink(file); err != nil || to != elsewhere {
		t.Errorf("the link: %q, %v", to, err)
	}
	if err := os.Remove(elsewhere); err != nil {
		t.Fatal(err)
	}
	_, rerr := e.Rules(t.Context(), shopRules)
	_, cerr := e.ChangeRules(t.Context(), shopRules, allow("c.test"))
	if rerr == nil || cerr == nil || !strings.Contains(rerr.Error(), "does not exist") || !strings.Contains(cerr.Error(), "does not exist") {
		t.Errorf("a link that leads nowhere: %v, %v", rerr, cerr)
	}
	if _, err := os.Lstat(elsewhere); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("written: %v", err)
	}
}

// TestChangeWaits: while another process changes the file, a change waits, and ends with
// its context.
func TestChangeWaits(t *testing.T) {
	e, _, shop := userPlace(t)
	file := shop.File(store.PolicyFile)
	lock, err := lockfile.Acquire(t.Context(), file+".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := e.ChangeRules(ctx, shopRules, allow("a.test")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if got := read(t, file); got != "" {
		t.Errorf("the file is now %q", got)
	}
}

// TestOverruled: a rule that is added in vain is in the result, with the rule that wins.
func TestOverruled(t *testing.T) {
	e, _, _ := userPlace(t)
	change(t, e, commonRules, engine.RuleChange{Action: policy.Deny, Rules: []string{"**.test"}})
	got := change(t, e, shopRules, allow("a.test:443", "b.example", "preset:npm"))
	if len(got) != 1 || got[0].Rule.Text != "a.test:443" || got[0].By.String() != "deny **.test" || got[0].By.Source.Line != 1 {
		t.Errorf("%+v", got)
	}
}

func TestDecide(t *testing.T) {
	e, _, shop := userPlace(t)
	run(t, shop)
	change(t, e, shopRules, allow("a.test", "0.0.0.0/0:*"))
	change(t, e, shopRules, engine.RuleChange{Action: policy.Deny, Rules: []string{"bad.test"}})
	verdicts, err := e.Decide(t.Context(), shopRules, []string{"a.test", "other.test:22", "bad.test", "once.test", "169.254.169.254:80"})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		target, missing string
		allow           bool
	}{
		{"a.test:443", "", true}, {"other.test:22", "other.test:22", false}, {"bad.test:443", "", false},
		{"once.test:443", "", true}, {"169.254.169.254:80", "", false},
	} {
		if v := verdicts[i]; v.Target.String() != want.target || v.Allow != want.allow || v.Missing != want.missing || v.Reason == "" {
			t.Errorf("%+v, want %+v", v, want)
		}
	}
	if _, err := e.Decide(t.Context(), shopRules, []string{"no host"}); engine.ReasonOf(err) != engine.InvalidTarget {
		t.Errorf("%v", err)
	}
}

// TestRunningSandboxIsTold of changes to its own rules and to the common ones.
func TestRunningSandboxIsTold(t *testing.T) {
	e, _, shop := userPlace(t)
	s := run(t, shop)
	change(t, e, shopRules, allow("a.test"))
	change(t, e, commonRules, allow("b.test"))
	if err := e.AllowOnce(t.Context(), "shop", "c.test"); err != nil {
		t.Error(err)
	}
	if _, err := e.ResetRules(t.Context(), shopRules); err != nil {
		t.Error(err)
	}
	if got, want := s.all(), []string{"reload", "reload", "once c.test", "forget"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := rulesOf(t, e, shopRules); !slices.Equal(got, []string{"allow b.test", "allow once.test"}) {
		t.Errorf("%q", got)
	}
}

// TestReset: the file goes, also one that makes no sense, and the result says what stays.
func TestReset(t *testing.T) {
	e, home, shop := userPlace(t)
	own, project, common := shop.File(store.PolicyFile), shop.File(store.ProjectPolicyFile), filepath.Join(home, ".config", "bawn", "policy")
	for _, c := range []struct {
		project, common string
		left            engine.RulesLeft
	}{
		{"", "", engine.RulesLeft{}},
		{"allow p.test\n", "", engine.RulesLeft{Project: true}},
		{"# none\n", "allow c.test\n", engine.RulesLeft{Common: true}},
		{"nonsense\n", "nonsense\n", engine.RulesLeft{Project: true, Common: true}},
	} {
		write(t, own, "nonsense\n")
		write(t, project, c.project)
		write(t, common, c.common)
		left, err := e.ResetRules(t.Context(), shopRules)
		if err != nil || left != c.left || read(t, own) != "" {
			t.Errorf("%+v: %+v, %v, %q", c, left, err, read(t, own))
		}
	}
	if left, err := e.ResetRules(t.Context(), commonRules); err != nil || left != (engine.RulesLeft{}) || read(t, common) != "" {
		t.Errorf("%+v, %v", left, err)
	}
	if left, err := e.ResetRules(t.Context(), commonRules); err != nil || left != (engine.RulesLeft{}) {
		t.Errorf("once more: %+v, %v", left, err)
	}
}
