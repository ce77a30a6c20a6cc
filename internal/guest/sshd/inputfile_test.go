package sshd

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/wire"
)

// TestInputFile: the command can open its input again, nobody can change it, and input that
// did not come whole is an error, not shorter input.
func TestInputFile(t *testing.T) {
	b := newBench(t)
	whole := strings.Repeat("x", wire.MaxInputPart)
	tooMany := make([]string, wire.MaxInputFile/wire.MaxInputPart+1)
	for i := range tooMany {
		tooMany[i] = whole
	}
	for name, c := range map[string]struct {
		parts  []string
		script string
		want   string
		status int
	}{
		"two parts":          {[]string{"one\n", "two\n"}, "cat", "one\ntwo\n", 0},
		"opened again":       {[]string{"one\n"}, "cat /dev/stdin /proc/self/fd/0 -", "one\none\none\n", 0},
		"cannot be changed":  {[]string{"one\n"}, "(echo x 1<>/dev/stdin) 2>/dev/null || cat", "one\n", 0},
		"as long as may be":  {tooMany[1:], "wc -c", "4194304\n", 0},
		"longer":             {tooMany, "true", "", statusNotExecutable},
		"longer, then short": {append(tooMany, "x"), "true", "", statusNotExecutable},
		"none":               {nil, "true", "", statusNotExecutable},
	} {
		t.Run(name, func(t *testing.T) {
			s := b.session()
			for _, p := range c.parts {
				_, err := s.SendRequest(wire.RequestInputPart, false, ssh.Marshal(wire.InputPart{Data: p}))
				must(t, err)
			}
			r := sh(c.script)
			r.Input = wire.InputFile
			out, err := s.Output(wire.ExecCommand(r))
			if string(out) != c.want {
				t.Errorf("%q, want %q", out, c.want)
			}
			if c.status != 0 {
				wantStatus(t, err, c.status)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
