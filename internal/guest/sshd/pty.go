package sshd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Terminal modes (RFC 4254, section 8) are an opcode and a 32-bit value each. They end
// with opcode 0 or one from 160 on.
const (
	opEnd = 0
	opMax = 160
)

var controlChars = map[byte]int{
	1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2,
	8: unix.VSTART, 9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT, 18: unix.VDISCARD,
}

var inputFlags = map[byte]uint32{
	30: unix.IGNPAR, 31: unix.PARMRK, 32: unix.INPCK, 33: unix.ISTRIP, 34: unix.INLCR, 35: unix.IGNCR, 36: unix.ICRNL,
	37: unix.IUCLC, 38: unix.IXON, 39: unix.IXANY, 40: unix.IXOFF, 41: unix.IMAXBEL, 42: unix.IUTF8,
}

var localFlags = map[byte]uint32{
	50: unix.ISIG, 51: unix.ICANON, 52: unix.XCASE, 53: unix.ECHO, 54: unix.ECHOE, 55: unix.ECHOK, 56: unix.ECHONL,
	57: unix.NOFLSH, 58: unix.TOSTOP, 59: unix.IEXTEN, 60: unix.ECHOCTL, 61: unix.ECHOKE, 62: unix.PENDIN,
}

var outputFlags = map[byte]uint32{
	70: unix.OPOST, 71: unix.OLCUC, 72: unix.ONLCR, 73: unix.OCRNL, 74: unix.ONOCR, 75: unix.ONLRET,
}

var controlFlags = map[byte]uint32{90: unix.CS7, 91: unix.CS8, 92: unix.PARENB, 93: unix.PARODD}

// unset is the value of a control character that no key has.
const unset = 255

// openPTY opens a pseudo-terminal (pty(7)). It does not use creack/pty: that takes the
// master's descriptor by os.File.Fd, which puts the file into blocking mode, and a
// read that blocks has no deadline (see terminal.carry).
func openPTY() (master, tty *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	peer := -1
	err = withFD(master, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			return errno
		}
		peer = int(n)
		return nil
	})
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("pseudo-terminal: %w", err)
	}
	return master, os.NewFile(uintptr(peer), "tty"), nil
}

// withFD calls f with the file's descriptor, and leaves the file in non-blocking mode.
func withFD(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = raw.Control(func(fd uintptr) { ferr = f(int(fd)) })
	return errors.Join(err, ferr)
}

// window is the size of a terminal, in characters and in pixels, as pty-req and
// window-change have it (RFC 4254, sections 6.2 and 6.7).
type window struct{ Columns, Rows, Width, Height uint32 }

// resize sets a terminal's size. Sizes that the kernel cannot hold are cut.
func resize(f *os.File, w window) error {
	size := &unix.Winsize{Col: short(w.Columns), Row: short(w.Rows), Xpixel: short(w.Width), Ypixel: short(w.Height)}
	return withFD(f, func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, size) })
}

func short(n uint32) uint16 { return uint16(min(n, 0xffff)) }

// setModes gives a terminal the modes of the client's terminal, in the encoding of RFC
// 4254, section 8.
func setModes(tty *os.File, modes string) error {
	return withFD(tty, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		applyModes(t, []byte(modes))
		return unix.IoctlSetTermios(fd, unix.TCSETS, t)
	})
}

// applyModes changes t by encoded modes. Opcodes that it does not know are skipped; an
// opcode of 160 and above, which has no defined length, ends it.
func applyModes(t *unix.Termios, modes []byte) {
	for len(modes) >= 5 && modes[0] != opEnd && modes[0] < opMax {
		op, v := modes[0], binary.BigEndian.Uint32(modes[1:])
		modes = modes[5:]
		if i, ok := controlChars[op]; ok {
			t.Cc[i] = byte(v)
			if v == unset {
				t.Cc[i] = 0
			}
		}
		set(&t.Iflag, inputFlags[op], v)
		set(&t.Lflag, localFlags[op], v)
		set(&t.Oflag, outputFlags[op], v)
		set(&t.Cflag, controlFlags[op], v)
	}
}

func set(flags *uint32, bits, value uint32) {
	if value != 0 {
		*flags |= bits
	} else {
		*flags &^= bits
	}
}
