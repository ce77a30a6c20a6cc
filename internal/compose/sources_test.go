package compose

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const top = "docker-compose.yml"

// env returns the environment of a service of the compose file for the guest.
func (s *Stack) env(t *testing.T, service string) map[string]any {
	t.Helper()
	_, services := s.model(t)
	c, _ := services[service].(map[string]any)
	env, _ := c["environment"].(map[string]any)
	return env
}

// TestExtendsOfAFile: the paths of a file start from its own folder, and files extend others.
func TestExtendsOfAFile(t *testing.T) {
	f := files{
		top: `services:
  app: {extends: {file: common/app.yml, service: base}, environment: {OWN: "1"}, command: sleep infinity}
  db: {extends: {file: "${DIR:-common}/app.yml", service: db}}
  twin: {extends: {service: db}}
  self: {extends: {file: ` + top + `, service: db}}
  texts:
    image: x
    labels: &l {a: "null", b: "1", c: 0x10, d: 'yes', e: "a: b # c", f: "\ttab\u00e9", g: !!str 12, h: , i: ~}
    environment:
      <<: *l
      j: |
        lines
          more
      k: 1.50
      m: 2001-01-01
      n: off
networks: {default: }
`,
		"common/app.yml": `include: [missing.yml]
services:
  base:
    extends: {file: deep/base.yml, service: base}
    build: .
    env_file: app.env
    volumes: ["..:/src"]
  db: {image: postgres, volumes: ["./init:/init"], environment: {K: v}, develop: {watch: [{path: /etc/passwd, action: rebuild}]}}
`,
		"common/deep/base.yml": "services: {base: {user: root, environment: {DEEP: \"2\"}}}\n",
		"common/app.env":       "FROM=file\n",
	}
	got, err := f.load(Request{Files: []string{top}})
	if err != nil {
		t.Fatal(err)
	}
	want := Service{Build: &Build{Context: "common", Dockerfile: "common/Dockerfile"}, Env: []string{"DEEP=2", "FROM=file", "OWN=1"}, User: "root", Project: []string{"/src"}}
	if !reflect.DeepEqual(got.Service, want) {
		t.Errorf("%+v", got.Service)
	}
	_, services := got.Stack.model(t)
	plain, err := files{top: "services:\n  app: {image: a}\n  texts:" + strings.SplitN(strings.SplitN(f[top], "  texts:", 2)[1], "networks", 2)[0]}.load(Request{Files: []string{top}})
	if err != nil || !maps.Equal(plain.Stack.env(t, "texts"), got.Stack.env(t, "texts")) || len(got.Stack.env(t, "texts")) != 13 {
		t.Errorf("a file that was written anew: %v, %v", got.Stack.env(t, "texts"), err)
	}
	for _, name := range []string{"db", "twin", "self"} {
		c := services[name].(map[string]any)
		if c["image"] != "postgres" || got.Stack.env(t, name)["K"] != "v" || !strings.Contains(fmt.Sprint(c["volumes"]), "/home/me/shop/common/init") {
			t.Errorf("%s: %v", name, c)
		}
	}
}

