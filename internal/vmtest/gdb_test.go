//go:build vm

package vmtest

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestGDB: with BAWN_GDB set, a debugger attaches to the machine, which pauses it, and
// goes away again; so does another one after it.
func TestGDB(t *testing.T) {
	dir := project(t, "gdb")
	if r := bawnAt(t.Context(), dir, nil, []string{"BAWN_GDB=1"}, "run", "--", "true"); r.code != 0 {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	for range 2 {
		c, err := net.Dial("unix", filepath.Join(sandboxDir("gdb"), "gdb.sock"))
		if err != nil {
			t.Fatal(err)
		}
		g := gdb{c, bufio.NewReader(c)}
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if got := g.ask(t, "?"); !strings.HasPrefix(got, "T") {
			t.Errorf("the reason why it is paused: %q", got)
		}
		if got := g.ask(t, "g"); len(got) < 16 || strings.HasPrefix(got, "E") {
			t.Errorf("the registers: %q", got)
		}
		if got := g.ask(t, "D;1"); got != "OK" {
			t.Errorf("detach: %q", got)
		}
		c.Close()
		if got := must(t, dir, "run", "--", "echo", "on"); got != "on\n" {
			t.Errorf("after the debugger: %q", got)
		}
	}
}

// gdb speaks gdb's remote serial protocol.
type gdb struct {
	c net.Conn
	r *bufio.Reader
}

// ask sends a packet and returns the answer to it. QEMU also sends stop replies ("T...")
// of its own accord: the guest is paused when a debugger attaches.
func (g gdb) ask(t *testing.T, packet string) string {
	t.Helper()
	var sum byte
	for _, b := range []byte(packet) {
		sum += b
	}
	if _, err := fmt.Fprintf(g.c, "$%s#%02x", packet, sum); err != nil {
		t.Fatal(err)
	}
	for {
		answer := g.packet(t)
		if packet == "?" || !strings.HasPrefix(answer, "T") {
			return answer
		}
	}
}

// packet reads the next packet and acknowledges it.
func (g gdb) packet(t *testing.T) string {
	t.Helper()
	if _, err := g.r.ReadString('$'); err != nil { // acknowledgements come before it
		t.Fatal(err)
	}
	text, err := g.r.ReadString('#')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.r.Discard(2); err != nil { // its checksum
		t.Fatal(err)
	}
	if _, err := g.c.Write([]byte("+")); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(text, "#")
}
