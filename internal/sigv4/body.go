package sigv4

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

const (
	// maxChunk bounds a chunk that is signed, in bytes: its signature stands before it, so it is held.
	maxChunk = 1 << 20
	// maxTail bounds what is behind the last chunk, in bytes.
	maxTail = 8 << 10
	// maxChunkHead bounds the line before a chunk, in bytes.
	maxChunkHead = 256
)

// ErrFormat means that a body is not in the format aws-chunked.
var ErrFormat = errors.New("the request's body is not in the format aws-chunked")

// chunkHead matches the line before a chunk.
var chunkHead = regexp.MustCompile(`^([0-9a-fA-F]{1,12})(;chunk-signature=[0-9a-f]{64})?\r\n$`)

// trailerLine matches a line behind the last chunk: a checksum, which is all that servers take there.
var trailerLine = regexp.MustCompile(`^[Xx]-[Aa]mz-[Cc]hecksum-[A-Za-z0-9]{1,32}: ?[A-Za-z0-9+/=-]{0,128}$`)

// signatureName stands before the signature of a chunk.
const signatureName = ";chunk-signature="

// trailerSignature is the line with the signature of those before it.
const trailerSignature = "x-amz-trailer-signature:"

// emptyHash is the hash of nothing.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Body is a body in the format aws-chunked, as long as what it reads, with its signatures made anew. It is
// used by one goroutine.
type Body struct {
	src    *bufio.Reader
	look   Look
	claim  *Claim
	chain  *Chain // nil until Start
	signs  bool   // the chunks are signed
	length int64  // of the present chunk, what is to come
	ending bool   // the last chunk has come
	buf    []byte // a chunk that is signed, with its ends
	out    []byte // is read next
	err    error  // behind out
}

// Look are called with what a body carries, before it is returned, and before memory is taken. Their errors
// end the body.
type Look struct {
	Hold    func(n int64) error              // n more bytes are held until the body ends
	Content func(p []byte, final bool) error // of the chunks; final: no more comes
	Tail    func(text string) error          // what is behind the last chunk
}

// NewBody returns a reader of src, the body of a request with that claim.
func (c *Claim) NewBody(src io.Reader, look Look) *Body {
	return &Body{src: bufio.NewReader(src), look: look, claim: c, signs: c.Payload != unsignedTrailer}
}

// Start tells how the signatures of the chunks begin. It is called before the first Read.
func (b *Body) Start(c *Chain) { b.chain = c }

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	for len(b.out) == 0 && b.err == nil && (b.length == 0 || b.signs) {
		b.err = b.advance()
	}
	switch {
	case len(p) == 0:
		return 0, nil
	case len(b.out) > 0:
		n := copy(p, b.out)
		b.out = b.out[n:]
		return n, nil
	case b.err != nil:
		return 0, b.err
	}
	return b.pass(p)
}

// pass passes a part of a chunk that is not signed.
func (b *Body) pass(p []byte) (int, error) {
	n, err := b.src.Read(p[:min(int64(len(p)), b.length)])
	b.length -= int64(n)
	if err = early(err); err == nil {
		err = b.look.Content(p[:n], false)
	}
	if err == nil && b.length == 0 {
		err = b.lineEnd()
		b.out = append(b.out[:0], "\r\n"...)
	}
	if err != nil {
		b.out, b.err = nil, err
		return 0, err
	}
	return n, nil
}

// lineEnd reads the end of a chunk.
func (b *Body) lineEnd() error {
	var end [2]byte
	if _, err := io.ReadFull(b.src, end[:]); err != nil {
		return early(err)
	}
	if string(end[:]) != "\r\n" {
		return fmt.Errorf("%w: a chunk is longer than it says", ErrFormat)
	}
	return nil
}

