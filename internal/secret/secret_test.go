package secret

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sys/regular"
)

// fakeRing is a keyring in memory.
type fakeRing struct {
	mu     sync.Mutex
	on     bool
	locked bool
	values map[string]string
}

var errLocked = errors.New("locked")

func (r *fakeRing) Available() bool { return r.on }

func (r *fakeRing) Set(id, value string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.locked {
		return errLocked
	}
	r.values[id] = value
	return nil
}

func (r *fakeRing) Get(id string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.locked {
		return "", errLocked
	}
	return r.values[id], nil
}

func (r *fakeRing) Delete(id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.values, id)
	return nil
}

// testStore is an empty store with a keyring that is off.
func testStore(t *testing.T) (*Store, *fakeRing) {
	t.Helper()
	dir := t.TempDir()
	s := OpenAt(filepath.Join(dir, "config"), filepath.Join(dir, "state"))
	r := &fakeRing{values: map[string]string{}}
	s.ring = r
	return s, r
}

const testValue = "sk-ant-api03-the-real-value-0123456789"

func entry(name, dir string) Secret {
	return Secret{Name: name, Dir: dir, For: []Host{{"api.example.org", 443}}}
}

// everything returns all that the files below the folders hold.
func everything(t *testing.T, dirs ...string) (text string) {
	t.Helper()
	for _, d := range dirs {
		err := filepath.WalkDir(d, func(p string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(p)
			text += p + "\n" + string(b)
			if fi, serr := e.Info(); serr == nil && fi.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", p, fi.Mode())
			}
			return err
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return text
}

func TestValueIsKeptInAFileOfMode600(t *testing.T) {
	s, _ := testStore(t)
	sec, err := s.Set(t.Context(), entry("EXAMPLE_KEY", "/p"), testValue)
	if err != nil || sec.Keeper != File {
		t.Fatalf("%+v, %v", sec, err)
	}
	if v, err := s.Value(t.Context(), &sec); v != testValue || err != nil {
		t.Fatalf("%v", err)
	}
	everything(t, s.config)
	index, _ := os.ReadFile(s.indexPath())
	if strings.Contains(string(index), testValue) {
		t.Error("the index has the value")
	}
	next, err := s.Set(t.Context(), entry("EXAMPLE_KEY", "/p"), "sk-ant-api03-another-value-of-it")
	if err != nil {
		t.Fatal(err)
	}
	before, _ := s.Placeholder(&sec, "1")
	if after, _ := s.Placeholder(&next, "1"); after != before {
		t.Errorf("a new value changes the placeholder: %s, %s", before, after)
	}
	if _, err := s.Value(t.Context(), &sec); err == nil {
		t.Error("the old value can still be had")
	}
	if strings.Contains(everything(t, s.config), testValue) {
		t.Error("the value that was replaced is still there")
	}
	if err := s.Remove(t.Context(), "EXAMPLE_KEY", "/p"); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(everything(t, s.config), "another-value") {
		t.Error("the value that was removed is still there")
	}
	if _, err := s.Value(t.Context(), &next); err == nil || !strings.Contains(err.Error(), "EXAMPLE_KEY") {
		t.Error("value of a removed secret:", err)
	}
	if err := s.Remove(t.Context(), "EXAMPLE_KEY", "/p"); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
}

func TestKeyringHoldsTheValueWhereThereIsOne(t *testing.T) {
	s, r := testStore(t)
	r.on = true
	sec, err := s.Set(t.Context(), entry("EXAMPLE_KEY", ""), testValue)
	if err != nil || sec.Keeper != Keyring {
		t.Fatalf("%+v, %v", sec, err)
	}
	if strings.Contains(everything(t, s.config, s.state), testValue) {
		t.Error("the value is in a file too")
	}
	r.locked = true
	if v, err := s.Value(t.Context(), &sec); err == nil || v != "" || !errors.Is(err, errLocked) {
		t.Error("of a locked keyring:", err)
	}
	r.locked = false
	if err := s.Remove(t.Context(), "EXAMPLE_KEY", ""); err != nil || len(r.values) != 0 {
		t.Error(err, len(r.values))
	}
}

func TestCommandRunsWhenTheValueIsNeeded(t *testing.T) {
	s, _ := testStore(t)
	runs := filepath.Join(t.TempDir(), "runs")
	sec := entry("EXAMPLE_KEY", "")
	sec.Command = fmt.Sprintf("echo run >> %s; echo the-value-of-the-command", runs)
	sec, err := s.Set(t.Context(), sec, "")
	if err != nil || sec.Keeper != Command {
		t.Fatalf("%+v, %v", sec, err)
	}
	if _, err := os.Stat(runs); err == nil {
		t.Error("it ran before the value was needed")
	}
	for range 3 {
		if v, err := s.Value(t.Context(), &sec); v != "the-value-of-the-command" || err != nil {
			t.Fatal(v, err)
		}
	}
	if b, _ := os.ReadFile(runs); string(b) != "run\n" {
		t.Errorf("it ran %d times", strings.Count(string(b), "\n"))
	}
	if strings.Contains(everything(t, s.config, s.state), "the-value-of-the-command\n") {
		t.Error("the output was written to a file")
	}
}

// TestAttackManyRequestsForAFailingCommand: it runs once for all, so that a guest cannot make it ask the
// person again and again; what it prints later is not kept from them for long.
func TestAttackManyRequestsForAFailingCommand(t *testing.T) {
	for _, command := range []string{"false", "true"} { // it fails, or prints nothing
		s, _ := testStore(t)
		runs := filepath.Join(t.TempDir(), "runs")
		sec := entry("EXAMPLE_KEY", "")
		sec.Command = fmt.Sprintf("echo run >> %s; %s", runs, command)
		sec, err := s.Set(t.Context(), sec, "")
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if v, err := s.Value(t.Context(), &sec); err == nil {
					t.Errorf("%s: %q", command, v)
				}
			})
		}
		all.Wait()
		if b, _ := os.ReadFile(runs); len(b) > 10*len("run\n") { // one, and one more for each five seconds of a slow machine
			t.Errorf("%s: it ran %d times", command, strings.Count(string(b), "\n"))
		}
		s.mu.Lock()
		for _, f := range s.fetches {
			if left := time.Until(f.until); left > failureTime {
				t.Errorf("%s: the failure is kept for %s", command, left)
			}
		}
		s.mu.Unlock()
	}
	// One who does not wait leaves it to the others.
	s, _ := testStore(t)
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	sec := entry("EXAMPLE_KEY", "")
	sec.Command = "cat " + gate
	sec, err := s.Set(t.Context(), sec, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Value(ctx, &sec); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go func() { _ = os.WriteFile(gate, []byte("the-value-of-the-command\n"), 0o600) }()
	if v, err := s.Value(t.Context(), &sec); v != "the-value-of-the-command" || err != nil {
		t.Error(v, err)
	}
}

