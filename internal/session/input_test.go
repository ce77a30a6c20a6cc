package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inputs are ways to give a command input, whose rest can be read afterwards. Nobody
// writes to them any more.
var inputs = map[string]func(t *testing.T, b []byte) *os.File{
	"file": fileOf,
	"pipe": func(t *testing.T, b []byte) *os.File {
		r, w, err := os.Pipe()
		must(t, err)
		t.Cleanup(func() { r.Close() })
		go func() { _, _ = w.Write(b); w.Close() }()
		return r
	},
	"socket": func(t *testing.T, b []byte) *os.File {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		r, w := os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
		t.Cleanup(func() { r.Close() })
		go func() { _, _ = w.Write(b); w.Close() }()
		return r
	},
}

// TestInputIsTakenAsItIsRead: what the command does not read stays for the next program.
func TestInputIsTakenAsItIsRead(t *testing.T) {
	b := newBench(t)
	for name, open := range inputs {
		for _, c := range []struct{ script, in, out, rest string }{
			{"true", "a\nb\n", "", "a\nb\n"},
			{"exec <&-; echo closed", "a\nb\n", "closed\n", "a\nb\n"},
			{"read x; echo $x", "a\nb\nc\n", "a\n", "b\nc\n"},
			{"read x; read x; echo $x", "a\nb\nc\n", "b\n", "c\n"},
			{"cat", "a\nb\n", "a\nb\n", ""},
			{"cat", "", "", ""},
			{"dd bs=3 count=1 2>/dev/null", "abcdef", "abc", "def"},
			{"read x; cat >/dev/null; echo $x", "a\nb\n", "a\n", ""},
			{"sh -c 'read x'; sh -c 'read x; echo $x'", "a\nb\nc\n", "b\n", "c\n"},
		} {
			t.Run(name+": "+c.script, func(t *testing.T) {
				in := open(t, []byte(c.in))
				cmd, out, _ := sh(c.script)
				cmd.Stdin = in
				if exit, err := b.dial().Run(t.Context(), cmd); err != nil || exit.Status != 0 || out.String() != c.out {
					t.Errorf("got %+v, %v, %q; want %q", exit, err, out, c.out)
				}
				rest, err := io.ReadAll(in)
				if err != nil || string(rest) != c.rest {
					t.Errorf("left %q, %v; want %q", rest, err, c.rest)
				}
			})
		}
	}
}

// TestLargeInput: of a file, what is not read is given back at any size.
func TestLargeInput(t *testing.T) {
	b := newBench(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16)
	for name, open := range inputs {
		t.Run(name, func(t *testing.T) {
			cmd, out, _ := sh("cat")
			cmd.Stdin = open(t, data)
			if exit, err := b.dial().Run(t.Context(), cmd); err != nil || exit.Status != 0 || !bytes.Equal(out.Bytes(), data) {
				t.Errorf("%+v, %v: %d bytes of %d", exit, err, out.Len(), len(data))
			}
		})
	}
	in := fileOf(t, data)
	cmd, _, _ := sh("dd bs=1000 count=2000 iflag=fullblock 2>/dev/null >&2")
	cmd.Stdin = in
	_, err := b.dial().Run(t.Context(), cmd)
	must(t, err)
	if at, err := in.Seek(0, io.SeekCurrent); err != nil || at != 2_000_000 {
		t.Errorf("the file is at %d, %v", at, err)
	}
}

// TestCountedInputEndsAnywhere: the bytes that are counted one by one may end within what
// was shown at once, or in the middle of what one packet carries.
func TestCountedInputEndsAnywhere(t *testing.T) {
	b := newBench(t)
	rest := bytes.Repeat([]byte("0123456789abcdef"), 400<<10/16)
	for lead := 4000; lead <= shown; lead += 8000 {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		r, w := os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		cmd, _, _ := sh("echo ready; cat")
		cmd.Stdin = r
		run := start(t, b.dial(), ctx, cmd)
		first := bytes.Repeat([]byte("x"), lead)
		_, err = w.Write(first)
		must(t, err)
		_, err = io.ReadFull(run.out, first) // the command has read it
		must(t, err)
		go func() { _, _ = w.Write(rest); w.Close() }()
		if got := run.wait(t); got != string(rest) {
			t.Errorf("after %d bytes: %d of %d came", lead, len(got), len(rest))
		}
		cancel()
		r.Close()
	}
}

