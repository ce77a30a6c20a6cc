package wire

import (
	"reflect"
	"testing"
)

func TestExecCommandIsExact(t *testing.T) {
	umask := uint32(0o027)
	want := ExecRequest{
		Argv: []string{"printf", "%s\n", "", "a b", "\xff\xfe not UTF-8", "$HOME; 'x'\n"},
		Dir:  "/home/me/a \xe9 b",
		Env:  []string{"A=1", "EMPTY=", "BIN=\x80"},

		Links: []Link{{"/home/me/\xe9", "../x"}},
		Umask: &umask, OpenFiles: 100_000,
	}
	got, ok, err := ParseExecCommand(ExecCommand(want))
	if err != nil || !ok || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v, %v", got, ok, err)
	}
}

func TestOtherCommandsAreLeftAlone(t *testing.T) {
	for _, s := range []string{"", "ls -l", "bawn-exec:AAAA", " \x01bawn-exec:"} {
		if _, ok, err := ParseExecCommand(s); ok || err != nil {
			t.Errorf("%q: %v, %v", s, ok, err)
		}
	}
}

func TestMalformedExecCommand(t *testing.T) {
	for _, s := range []string{execPrefix + "!", execPrefix + "AAAA", execPrefix} {
		if _, ok, err := ParseExecCommand(s); !ok || err == nil {
			t.Errorf("%q: %v, %v", s, ok, err)
		}
	}
}

func FuzzParseExecCommand(f *testing.F) {
	f.Add(ExecCommand(ExecRequest{Argv: []string{"true"}, Dir: "/"}))
	f.Add(execPrefix + "e30")
	f.Fuzz(func(t *testing.T, s string) {
		r, ok, err := ParseExecCommand(s)
		if !ok || err != nil {
			return
		}
		again, _, err := ParseExecCommand(ExecCommand(r))
		if err != nil || len(again.Argv) != len(r.Argv) || again.Dir != r.Dir {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}
