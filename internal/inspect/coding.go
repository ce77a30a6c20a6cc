package inspect

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// maxWindow bounds the memory of a zstd decoder, in bytes. RFC 9659 bounds the window in HTTP
	// to 8 MiB.
	maxWindow = 8 << 20
	// maxWindows bounds the zstd decoders of a sandbox: some 2 KB of a body make one take its whole window.
	maxWindows = 32
)

// windows has a place for each zstd decoder of a sandbox. Safe for concurrent use.
type windows chan struct{}

// errWindows means that there is no place for another zstd decoder.
var errWindows = fmt.Errorf("more than %d bodies in zstd are under way: try again, or use gzip", maxWindows)

// take takes a place. give gives it back, and may be called again; it is nil if there is no place.
func (w windows) take() (give func()) {
	select {
	case w <- struct{}{}:
		return sync.OnceFunc(func() { <-w })
	default:
		return nil
	}
}

// reserved returns the place that an exchange has for its answer, which may be nil, or takes one.
func (w windows) reserved(x *exchange) (give func()) {
	if x == nil || x.window == nil {
		return w.take()
	}
	give, x.window = x.window, nil
	return give
}

// withPlace is a zstd decoder, whose end gives its place back.
type withPlace struct {
	io.ReadCloser
	give func()
}

// Close implements io.Closer.
func (p *withPlace) Close() error {
	defer p.give()
	return p.ReadCloser.Close()
}

// codings are the content codings that bawn reads, in the order of preference.
var codings = []string{"gzip", zstdCoding, "deflate"}

const zstdCoding = "zstd"

// decoder returns a reader of what a content coding encodes. The coding is in lower case;
// identity and none are the reader itself. take gives a place for a zstd decoder, as windows.take does. The caller
// closes the reader.
func decoder(coding string, r io.Reader, take func() (give func())) (io.ReadCloser, error) {
	switch coding {
	case "", "identity":
		return io.NopCloser(r), nil
	case "gzip", "x-gzip":
		return &lazy{open: func() (io.ReadCloser, error) { return gzip.NewReader(r) }}, nil
	case "deflate":
		return &lazy{open: func() (io.ReadCloser, error) { return inflate(r) }}, nil
	case zstdCoding:
		give := take()
		if give == nil {
			return nil, errWindows
		}
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			give()
			return nil, err
		}
		return &withPlace{z.IOReadCloser(), give}, nil
	}
	return nil, fmt.Errorf("the content coding %.40q is not one that bawn reads", coding)
}

// inflate reads zlib, or deflate without its header, which some servers send (RFC 9110,
// 8.4.1.2).
func inflate(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReader(r)
	head, err := b.Peek(2)
	if err == nil && head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		if both, err := b.Peek(5); err == nil && both[1]^both[3] == 0xff && both[2]^both[4] == 0xff {
			return nil, errTwoWays
		}
		z, err := zlib.NewReader(b)
		return &whole{z, b}, err
	}
	return &whole{flate.NewReader(b), b}, nil
}

// errTwoWays means that bytes are both: without the head of zlib, what stands there begins a stored block (its low bits are
// 0), whose length is followed by its complement (RFC 1951, 3.2.4).
var errTwoWays = errors.New("it is deflate both with the head of zlib and without")

// errBehind means that bytes follow the end of what was encoded.
var errBehind = errors.New("there are bytes behind its end")

// whole is a decoder whose end must be that of the stream b.
type whole struct {
	io.ReadCloser
	b *bufio.Reader
}

func (w *whole) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		if _, more := w.b.Peek(1); more == nil {
			err = errBehind
		}
	}
	return n, err
}

// lazy opens a reader at its first use: a decoder may wait for the stream's first bytes.
type lazy struct {
	open func() (io.ReadCloser, error)
	r    io.ReadCloser
	err  error
}

func (l *lazy) Read(p []byte) (int, error) {
	if l.r == nil && l.err == nil {
		r, err := l.open()
		if l.err = err; err == nil { // else r may be a nil pointer in an interface
			l.r = r
		}
	}
	if l.err != nil {
		return 0, l.err
	}
	return l.r.Read(p)
}

func (l *lazy) Close() error {
	if l.r != nil {
		return l.r.Close()
	}
	return nil
}

// codingOf returns the one content coding of a header's values; several at once are an error.
func codingOf(values []string) (string, error) {
	var found string
	for _, v := range values {
		for c := range strings.SplitSeq(v, ",") {
			switch c = strings.ToLower(strings.TrimSpace(c)); {
			case c == "" || c == "identity":
			case found != "":
				return "", fmt.Errorf("several content codings (%.40q)", v)
			default:
				found = c
			}
		}
	}
	return found, nil
}

// withoutChunks returns a header's values without aws-chunked, which is no coding of the content but a format
// in which it is sent.
func withoutChunks(values []string) (rest []string) {
	for _, v := range values {
		for c := range strings.SplitSeq(v, ",") {
			if !strings.EqualFold(strings.TrimSpace(c), "aws-chunked") {
				rest = append(rest, c)
			}
		}
	}
	return rest
}

// acceptable returns the part of an Accept-Encoding header that has only these codings and identity.
func acceptable(values, codings []string) string {
	var keep []string
	for _, v := range values {
		for c := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(c, ";")
			if name = strings.ToLower(strings.TrimSpace(name)); name == "identity" || slices.Contains(codings, name) {
				keep = append(keep, strings.TrimSpace(c))
			}
		}
	}
	if len(keep) == 0 {
		return "identity"
	}
	return strings.Join(keep, ", ")
}