// TestInclude: an included file has its own folder and its own .env, of which the including one's values take
// precedence; what the including file says of a service is added to it.
func TestInclude(t *testing.T) {
	f := files{
		".env": "TAG=1\nBOTH=outer\nOUTER=of the project\n",
		top: `include:
  - sub/compose.yml
  - path: [other/a.yml, other/b.yml]
    project_directory: place
    env_file: [sub/x.env, /dev/null, "${WHICH:-sub}/y.env"]
services:
  app: {extends: {service: db}, image: "app:${TAG}", environment: [TOKEN, OUTER, "INNER=${INNER}"]}
  web: {environment: {ADDED: "1"}}
`,
		"sub/compose.yml": "include: [deeper/compose.yml]\nservices: {db: {image: 'db:${TAG}-${INNER}', environment: {BOTH: '${BOTH}', A: '${A-none}'}, volumes: ['./data:/data']}}\nvolumes: {v: }\n",
		"sub/.env":        "INNER=\"in $TAG\\\\ 'q' \\\"d\\\" \\$x\"\nBOTH=inner\n",
		"sub/x.env":       "A=1\nB=1\n", "sub/y.env": "B=2\nC=${A}${TAG}\n",
		"sub/deeper/compose.yml": "services: {cache: {image: 'redis:${INNER:-none}', environment: [BOTH]}}\n",
		"other/a.yml":            "services: {web: {image: w, environment: {B: '${B}', C: '${C}'}, env_file: web.env}}\n",
		"other/b.yml":            "services: {web: {volumes: ['.:/w']}}\n",
	}
	got, err := f.load(Request{Files: []string{top}})
	if err != nil {
		t.Fatal(err)
	}
	if s := got.Service; s.Image != "app:1" || !slices.Equal(s.Env, []string{"A=none", "BOTH=outer", "INNER=", "OUTER=of the project"}) || !slices.Equal(s.HostEnv, []string{"INNER", "TOKEN"}) {
		t.Errorf("%+v", s)
	}
	_, services := got.Stack.model(t)
	inner := `in 1\ 'q' "d" $x`
	db, web := services["db"].(map[string]any), services["web"].(map[string]any)
	if db["image"] != strings.ReplaceAll("db:1-"+inner, "$", "$$") || !strings.Contains(fmt.Sprint(db["volumes"]), "/home/me/shop/sub/data") {
		t.Errorf("%v", db)
	}
	if cache := services["cache"].(map[string]any); cache["image"] != strings.ReplaceAll("redis:"+inner, "$", "$$") || got.Stack.env(t, "cache")["BOTH"] != "outer" {
		t.Errorf("%v", cache)
	}
	if env := got.Stack.env(t, "web"); !maps.Equal(env, map[string]any{"B": "2", "C": "11", "ADDED": "1"}) {
		t.Errorf("%v", env)
	}
	if s := fmt.Sprint(web["volumes"], web["env_file"]); !strings.Contains(s, "source:/home/me/shop/place ") || !strings.Contains(s, "/home/me/shop/place/web.env") {
		t.Errorf("%s", s)
	}
}

