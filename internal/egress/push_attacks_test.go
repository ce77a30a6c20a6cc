package egress

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"bawn.dev/bawn/internal/egress/gitwire"
	"bawn.dev/bawn/internal/secret"
)

const pushURL = "https://example.com/own/app.git/git-receive-pack"

// pushBody returns the body of a push that sets these refs; -REF deletes one.
func pushBody(refs ...string) string {
	var b strings.Builder
	caps, pack := "\x00report-status side-band-64k", ""
	for _, ref := range refs {
		next := strings.Repeat("2", 40)
		ref, deleted := strings.CutPrefix(ref, "-")
		if deleted {
			next = strings.Repeat("0", 40)
		} else {
			pack = "PACK and so on"
		}
		line := strings.Repeat("1", 40) + " " + next + " " + ref + caps
		fmt.Fprintf(&b, "%04x%s", len(line)+4, line)
		caps = ""
	}
	return b.String() + "0000" + pack
}

func gzipped(texts ...string) string {
	var b bytes.Buffer
	for _, text := range texts {
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, text)
		_ = z.Close()
	}
	return b.String()
}

// pushServer keeps the bodies and the codings that it gets.
type pushServer struct {
	*counter
	mu  sync.Mutex
	got []string
}

func newPushLab(t *testing.T, rules ...string) (*lab, *pushServer, *http.Client) {
	s := &pushServer{}
	s.counter = newCounter(t, true, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.got = append(s.got, r.Header.Get("Content-Encoding")+string(b))
	})
	l, authority := newInspectedLab(t, &secrets{list: []secret.Bound{}}, s.counter, nil)
	l.SetPolicy(rulesFrom(t, rules...))
	l.serve("example.com", "203.0.113.7:443", s.addr())
	return l, s, l.trusting(authority)
}

func (s *pushServer) bodies() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// pushRequest is a push by HTTP; header has more fields and their values.
func pushRequest(t *testing.T, body io.Reader, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", pushURL, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", gitwire.RequestType)
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
		if header[i] == "Content-Type" {
			r.Header[header[i]] = strings.Split(header[i+1], "|")
		}
	}
	return r
}

const onlyFeatures = "allow git:example.com/own/app:push=feature/*"

// TestAttackPushBodies: bodies by which a server and bawn could read different lists of refs. In each
// way nothing of the request reaches the server, over HTTP/1.1 and HTTP/2.
func TestAttackPushBodies(t *testing.T) {
	good, bad := pushBody("refs/heads/feature/a"), pushBody("refs/heads/main")
	var deflated bytes.Buffer
	z := zlib.NewWriter(&deflated)
	_, _ = io.WriteString(z, good)
	_ = z.Close()
	for _, http1 := range []bool{false, true} {
		_, server, client := newPushLab(t, onlyFeatures)
		client.Transport.(*http.Transport).ForceAttemptHTTP2 = !http1
		for name, r := range map[string]*http.Request{
			"another ref":                        pushRequest(t, strings.NewReader(bad)),
			"another ref, byte by byte":          pushRequest(t, iotest.OneByteReader(strings.NewReader(bad))),
			"another ref behind one that may":    pushRequest(t, strings.NewReader(pushBody("refs/heads/feature/a", "refs/heads/main"))),
			"a deletion":                         pushRequest(t, strings.NewReader(pushBody("-refs/heads/feature/a"))),
			"gzip":                               pushRequest(t, strings.NewReader(gzipped(bad)), "Content-Encoding", "gzip"),
			"gzip in another spelling":           pushRequest(t, strings.NewReader(gzipped(bad)), "Content-Encoding", "X-GZip"),
			"gzip that is none":                  pushRequest(t, strings.NewReader(good), "Content-Encoding", "gzip"),
			"gzip without a header that says so": pushRequest(t, strings.NewReader(gzipped(good))),
			"gzip twice":                         pushRequest(t, strings.NewReader(gzipped(gzipped(good))), "Content-Encoding", "gzip, gzip"),
			"gzip twice, in two headers":         pushRequest(t, strings.NewReader(gzipped(gzipped(good))), "Content-Encoding", "gzip", "Content-Encoding", "gzip"),
			"gzip in two members":                pushRequest(t, strings.NewReader(gzipped(good[:20], bad)), "Content-Encoding", "gzip"),
			"deflate":                            pushRequest(t, &deflated, "Content-Encoding", "deflate"),
			"a coding that is not known":         pushRequest(t, strings.NewReader(good), "Content-Encoding", "br"),
			"a bomb":                             pushRequest(t, strings.NewReader(gzipped(strings.Repeat("0100"+strings.Repeat("x", 252), 1<<14))), "Content-Encoding", "gzip"),
			"no body":                            pushRequest(t, nil),
			"half a list":                        pushRequest(t, strings.NewReader(good[:30])),
			"another list behind the first":      pushRequest(t, strings.NewReader(strings.TrimSuffix(good, "PACK and so on")+bad)),
			"a list behind a question":           pushRequest(t, strings.NewReader("0000"+bad)),
			"another type":                       pushRequest(t, strings.NewReader(good), "Content-Type", "application/x-git-upload-pack-request"),
			"two types":                          pushRequest(t, strings.NewReader(good), "Content-Type", gitwire.RequestType+"|application/x-git-upload-pack-request"),
			"after 100-continue":                 pushRequest(t, strings.NewReader(bad), "Expect", "100-continue"),
			"as another method":                  pushRequest(t, strings.NewReader(good), "X-Http-Method-Override", "DELETE"),
		} {
			res, err := client.Do(r)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			status, page := answered(t, res)
			refused := status >= 400 || strings.Contains(page, "ng refs/heads/")
			if !refused || res.Header.Get("X-Bawn") != "denied" || len(server.bodies()) > 0 {
				t.Errorf("HTTP/1.1: %v, %s: %d %q; the server got %q", http1, name, status, page, server.bodies())
			}
		}
	}
}

