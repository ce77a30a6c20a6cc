package supervisor

import (
	"bytes"

	"bawn.dev/bawn/internal/sys/text"
)

// printed is the end of what one machine printed on its console. Who reads it
// waits for the machine's end.
type printed struct {
	b   []byte
	end chan struct{} // closed when nothing more comes
}

// printedSize is how many bytes of a console are kept at hand: a panic with its
// trace is smaller.
const printedSize = 16 << 10

// Write keeps the end of what was written.
func (p *printed) Write(b []byte) (int, error) {
	p.b = append(p.b, b...)
	if extra := len(p.b) - printedSize; extra > 0 {
		p.b = append(p.b[:0], p.b[extra:]...)
	}
	return len(b), nil
}

// panic is the line in which the kernel of a machine that has ended says why it
// panicked (kernel/panic.c), or empty.
func (p *printed) panic() string {
	<-p.end
	i := bytes.LastIndex(p.b, []byte("Kernel panic - "))
	if i < 0 {
		return ""
	}
	line, _, _ := bytes.Cut(p.b[i:], []byte("\n"))
	return text.Short(string(line), printedSize)
}
