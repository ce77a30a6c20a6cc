package httpwire

// BodyWatch looks at a request's body for what a server that ignores bodies would take
// for the next request. Of a method that has a use for a body only the first line is
// looked at, for documents about HTTP are sent, too; of the others, whose bodies
// servers do ignore, all of it. A nil BodyWatch looks at nothing.
type BodyWatch struct {
	// Trailer judges a field behind the body; nil: each passes. Its errors are *Error.
	Trailer func(Field) error

	all *Watch // nil: the first line only

	first FirstLine
	head  []byte // the body so far, while first is not decided
	over  bool   // there is no more to look at
}

// NewBodyWatch returns a watch for the body of a request; nil if it has none. host
// judges Host fields, as Watch.Host does.
func NewBodyWatch(q *Request, host func(string) error) *BodyWatch {
	switch {
	case q.Length == 0:
		return nil
	case q.BodyIgnored():
		return &BodyWatch{all: &Watch{Host: host}}
	}
	return &BodyWatch{}
}

// BodyIgnored reports whether the request has a body that its method has no use for.
func (q *Request) BodyIgnored() bool {
	switch q.Method {
	case "GET", "HEAD", "DELETE", "OPTIONS", "TRACE":
		return q.Length != 0
	}
	return false
}

var errInBody = &Error{400, "the request's body begins like an HTTP request"}

// data takes the next bytes of the contents.
func (w *BodyWatch) data(b []byte) error {
	if w == nil || w.over {
		return nil
	}
	if w.all != nil {
		return w.all.Feed(b)
	}
	w.head = append(w.head, b...)
	switch v := w.first.Look(w.head); {
	case v == IsRequest, v == Likely && len(w.head) > MaxHead:
		return errInBody
	case v == Other, len(w.head) > MaxHead:
		w.over, w.head = true, nil
	}
	return nil
}

// framing takes the lines between chunks, which such a server reads as well.
func (w *BodyWatch) framing(line []byte) error {
	if w == nil || w.all == nil {
		return nil
	}
	return w.all.Feed(line)
}

// field judges a field of the trailer.
func (w *BodyWatch) field(f Field) error {
	if w == nil || w.Trailer == nil {
		return nil
	}
	return w.Trailer(f)
}

// end judges a last line without its end.
func (w *BodyWatch) end() error {
	switch {
	case w == nil || w.over:
	case w.all != nil:
		return w.all.End()
	case w.first.Look(append(w.head, '\n')) == IsRequest:
		return errInBody
	}
	return nil
}