// TestAttackPushesOfTwoMethods: the rules about refs that judge a request of one method are not those of
// the other, so a push that a server may take for either is refused.
func TestAttackPushesOfTwoMethods(t *testing.T) {
	_, server, client := newPushLab(t, "allow GET https://example.com/**", onlyFeatures, "deny git:example.com/own/app:push=main")
	for _, methods := range [][2]string{{"GET", "POST"}, {"POST", "GET"}} {
		for _, ref := range []string{"refs/heads/other", "refs/heads/feature/a"} {
			r := pushRequest(t, strings.NewReader(pushBody(ref)), "X-Http-Method-Override", methods[1])
			r.Method = methods[0]
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if status, page := answered(t, res); status != http.StatusForbidden || len(server.bodies()) > 0 {
				t.Errorf("%s of %s: %d %q; the server got %q", methods, ref, status, page, server.bodies())
			}
		}
	}
}

// TestAttackLongRefs: what is kept of a denial does not grow with the names that the guest chose.
func TestAttackLongRefs(t *testing.T) {
	l, server, client := newPushLab(t, onlyFeatures)
	long := "refs/heads/" + strings.Repeat("a", 60_000)
	res, err := client.Do(pushRequest(t, strings.NewReader(pushBody(long, long+"b"))))
	if err != nil {
		t.Fatal(err)
	}
	answered(t, res)
	if d := l.Denials(); len(d) != 1 || len(d[0].Reason) > 8*maxLogged || len(server.bodies()) > 0 {
		t.Errorf("%.2000v; the server got %.100q", d, server.bodies())
	}
}

