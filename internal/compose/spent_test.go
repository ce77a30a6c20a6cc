package compose

import (
	"fmt"
	"strings"
	"testing"
)

// repeated returns a text once for each number.
func repeated(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// TestAttackWorkOfTheReader: small files that would make the host read for hours, or fill its memory, are refused
// before that. Most of these would not come to an end.
func TestAttackWorkOfTheReader(t *testing.T) {
	app := "services: {app: {image: a}}\n"
	variables := repeated(4000, "A%d: x,")
	base := "  app: {image: a}\n  base: {image: a, environment: {" + variables + "}}\n"
	nested := strings.Repeat("${A:-", 9000) + strings.Repeat("}", 9000)
	layers := "services:\n  app: {image: a}\n  x0_0: {image: a}\n  x0_1: {image: a}\n"
	for i := range 30 {
		for j := range 2 {
			layers += fmt.Sprintf("  x%d_%d: {image: a, depends_on: [x%d_0, x%d_1]}\n", i+1, j, i, i)
		}
	}
	aliases := ""
	for i := range 200 {
		aliases += fmt.Sprintf("x-%d: &a%d [*a%d]\n", i+1, i+1, i)
	}
	for what, c := range map[string]struct{ text, want string }{
		"a text with aliases":           {"x-a: &a \"" + strings.Repeat("$$", 20_000) + "\"\nservices: {app: {image: a, command: [" + strings.Repeat("*a,", 5000) + "]}}\n", "values"},
		"extends":                       {"services:\n" + base + repeated(2000, "  s%d: {extends: base}\n"), "values"},
		"extends by a long form":        {"services:\n" + base + repeated(2000, "  s%d: {extends: {service: base}}\n"), "values"},
		"extends with an empty file":    {"services:\n" + base + repeated(2000, "  s%d: {extends: {service: base, file: }}\n"), "values"},
		"extends by a variable":         {"services:\n" + base + repeated(2000, "  s%d: {extends: '${A:-base}'}\n"), "values"},
		"extends by a merge":            {"x-e: &e {extends: base}\nservices:\n" + base + repeated(2000, "  s%d: {<<: *e}\n"), "values"},
		"extends in merged services":    {"x-s: &s\n" + base + repeated(2000, "  s%d: {extends: base}\n") + "services: !override {<<: *s}\n", "values"},
		"extends by an anchor":          {"x-n: &n base\nservices:\n" + base + repeated(2000, "  s%d: {extends: *n}\n"), "values"},
		"extends in a row":              {"services:\n" + base + "  s0: {extends: base}\n" + repeated(2000, "  s%[1]d_: {extends: s%[1]d}\n") + "  s1: {extends: s0_}\n  s2: {extends: s1_}\n", "values"},
		"extends of jobs":               {app + "jobs:\n" + base + repeated(2000, "  s%d: {extends: base}\n"), "values"},
		"documents":                     {"services: {app: {image: a, environment: {" + variables + "}}}\n" + strings.Repeat("---\nx-a: 1\n", 20_000), "too many documents"},
		"empty documents":               {app + strings.Repeat("---\n", 50_000), "too many documents"},
		"nesting":                       {app + "x-a: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "within each other"},
		"nesting by aliases":            {app + "x-0: &a0 [1]\n" + aliases, "within each other"},
		"a long command":                {"services: {app: {image: a, command: " + strings.Repeat("a", maxText+1) + "}}", "a text of more"},
		"a long key":                    {app + "x-a: {? " + strings.Repeat("k", maxKey+1) + " : 1}", "a key of more"},
		"a long key by an alias":        {app + "x-k: &k " + strings.Repeat("k", maxKey+1) + "\nx-a: {*k : 1}", "a key of more"},
		"ports":                         {"services: {app: {image: a, ports: [" + strings.Repeat("'1-65535:1-65535',", 4000) + "]}}", "1024 ports"},
		"ports with an address":         {"services: {app: {image: a, ports: ['127.0.0.1:1-65535:1-65535/udp']}}", "1024 ports"},
		"ports by a variable":           {"services: {app: {image: a, ports: ['${A:-1-65535}']}}", "1024 ports"},
		"ports of several":              {"services: {app: {image: a, ports: ['1-1000']}, b: {image: b, ports: ['1-1000']}}", "1024 ports"},
		"variables in variables":        {"services: {app: {image: a, command: \"" + nested + "\"}}", "too many variables"},
		"variables that do not end":     {"services: {app: {image: a, command: \"" + nested[:54_000] + "\"}}", "too many variables"},
		"variables in a row":            {"services: {app: {image: a, command: \"" + strings.Repeat("${A:-}", 9000) + "\"}}", "too many variables"},
		"dependencies":                  {layers, "ways"},
		"a circle":                      {"services: {app: {image: a, depends_on: [b]}, b: {image: b, depends_on: [app]}}", "cycle"},
		"values of variables, repeated": {"services: {app: {image: a, env_file: doubled}}", "too long"},
		"variables in a file":           {"services: {app: {image: a, env_file: nested}}", "too many variables"},
		"a name that is an option":      {"services: {app: {image: a, depends_on: {--help: {condition: service_healthy}}}, --help: {image: b}}", "as an option"},
	} {
		doubled := "A=0123456789abcdef\n" + strings.Repeat("A=$A$A\n", 60)
		got, err := files{file: c.text, ".devcontainer/doubled": doubled, ".devcontainer/nested": "A=\"" + nested + "\"\n"}.load(Request{})
		if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 2000 {
			t.Errorf("%s: %v, %.300v", what, got != nil, err)
		}
	}
}

// TestWorkThatIsUsual is not refused.
func TestWorkThatIsUsual(t *testing.T) {
	common := "x-common: &common {environment: &env {" + repeated(50, "A%d: \"${B%[1]d:-${C:-x}}\",") + "}, logging: {driver: local, options: {max-size: 10m}}}\n"
	f := files{"a.yml": common + "services:\n  app: {image: a, ports: ['8000-8100:8000-8100'], env_file: e}\n  base: {<<: *common, image: b, depends_on: [s0]}\n  s0: {image: c}\n" +
		repeated(30, "  t%d: {<<: *common, image: c, depends_on: [s0], ports: ['3%[1]d', '127.0.0.1:4%[1]d:80']}\n") + repeated(30, "  u%d: {extends: base, labels: {a.b/c: 'd'}}\n"),
		"b.yml": "services: {app: {command: \"" + strings.Repeat("echo $$HOME; ", 200) + "\"}}\n---\nservices: {app: {user: root}}\n", "e": repeated(100, "E%d=x\nF%[1]d=${E%[1]d}/y\n")}
	got, err := f.load(Request{Files: []string{"a.yml", "b.yml"}})
	if err != nil || len(got.Stack.Services) != 62 || len(got.Service.Env) != 200 || got.Service.User != "root" {
		t.Errorf("%+v, %v", got, err)
	}
}
