package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadBuildSecret(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, text := range map[string]string{"file": "from file", "a,b": "comma", "large": strings.Repeat("x", maxBuildSecret+1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("BUILD_VAR", "from env")
	for given, want := range map[string]string{
		"id=t,src=file": "from file", "id=t,source=" + dir + "/file": "from file", "type=file,id=t,src=file": "from file",
		"id=t,env=BUILD_VAR": "from env", "id=BUILD_VAR": "from env", "id=file": "from file", `id=t,"src=a,b"`: "comma",
	} {
		if s, err := readBuildSecret(given); err != nil || string(s.Value) != want || s.ID == "" {
			t.Errorf("%s: %+v, %v", given, s, err)
		}
	}
	for given, say := range map[string]string{
		"": "write id=", "src=file": "needs an ID", "id=a/b,src=file": "needs an ID", "id=-a,src=file": "needs an ID", "id=none": "no such file",
		"id=t,env=BUILD_NONE": "no variable BUILD_NONE", "id=t,src=large": "more than", "id=t,mode=1": `"mode" is not known`, "id=t,type=ssh": `"ssh" is not known`,
	} {
		if s, err := readBuildSecret(given); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %+v, %v, want %q", given, s, err, say)
		}
	}
}

func TestBuildArguments(t *testing.T) {
	t.Setenv("BUILD_VAR", "x=y")
	f := buildFlags{args: []string{"A=b", "BUILD_VAR", "BUILD_NONE", "EMPTY="}}
	r, err := f.request(".", false)
	if got := strings.Join(r.Args, " "); err != nil || got != "A=b BUILD_VAR=x=y EMPTY=" || r.Show != nil {
		t.Errorf("%q, %v", got, err)
	}
	for say, f := range map[string]buildFlags{
		"one name": {tags: []string{"a", "b"}}, "--tag is empty": {tags: []string{""}}, "must be auto, plain or tty": {progress: "fancy"},
		"write NAME=VALUE": {args: []string{"=x"}}, "given twice": {secrets: []string{"id=BUILD_VAR", "id=BUILD_VAR"}},
	} {
		if _, err := f.request(".", false); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%v, want %q", err, say)
		}
	}
	for _, dir := range []string{"-", "https://example.org/x.git", "git@example.org:x"} {
		if _, err := (&buildFlags{}).request(dir, false); err == nil || !strings.Contains(err.Error(), "is not a directory") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestDeniedWords(t *testing.T) {
	if got := deniedWords("build-web", nil); got != "" {
		t.Errorf("%q", got)
	}
	got := deniedWords("build-web", []string{"a.example.org", "b.example.org:22"})
	if want := "bawn: the build was denied a.example.org, b.example.org:22 (bawn net log --denied --name build-web)\n  try: bawn image build --allow a.example.org --allow 'b.example.org:22'\n"; got != want {
		t.Errorf("%q", got)
	}
}