// TestValuesOfAHiddenFile: none counts unless the person lets the files have it, and those that they name are said.
func TestValuesOfAHiddenFile(t *testing.T) {
	f := files{
		".env": "A=stolen\n", "sub/.env": "C=stolen\n", "sub/c.yml": "services: {sub: {image: 'c:$C'}}\n",
		top: "include: [sub/c.yml]\nservices: {app: {image: 'a:${A}', build: {context: ., args: [G]}, environment: [B, 'D=${D-}']}, db: {image: 'b:${A:+set}', environment: {F: , H: '${H?}'}}}\n",
	}
	r := Request{Files: []string{top}, Hidden: func(name string) bool { return filepath.Base(name) == ".env" }}
	got, err := f.load(r)
	if err == nil || !strings.Contains(err.Error(), "--env-file") || !strings.Contains(err.Error(), ".env, sub/.env is hidden") || strings.Contains(err.Error(), "stolen") {
		t.Fatalf("%+v, %v", got, err)
	}
	f[top] = strings.ReplaceAll(f[top], "H?", "H-")
	got, err = f.load(r)
	if err != nil || got.Taken != nil || !slices.Equal(got.NotTaken, []string{".env", "sub/.env"}) || !slices.Equal(got.Service.HostEnv, []string{"A", "B", "C"}) ||
		strings.Contains(fmt.Sprintf("%+v %s", got.Service, got.Stack.Model), "stolen") {
		t.Errorf("%+v, %v", got, err)
	}
	r.Values = func(name string) (map[string]string, bool, error) {
		return map[string]string{"A": "1", "B": "two", "F": "f", "G": "g", "H": "h", "UNUSED": "x"}, name == ".env", nil
	}
	got, err = f.load(r)
	if err != nil || !reflect.DeepEqual(got.Taken, []FileValues{{".env", map[string]string{"A": "1", "B": "two", "F": "f", "G": "g", "H": "h"}}}) || !slices.Equal(got.NotTaken, []string{"sub/.env"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if s := got.Service; !slices.Equal(s.Env, []string{"B=two", "D="}) || !slices.Equal(s.Build.Args, []string{"G=g"}) || !slices.Equal(s.HostEnv, []string{"C"}) {
		t.Errorf("%+v", s)
	}
	if env := got.Stack.env(t, "db"); env["F"] != "f" || env["H"] != "h" {
		t.Errorf("%v", env)
	}
	f[top] = "services: {app: {image: a}, db: {image: b}}"
	f[".env"] = "COMPOSE_PROJECT_NAME=Named\n"
	if got, err := f.load(Request{Files: []string{top}}); err != nil || got.Stack.Name != "named" {
		t.Errorf("%+v, %v", got.Stack, err)
	}
}

// TestAttackFilesThatComposeFilesName: no way of naming a file leads out of the project, to a hidden one, or makes
// the reader open one by itself.
func TestAttackFilesThatComposeFilesName(t *testing.T) {
	dir := t.TempDir()
	secret, env := filepath.Join(dir, "secret.yml"), filepath.Join(dir, ".env")
	for name, text := range map[string]string{secret: "services: {app: {image: stolen, environment: {S: stolen}}}\n", env: "S=stolen\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	inner := "services: {app: {image: 'a:${S}'}}\n"
	for _, text := range []string{
		"include: [" + secret + "]\n", "include: [{path: " + secret + "}]\n", "include: [../../../../../" + secret + "]\n", "include: ['${X:-" + secret + "}']\n",
		"include: [{path: in.yml, env_file: " + env + "}]\n", "include: [{path: in.yml, env_file: [in.env, ../../.env]}]\n", "include: [{path: in.yml, project_directory: " + dir + "}]\n",
		"include: [{path: in.yml, project_directory: ../..}]\n", "include: ['oci://registry.example/x']\n", "include: ['git@github.com:a/b']\n", "include: ['https://example.com/x.git']\n", "include: ['']\n",
		"x: &m {include: [" + secret + "]}\n<<: *m\n" + inner, "x: &m [" + secret + "]\ninclude: *m\n" + inner, "include: [{path: []}]\n" + inner, "include: [{env_file: " + env + "}]\n" + inner,
		"include: [{path: in.yml, other: x}]\n", "include: [hidden.yml]\n", "include: [{path: in.yml, project_directory: '~'}]\nservices: {app: {extends: {file: '~/x.yml', service: app}}}\n", "include: {path: in.yml}\n", "include: " + secret + "\n",
		"services: {app: {extends: {file: " + secret + ", service: app}}}\n", "services: {app: {extends: {file: ../../secret.yml, service: app}}}\n", "services: {app: {extends: {file: '${X:-" + secret + "}', service: app}}}\n",
		"services: {app: {extends: {file: hidden.yml, service: app}}}\n", "x: &e {file: " + secret + ", service: app}\nservices: {app: {extends: *e}}\n",
		"x: &e {file: " + secret + ", service: app}\nservices: {app: {extends: {<<: *e}}}\n", "x: &s {extends: {file: " + secret + ", service: app}}\nservices: {app: {<<: *s}}\n",
		"x: &s {app: {extends: {file: " + secret + ", service: app}}}\nservices: {<<: [*s]}\n", "services: {app: {extends: {file: &f " + secret + ", service: app}}, b: {extends: {file: *f, service: app}}}\n",
		"services: {app: {extends: {file: [" + secret + "], service: app}}}\n", "services: {app: {extends: {file: !reset " + secret + ", service: app}}}\n",
		"include: [nested.yml]\n", "services: {app: {extends: {file: nested2.yml, service: app}}}\n", "include: [loop.yml]\n" + inner, "include: [" + top + "]\n" + inner,
	} {
		f := files{top: text, "in.yml": inner, "in.env": "", "hidden.yml": inner, "nested.yml": "include: [../secret.yml]\n" + inner, "nested2.yml": "services: {app: {extends: {file: " + secret + ", service: app}}}\n",
			"loop.yml": "include: [loop2.yml]\n", "loop2.yml": "include: [loop.yml]\n"}
		got, err := f.load(Request{Files: []string{top}, Hidden: func(name string) bool { return name == "hidden.yml" }})
		if err == nil || strings.Contains(err.Error(), "stolen") || strings.Contains(err.Error(), "bawn-") || strings.Contains(err.Error(), "/proc/self") {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	if got, err := (&load{}).Load(t.Context(), secret); err == nil {
		t.Errorf("compose-go may read %s", got)
	}
	// Where there is no .env in the project, none of another folder counts.
	f := files{top: "include: [in.yml, {path: in.yml, env_file: []}, {path: in.yml, project_directory: sub}]\n", "in.yml": inner}
	if got, err := f.load(Request{Files: []string{top}}); err != nil || got.Service.Image != "a:" || !slices.Equal(got.Service.HostEnv, []string{"S"}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestAttackFilesThatGrow: small files that name each other, or variables that hold each other, are refused before
// they take the reader's time and memory.
func TestAttackFilesThatGrow(t *testing.T) {
	many := func(format string, n int) string { return repeated(n, format) }
	big := "services: {big: {image: b, labels: {" + many("l%d: v,", 5000) + "}}}\n"
	double := files{"f0.yml": "services: {app: {image: a}}\n"}
	for i := range 20 {
		double[fmt.Sprintf("f%d.yml", i+1)] = fmt.Sprintf("include: [f%d.yml, {path: f%[1]d.yml, project_directory: d%[1]d}]\n", i)
	}
	chain := files{}
	for i := range 200 {
		chain[fmt.Sprintf("c%d.yml", i)] = fmt.Sprintf("services: {app: {extends: {file: c%d.yml, service: app}}}\n", i+1)
	}
	growing := "A0=" + strings.Repeat("x", 1000) + "\n"
	for i := range 40 {
		growing += fmt.Sprintf("A%d=${A%d}${A%[2]d}\n", i+1, i)
	}
	with := func(base files, name, text string) files {
		f := maps.Clone(base)
		f[name] = text
		return f
	}
	for what, f := range map[string]files{
		"each extends a large one":         {top: "services: {app: {image: a}, " + many("s%d: {extends: {file: big.yml, service: big}},", 60) + "}\n", "big.yml": big},
		"each extends one that extends it": {top: "services: {app: {image: a}, one: {extends: {file: big.yml, service: big}}, " + many("s%d: {extends: one},", 60) + "}\n", "big.yml": big},
		"each extends an included one":     {top: "include: [big.yml]\nservices: {app: {image: a}, " + many("s%d: {extends: big},", 60) + "}\n", "big.yml": big},
		"included again and again":         {top: "include: [" + many("{path: big.yml, project_directory: d%d},", 30) + "]\nservices: {app: {image: a}}\n", "big.yml": big},
		"twice each":                       with(double, top, "include: [f20.yml]\n"),
		"a long way":                       with(chain, top, "services: {app: {extends: {file: c0.yml, service: app}}}\n"),
		"variables in .env":                {top: "services: {app: {image: a}}\n", ".env": growing},
		"variables of an include":          {top: "include: [{path: in.yml, env_file: x.env}]\nservices: {app: {image: a}}\n", "in.yml": "services: {b: {image: b}}\n", "x.env": growing},
		"long values":                      {top: "services: {app: {image: a, labels: [" + many("'l%d=${V}',", 5000) + "]}}\n", ".env": "V=" + strings.Repeat("x", 60<<10) + "\n"},
		"one long value":                   {top: "services: {app: {image: a, command: '" + strings.Repeat("${V}", 20) + "'}}\n", ".env": "V=" + strings.Repeat("x", 60<<10) + "\n"},
		"many variables":                   {top: "services: {app: {image: a}}\n", ".env": many("V%d=1\n", maxEnvValues+1)},
		"extend each other":                {top: "services: {app: {extends: {file: a.yml, service: app}}}\n", "a.yml": "services: {app: {extends: {file: b.yml, service: app}}}\n", "b.yml": "services: {app: {extends: {file: a.yml, service: app}}}\n"},
		"a deep one":                       {top: "include: [deep.yml]\nservices: {app: {image: a}}\n", "deep.yml": "x: " + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "\n"},
	} {
		start := time.Now()
		got, err := f.load(Request{Files: []string{top}})
		if err == nil {
			t.Errorf("%s: %d bytes", what, len(got.Stack.Model))
		}
		if took := time.Since(start); took > 20*time.Second { // seconds on a busy machine
			t.Errorf("%s took %v: %v", what, took, err)
		}
		t.Logf("%s: %v", what, err)
	}
}

// FuzzSources: whatever files say of each other, only files in the project are read, and no text of one gets to the
// terminal.
func FuzzSources(f *testing.F) {
	f.Add("include: [in.yml]\nservices: {app: {extends: {file: in.yml, service: b}}}", "services: {b: {image: '${A}', extends: {file: in.yml, service: c}}, c: {image: c}}", "A=1\nB=\"$A\"")
	f.Add("include: [{path: [in.yml, '../x.yml'], env_file: .env, project_directory: sub}]\n---\nservices: {app: !reset null}", "services: {app: {image: a, environment: [A]}}\n---\n{}", "A='x'\nexport B=${A:-1}")
	f.Add("x: &x {include: [in.yml]}\n<<: *x\nservices: {app: {image: a}}", "include: [../docker-compose.yml]", "")
	f.Fuzz(func(t *testing.T, text, in, env string) {
		project := files{top: text, "in.yml": in, ".env": env}
		got, err := Load(Request{Files: []string{top}, Service: "app", Project: "/home/me/shop", Read: func(name string) ([]byte, error) {
			if !filepath.IsLocal(name) || filepath.Clean(name) != name {
				t.Errorf("%q is read", name)
			}
			return project.read(name)
		}})
		if err != nil {
			if strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%q", err)
			}
			return
		}
		if got.Stack.Model != "" {
			got.Stack.model(t)
		}
	})
}
