package gitwire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

var (
	zero = strings.Repeat("0", 40)
	one  = strings.Repeat("1", 40)
	two  = strings.Repeat("2", 40)
)

// pkt returns a text as a pkt-line.
func pkt(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }

const caps = "\x00 report-status-v2 side-band-64k object-format=sha1 agent=git/2.39.5"

func read(text string) (*Push, error) {
	return Read(bufio.NewReader(strings.NewReader(text)))
}

func TestReadPush(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an update", pkt(one+" "+two+" refs/heads/main"+caps) + "0000PACK...", "refs/heads/main"},
		{"a line that ends in a newline", pkt(one+" "+two+" refs/heads/main"+caps+"\n") + pkt(one+" "+two+" refs/heads/b\n") + "0000PACK...", "refs/heads/main refs/heads/b"},
		{"a creation and a deletion", pkt(zero+" "+two+" refs/heads/a"+caps) + pkt(one+" "+zero+" refs/heads/b") + "0000PACK...", "+refs/heads/a -refs/heads/b"},
		{"a deletion, which needs no pack", pkt(one+" "+zero+" refs/heads/a"+caps) + "0000", "-refs/heads/a"},
		{"from a shallow clone", pkt("shallow "+one) + pkt(one+" "+two+" refs/heads/a"+caps) + "0000PACK", "refs/heads/a"},
		{"SHA-256", pkt(strings.Repeat("1", 64)+" "+strings.Repeat("2", 64)+" refs/heads/a"+caps) + "0000PACK", "refs/heads/a"},
		{"a question whether it may push", "0000", ""},
	} {
		r := bufio.NewReader(strings.NewReader(c.text))
		p, err := Read(r)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got []string
		for _, ch := range p.Changes {
			sign := ""
			if ch.Created() {
				sign = "+"
			}
			if ch.Deleted() {
				sign = "-"
			}
			got = append(got, sign+ch.Ref)
		}
		rest, _ := io.ReadAll(r)
		if strings.Join(got, " ") != c.want || string(p.Head())+string(rest) != c.text {
			t.Errorf("%s: %q, and %q is sent on", c.name, got, string(p.Head())+string(rest))
		}
	}
}

