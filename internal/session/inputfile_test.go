package session

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/wire"
)

// TestFileAsInput: programs that set the position of their input leave the same to the next
// program, in the guest and on the host, as they do without bawn.
func TestFileAsInput(t *testing.T) {
	b := newBench(t)
	lines := []byte(strings.Repeat("a line of the file\n", 1000))
	for _, script := range []string{
		"head -n 2",
		"head -n 1; cat",
		"head -n 1 >/dev/null; head -c 5; read x; echo $x; wc -l",
		"grep -m 1 line",
		"sed -n 2q",
		"tail -n 1",
		"tail -c +100 | (head -c 10; cat >/dev/null)", // or SIGPIPE could end tail after any block
		"dd bs=3 skip=2 count=1 2>/dev/null",
		"cat /dev/stdin | wc -c; cat | wc -c",
		"test -f /dev/stdin && stat -L -c %s /dev/stdin",
		"echo x >&0; echo $?",
		"exec <&-; echo closed",
	} {
		t.Run(script, func(t *testing.T) {
			plain := fileOf(t, lines)
			local := exec.Command("sh", "-c", script)
			local.Stdin = plain
			want, err := local.Output()
			must(t, err)
			in := fileOf(t, lines)
			cmd, out, _ := sh(script)
			cmd.Stdin = in
			if exit, err := b.dial().Run(t.Context(), cmd); err != nil || exit.Status != 0 || out.String() != string(want) {
				t.Errorf("%+v, %v, %q; want %q", exit, err, out, want)
			}
			left, err := io.ReadAll(plain)
			must(t, err)
			if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, left) {
				t.Errorf("%d bytes are left, %v; want %d", len(got), err, len(left))
			}
		})
	}
}

// TestFileOfAnySize: the bounds of what is sent at once, from a position within the file.
func TestFileOfAnySize(t *testing.T) {
	b := newBench(t)
	const behind = 10
	for _, size := range []int{0, 1, wire.MaxInputPart, wire.MaxInputPart + 1, wire.MaxInputFile, wire.MaxInputFile + 1} {
		data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		in := fileOf(t, append(make([]byte, behind), data...))
		_, err := in.Seek(behind, io.SeekStart)
		must(t, err)
		cmd, out, _ := sh("cat")
		cmd.Stdin = in
		if exit, err := b.dial().Run(t.Context(), cmd); err != nil || exit.Status != 0 || !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%d bytes: %+v, %v: %d came", size, exit, err, out.Len())
		}
		if at, err := in.Seek(0, io.SeekCurrent); err != nil || at != int64(behind+size) {
			t.Errorf("%d bytes: the file is at %d, %v", size, at, err)
		}
	}
}

// TestFileThatCanBeWritten is not copied, as what the command writes would be lost.
func TestFileThatCanBeWritten(t *testing.T) {
	b := newBench(t)
	path := filepath.Join(t.TempDir(), "in")
	must(t, os.WriteFile(path, []byte("one\ntwo\n"), 0o600))
	in, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer in.Close()
	cmd, out, _ := sh("read x; echo $x; test -p /dev/stdin && echo pipe")
	cmd.Stdin = in
	if _, err := b.dial().Run(t.Context(), cmd); err != nil || out.String() != "one\npipe\n" {
		t.Errorf("%q, %v", out, err)
	}
	if at, err := in.Seek(0, io.SeekCurrent); err != nil || at != 4 {
		t.Errorf("the file is at %d, %v", at, err)
	}
}

// TestFileForAnOlderAgent: an agent that does not know input files gets a pipe.
func TestFileForAnOlderAgent(t *testing.T) {
	d := sandboxDir(t)
	kinds := make(chan wire.Input, 1)
	listen(t, d, serveChannels(t, d, func(channel ssh.NewChannel) {
		ch, requests, err := channel.Accept()
		if err != nil {
			return
		}
		for r := range requests {
			_ = r.Reply(r.Type == "exec", nil)
			if r.Type != "exec" {
				continue
			}
			var v struct{ Command string }
			_ = ssh.Unmarshal(r.Payload, &v)
			req, _, _ := wire.ParseExecCommand(v.Command)
			kinds <- req.Input
			break
		}
		_, _ = io.Copy(ch, ch)
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
		ch.Close()
	}))
	c, err := Dial(t.Context(), d, "me")
	must(t, err)
	defer c.Close()
	cmd, out, _ := sh("cat")
	cmd.Stdin = fileOf(t, []byte("text"))
	_, err = c.Run(t.Context(), cmd)
	if kind := <-kinds; err != nil || kind != wire.InputCounted || out.String() != "text" {
		t.Errorf("input of kind %q, %q, %v", kind, out, err)
	}
}
