package guest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenCommand(t *testing.T) {
	dir := t.TempDir()
	addOpenCommand(dir)
	file := filepath.Join(dir, "xdg-open")
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"https://a.test/?x=%20&b=1"}, 3, ": https://a.test/?x=%20&b=1\n"},
		{nil, 1, "usage: xdg-open { file | URL }\n"},
		{[]string{"a", "b"}, 1, "usage: xdg-open { file | URL }\n"},
	} {
		var exit *exec.ExitError
		out, err := exec.Command(file, c.args...).CombinedOutput()
		if !errors.As(err, &exit) || exit.ExitCode() != c.status || !strings.HasSuffix(string(out), c.want) {
			t.Errorf("%q: %v, %s", c.args, err, out)
		}
	}
	if err := os.WriteFile(file, []byte("image"), 0o755); err != nil {
		t.Fatal(err)
	}
	addOpenCommand(dir)
	if b, err := os.ReadFile(file); err != nil || string(b) != "image" {
		t.Errorf("the image's own is %q, %v", b, err)
	}
	addOpenCommand(filepath.Join(dir, "none"))
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder was made")
	}
}
