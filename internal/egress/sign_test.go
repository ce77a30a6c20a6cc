package egress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/egress/gitobject"
)

const (
	testTree      = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
	testSignature = "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"
	pushRule      = "allow git:github.com/own/app:push=feature/*"
)

// signLab is a sandbox whose commits are signed, and counts what is.
type signLab struct {
	*lab
	signed atomic.Int32
	sign   func(context.Context, []byte) ([]byte, error)
	guest  func() *http.Client // one for all requests
}

func newSignLab(t *testing.T, rules ...string) *signLab {
	s := &signLab{sign: func(context.Context, []byte) ([]byte, error) { return []byte(testSignature), nil }}
	s.lab = newLab(t, testRules{}, func(c *Config) {
		c.Sign = &Signer{Name: "Ada Lovelace, Jr.", Email: "ada@example.org", Sign: func(ctx context.Context, b []byte) ([]byte, error) {
			s.signed.Add(1)
			return s.sign(ctx, b)
		}}
	})
	s.guest = sync.OnceValue(s.client)
	s.SetPolicy(rulesFrom(t, rules...))
	return s
}

func (s *signLab) post(t *testing.T, object string) (int, string) {
	t.Helper()
	r, err := s.guest().Post("http://bawn.internal/sign", "application/octet-stream", strings.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	return answered(t, r)
}

// by returns an identity as git writes it.
func by(who string, when time.Time) string { return fmt.Sprintf("%s %d +0000", who, when.Unix()) }

const testAda = "Ada Lovelace, Jr <ada@example.org>"

func testCommit(committer, message string) string {
	return "tree " + testTree + "\nauthor Grace <grace@example.org> 981173106 +0000\ncommitter " + committer + "\n\n" + message
}

func testTag(tagger string) string {
	return "object " + testTree + "\ntype tree\ntag v1\ntagger " + tagger + "\n\nx\n"
}

// TestSign: a commit and a tag of the sandbox's identity are signed as they are, and the log has the name that git gives
// them.
func TestSign(t *testing.T) {
	s := newSignLab(t, pushRule)
	var got []string
	s.sign = func(_ context.Context, b []byte) ([]byte, error) {
		got = append(got, string(b))
		return []byte(testSignature), nil
	}
	var names []string
	for _, object := range []string{
		testCommit(by(testAda, time.Now()), "x\n"), testTag(by(testAda, time.Now())),
		testCommit(by("Ada Lovelace, Jr. <ada@example.org>", time.Now().Add(-23*time.Hour)), ""), // as newer versions of git may have it
	} {
		if code, text := s.post(t, object); code != http.StatusOK || text != testSignature {
			t.Errorf("%d %s", code, text)
		}
		if got[len(got)-1] != object {
			t.Errorf("%q was signed, not %q", got[len(got)-1], object)
		}
		o, err := gitobject.Parse([]byte(object))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, o.Kind+" "+o.SignedName([]byte(testSignature)))
	}
	s.Close()
	all := readAll(t, s.path)
	if len(all) != 3 {
		t.Fatalf("logged: %+v", all)
	}
	for i, e := range all {
		if e.Verdict != audit.Allowed || e.Proto != audit.ProtoSign || e.Object != names[i] || e.Of != testTree || !strings.Contains(e.Text(allowCommand), names[i]+" of "+testTree) {
			t.Errorf("logged: %+v, not %s", e, names[i])
		}
	}
}

// TestSignIsOff where the user has not asked for it, and where no rule allows a push any more.
func TestSignIsOff(t *testing.T) {
	object := testCommit(by(testAda, time.Now()), "x\n")
	off := &signLab{lab: newLab(t, testRules{})}
	off.guest = off.client
	off.SetPolicy(rulesFrom(t, pushRule))
	if code, text := off.post(t, object); code != http.StatusForbidden || !strings.Contains(text, "bawn run --sign") {
		t.Errorf("%d %s", code, text)
	}
	s := newSignLab(t, pushRule)
	for _, rules := range [][]string{
		nil, {"allow git:github.com/own/app"}, {"allow github.com"}, {"allow preset:github"}, {"allow github:own/app"}, {"deny git:github.com/own/app:push=**"},
		{pushRule, "deny git:github.com/own/app"}, {pushRule, "deny git:github.com/own/app:push=**"}, {pushRule, "deny github.com"},
	} {
		s.SetPolicy(rulesFrom(t, rules...))
		if code, text := s.post(t, object); code != http.StatusForbidden || !strings.Contains(text, "no rule allows a push") {
			t.Errorf("%q: %d %s", rules, code, text)
		}
	}
	s.SetPolicy(nil)
	if code, text := s.post(t, object); code != http.StatusForbidden {
		t.Errorf("no rules: %d %s", code, text)
	}
	if n := s.signed.Load(); n != 0 {
		t.Errorf("%d were signed", n)
	}
	for _, rules := range [][]string{{pushRule, "deny git:github.com/own/app:push=main"}, {"allow git:git.test:2222/a/b:push=**"}, {"allow private:git:git.lan/a:push=main:delete"}} {
		s.SetPolicy(rulesFrom(t, rules...))
		if code, text := s.post(t, object); code != http.StatusOK {
			t.Errorf("%q: %d %s", rules, code, text)
		}
	}
	if code, _ := get(t, s.client(), "http://bawn.internal/sign"); code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", code)
	}
}

