package session

import (
	"bytes"
	"io"
	"testing"
)

// TestScreen: what a command leaves set is put back, however its output is cut into writes.
func TestScreen(t *testing.T) {
	for _, c := range []struct{ name, out, want string }{
		{"text", "plain\r\n", ""},
		{"colours and moves", "\x1b[1;31mred\x1b[0m\x1b[2J\x1b[H\x1b]0;title\a\x1b(B", ""},
		{"alternate screen", "\x1b[?1049h\x1b[2Jtext", "\x1b[?1049l"},
		{"left again", "\x1b[?1049htext\x1b[?1049l", ""},
		{"cursor", "\x1b[?25l", "\x1b[?25h"},
		{"cursor shown", "\x1b[?25l\x1b[?25h", ""},
		{"several in one", "\x1b[?1;25h\x1b[?1000;1006h\x1b[?1000;1l", "\x1b[?1006l"},
		{"paste", "\x1b[?2004h", "\x1b[?2004l"},
		{"focus", "\x1b[?1004h", "\x1b[?1004l"},
		{"mode of no harm", "\x1b[?7l\x1b[?12h", ""},
		{"kitty", "\x1b[>1u\x1b[>5u\x1b[<u", "\x1b[<1u"},
		{"kitty, popped", "\x1b[>1u\x1b[>5u\x1b[<2u", ""},
		{"kitty, asked", "\x1b[?u", ""},
		{"modified keys", "\x1b[>4;2m", "\x1b[>4m"},
		{"modified keys, off", "\x1b[>4;2m\x1b[>4;0m", ""},
		{"keypad", "\x1b=", "\x1b>"},
		{"reset", "\x1b[?1049h\x1b=\x1bc", ""},
		{"cut short", "\x1b[?10\x1b[?2004h", "\x1b[?2004l"},
		{"endless", "\x1b[?" + string(bytes.Repeat([]byte("1;"), 1000)) + "h\x1b[?1049h", "\x1b[?1049l"},
		{"the screen last", "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for size := 1; size <= len(c.out); size++ {
				var to bytes.Buffer
				s := &screen{to: &to}
				for rest := []byte(c.out); len(rest) > 0; {
					n := min(size, len(rest))
					_, err := s.Write(rest[:n])
					must(t, err)
					rest = rest[n:]
				}
				s.restore()
				want := c.out + c.want
				if c.want != "" {
					want += "\x1b[0m"
				}
				if to.String() != want {
					t.Fatalf("in writes of %d: %q, want %q", size, to.String(), want)
				}
			}
		})
	}
}

// TestModesArePutBack: of a command that was killed, or whose sandbox has ended; not of
// one that ended itself.
func TestModesArePutBack(t *testing.T) {
	b, p := newBench(t), newPerson(t)
	const set, back = "\x1b[?1049h", "\x1b[?1049l\x1b[0m"
	for name, end := range map[string]func(){
		"exit 0":         func() {},
		"kill -KILL $$":  func() {},
		"exec sleep 999": b.cut,
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, b.dial(), t.Context(), p.command(`printf '\033[?1049h\n'; `+name))
			end()
			rest := r.wait(t)
			if r.first != set {
				t.Errorf("at first %q", r.first)
			}
			want := back
			if name == "exit 0" {
				want = ""
			}
			if rest != want {
				t.Errorf("at the end %q, want %q", rest, want)
			}
		})
	}
}

func BenchmarkScreen(b *testing.B) {
	s := &screen{to: io.Discard}
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 2048)
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		_, _ = s.Write(chunk)
	}
}
