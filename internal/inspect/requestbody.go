package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"bawn.dev/bawn/internal/secret"
)

// maxHeldBody bounds a body into which a secret is put, in bytes: its new length has to be
// known before its first byte is sent.
const maxHeldBody = 1 << 20

// body arranges that the request's body is judged as it passes, and puts secrets into it
// whose place it is.
func (j *judgement) body(r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	encodings := r.Header.Values("Content-Encoding")
	if j.chunked() {
		encodings = withoutChunks(encodings)
	}
	coding, err := codingOf(encodings)
	if err != nil {
		return forbidden("the request's body has %v, which are not looked into", err)
	}
	if coding != "" {
		d, err := newDecodedScan(coding, lookers{j.formLooker(r), j.placeholderLooker(r)}, j.s.i)
		switch {
		case errors.Is(err, errWindows):
			return unavailable("the request's body cannot be looked into: %v", err)
		case err != nil:
			return forbidden("the request's body cannot be looked into: %v", err)
		}
		context.AfterFunc(j.ctx, d.close) // also of a request that is refused before its body is read
		// Most servers take no notice of the coding of a request: as it is, the body must not be more than it decodes to.
		raw := lookers{j.formLooker(r), j.placeholderLooker(r)}
		look := func(p []byte, final bool) (*refusal, error) {
			if why := raw.look(p, final); why != nil {
				return why, nil
			}
			return d.feed(p, final)
		}
		if j.chunked() {
			j.chunkedBody(r, look, d.close)
			return nil
		}
		r.Body = &judgedBody{src: r.Body, refuse: j.refuseBody(r), look: look, end: d.close}
		return nil
	}
	if j.chunked() {
		j.chunkedBody(r, plain(lookers{j.formLooker(r), j.placeholderLooker(r)}.look), nil)
		return nil
	}
	if l := j.formLooker(r); l != nil { // before a secret is in it
		r.Body = &judgedBody{src: r.Body, refuse: j.refuseBody(r), look: plain(l)}
	}
	if err := j.substitute(r); err != nil {
		return err
	}
	r.Body = &judgedBody{src: r.Body, refuse: j.refuseBody(r), look: plain(j.placeholderLooker(r))}
	return nil
}

// looker looks into a stream: it takes the next bytes, and returns why they are not to pass.
type looker func(p []byte, final bool) *refusal

// plain is a looker for a stream without a coding.
func plain(l looker) func(p []byte, final bool) (*refusal, error) {
	return func(p []byte, final bool) (*refusal, error) { return l(p, final), nil }
}

// lookers are several, of which some may be nil.
type lookers []looker

func (l lookers) look(p []byte, final bool) *refusal {
	for _, one := range l {
		if one == nil {
			continue
		}
		if why := one(p, final); why != nil {
			return why
		}
	}
	return nil
}

// placeholderLooker returns one for the placeholders of the sandbox that may not be in the body.
// One that is for this host may be, as text: an agent that has printed its environment sends it in
// every later request of the conversation, and the server gets nothing by it. In a form it is
// refused, where it stands for a credential, and so is one whose place is the body.
func (j *judgement) placeholderLooker(r *http.Request) looker {
	refused := j.all
	if len(j.bound) > 0 && !isForm(formTypes(r)) {
		refused = needlesOf(slices.DeleteFunc(slices.Clone(j.list), func(b secret.Bound) bool {
			return b.IsFor(j.s.t.Name, j.s.t.Port) && b.Place.Where != secret.InBody
		}))
	}
	s := newScanner(refused)
	return func(p []byte, final bool) *refusal {
		if name := s.feed(p, final); name != "" {
			return j.misplaced(name, "the body")
		}
		return nil
	}
}

// formLooker returns one for other credentials in a form; nil if they may pass or the body is none.
func (j *judgement) formLooker(r *http.Request) looker {
	if j.other {
		return nil
	}
	l := newFormLooker(formTypes(r), func(name, value string) bool {
		return (isCredentialField(j.s.t.Name, name, value) || secret.HasIssued(value)) && carries(j.all, value) == ""
	})
	if l == nil {
		return nil
	}
	return func(p []byte, final bool) *refusal {
		if name := l.feed(p, final); name != "" {
			return j.foreign("the form field " + strconv.Quote(name))
		}
		return nil
	}
}