// TestAttackSignSomethingElse: text, challenges, files and objects that are not exactly git's; another's name; another day.
func TestAttackSignSomethingElse(t *testing.T) {
	s := newSignLab(t, pushRule)
	now := by(testAda, time.Now())
	for name, c := range map[string]struct{ object, want string }{
		"nothing":                 {"", "neither a commit nor a tag"},
		"arbitrary bytes":         {"\x00\x01\xff", "value zero"},
		"a text":                  {"I owe Eve 1000 EUR.\n", "neither a commit nor a tag"},
		"a release file":          {"0123456789abcdef  bawn.tar.gz\n", "neither a commit nor a tag"},
		"a challenge of ssh":      {"\x00\x00\x00\x04abcd\x32\x00\x00\x00\x03git\x00\x00\x00\x0essh-connection\x00\x00\x00\x09publickey", "value zero"},
		"a zero behind a commit":  {testCommit(now, "x\n\x00evil"), "value zero"},
		"a second header block":   {testCommit(now, "x")[:len("tree "+testTree)+1] + "\n" + testCommit(now, "x"), "where author is expected"},
		"a second committer":      {testCommit(now+"\ncommitter "+now, "x"), `"committer"`},
		"a signature inside":      {testCommit(now+"\ngpgsig x", "x"), `"gpgsig"`},
		"another committer":       {testCommit(by("Eve <eve@example.org>", time.Now()), "x"), "this sandbox's is"},
		"another name":            {testCommit(by("Eve <ada@example.org>", time.Now()), "x"), "this sandbox's is"},
		"another address":         {testCommit(by("Ada Lovelace, Jr <ada@example.com>", time.Now()), "x"), "this sandbox's is"},
		"an address that is more": {testCommit(by("Ada Lovelace, Jr <ada@example.org.evil.test>", time.Now()), "x"), "this sandbox's is"},
		"no name":                 {testCommit(by(" <ada@example.org>", time.Now()), "x"), "this sandbox's is"},
		"another tagger":          {testTag(by("Eve <eve@example.org>", time.Now())), "its tagger is"},
		"last week":               {testCommit(by(testAda, time.Now().Add(-7*24*time.Hour)), "x"), "more than 24h0m0s from the host's"},
		"next week":               {testCommit(by(testAda, time.Now().Add(7*24*time.Hour)), "x"), "more than 24h0m0s from the host's"},
		"the year 1970":           {testTag(by(testAda, time.Unix(0, 0))), "more than 24h0m0s from the host's"},
		"a huge object":           {testCommit(now, strings.Repeat("x", gitobject.MaxObject)), "more than 1048576 bytes"},
		"an escape":               {testCommit(by("Ada\u202e <ada@example.org>", time.Now()), "x"), `"Ada\u202e"`},
	} {
		code, text := s.post(t, c.object)
		if code < 400 || !strings.HasPrefix(text, "bawn: not signed: ") || !strings.Contains(text, c.want) || strings.Contains(text, "SIGNATURE") {
			t.Errorf("%s: %d %s; want %q", name, code, text, c.want)
		}
	}
	if n := s.signed.Load(); n != 0 {
		t.Errorf("%d were signed", n)
	}
	s.Close()
	n := 0
	for _, e := range readAll(t, s.path) {
		if e.Verdict != audit.Denied || e.Proto != audit.ProtoSign || e.Reason == "" {
			t.Errorf("logged: %+v", e)
		}
		if strings.ContainsAny(e.Text(allowCommand), "\u202e\x1b\n") {
			t.Errorf("the terminal would obey %q", e.Text(allowCommand))
		}
		n += max(1, e.Count)
	}
	if n != 20 {
		t.Errorf("%d refusals are logged", n)
	}
}

