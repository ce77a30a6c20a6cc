package accounts

import (
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzTerminfo sends a type of terminal with its entry: what is written is a compiled entry
// under that name in the one folder, and the entry does not stay in the environment.
func FuzzTerminfo(f *testing.F) {
	good := base64.StdEncoding.EncodeToString([]byte("\x1a\x01\x08\x00\x02\x00\x00\x00\x00\x00\x00\x00mine|x\x00"))
	for _, c := range [][2]string{
		{"mine", good}, {"../../etc/cron.d/x", good}, {"a/b", good}, {".", good}, {"", good}, {"x\x00y", good}, {"mine", "!"}, {"mine", ""},
		{"mine", base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x1a\x01", 20000)))}, {"Ämine", good}, {"dumb", good}, {"screen.mine", "AA=="},
	} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, name, entry string) {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, "usr/share/terminfo"), 0o755); err != nil {
			t.Fatal(err)
		}
		env := environ(root, name, nil, []string{"TERMINFO=b64:" + entry})
		if v := Getenv(env, "TERMINFO"); strings.HasPrefix(v, inlineTerminfo) {
			t.Errorf("TERMINFO=%.40q", v)
		}
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil || path != filepath.Join(root, sentTerminfo, name[:1], name) || !compiledTerminfo(b) || Getenv(env, "TERM") != name {
				t.Errorf("%s, TERM=%q: %.40q, %v", path, Getenv(env, "TERM"), b, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}
