package tokens

// events finds the data of server-sent events in their stream, which comes byte by byte, and gives
// it to a scanner: one document for each event (HTML standard, section 9.2.6).
type events struct {
	scan    *scanner
	name    [len("\ufeffdata")]byte // of the field of this line; the stream may begin with a mark of its byte order
	nameLen int                     // of name; more than its size: it is another field
	inValue bool                    // behind the colon
	isData  bool
	afterCR bool // a line feed that follows belongs to the carriage return
}

// feed takes the next byte of the stream.
func (e *events) feed(c byte) {
	afterCR := e.afterCR
	e.afterCR = c == '\r'
	switch {
	case c == '\n' && afterCR:
	case c == '\n' || c == '\r':
		e.endLine()
	case e.inValue && e.isData:
		e.scan.feed(c)
	case e.inValue:
	case c == ':':
		name := string(e.name[:min(e.nameLen, len(e.name))])
		e.inValue, e.isData = true, e.nameLen <= len(e.name) && (name == "data" || name == "\ufeffdata")
	case e.nameLen < len(e.name):
		e.name[e.nameLen] = c
		e.nameLen++
	default:
		e.nameLen = len(e.name) + 1
	}
}

// endLine ends a line: an empty one ends the event.
func (e *events) endLine() {
	switch {
	case !e.inValue && e.nameLen == 0:
		e.scan.reset()
	case e.isData:
		e.scan.feed('\n')
	}
	e.nameLen, e.inValue, e.isData = 0, false, false
}
