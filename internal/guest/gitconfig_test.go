package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestTrustRepositories: git reads the file, which keeps what it had and does not grow.
func TestTrustRepositories(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gitconfig")
	if err := os.WriteFile(file, []byte("[core]\n\teditor = vi"), 0o644); err != nil {
		t.Fatal(err)
	}
	dirs := []string{"/src/shop", "/a \"quoted\" \\ name\nof two lines; # no comment"}
	for range 2 {
		for _, dir := range dirs {
			if err := trustRepositories(file, dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip(err)
	}
	out, err := exec.Command(git, "config", "-z", "--file", file, "--get-all", "safe.directory").Output()
	want := ""
	for _, dir := range dirs {
		want += dir + "\x00" + dir + "/*\x00"
	}
	if err != nil || string(out) != want {
		t.Errorf("git reads %q, %v, want %q", out, err, want)
	}
	if out, err := exec.Command(git, "config", "--file", file, "core.editor").Output(); err != nil || string(out) != "vi\n" {
		t.Errorf("the editor is %q, %v", out, err)
	}
}
