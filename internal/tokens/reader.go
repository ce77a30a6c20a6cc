package tokens

import (
	"mime"
	"strings"
)

// Reader reads the numbers of one answer as its bytes pass. It is used by one goroutine.
type Reader struct {
	api  *API
	scan scanner
	take func(byte)
}

// Reader returns a reader of an answer with that Content-Type. The reader of a type other than
// JSON and server-sent events finds nothing.
func (a *API) Reader(contentType string) *Reader {
	r := &Reader{api: a, scan: scanner{top: a.tree, at: a.tree, found: make([]int64, len(a.Fields))}}
	for i := range r.scan.found {
		r.scan.found[i] = -1
	}
	media, _, _ := mime.ParseMediaType(contentType) // "" if it cannot be parsed
	switch {
	case media == "text/event-stream":
		r.take = (&events{scan: &r.scan}).feed
	case media == "application/json" || strings.HasSuffix(media, "+json"):
		r.take = r.scan.feed
	}
	return r
}

// Feed takes the next bytes of the answer, without its content coding. It keeps nothing of b.
func (r *Reader) Feed(b []byte) {
	if r.take == nil {
		return
	}
	for _, c := range b {
		r.take(c)
	}
}

// Usage returns what the answer said so far. reported is false if there was no number.
func (r *Reader) Usage() (u Usage, reported bool) { return r.api.usage(r.scan.found) }