func TestCommandThatFails(t *testing.T) {
	s, _ := testStore(t)
	for command, want := range map[string]string{
		"echo the-secret-value-itself; echo the-secret-value-itself >&2; exit 3": "failed",
		"true":                          "at least",
		"echo short":                    "at least",
		"printf 'two\\nlines-of-it'":    "several lines",
		"head -c 100000 /dev/zero":      "more than",
		"/nonexistent/program --option": "failed",
	} {
		sec := entry("EXAMPLE_KEY", "")
		sec.Command = command
		sec, err := s.Set(t.Context(), sec, "")
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.Value(t.Context(), &sec)
		if v != "" || err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "EXAMPLE_KEY") || strings.Contains(err.Error(), "the-secret-value") {
			t.Errorf("%q: %q, %v", command, v, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := run(ctx, "sleep 1000"); err == nil {
		t.Error("a command goes on after the end of its context")
	}
}

// TestCommandFindsNoProgramsOfAProject: what a project's environment may have set, direnv's
// for instance, names no code to run.
func TestCommandFindsNoProgramsOfAProject(t *testing.T) {
	t.Setenv("PATH", "bin:"+os.Getenv("PATH"))
	t.Setenv("LD_LIBRARY_PATH", "/project/lib")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/4321")
	got, err := run(t.Context(), `echo "$LD_LIBRARY_PATH|$PATH|$XDG_RUNTIME_DIR"`)
	if err != nil || !strings.HasPrefix(got, "|/usr/sbin:/usr/bin:") || strings.Contains(got, "bin:bin:") || !strings.HasSuffix(got, "|/run/user/4321") {
		t.Errorf("%s, %v", got, err)
	}
}

func TestWhatCannotBeSet(t *testing.T) {
	s, _ := testStore(t)
	host := []Host{{"api.example.org", 443}}
	for _, c := range []struct {
		sec   Secret
		value string
	}{
		{Secret{Name: "PATH", For: host}, testValue},
		{Secret{Name: "LD_PRELOAD", For: host}, testValue},
		{Secret{Name: "with space", For: host}, testValue},
		{Secret{Name: "A=B", For: host}, testValue},
		{Secret{Name: "", For: host}, testValue},
		{Secret{Name: "OK"}, testValue},
		{Secret{Name: "OK", For: []Host{{"api.example.org", 80}}}, testValue},
		{Secret{Name: "OK", For: []Host{{"*.example.org", 443}}}, testValue},
		{Secret{Name: "OK", For: host}, "short"},
		{Secret{Name: "OK", For: host}, "two\r\nlines: of header"},
		{Secret{Name: "OK", For: host}, strings.Repeat("x", MaxValue+1)},
		{Secret{Name: "OK", For: host, Place: Place{Where: InHeader, Arg: "Host"}}, testValue},
		{Secret{Name: "OK", For: host, Place: Place{Where: InHeader, Arg: "a b"}}, testValue},
		{Secret{Name: "OK", For: host, Place: Place{Where: InBasic, Arg: "a:b"}}, testValue},
		{Secret{Name: "OK", For: host, Place: Place{Where: InQuery, Arg: ""}}, testValue},
		{Secret{Name: "OK", For: host, Place: Place{Where: "elsewhere"}}, testValue},
	} {
		if _, err := s.Set(t.Context(), c.sec, c.value); err == nil || strings.Contains(err.Error(), testValue) {
			t.Errorf("%+v: %v", c.sec, err)
		}
	}
	if list, err := s.List(); len(list) != 0 || err != nil {
		t.Error(list, err)
	}
	if text := everything(t, s.config); strings.Contains(text, testValue) {
		t.Error("a refused value was written")
	}
}

func TestParseHost(t *testing.T) {
	for in, want := range map[string]string{
		"api.example.org": "api.example.org", "API.Example.ORG.": "api.example.org", "api.example.org:8443": "api.example.org:8443", "api.example.org:443": "api.example.org",
		"": "", "*.example.org": "", "**.example.org": "", "192.0.2.1": "", "[2001:db8::1]:443": "", "api.example.org:80": "", "api.example.org:0": "",
		"api.example.org:99999": "", "host:443": "", "localhost": "", "https://api.example.org": "", "api.example.org/path": "", "a b.example.org": "",
	} {
		h, err := ParseHost(in)
		if (err == nil) != (want != "") || err == nil && h.String() != want {
			t.Errorf("%q: %v, %v", in, h, err)
		}
	}
}

func TestPlaceholdersHaveTheShapeOfTheirKind(t *testing.T) {
	s, _ := testStore(t)
	github := "ghp_" + strings.Repeat("a", 36)
	for _, c := range []struct {
		name, value, prefix string
		length              int
	}{
		{"ANTHROPIC_API_KEY", "", "sk-ant-api03-", 108},
		{"ANTHROPIC_API_KEY", "sk-ant-oat01-" + strings.Repeat("x", 95), "sk-ant-oat01-", 108},
		{"GH_TOKEN", github, "ghp_", 40},
		{"GITHUB_TOKEN", "", "ghp_", 40},
		{"ANY_NAME", "some-value-of-no-known-kind-at-all-012", "", 38},
		{"ANY_NAME", "short-one", "", 20},
		{"ANY_NAME", "", "", 40},
		{"ANY_NAME", strings.Repeat("y", 3000), "", 256},
	} {
		sec := Secret{ID: newID(), Name: c.name, Shape: shapeOf(c.name, c.value)}
		p, err := s.Placeholder(&sec, "000000000001")
		if err != nil || !strings.HasPrefix(p, c.prefix) || len(p) != c.length || p == c.value {
			t.Errorf("%s %q: %q (%d), %v", c.name, c.value, p, len(p), err)
		}
		if strings.Trim(strings.TrimPrefix(p, c.prefix), alphabet) != "" {
			t.Errorf("%q has other characters", p)
		}
	}
}

// TestKnownNamesAreWhole: each has a kind, and hosts that a secret can be for.
func TestKnownNamesAreWhole(t *testing.T) {
	for name, v := range variables {
		if err := CheckName(name); err != nil || shapeOf(name, "").Prefix != v.prefix {
			t.Errorf("%s: %+v, %v", name, shapeOf(name, ""), err)
		}
		for _, h := range KnownHosts(name) {
			if _, err := ParseHost(h); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if KnownHosts("GITLAB_TOKEN") != nil || KnownHosts("EXAMPLE") != nil {
		t.Error("hosts that nobody knows")
	}
}

// TestPlaceholdersDiffer between sandboxes, forks, entries and hosts, and stay for one.
func TestPlaceholdersDiffer(t *testing.T) {
	s, _ := testStore(t)
	other, _ := testStore(t)
	a, b := Secret{ID: newID(), Shape: Shape{"ghp_", 40}}, Secret{ID: newID(), Shape: Shape{"ghp_", 40}}
	seen := map[string]bool{}
	for _, store := range []*Store{s, other} {
		for _, sec := range []*Secret{&a, &b} {
			for id := range 200 {
				p, err := store.Placeholder(sec, fmt.Sprintf("%012x", id))
				again, _ := store.Placeholder(sec, fmt.Sprintf("%012x", id))
				if err != nil || seen[p] || again != p {
					t.Fatal(p, again, err)
				}
				seen[p] = true
			}
		}
	}
	if err := os.WriteFile(filepath.Join(s.state, keyFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Placeholder(&a, "1"); err == nil {
		t.Error("placeholder of a damaged key:", p)
	}
}

func TestOfADirectory(t *testing.T) {
	s, _ := testStore(t)
	for _, e := range []Secret{entry("A", ""), entry("A", "/p"), entry("B", ""), entry("C", "/other")} {
		if _, err := s.Set(t.Context(), e, testValue); err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]string{"/p": "A/p B", "/other": "A B C/other", "/none": "A B", "": "A B"} {
		list, err := s.Of(dir)
		var got []string
		for _, x := range list {
			got = append(got, x.Name+x.Dir)
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %v, %v", dir, got, err)
		}
	}
}

// TestBindingsFollowTheIndex: each change is seen, and a damaged index is an error until it
// is corrected, also where it was read before.
func TestBindingsFollowTheIndex(t *testing.T) {
	s, _ := testStore(t)
	b := s.Bindings("/p", "000000000001")
	if list, err := b.List(); len(list) != 0 || err != nil {
		t.Fatal(list, err)
	}
	sec, err := s.Set(t.Context(), entry("A", "/p"), testValue)
	if err != nil {
		t.Fatal(err)
	}
	list, err := b.List()
	if len(list) != 1 || err != nil || list[0].Placeholder == "" {
		t.Fatal(list, err)
	}
	if v, err := list[0].Value(t.Context()); v != testValue || err != nil {
		t.Error(err)
	}
	good, _ := os.ReadFile(s.indexPath())
	for _, bad := range []string{"{", `{"secrets":[{"name":"A"}]}`, strings.Replace(string(good), sec.ID, "../../x", 1), strings.Replace(string(good), sec.Stored, "../../x", 1), strings.Replace(string(good), `"file"`, `"cloud"`, 1)} {
		if err := os.WriteFile(s.indexPath(), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := b.List(); err == nil {
			t.Errorf("%s: %v", bad, list)
		}
	}
	if err := os.WriteFile(s.indexPath(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := b.List(); len(list) != 1 || err != nil {
		t.Error(list, err)
	}
	if err := os.Chmod(s.indexPath(), 0o622); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(); err == nil {
		t.Error("an index that others can change was read")
	}
}

// TestIndexOfAnotherBuild: what this one does not understand is an error.
func TestIndexOfAnotherBuild(t *testing.T) {
	const good = `{"secrets":[{"id":"ABCDEFGHIJKLMNOPQRST","stored":"ABCDEFGHIJKLMNOPQRST","name":"A","for":[{"name":"a.example","port":443}],"keeper":"file","shape":{"length":40},"later":1}]}`
	list, err := parseIndex([]byte(good), "x")
	if len(list) != 1 || err != nil {
		t.Fatal(err)
	}
	for _, shape := range []Shape{{}, {"p", -5}, {strings.Repeat("p", 1000), 1 << 30}} {
		list[0].Shape = shape
		if p, err := derive(make([]byte, keyLength), &list[0], "1"); err != nil || len(p) > maxShape || len(p) < minRandom {
			t.Errorf("%+v: %q, %v", shape, p, err)
		}
	}
	for old, changed := range map[string]string{`"file"`: `"cloud"`, `"a.example"`: `"*.example"`, "443": "80", `"name":"A"`: `"name":"PATH"`, `"stored":"ABC`: `"stored":"../`, `"later":1`: `"place":{"where":"moon"}`} {
		if _, err := parseIndex([]byte(strings.Replace(good, old, changed, 1)), "x"); err == nil {
			t.Errorf("%s is accepted", changed)
		}
	}
	s, _ := testStore(t)
	if err := errors.Join(os.MkdirAll(s.config, 0o700), os.WriteFile(s.indexPath(), []byte(good+strings.Repeat(" ", maxIndex)), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(); !errors.Is(err, regular.ErrTooLarge) {
		t.Error("a list without end:", err)
	}
}

// TestErrorOfAValueNamesNoPath of the host: a guest reads it.
func TestErrorOfAValueNamesNoPath(t *testing.T) {
	s, _ := testStore(t)
	sec, err := s.Set(t.Context(), entry("EXAMPLE_KEY", ""), "the-value-of-the-secret")
	if err != nil || sec.Keeper != File {
		t.Fatalf("%+v, %v", sec, err)
	}
	if err := os.Remove(s.valuePath(sec.Stored)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Value(t.Context(), &sec); err == nil || strings.Contains(err.Error(), s.config) || !strings.Contains(err.Error(), "EXAMPLE_KEY") {
		t.Error(err)
	}
}

// TestACommandThatPrintsTooMuch: its output is no value, and most of it is not kept.
func TestACommandThatPrintsTooMuch(t *testing.T) {
	v, err := run(t.Context(), "head -c 8000000 /dev/zero | tr '\\0' x")
	if err == nil || v != "" || !strings.Contains(err.Error(), "printed more than") {
		t.Errorf("%d bytes, %v", len(v), err)
	}
}