// TestAttackSignFlood: one object is signed at a time, few requests are held, and beyond the rate they are refused. What
// was signed stays in the log, whatever was refused after that.
func TestAttackSignFlood(t *testing.T) {
	s := newSignLab(t, pushRule)
	var at, most atomic.Int32
	goOn := make(chan struct{})
	s.sign = func(ctx context.Context, _ []byte) ([]byte, error) {
		most.Store(max(most.Load(), at.Add(1)))
		defer at.Add(-1)
		select {
		case <-goOn:
			return []byte(testSignature), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	codes := make(chan int, 2*maxSigning)
	var wg sync.WaitGroup
	post := func(i int) {
		wg.Go(func() {
			r, err := s.client().Post("http://bawn.internal/sign", "", strings.NewReader(testCommit(by(testAda, time.Now()), fmt.Sprint(i))))
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Body.Close()
			_, _ = io.Copy(io.Discard, r.Body)
			codes <- r.StatusCode
		})
	}
	for i := range maxSigning {
		post(i)
	}
	awaitSigning(t, func() bool { return len(s.signing.places) == maxSigning && s.signed.Load() == 1 })
	for i := range maxSigning {
		post(maxSigning + i)
	}
	for range maxSigning { // those that had no place
		if code := <-codes; code != http.StatusTooManyRequests {
			t.Errorf("%d", code)
		}
	}
	close(goOn)
	wg.Wait()
	for range maxSigning {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("one that waited: %d", code)
		}
	}
	if most.Load() != 1 {
		t.Errorf("%d at once", most.Load())
	}
	s.signing.rate = rate.NewLimiter(0, 1)
	for i, want := range []int{http.StatusOK, http.StatusTooManyRequests, http.StatusTooManyRequests} {
		if code, text := s.postAnother(t, i); code != want {
			t.Errorf("%d: %d %s", i, code, text)
		}
	}
	for range 600 {
		s.post(t, "x")
	}
	s.Close()
	signed := map[string]bool{}
	for _, e := range readAll(t, s.path) {
		if e.Verdict == audit.Allowed && e.Object != "" {
			signed[e.Object] = true
		}
	}
	if len(signed) != maxSigning+1 {
		t.Errorf("the log has %d of %d", len(signed), maxSigning+1)
	}
}

// postAnother posts a commit of its own.
func (s *signLab) postAnother(t *testing.T, i int) (int, string) {
	t.Helper()
	return s.post(t, testCommit(by(testAda, time.Now()), fmt.Sprint("other ", i)))
}

func awaitSigning(t *testing.T, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited for a minute")
		}
	}
}

// TestASignerThatFails: the guest reads why, and for a moment the person is asked no more.
func TestASignerThatFails(t *testing.T) {
	s := newSignLab(t, pushRule)
	s.sign = func(context.Context, []byte) ([]byte, error) { return nil, errors.New("the user pressed cancel") }
	object := testCommit(by(testAda, time.Now()), "x")
	if code, text := s.post(t, object); code != http.StatusServiceUnavailable || !strings.Contains(text, "the user pressed cancel") {
		t.Errorf("%d %s", code, text)
	}
	for range 3 {
		if code, text := s.post(t, object); code != http.StatusServiceUnavailable || !strings.Contains(text, "the user pressed cancel (the last try") {
			t.Errorf("%d %s", code, text)
		}
	}
	if n := s.signed.Load(); n != 1 {
		t.Errorf("the user was asked %d times", n)
	}
	s.signing.failed = signFailure{}
	s.sign = func(context.Context, []byte) ([]byte, error) { return []byte(testSignature), nil }
	if code, text := s.post(t, object); code != http.StatusOK {
		t.Errorf("after that: %d %s", code, text)
	}
}

// TestASignatureTakesItsTime: a person at a PIN takes longer than the page's limits are; one who has left the guest's side
// is not asked any longer.
func TestASignatureTakesItsTime(t *testing.T) {
	s := newSignLab(t, pushRule)
	s.infoTime = 100 * time.Millisecond
	began := make(chan struct{})
	s.sign = func(ctx context.Context, _ []byte) ([]byte, error) {
		close(began)
		// A connection on which nothing comes is closed when the limit is over.
		c, err := s.dialName("bawn.internal", 80)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		_, _ = io.Copy(io.Discard, c)
		return []byte(testSignature), ctx.Err()
	}
	if code, text := s.post(t, testCommit(by(testAda, time.Now()), "x")); code != http.StatusOK || text != testSignature {
		t.Errorf("%d %s", code, text)
	}

	began = make(chan struct{})
	ended := make(chan error, 1)
	s.sign = func(ctx context.Context, _ []byte) ([]byte, error) {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "http://bawn.internal/sign", bytes.NewReader([]byte(testCommit(by(testAda, time.Now()), "y"))))
	r.RequestURI = ""
	go func() {
		if a, err := s.client().Do(r); err == nil {
			a.Body.Close()
		}
	}()
	<-began
	cancel()
	if err := <-ended; err == nil {
		t.Error("it goes on")
	}
	awaitSigning(t, func() bool { return len(s.signing.places) == 0 })
	if s.signing.failure() != nil {
		t.Error("that counts as a failure of the program")
	}
}

// TestSignNames: git takes some characters off a name, and others out of it.
func TestSignNames(t *testing.T) {
	for _, c := range []struct {
		got, setting string
		want         bool
	}{
		{"Ada", "Ada", true}, {"Ada Jr", "Ada Jr.", true}, {"Ada Jr.", "Ada Jr.", true}, {"Ada x L", `"Ada <x> L;"`, true}, {"Zoë O'Hara", "Zoë O'Hara", true},
		{"", "", false}, {"", "...", false}, {"Ada", "Eve", false}, {"ada", "Ada", false}, {"Ada", "Ada B", false}, {"Ada ", "Ada", false},
	} {
		if isIdentity(c.got, c.setting) != c.want {
			t.Errorf("%q of %q", c.got, c.setting)
		}
	}
}