// TestPushesThatAreRefused: what git's own client does not send, and what servers read in
// different ways.
func TestPushesThatAreRefused(t *testing.T) {
	first := pkt(one + " " + two + " refs/heads/a" + caps)
	for _, c := range []struct{ name, text, why string }{
		{"nothing", "", "ends before"},
		{"no flush", first, "ends before"},
		{"half a line", first[:20], "ends before"},
		{"a line longer than the rest", "00ff" + one, "ends before"},
		{"a length that is no number", "zz00" + first, "length"},
		{"a signed length", "+004" + first, "length"},
		{"a length below that of a length", "0003", "length"},
		{"a delimiter", first + "0001" + "0000PACK", "length"},
		{"an empty line", first + "0004" + "0000PACK", "length"},
		{"a line longer than git's", "fff5", "length"},
		{"a certificate", pkt("push-cert"+caps) + pkt("certificate version 0.1\n") + "0000", "signed"},
		{"a certificate behind a change", first + pkt("push-cert\n") + "0000PACK", "signed"},
		{"options", pkt(one+" "+two+" refs/heads/a"+caps+" push-options") + "0000" + pkt("merge_request.create") + "0000PACK", "options"},
		{"options in the name of a ref", pkt(one+" "+two+" refs/for/main%submit"+caps) + "0000PACK", "options"},
		{"options in the name of a later ref", first + pkt(zero+" "+two+" refs/drafts/main%l=Code-Review+2") + "0000PACK", "options"},
		{"an unknown capability", pkt(one+" "+two+" refs/heads/a"+caps+" proxy=x") + "0000PACK", "not known"},
		{"options behind a NUL", pkt(one+" "+two+" refs/heads/a"+caps+" agent=x\x00push-options") + "0000PACK", "control character"},
		{"options behind a tab", pkt(one+" "+two+" refs/heads/a"+caps+" agent=x\tpush-options") + "0000PACK", "control character"},
		{"capabilities behind a later line", first + pkt(one+" "+two+" refs/heads/b\x00push-options") + "0000PACK", "later line"},
		{"capabilities behind a shallow line", pkt("shallow "+one+"\x00push-options") + first + "0000PACK", "no change"},
		{"a shallow line among the changes", first + pkt("shallow "+one) + "0000PACK", "no change"},
		{"a ref twice", first + pkt(one+" "+zero+" refs/heads/a") + "0000PACK", "twice"},
		{"no ref", pkt(one+" "+two+caps) + "0000PACK", "name of a ref"},
		{"a ref with a space", pkt(one+" "+two+" refs/heads/a b"+caps) + "0000PACK", "name of a ref"},
		{"a ref with a line break before the capabilities", pkt(one+" "+two+" refs/heads/a\n"+caps) + "0000PACK", "name of a ref"},
		{"commits of two kinds", pkt(one+" "+strings.Repeat("2", 64)+" refs/heads/a"+caps) + "0000PACK", "no change"},
		{"a commit in capitals", pkt(strings.Repeat("A", 40)+" "+two+" refs/heads/a"+caps) + "0000PACK", "no change"},
		{"from nothing to nothing", pkt(zero+" "+zero+" refs/heads/a"+caps) + "0000PACK", "does not exist"},
		{"a second list behind the flush", first + "0000" + pkt(one+" "+two+" refs/heads/main") + "0000PACK", "no pack"},
		{"a list behind the question", "0000" + first + "0000PACK", "no pack"},
		{"a pack behind the question", "0000PACK", "no pack"},
		{"bytes behind a deletion", pkt(one+" "+zero+" refs/heads/a"+caps) + "0000" + "0", "no pack"},
		{"no pack", first + "0000", "no objects"},
		{"too many refs", first + strings.Repeat(pkt(one+" "+two+" refs/heads/"+strings.Repeat("x", 1000)), 300), "twice"},
	} {
		if _, err := read(c.text); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	var many strings.Builder
	many.WriteString(first)
	for i := range 4000 {
		many.WriteString(pkt(fmt.Sprintf("%s %s refs/heads/%d", one, two, i)))
	}
	if p, err := read(many.String() + "0000PACK"); err == nil || !strings.Contains(err.Error(), "too many refs") || len(p.Head()) > MaxHead {
		t.Errorf("too many refs: %v", err)
	}
}

// TestHeadIsBounded to the byte, with the flush.
func TestHeadIsBounded(t *testing.T) {
	for size, fits := range map[int]bool{MaxHead - lengthDigits: true, MaxHead - lengthDigits + 1: false, MaxHead: false} {
		text := pkt(one + " " + two + " refs/heads/a" + caps)
		for i := 0; len(text) < size; i++ {
			n := size - len(text)
			if n > 2000 {
				n = 1000
			}
			line := fmt.Sprintf("%s %s refs/heads/%d-", one, two, i)
			text += pkt(line + strings.Repeat("x", n-lengthDigits-len(line)))
		}
		p, err := read(text + "0000PACK")
		if (err == nil) != fits || len(p.Head()) > MaxHead || err != nil && !strings.Contains(err.Error(), "too many refs") {
			t.Errorf("%d bytes: %d were read, %v", size, len(p.Head()), err)
		}
	}
}

// TestAnswerOfARefusedPush is one that git reads: the message on its stream, and the report on its
// own. What the client takes decides.
func TestAnswerOfARefusedPush(t *testing.T) {
	why := func(Change) string { return "no\nrule" }
	for _, c := range []struct {
		caps   string
		unpack error
		want   string
	}{
		{"\x00report-status side-band-64k", nil, pkt("\x02one\n") + pkt("\x02two") + pkt("\x01"+pkt("unpack ok\n")+pkt("ng refs/heads/a no rule\n")+"0000") + "0000"},
		{"\x00report-status", nil, pkt("unpack ok\n") + pkt("ng refs/heads/a no rule\n") + "0000"},
		{"\x00report-status-v2", errors.New("bad\x1b"), pkt("unpack bad \n") + pkt("ng refs/heads/a no rule\n") + "0000"},
		{"\x00side-band-64k", nil, ""},
		{"", nil, ""},
	} {
		p, err := read(pkt(one+" "+zero+" refs/heads/a"+c.caps) + "0000")
		if err != nil {
			t.Fatal(err)
		}
		if got := string(p.Refused("one\ntwo", c.unpack, why)); got != c.want {
			t.Errorf("%q: %q, want %q", c.caps, got, c.want)
		}
	}
}

// FuzzPush: what is read is a prefix of the input that reads as the same again, whatever the sizes
// of the reads, and the answer is made of whole lines.
func FuzzPush(f *testing.F) {
	f.Add([]byte(pkt(one+" "+two+" refs/heads/main"+caps)+"0000PACK"), 3)
	f.Add([]byte(pkt("shallow "+one)+pkt(one+" "+zero+" refs/heads/main"+caps)+"0000"), 1)
	f.Add([]byte(pkt("push-cert"+caps)+"0000"), 7)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		p, err := read(string(b))
		if !bytes.HasPrefix(b, p.Head()) || len(p.Head()) > MaxHead {
			t.Fatalf("%q was read", p.Head())
		}
		if step < 1 {
			step = 1
		}
		again, aerr := Read(bufio.NewReaderSize(&slowReader{b, step}, 16))
		if fmt.Sprint(err, p.Changes, p.caps) != fmt.Sprint(aerr, again.Changes, again.caps) {
			t.Fatalf("%v %v, and in steps of %d: %v %v", p.Changes, err, step, again.Changes, aerr)
		}
		for _, c := range p.Changes {
			if strings.ContainsAny(c.Ref, "\x00\n ") || !bytes.Contains(b, []byte(c.New+" "+c.Ref)) {
				t.Fatalf("the ref %q", c.Ref)
			}
		}
		answer := p.Refused("message", err, func(Change) string { return "why" })
		for len(answer) > 0 {
			n, ok := parseLength(answer[:4])
			if n = max(n, 4); !ok || n > len(answer) {
				t.Fatalf("the answer ends in %q", answer)
			}
			answer = answer[n:]
		}
	})
}

// slowReader returns at most n bytes at once.
type slowReader struct {
	b []byte
	n int
}

func (r *slowReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.n)], r.b)
	r.b = r.b[n:]
	return n, nil
}