// TestAttackManyPushes: the lists of refs of a bounded number of pushes are held, and each end of a push
// makes room.
func TestAttackManyPushes(t *testing.T) {
	l, server, client := newPushLab(t, onlyFeatures)
	good := pushBody("refs/heads/feature/a")
	ends := make(chan error, maxPushes)
	var bodies []*io.PipeWriter
	for range maxPushes {
		body, objects := io.Pipe()
		bodies = append(bodies, objects)
		r := pushRequest(t, body)
		go func() {
			res, err := client.Do(r)
			if err == nil {
				err = res.Body.Close()
			}
			ends <- err
		}()
		if _, err := io.WriteString(objects, good[:30]); err != nil { // and the rest does not come
			t.Fatal(err)
		}
	}
	waitFor(t, "the pushes", func() bool { return len(l.pushes) == maxPushes })
	push := func() (int, string) {
		res, err := client.Do(pushRequest(t, strings.NewReader(good)))
		if err != nil {
			t.Fatal(err)
		}
		return answered(t, res)
	}
	if status, page := push(); status != http.StatusForbidden || !strings.Contains(page, "pushes are under way") || len(server.bodies()) > 0 {
		t.Errorf("%d %q", status, page)
	}
	for _, b := range bodies {
		b.Close()
	}
	for range bodies {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	waitFor(t, "places", func() bool { return len(l.pushes) == 0 })
	if status, page := push(); status != http.StatusOK || len(server.bodies()) != 1 {
		t.Errorf("%d %q", status, page)
	}
}

// TestPushesAreSentOnAsTheyWereJudged: without their coding, and otherwise byte by byte.
func TestPushesAreSentOnAsTheyWereJudged(t *testing.T) {
	good := pushBody("refs/heads/feature/a", "refs/heads/feature/b")
	for _, http1 := range []bool{false, true} {
		l, server, client := newPushLab(t, onlyFeatures)
		client.Transport.(*http.Transport).ForceAttemptHTTP2 = !http1
		for _, r := range []*http.Request{
			pushRequest(t, strings.NewReader(good)),
			pushRequest(t, iotest.OneByteReader(strings.NewReader(good))),
			pushRequest(t, strings.NewReader(gzipped(good)), "Content-Encoding", "gzip"),
			pushRequest(t, strings.NewReader(good), "Expect", "100-continue"),
			pushRequest(t, strings.NewReader("0000")),
		} {
			if res, err := client.Do(r); err != nil || res.StatusCode != 200 {
				t.Fatalf("%v %v", res, err)
			} else {
				answered(t, res)
			}
		}
		if got := server.bodies(); !slices.Equal(got, []string{good, good, good, good, "0000"}) {
			t.Errorf("the server got %q", got)
		}
		if d := l.Denials(); len(d) > 0 {
			t.Errorf("%+v", d)
		}
	}
}

// TestAttackPipelinedPushes: a second request behind the body of the first is judged by itself.
func TestAttackPipelinedPushes(t *testing.T) {
	l, server, client := newPushLab(t, onlyFeatures)
	raw := tls.Client(l.mustDial("example.com", 443), &tls.Config{ServerName: "example.com", RootCAs: client.Transport.(*http.Transport).TLSClientConfig.RootCAs, NextProtos: []string{"http/1.1"}})
	var all strings.Builder
	for _, body := range []string{pushBody("refs/heads/feature/a"), pushBody("refs/heads/main"), pushBody("refs/heads/feature/b")} {
		fmt.Fprintf(&all, "POST /own/app.git/git-receive-pack HTTP/1.1\r\nHost: example.com\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", gitwire.RequestType, len(body), body)
	}
	if _, err := io.WriteString(raw, all.String()); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(raw)
	for i, denied := range []string{"", "denied", ""} {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, page := answered(t, res); res.Header.Get("X-Bawn") != denied {
			t.Errorf("answer %d: %q", i, page)
		}
	}
	if got := server.bodies(); len(got) != 2 || strings.Contains(strings.Join(got, ""), "main") {
		t.Errorf("the server got %q", got)
	}
}

// TestRulesCutPushes that they no longer allow, in the middle of the objects.
func TestRulesCutPushes(t *testing.T) {
	t.Run("other refs", func(t *testing.T) { rulesCutPush(t, onlyFeatures, "allow git:example.com/own/app:push=release/*") })
	t.Run("refs that are denied", func(t *testing.T) {
		rulesCutPush(t, onlyFeatures, onlyFeatures, "deny git:example.com/own/app:push=feature/a")
	})
	t.Run("refs, which were of no interest", func(t *testing.T) {
		rulesCutPush(t, "allow https://example.com/**", "allow https://example.com/**", "deny git:example.com/own/app:push=main")
	})
	t.Run("none", func(t *testing.T) { rulesCutPush(t, onlyFeatures, "allow git:example.com/own/app") })
}

// rulesCutPush begins a push under a rule, and changes the rules to others.
func rulesCutPush(t *testing.T, before string, after ...string) {
	l, server, client := newPushLab(t, before)
	body, objects := io.Pipe()
	passed := make(chan bool, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // the old behaviour: the push goes on
		defer cancel()
		res, err := client.Do(pushRequest(t, body).WithContext(ctx))
		if ctx.Err() != nil {
			passed <- true
			return
		}
		if err == nil {
			_ = res.Body.Close()
		}
		passed <- err == nil && res.StatusCode == http.StatusOK
	}()
	if _, err := io.WriteString(objects, pushBody("refs/heads/feature/a")); err != nil {
		t.Fatal(err)
	}
	for server.requests.Load() == 0 { // the head was sent on, so the list of refs was judged
		if _, err := objects.Write(make([]byte, 1024)); err != nil {
			t.Fatal(err)
		}
	}
	l.SetPolicy(rulesFrom(t, after...))
	if <-passed || len(server.bodies()) > 0 {
		t.Errorf("the push passed; the server got %d", len(server.bodies()))
	}
}

// TestAttackPushesInTheClear: a rule that allows the host opens port 80, too, where a rule denies pushes
// to one repository.
func TestAttackPushesInTheClear(t *testing.T) {
	server := newRequestServer(t, false)
	l := newLab(t, nil)
	l.SetPolicy(rulesFrom(t, "allow plain.test", "deny git:plain.test/own/app:push=main"))
	l.serve("plain.test", "203.0.113.8:80", server.addr())
	for path, denied := range map[string]bool{
		"/own/app.git/git-receive-pack": true, "/own/App/git-receive-pack": true, "/own/app/git-upload-pack": false, "/own/other/git-receive-pack": false,
	} {
		if status, page := do(t, l.client(), "POST", "http://plain.test"+path); (status == http.StatusForbidden) != denied {
			t.Errorf("%s: %d %s", path, status, page)
		}
	}
}
