package httpwire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http/httputil"
	"strings"
	"testing"
)

func chunked(strict bool, in []byte) (out []byte, rest int, err error) {
	r := bufio.NewReader(bytes.NewReader(in))
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	err = CopyChunked(w, r, strict)
	w.Flush()
	left, _ := io.ReadAll(r)
	return b.Bytes(), len(left), err
}

func TestChunked(t *testing.T) {
	out, rest, err := chunked(true, []byte("5;x=y\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nNEXT"))
	if err != nil || rest != 4 || string(out) != "5\r\nhello\r\na\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n" {
		t.Fatalf("%q %d %v", out, rest, err)
	}
	for _, in := range []string{
		"5\nhello\r\n0\r\n\r\n", "5\r\nhelloX\r\n0\r\n\r\n", "-5\r\n", "0x5\r\nhello\r\n", "+5\r\n", "\r\n", " 5\r\nhello\r\n", "5\rX\r\nhello",
		"fffffffffffffffff\r\n", "80000000\r\n", "100000005\r\nhello\r\n0\r\n\r\n", "5;\x00\r\nhello\r\n", "0\r\nHost: evil\r\n\r\n", "0\r\nContent-Length: 1\r\n\r\n", "0\r\nTransfer_Encoding: x\r\n\r\n", "0\r\n folded\r\n\r\n", "0\r\nX: y\n\r\n",
		"5;" + strings.Repeat("x", maxChunkLine) + "\r\n", "0\r\n" + strings.Repeat("A: b\r\n", maxTrailer) + "\r\n",
	} {
		var he *Error
		if _, _, err := chunked(true, []byte(in)); !errors.As(err, &he) {
			t.Errorf("%.40q: %v", in, err)
		}
	}
	if _, _, err := chunked(true, []byte("5\r\nhel")); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// FuzzChunked: what passes ends where net/http would end it.
func FuzzChunked(f *testing.F) {
	f.Add([]byte("5;x=y\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nNEXT"))
	f.Add([]byte("5\nhello\n0\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _, _ = chunked(false, in)
		out, _, err := chunked(true, in)
		if err != nil {
			return
		}
		r := bufio.NewReader(bytes.NewReader(append(out, "NEXT"...)))
		if _, err := io.Copy(io.Discard, httputil.NewChunkedReader(r)); err != nil {
			t.Fatalf("net/http refuses %q: %v", out, err)
		}
		left, _ := io.ReadAll(r) // the trailer and what follows
		if !bytes.HasSuffix(left, []byte("\r\nNEXT")) || bytes.Count(out, []byte("\r\n\r\n")) == 0 {
			t.Fatalf("another end: %q", left)
		}
	})
}
