package sshd

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestTerminalModes(t *testing.T) {
	var tio unix.Termios
	tio.Lflag = unix.ECHO | unix.ISIG
	applyModes(&tio, []byte{53, 0, 0, 0, 0, 3, 0, 0, 0, 8, 36, 0, 0, 0, 1, 4, 0, 0, 0, 255, 0, 50, 0, 0, 0, 0})
	if tio.Lflag != unix.ISIG || tio.Iflag != unix.ICRNL || tio.Cc[unix.VERASE] != 8 || tio.Cc[unix.VKILL] != 0 {
		t.Errorf("got %+v", tio)
	}
}

func FuzzTerminalModes(f *testing.F) {
	f.Add([]byte{53, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 2})
	f.Fuzz(func(_ *testing.T, b []byte) {
		var tio unix.Termios
		applyModes(&tio, b) // does not panic
	})
}