// TestInputComesLate: input that is written while the command runs reaches it at once.
func TestInputComesLate(t *testing.T) {
	b := newBench(t)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	cmd, _, _ := sh("echo ready; while read x; do echo got $x; done; echo end")
	cmd.Stdin = r
	run := start(t, b.dial(), t.Context(), cmd)
	for _, s := range []string{"a", "b", "c"} {
		_, err := io.WriteString(w, s+"\n")
		must(t, err)
		if got := line(t, run.out); got != "got "+s {
			t.Errorf("got %q", got)
		}
	}
	w.Close()
	if rest := run.wait(t); rest != "end\n" {
		t.Errorf("got %q", rest)
	}
}

// TestNoInput: the null device and no input at all are the null device in the guest.
func TestNoInput(t *testing.T) {
	b := newBench(t)
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	for name, in := range map[string]*os.File{"none": nil, "null": null} {
		cmd, out, _ := sh("readlink /proc/self/fd/0; cat")
		cmd.Stdin = in
		if _, err := b.dial().Run(t.Context(), cmd); err != nil || out.String() != "/dev/null\n" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

// TestDeviceAsInput: a device without an end.
func TestDeviceAsInput(t *testing.T) {
	b := newBench(t)
	full, err := os.Open("/dev/full")
	must(t, err)
	defer full.Close()
	cmd, out, _ := sh("head -c 3000000 | wc -c")
	cmd.Stdin = full // reads as zeros (full(4))
	if _, err := b.dial().Run(t.Context(), cmd); err != nil || strings.TrimSpace(out.String()) != "3000000" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestInputThatCannotBeRead: the command gets the error that it would get on the host.
func TestInputThatCannotBeRead(t *testing.T) {
	b := newBench(t)
	dir, err := os.Open(t.TempDir())
	must(t, err)
	defer dir.Close()
	writeOnly, err := os.OpenFile(t.TempDir()+"/f", os.O_CREATE|os.O_WRONLY, 0o600)
	must(t, err)
	defer writeOnly.Close()
	for want, in := range map[string]*os.File{"Is a directory": dir, "Bad file descriptor": writeOnly} {
		cmd, out, errOut := sh("cat; echo status $?")
		cmd.Stdin = in
		if exit, err := b.dial().Run(t.Context(), cmd); err != nil || exit.Status != 0 || out.String() != "status 1\n" || !strings.Contains(errOut.String(), want) {
			t.Errorf("%v, %v: %q, %q, want %q", exit, err, out, errOut, want)
		}
	}
	broken, err := os.Open("/proc/self/mem") // EIO at its beginning
	must(t, err)
	defer broken.Close()
	cmd, out, _ := sh("cat >/dev/null; echo all of it")
	cmd.Stdin = broken
	var in InputError
	if _, err := b.dial().Run(t.Context(), cmd); !errors.As(err, &in) || out.Len() != 0 {
		t.Errorf("%v, %q", err, out)
	}
}

// TestOneFileKeepsTheOrder: with 2>&1 the two outputs are one.
func TestOneFileKeepsTheOrder(t *testing.T) {
	b := newBench(t)
	const script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done; test /dev/fd/1 -ef /dev/fd/2 && echo one"
	want, err := exec.Command("sh", "-c", "exec 2>&1; "+script).Output()
	must(t, err)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	same, err := unix.Dup(int(w.Fd()))
	must(t, err)
	cmd, _, _ := sh(script)
	second := os.NewFile(uintptr(same), "w")
	cmd.Stdout, cmd.Stderr = w, second
	_, err = b.dial().Run(t.Context(), cmd)
	must(t, err)
	must(t, w.Close())
	must(t, second.Close())
	if got, err := io.ReadAll(r); err != nil || string(got) != string(want) {
		t.Errorf("%q, %v", got, err)
	}
}
