package project

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/devcontainer"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
)

const example = `# What the shop needs.
image: docker.io/library/debian:13
cpus: 4
memory: 4g
disk: 20GiB
mounts:
  - ../data:/data:ro
  - ~/.cache/shop
ports: [3000, "8080:80"]
allow:
  - preset:npm
  - GitHub.com:22,443
deny:
  - "**.tracker.example"
secrets: [SHOP_KEY, GH_TOKEN]
`

func TestParse(t *testing.T) {
	got, err := Parse("bawn.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	want := &Proposal{
		Image: "docker.io/library/debian:13", CPUs: 4, Memory: 4 << 30, Disk: 20 << 30,
		Mounts: []sandbox.Source{{Host: "../data", Guest: "/data", Mode: sandbox.ReadOnly}, {Host: "~/.cache/shop"}},
		Ports:  []sandbox.Port{{Host: 3000, Guest: 3000}, {Host: 8080, Guest: 80}},
		Allow:  []string{"preset:npm", "github.com:22,443"}, Deny: []string{"**.tracker.example"},
		Secrets: []string{"SHOP_KEY", "GH_TOKEN"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	rules, err := policy.ParseFile("x", got.Policy())
	if err != nil || len(rules) < 3 {
		t.Errorf("the rules as a file: %v, %v", rules, err)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "{}"} {
		if p, err := Parse("bawn.yaml", []byte(empty)); err != nil || !reflect.DeepEqual(p, &Proposal{}) {
			t.Errorf("%q: %+v, %v", empty, p, err)
		}
	}
}

func TestTheManualsExample(t *testing.T) {
	manual, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(manual), "```yaml\n")
	text, _, ok := strings.Cut(text, "```")
	p, err := Parse("docs/policy.md", []byte(text))
	if !ok || err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	p.Build, p.Setup = &Build{}, &devcontainer.Setup{} // in place of image: TestBuild; of devcontainer.json
	for i := range reflect.TypeFor[Proposal]().NumField() {
		if reflect.ValueOf(*p).Field(i).IsZero() {
			t.Errorf("%s is not in the example", reflect.TypeFor[Proposal]().Field(i).Name)
		}
	}
}

func TestBuild(t *testing.T) {
	for text, want := range map[string]Build{
		"build: .\n":        {Context: "."},
		"build: ./web/\n":   {Context: "web"},
		"build: {args: {}}": {Context: "."},
		"build:\n  context: web\n  file: web/dev/../Dockerfile.dev\n  target: dev\n  args:\n    NODE: 22\n    NAME: a b\n    EMPTY: \"\"\n  allow: [preset:npm, Files.example]\n": {
			Context: "web", File: "web/Dockerfile.dev", Target: "dev", Args: []string{"NODE=22", "NAME=a b", "EMPTY="}, Allow: []string{"preset:npm", "files.example"},
		},
		"build: {args: [NODE=22]}": {Context: ".", Args: []string{"NODE=22"}},
	} {
		p, err := Parse("f", []byte(text))
		if err != nil || !reflect.DeepEqual(p, &Proposal{Build: &want}) {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
}

func TestMistakesNameThePlace(t *testing.T) {
	for text, want := range map[string]string{
		"cpus: 4\nmemroy: 4g\n":                  "f:2:1: unknown key \"memroy\"",
		"cpus: 4\ncpus: 8\n":                     "f:2:1: the key \"cpus\" is given twice, first in line 1",
		"cpus: 0\n":                              "f:1:7: ",
		"cpus: 0x10\n":                           "f:1:7: ",
		"cpus: 1.5\n":                            "f:1:7: expected a number",
		"cpus: \"4\"\n":                          "f:1:7: expected a number",
		"cpus: 256\n":                            "f:1:7: ",
		"memory: 1m\n":                           "f:1:9: 1m: must be 256 MiB",
		"memory: lots\n":                         "f:1:9: invalid size",
		"memory:\n":                              "f:1:8: expected text",
		"disk: [4g]\n":                           "f:1:7: expected text",
		"image: docker-archive:/etc/shadow\n":    "f:1:8: an image file of the host",
		"image: \"a b\"\n":                       "f:1:8: ",
		"build: ../x\n":                          "f:1:8: build: \"../x\" does not lie in the project",
		"build: /x\n":                            "f:1:8: build: \"/x\" does not lie in the project",
		"build: {context: a/../../x}\n":          "f:1:18: build: ",
		"build: {file: ../Dockerfile}\n":         "f:1:15: build: ",
		"build: {target: \"--secret\"}\n":        "f:1:17: build: \"--secret\" is not the name of a stage",
		"build: {args: [HOME]}\n":                "f:1:15: build: the argument HOME has no value",
		"build: {args: [A=1, A=2]}\n":            "f:1:15: build: the argument A is given twice",
		"build: {args: {A-B: 1}}\n":              "f:1:15: build: \"A-B\" is not the name of an argument",
		"build: {args: {A: [1]}}\n":              "f:1:19: expected text",
		"build: {dockerfile: x}\n":               "f:1:9: unknown key \"dockerfile\": must be one of allow, args, context, file, target",
		"build: {allow: [no..name]}\n":           "f:1:17: rule \"no..name\"",
		"build: [a]\n":                           "f:1:8: expected text",
		"image: web\nbuild: .\n":                 "f:1:1: image and build are both given",
		"mounts: ./x\n":                          "f:1:9: expected a list",
		"mounts:\n  - x:rel\n":                   "f:2:5: mount",
		"mounts: [x:/]\n":                        "f:1:10: mount",
		"mounts: [.]\n":                          "f:1:10: mount \".\": the project directory is always shared",
		"mounts: [~root/x]\n":                    "f:1:10: ",
		"volumes: npm:/x\n":                      "f:1:10: expected a list",
		"volumes: [/data:/x]\n":                  "f:1:11: volume \"/data:/x\": a volume has a name",
		"volumes: [\"a:/x\", \"a:/y\"]\n":        "f:1:19: volume \"a:/y\": a:/x is in the list already",
		"volumes: [\"a:/x\", \"b:/x:ro\"]\n":     "f:1:19: volume",
		"local_dirs: [../x]\n":                   "f:1:14: local directory",
		"local_dirs: [a, ./a/]\n":                "f:1:17: local directory \"./a/\" lies in, or is the same as, \"a\"",
		"local_dirs: [.git]\n":                   "f:1:14: local directory",
		"caches: npm\n":                          "f:1:9: expected a list",
		"caches: [npm, npm]\n":                   "f:1:15: cache \"npm\" is in the list already",
		"caches: [apt]\n":                        "f:1:10: cache \"apt\": bawn shares only packages that it can verify by itself, those of cargo, go, npm, pip",
		"caches: [\"npm,go\"]\n":                 "f:1:10: cache \"npm,go\": write one in each item",
		"ports: [0]\n":                           "f:1:9: invalid port",
		"ports: [3000, \"3000:80\"]\n":           "f:1:15: port 3000:80 is published twice",
		"ports: [-1]\n":                          "f:1:9: invalid port",
		"allow:\n  - good.example\n  - no..name": "f:3:5: rule \"no..name\"",
		"allow: [preset:none]\n":                 "f:1:9: ",
		"allow: [\"a.test\\nallow **\"]\n":       "f:1:9: ",
		"deny: [raw:a.test]\n":                   "f:1:8: ",
		"env: [HOME]\n":                          "f:1:1: unknown key",
		"a: &x [1]\nb: *x\n":                     "f:1:4: anchors",
		"cpus: !!int 4\n":                        "f:1:7: tags",
		"<<: {cpus: 4}\n":                        "f:1:1: unknown key",
		"? [cpus]\n: 4\n":                        "f:1:3: unknown key",
		"hide: [\"a/..\"]\n":                     "f:1:11: pattern",
		"guard: [x, \"!y\"]\n":                   "f:1:13: pattern \"!y\": it begins with !",
		"secrets: [A, \"B=1\"]\n":                "f:1:14: ",
		"secrets: [A, A]\n":                      "f:1:14: the secret A is named twice",
		"secrets: {A: x.test}\n":                 "f:1:10: expected a list",
		"secrets: [LD_PRELOAD]\n":                "f:1:11: ",
		"guard: /\n":                             "f:1:8: expected a list",
		"- cpus\n":                               "f:1:1: expected keys",
		"cpus: 4\n---\ncpus: 8\n":                "f:2:1: only one YAML document",
		"cpus: 4\n  memory: 2g\n":                "f:2:",
		"cpus: [4\n":                             "f:",
		"cpus: 4 # \x1b[2J\n":                    "f:1:11: the character U+001B",
		"# a\rcpus: 4\n":                         "f:1:4: the character U+000D",
		"# a\u2028cpus: 4\n":                     "f:1:4: the character U+2028",
		"image: a\u202eb\n":                      "f:1:9: the character U+202E",
		"image: \"\\x1b[2J\"\n":                  "f:1:8: ",
		"cpus: 4\n# \xff\n":                      "f:2:3: the file is not valid UTF-8",
		"\xef\xbb\xbfcpus: 4\n":                  "f:1:1: the character U+FEFF",
		strings.Repeat("\n", 2001):               "f:2001:1: more than 2000 lines",
		strings.Repeat("[", 60000):               "f:",
	} {
		p, err := Parse("f", []byte(text))
		var e *Error
		if err == nil || !errors.As(err, &e) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40q: %+v, %v; want %s", text, p, err, want)
		}
		if p != nil {
			t.Errorf("%.40q: a proposal in spite of %v", text, err)
		}
	}
	_, err := Parse("f", []byte("allow: ["+strings.Repeat("no..name, ", 500)+"]"))
	if n := strings.Count(err.Error(), "\n"); n > maxErrors {
		t.Errorf("%d mistakes told", n)
	}
}

func TestSchema(t *testing.T) {
	published, err := os.ReadFile("../../docs/bawn.schema.json")
	if err != nil || !bytes.Equal(published, Schema) {
		t.Errorf("docs/bawn.schema.json is not the embedded one (%v): copy it", err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	properties := doc.(map[string]any)["properties"].(map[string]any)
	var fields []string
	for i := range reflect.TypeFor[Proposal]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[Proposal]().Field(i).Tag.Get("json"), ",")
		if name == "setup" { // devcontainer.json has it
			continue
		}
		fields = append(fields, name)
		if properties[name] == nil || keys[name] == nil {
			t.Errorf("%s is in the struct and not in the schema or not read", name)
		}
	}
	if len(properties) != len(fields) || len(keys) != len(fields) {
		t.Errorf("fields %v, keys %v, %d properties", fields, slices.Sorted(maps.Keys(keys)), len(properties))
	}

	c := jsonschema.NewCompiler()
	if err := c.AddResource("bawn.schema.json", withoutLookahead(t, doc)); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("bawn.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		example: true, "": true, "build: .": true, "build: {context: web, file: web/Dockerfile.dev, target: dev, args: {A: 1, B: ''}, allow: [preset:npm]}": true, "build: {args: [A=1, B=]}": true,
		"build: /x": false, "build: {args: [A]}": false, "build: {x: 1}": false, "build: .\nimage: web": false,
		"memory: 1073741824\n": true, "memory: 1.5g": true, "ports: ['0:80']": true,
		"memroy: 4g": false, "cpus: many": false, "cpus: 0": false, "cpus: 256": false, "memory: lots": false, "ports: [http]": false,
		"ports: 80": false, "allow: a.test": false, "allow: [1]": false, "allow: ['']": false, "mounts: [3]": false, "image: ':x'": false, "- a": false,
	} {
		_, err := Parse("f", []byte(text))
		var v any
		if e := yaml.Unmarshal([]byte(text), &v); e != nil {
			t.Fatal(e)
		}
		b, _ := json.Marshal(v)
		v, _ = jsonschema.UnmarshalJSON(bytes.NewReader(b))
		schemaErr := schema.Validate(v)
		if (err == nil) != want || (schemaErr == nil) != want {
			t.Errorf("%q: bawn says %v, the schema %v; want it valid: %v", text, err, schemaErr, want)
		}
	}
}

// withoutLookahead takes what Go's regular expressions lack out of the pattern
// of images; other implementations of JSON Schema have it (ECMA-262).
func withoutLookahead(t *testing.T, doc any) any {
	t.Helper()
	image := doc.(map[string]any)["properties"].(map[string]any)["image"].(map[string]any)
	pattern, ok := strings.CutPrefix(image["pattern"].(string), "^(?!docker-archive:|oci:)")
	if !ok {
		t.Fatalf("the pattern of images has changed: %v", image["pattern"])
	}
	image["pattern"] = "^" + pattern
	return doc
}

// place makes a project directory and approvals beside it.
func place(t *testing.T) (dir string, a *Approvals) {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(root, "project")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, OpenAt(filepath.Join(root, "config", "trust"))
}

func write(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, Name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func look(t *testing.T, a *Approvals, dir string, want Status) *Check {
	t.Helper()
	c, err := a.Look(dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.Status != want {
		t.Errorf("status %s, want %s", c.Status, want)
	}
	return c
}

func TestApproval(t *testing.T) {
	dir, a := place(t)
	look(t, a, dir, None)
	write(t, dir, "cpus: 2\n")
	c := look(t, a, dir, New)
	write(t, dir, "cpus: 64\n") // after it was shown
	if err := a.Approve(c); err != nil {
		t.Fatal(err)
	}
	look(t, a, dir, Changed)
	if p, err := a.Proposal(dir); err != nil || p.CPUs != 2 {
		t.Errorf("in force: %+v, %v; want what was shown", p, err)
	}
	write(t, dir, "cpus: 2\n")
	look(t, a, dir, Approved)
	write(t, dir, "cpus: 2 \n") // one byte
	look(t, a, dir, Changed)
	if p, err := a.Proposal(filepath.Join(dir, "sub")); err != nil || !reflect.DeepEqual(p, &Proposal{}) {
		t.Errorf("another directory has it too: %+v, %v", p, err)
	}

	files, err := filepath.Glob(filepath.Join(a.folder, "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	for path, want := range map[string]os.FileMode{a.folder: 0o700, files[0]: 0o600} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, fi.Mode(), err)
		}
	}

	os.Remove(filepath.Join(dir, Name))
	c = look(t, a, dir, Removed)
	if err := a.Approve(c); err != nil {
		t.Fatal(err)
	}
	look(t, a, dir, None)
}

func TestAnUnusableFileIsNeitherApprovedNorFollowed(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"link":      func(p string) error { return os.Symlink("other.yaml", p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o755) },
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o644) },
		"large":     func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("#"), maxFile+1), 0o644) },
		"broken":    func(p string) error { return os.WriteFile(p, []byte("cpus: ["), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, a := place(t)
			if err := os.WriteFile(filepath.Join(dir, "other.yaml"), []byte("cpus: 2\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := make(filepath.Join(dir, Name)); err != nil {
				t.Fatal(err)
			}
			c := look(t, a, dir, New)
			if c.Err == nil || c.Proposal != nil {
				t.Errorf("%+v", c)
			}
			if err := a.Approve(c); err == nil {
				t.Error("it was approved")
			}
			look(t, a, dir, New)
		})
	}
}

