package gitwire

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// ContentType is that of an answer to a push, RequestType that of a push (gitprotocol-http(5)).
const (
	ContentType = "application/x-git-receive-pack-result"
	RequestType = "application/x-git-receive-pack-request"
)

// The streams of an answer on several (side-band of gitprotocol-capabilities(5)).
const (
	bandReport  = 1
	bandMessage = 2
)

// maxBand bounds what a line of a stream carries, in bytes: the least that clients take (side-band).
const maxBand = 990

// Refused returns the answer of a server that has changed no ref. Git shows the lines of message to
// the user, and beside each ref what why returns for it. unpack is the error of Read, or nil. A client
// that did not ask for a report (report-status) reads no such answer: Refused returns nil for it, and
// the caller answers with an error of HTTP.
func (p *Push) Refused(message string, unpack error, why func(Change) string) []byte {
	bands := slices.ContainsFunc(p.caps, func(c string) bool { return c == "side-band" || c == "side-band-64k" })
	report := slices.ContainsFunc(p.caps, func(c string) bool { return c == "report-status" || c == "report-status-v2" })
	if !report {
		return nil
	}
	status := p.report(unpack, why)
	if !bands {
		return status
	}
	var b bytes.Buffer
	for line := range strings.Lines(message) {
		writeBand(&b, bandMessage, []byte(line))
	}
	writeBand(&b, bandReport, status)
	b.WriteString(flush)
	return b.Bytes()
}

const flush = "0000"

// report returns what became of each ref.
func (p *Push) report(unpack error, why func(Change) string) []byte {
	var b bytes.Buffer
	result := "ok"
	if unpack != nil {
		result = oneLine(unpack.Error())
	}
	writeLine(&b, "unpack "+result+"\n")
	for _, c := range p.Changes {
		writeLine(&b, "ng "+c.Ref+" "+oneLine(why(c))+"\n")
	}
	b.WriteString(flush)
	return b.Bytes()
}

// oneLine keeps a text in one line, which ends it.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, s)
}

// writeLine writes a pkt-line. What is longer than one may be is cut.
func writeLine(b *bytes.Buffer, text string) {
	if len(text) > maxLine-lengthDigits {
		text = text[:maxLine-lengthDigits-1] + "\n"
	}
	fmt.Fprintf(b, "%04x%s", len(text)+lengthDigits, text)
}

// writeBand writes to a stream of the answer.
func writeBand(b *bytes.Buffer, band byte, p []byte) {
	for part := range slices.Chunk(p, maxBand) {
		writeLine(b, string(band)+string(part))
	}
}