// refuseBody returns what keeps and logs the refusal of a body.
func (j *judgement) refuseBody(r *http.Request) func(*refusal) error {
	x := exchangeOf(r.Context())
	return func(why *refusal) error {
		if x.refused.CompareAndSwap(nil, why) {
			j.s.t.Refused(why.reason)
		}
		return why
	}
}

// judgedBody is a body that is looked into as it passes.
type judgedBody struct {
	src    io.ReadCloser
	look   func(p []byte, final bool) (*refusal, error)
	refuse func(*refusal) error
	end    func() // may be nil
	err    error
}

// Read implements io.Reader. A refusal is an error, and what was read with it is lost.
func (b *judgedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
		return 0, err // what came with the error is not judged
	}
	if no := b.judge(p[:n], err != nil); no != nil {
		return 0, no
	}
	b.err = err
	return n, err
}

// judge looks at the next bytes. A refusal is an error, which is kept.
func (b *judgedBody) judge(p []byte, final bool) error {
	switch why, err := b.look(p, final); {
	case why != nil:
		b.err = b.refuse(why)
	case err != nil:
		b.err = b.refuse(forbidden("the request's body cannot be decoded as its Content-Encoding says: %v", err))
	}
	return b.err
}

// Close implements io.Closer.
func (b *judgedBody) Close() error {
	if b.end != nil {
		b.end()
	}
	return b.src.Close()
}