// early makes an end that comes too early an error.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// advance reads the head of the next chunk, and if it is signed the chunk, or what is behind the last one.
func (b *Body) advance() error {
	if b.ending {
		return b.tail()
	}
	line, err := b.src.ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return early(err)
	}
	m := chunkHead.FindSubmatch(line[:min(len(line), maxChunkHead)])
	if m == nil || (len(m[2]) > 0) != b.signs {
		return fmt.Errorf("%w that %s says: a chunk begins with %.100q", ErrFormat, payloadName, line)
	}
	n, err := strconv.ParseInt(string(m[1]), 16, 64)
	if err != nil {
		return err
	}
	b.ending = n == 0
	if b.signs {
		return b.signChunk(string(m[1]), n)
	}
	b.out, b.length = append(b.out[:0], line...), n
	return nil
}

// signChunk reads a chunk and signs it.
func (b *Body) signChunk(size string, n int64) error {
	if n > maxChunk {
		return fmt.Errorf("a signed chunk of the body has %d bytes, more than %d: set a smaller chunk size in the client, or have it send %s: %s", n, maxChunk, payloadName, unsigned)
	}
	head := len(size) + len(signatureName) + 2*sha256.Size + len("\r\n")
	if err := b.room(int64(head) + n + int64(len("\r\n"))); err != nil {
		return err
	}
	data := b.buf[head : head+int(n)]
	if _, err := io.ReadFull(b.src, data); err != nil {
		return early(err)
	}
	if err := b.look.Content(data, false); err != nil {
		return err
	}
	_ = fmt.Appendf(b.buf[:0], "%s%s%s\r\n", size, signatureName, b.chain.next(algorithm+"-PAYLOAD", emptyHash, Hash(data)))
	if n == 0 {
		b.out = b.buf[:head] // its end belongs to the tail
		return nil
	}
	if err := b.lineEnd(); err != nil { // what was not read does not pass
		return err
	}
	chunk := b.buf[:head+int(n)]
	chunk = append(chunk, "\r\n"...)
	b.out = chunk
	return nil
}

// room makes buf as long as n bytes. It grows by half at least: a body of chunks that grow asks for memory a
// few times only.
func (b *Body) room(n int64) error {
	have := int64(cap(b.buf))
	if n > have {
		size := min(max(n, have+have/2), maxChunk+maxChunkHead)
		if err := b.look.Hold(size - have); err != nil {
			return err
		}
		b.buf = make([]byte, size)
	}
	b.buf = b.buf[:n]
	return nil
}

// tail reads what is behind the line of the last chunk: an empty line, or lines with checksums and their
// signature. It returns io.EOF behind it.
func (b *Body) tail() error {
	text, err := io.ReadAll(io.LimitReader(b.src, maxTail+1))
	if err != nil {
		return err
	}
	if len(text) > maxTail {
		return fmt.Errorf("%w: more than %d bytes follow the last chunk", ErrFormat, maxTail)
	}
	if err := b.look.Content(nil, true); err != nil {
		return err
	}
	if err := b.look.Tail(string(text)); err != nil {
		return err
	}
	if b.out, err = b.trailers(string(text)); err != nil {
		b.out = nil
		return err
	}
	return io.EOF
}

// trailers checks the lines behind the last chunk, and signs them. Clients end them with one line feed or
// with CR and LF, and the ends stay.
func (b *Body) trailers(text string) ([]byte, error) {
	var out, canonical strings.Builder
	for line := range strings.Lines(text) {
		content := strings.TrimRight(line, "\r\n")
		switch {
		case content == "":
		case b.claim.Payload == signedTrailer && len(content) == len(trailerSignature)+2*32 && strings.EqualFold(content[:len(trailerSignature)], trailerSignature):
			content = content[:len(trailerSignature)] + b.chain.next(algorithm+"-TRAILER", Hash([]byte(canonical.String())))
		case b.claim.Payload != signedChunks && trailerLine.MatchString(content):
			canonical.WriteString(canonicalLine(content))
		default:
			return nil, fmt.Errorf("%w: behind the last chunk there is %.100q", ErrFormat, content)
		}
		out.WriteString(content + line[len(strings.TrimRight(line, "\r\n")):])
	}
	return []byte(out.String()), nil
}

// canonicalLine is a line as it is signed.
func canonicalLine(line string) string {
	name, value, _ := strings.Cut(line, ":")
	return strings.ToLower(name) + ":" + strings.TrimSpace(value) + "\n"
}
