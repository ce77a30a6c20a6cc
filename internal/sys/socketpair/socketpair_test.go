package socketpair

import (
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
)

func TestChildHasTheOtherEnd(t *testing.T) {
	ours, theirs, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	cmd := exec.Command("cat")
	cmd.Stdin, cmd.Stdout = theirs, theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	if _, err := ours.Write([]byte("there and back")); err != nil {
		t.Fatal(err)
	}
	if err := ours.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// It ends only if no other copy of the child's end is open.
	if b, err := io.ReadAll(ours); string(b) != "there and back" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestConnRefusesOthers(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Conn(null); err == nil {
		t.Error("a connection of /dev/null")
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Conn(f); err == nil {
		t.Error("a connection of a TCP socket")
	}
	if err := f.Close(); err == nil {
		t.Error("the file was not closed")
	}
}