// substitute puts the secrets in whose place is the body. A body that is too long, or of
// unknown length and no form or JSON, is left as it is: a placeholder in it is refused.
func (j *judgement) substitute(r *http.Request) error {
	var bound []*secret.Bound
	for i := range j.bound {
		if j.bound[i].Place.Where == secret.InBody {
			bound = append(bound, &j.bound[i])
		}
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	isJSON, isURLEncoded := kind == "application/json" || strings.HasSuffix(kind, "+json"), kind == urlencoded
	if len(bound) == 0 || r.ContentLength > maxHeldBody || r.ContentLength < 0 && !isJSON && !isURLEncoded {
		return nil
	}
	size := r.ContentLength
	if size < 0 {
		size = maxHeldBody
	}
	if why := j.hold(size); why != nil {
		return why
	}
	src := r.Body
	text, over, err := wholeBody(src, maxHeldBody)
	if err != nil {
		return err
	}
	if over {
		r.Body = joined{io.MultiReader(bytes.NewReader(text), src), src}
		return nil
	}
	for _, b := range bound {
		if !bytes.Contains(text, []byte(b.Placeholder)) {
			continue
		}
		v, err := j.value(b)
		if err != nil {
			return err
		}
		switch {
		case isJSON:
			quoted, err := json.Marshal(v)
			if err != nil {
				return unavailable("the secret %s cannot be written in JSON", b.Name)
			}
			v = string(quoted[1 : len(quoted)-1])
		case isURLEncoded:
			v = url.QueryEscape(v)
		}
		if text, err = j.replace(text, b, v); err != nil {
			return err
		}
	}
	r.Body, r.ContentLength = joined{bytes.NewReader(text), src}, int64(len(text))
	r.Header.Del("Content-Length")
	return nil
}

// replace puts a secret into a body, in each place of its placeholder. A value may be many times as long.
func (j *judgement) replace(text []byte, b *secret.Bound, v string) ([]byte, error) {
	more := bytes.Count(text, []byte(b.Placeholder)) * max(0, len(v)-len(b.Placeholder))
	if len(text)+more > 2*maxHeldBody {
		return nil, &refusal{status: http.StatusRequestEntityTooLarge, reason: fmt.Sprintf("the request's body has the placeholder of the secret %s too often", b.Name)}
	}
	if why := j.hold(int64(more)); why != nil {
		return nil, why
	}
	return bytes.ReplaceAll(text, []byte(b.Placeholder), []byte(v)), nil
}

// wholeBody reads the whole of a body that may have limit bytes. over: it has more, of which b is the beginning.
// Errors are *refusal.
func wholeBody(src io.Reader, limit int64) (b []byte, over bool, err error) {
	b, err = io.ReadAll(io.LimitReader(src, limit+1))
	var why *refusal
	switch {
	case errors.As(err, &why): // by what looks into the body, which has logged it
		return nil, false, &refusal{status: why.status, reason: why.reason, logged: true}
	case err != nil:
		return nil, false, &refusal{status: http.StatusBadRequest, reason: "the request's body ended early"}
	}
	return b, int64(len(b)) > limit, nil
}

// joined reads from one and closes another.
type joined struct {
	io.Reader
	io.Closer
}

// decodedScan looks into a stream in a content coding, as it passes: feed returns when all
// that its bytes decode to has been looked at. The decoder runs in a goroutine of its own
// and asks for bytes; nothing is held but one read.
type decodedScan struct {
	work  chan struct{} // feed takes a place
	want  chan struct{} // the decoder has used up what it was given
	give  chan []byte
	quit  chan struct{} // closed by close
	ended sync.Once
	done  chan struct{} // the decoder has ended, with why and err
	open  bool          // want was received, and nothing given since
	shut  bool          // give is closed
	left  []byte

	why *refusal
	err error
}

// errFound ends a decoder: what it decoded is refused.
var errFound = errors.New("refused")

// newDecodedScan begins a scan, which close ends.
func newDecodedScan(coding string, l lookers, i *Inspector) (*decodedScan, error) {
	d := &decodedScan{work: i.work, want: make(chan struct{}), give: make(chan []byte), quit: make(chan struct{}), done: make(chan struct{})}
	r, err := decoder(coding, (*decoderInput)(d), i.windows.take)
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(d.done)
		defer r.Close()
		_, d.err = io.Copy(writerFunc(func(p []byte) (int, error) {
			if d.why = l.look(p, false); d.why != nil {
				return 0, errFound
			}
			return len(p), nil
		}), r)
		if d.err == nil {
			d.why = l.look(nil, true)
		}
	}()
	return d, nil
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// decoderInput is the decoder's side of a decodedScan.
type decoderInput decodedScan

// Read implements io.Reader.
func (d *decoderInput) Read(p []byte) (int, error) {
	if len(d.left) == 0 {
		select {
		case d.want <- struct{}{}:
		case <-d.quit:
			return 0, io.ErrUnexpectedEOF
		}
		select {
		case b, ok := <-d.give:
			if !ok {
				return 0, io.EOF
			}
			d.left = b
		case <-d.quit:
			return 0, io.ErrUnexpectedEOF
		}
	}
	n := copy(p, d.left)
	d.left = d.left[n:]
	return n, nil
}

// feed takes the next bytes of the stream, and returns why what they decode to is refused, or why
// they do not decode.
func (d *decodedScan) feed(p []byte, final bool) (*refusal, error) {
	select {
	case d.work <- struct{}{}:
		defer func() { <-d.work }()
	case <-d.quit:
		return nil, io.ErrUnexpectedEOF
	}
	if len(p) > 0 {
		if !d.wait() {
			if d.why == nil && d.err == nil {
				d.err = errBehind
			}
			return d.result()
		}
		select {
		case d.give <- p:
		case <-d.done: // close ended it meanwhile
			return d.result()
		}
		d.open = false
		if !d.wait() {
			return d.result()
		}
	}
	if !final || d.shut {
		return nil, nil
	}
	if d.wait() {
		d.shut = true
		close(d.give)
		<-d.done
	}
	return d.result()
}

// wait returns when the decoder wants bytes; false: it has ended.
func (d *decodedScan) wait() bool {
	if d.open {
		return true
	}
	select {
	case <-d.want:
		d.open = true
	case <-d.done:
	}
	return d.open
}

// result returns how the decoder ended.
func (d *decodedScan) result() (*refusal, error) {
	if d.why != nil {
		return d.why, nil
	}
	return nil, d.err
}

// close ends the decoder. It may run concurrently, and be called again.
func (d *decodedScan) close() { d.ended.Do(func() { close(d.quit) }) }
