// Package opencount counts how often files are opened while a test runs.
package opencount

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// Of returns a function that returns how often the files and folders, which must exist, were opened since its last call, by
// any process (inotify(7)). A folder counts with what is in it.
func Of(t testing.TB, files ...string) func() int {
	t.Helper()
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, f := range files {
		if _, err := unix.InotifyAddWatch(fd, f, unix.IN_OPEN|unix.IN_CLOSE); err != nil { // closings keep equal openings apart
			t.Fatal(err)
		}
	}
	return func() (n int) {
		buf := make([]byte, 64<<10)
		for {
			size, err := unix.Read(fd, buf)
			if err != nil {
				return n
			}
			for b := buf[:size]; len(b) >= unix.SizeofInotifyEvent; {
				if binary.NativeEndian.Uint32(b[4:])&unix.IN_OPEN != 0 {
					n++
				}
				b = b[unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:])):]
			}
		}
	}
}