func TestMountsGoOverNoLink(t *testing.T) {
	dir, _ := place(t)
	home := filepath.Dir(dir)
	t.Setenv("HOME", home)
	for _, d := range []string{"data", "secret"} {
		if err := os.Mkdir(filepath.Join(home, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := &Proposal{Mounts: []sandbox.Source{{Host: "../data", Guest: "/data"}, {Host: "~/data", Mode: sandbox.ReadOnly}}}
	got, err := p.Resolve(dir)
	data := filepath.Join(home, "data")
	if want := []sandbox.Source{{Host: data, Guest: "/data"}, {Host: data, Guest: data, Mode: sandbox.ReadOnly}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}

	// What a guest could do to a directory of the project that was approved.
	if err := os.Symlink("../secret", filepath.Join(dir, "sub")); err != nil {
		t.Fatal(err)
	}
	p = &Proposal{Mounts: []sandbox.Source{{Host: "sub", Guest: "/sub"}}}
	if got, err := p.Resolve(dir); err == nil || !strings.Contains(err.Error(), "leads to "+filepath.Join(home, "secret")) {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example)
	f.Add("a: &x [*x]\n")
	f.Add("cpus: !!binary 4\n---\n%YAML 1.1\n")
	f.Add("ports: {? [a]: b}\nallow: |\n  x\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("f", []byte(text))
		if (p == nil) == (err == nil) {
			t.Fatalf("%+v, %v", p, err)
		}
		if err != nil {
			if strings.IndexFunc(strings.ReplaceAll(err.Error(), "\n", ""), func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
				t.Fatalf("an error that cannot be shown: %q", err)
			}
			return
		}
		if _, err := policy.ParseFile("x", p.Policy()); err != nil {
			t.Fatalf("rules that make no file: %v", err)
		}
		if n := strings.Count(string(p.Policy()), "\n"); n != len(p.Allow)+len(p.Deny) {
			t.Fatalf("%d lines from %v and %v", n, p.Allow, p.Deny)
		}
	})
}
