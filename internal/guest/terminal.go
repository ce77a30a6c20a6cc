package guest

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Terminal modes of RFC 4254 section 8: an opcode and a 32-bit value each, up to
// opcode 0 or one that is not understood.
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

// unset is the value of a control character that is switched off.
const unset = 255

// setModes gives a terminal the modes that the client's has.
func setModes(tty *os.File, modes string) error {
	raw, err := tty.SyscallConn()
	if err != nil {
		return err
	}
	var ioerr error
	err = raw.Control(func(fd uintptr) {
		var t *unix.Termios
		if t, ioerr = unix.IoctlGetTermios(int(fd), unix.TCGETS); ioerr != nil {
			return
		}
		applyModes(t, []byte(modes))
		ioerr = unix.IoctlSetTermios(int(fd), unix.TCSETS, t)
	})
	return errors.Join(err, ioerr)
}

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
