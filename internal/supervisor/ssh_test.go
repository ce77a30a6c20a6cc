package supervisor

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"bawn.dev/bawn/internal/sys/proc"
)

func TestUmaskOfAnSSHClient(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	own := proc.Umask(os.Getpid())
	if own == nil {
		t.Skip("the kernel tells no umask")
	}
	if got := umaskOf(theirs); got == nil || *got != *own {
		t.Errorf("%v, want %o", got, *own)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if got := umaskOf(a); got != nil {
		t.Errorf("of a pipe: %o", *got)
	}
}
