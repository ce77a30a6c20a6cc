package lines

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRead(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, c := range []struct {
		what, in string
		limit    int
		want     string
		err      error
	}{
		{"a line", "ab\ncd", 10, "ab\n", nil},
		{"an empty line", "\n", 10, "\n", nil},
		{"of the limit", "abcd\n", 5, "abcd\n", nil},
		{"over it", "abcde\n", 5, "", ErrTooLong},
		{"longer than the buffer", long + "\n", 200, long + "\n", nil},
		{"without an end", long, 50, "", ErrTooLong},
		{"the last one", "ab", 10, "ab", io.EOF},
		{"nothing", "", 10, "", io.EOF},
	} {
		r := bufio.NewReaderSize(strings.NewReader(c.in), 16)
		if got, err := Read(r, c.limit); string(got) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v, want %q, %v", c.what, got, err, c.want, c.err)
		}
	}
}

func TestReadExact(t *testing.T) {
	for _, c := range []struct {
		what, in string
		want     string
		err      error
		rest     string
	}{
		{"a line", "ab\ncd", "ab", nil, "cd"},
		{"an empty line", "\ncd", "", nil, "cd"},
		{"of the limit", "abcd\ne", "abcd", nil, "e"},
		{"over it", "abcde\nf", "", ErrTooLong, "\nf"},
		{"cut off", "ab", "", io.ErrUnexpectedEOF, ""},
		{"nothing", "", "", io.EOF, ""},
	} {
		r := strings.NewReader(c.in)
		got, err := ReadExact(iotest.OneByteReader(r), 5)
		rest, _ := io.ReadAll(r)
		if string(got) != c.want || !errors.Is(err, c.err) || string(rest) != c.rest {
			t.Errorf("%s: %q, %v, rest %q; want %q, %v, %q", c.what, got, err, rest, c.want, c.err, c.rest)
		}
	}
}

func TestSplitter(t *testing.T) {
	in := "one\n\n" + strings.Repeat("x", 7) + "\nseven77\nsix666\nlast"
	want := []string{"one", "", "six666"}
	for step := 1; step <= len(in); step++ {
		var got []string
		s := Splitter{Limit: 6, Each: func(l []byte) error { got = append(got, string(l)); return nil }}
		for rest := in; rest != ""; {
			n := min(step, len(rest))
			if m, err := s.Write([]byte(rest[:n])); m != n || err != nil {
				t.Fatalf("Write = %d, %v", m, err)
			}
			rest = rest[n:]
		}
		if !slices.Equal(got, want) || string(s.Rest()) != "last" {
			t.Errorf("in steps of %d: %q, rest %q", step, got, s.Rest())
		}
		s.Reset()
		if _, err := s.Write([]byte("new\n")); err != nil || got[len(got)-1] != "new" {
			t.Errorf("after Reset: %q, %v", got, err)
		}
	}
}

// TestSplitterCuts: with Cut, of a longer line the beginning is a line, also of the last one.
func TestSplitterCuts(t *testing.T) {
	in := "one\n\nseven77\nsix666\nand the last"
	for step := 1; step <= len(in); step++ {
		var got []string
		s := Splitter{Limit: 6, Cut: true, Each: func(l []byte) error { got = append(got, string(l)); return nil }}
		for part := range slices.Chunk([]byte(in), step) {
			if n, err := s.Write(part); n != len(part) || err != nil {
				t.Fatalf("Write = %d, %v", n, err)
			}
		}
		if !slices.Equal(got, []string{"one", "", "seven7", "six666"}) || string(s.Rest()) != "and th" {
			t.Errorf("in steps of %d: %q, rest %q", step, got, s.Rest())
		}
	}
}

func TestSplitterStopsAtAnError(t *testing.T) {
	calls := 0
	s := Splitter{Limit: 6, Each: func([]byte) error { calls++; return io.ErrClosedPipe }}
	if _, err := s.Write([]byte("a\nb\n")); !errors.Is(err, io.ErrClosedPipe) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// FuzzLines: a line that is returned is within its limit, and both readers cut the
// same lines.
func FuzzLines(f *testing.F) {
	f.Add("ab\ncd\n", 4)
	f.Add("\n\n\n", 1)
	f.Add(strings.Repeat("x", 40), 20)
	f.Fuzz(func(t *testing.T, in string, limit int) {
		if limit < 1 || limit > 1<<16 {
			return
		}
		a, b := bufio.NewReaderSize(strings.NewReader(in), 16), strings.NewReader(in)
		for {
			l1, err1 := Read(a, limit)
			l2, err2 := ReadExact(b, limit)
			if len(l1) > limit || len(l2) >= limit {
				t.Fatalf("lines of %d and %d bytes, limit %d", len(l1), len(l2), limit)
			}
			if (err1 == nil) != (err2 == nil) || err1 == nil && string(l1) != string(l2)+"\n" {
				t.Fatalf("%q, %v and %q, %v", l1, err1, l2, err2)
			}
			if err1 != nil {
				return
			}
		}
	})
}
