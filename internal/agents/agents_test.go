package agents

import (
	"slices"
	"strings"
	"testing"
)

// TestBuiltin: the agents that come with bawn are valid, for every processor.
func TestBuiltin(t *testing.T) {
	var names []string
	for _, a := range Builtin() {
		names = append(names, a.Name)
		if a.Summary == "" || len(a.Allow) == 0 || len(a.Secrets) == 0 || a.Instructions == "" || len(a.Login) == 0 {
			t.Errorf("%s: a field is missing", a.Name)
		}
		for _, arch := range []string{"amd64", "arm64"} {
			if s := expand(a.Platform+a.Program, arch); strings.ContainsAny(s, "{}") {
				t.Errorf("%s: %s", a.Name, s)
			}
		}
	}
	if want := []string{"claude", "codex", "gemini", "opencode", "copilot", "amp"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}

// TestParse: a file replaces fields of agents and adds others.
func TestParse(t *testing.T) {
	list, err := Parse("f", []byte("claude:\n  autonomy: [--careful]\n  env: {A: b}\nmine:\n  package: mine\n  program: cli.js\n  node: \"22\"\n"), Builtin())
	if err != nil {
		t.Fatal(err)
	}
	if a := list[0]; !slices.Equal(a.Autonomy, []string{"--careful"}) || len(a.Env) != 1 || a.Package != "@anthropic-ai/claude-code" {
		t.Errorf("%+v", a)
	}
	if a := list[len(list)-1]; a.Name != "mine" || a.Node != "22" {
		t.Errorf("%+v", a)
	}
	if a := Builtin()[0]; a.Env["CLAUDE_CONFIG_DIR"] == "" {
		t.Error("the agents that come with bawn were changed")
	}
}

// TestParseErrors: what is not known or not valid is an error with its line.
func TestParseErrors(t *testing.T) {
	const valid = "x:\n  package: x\n  program: x\n"
	for text, want := range map[string]string{
		"x:\n  package: x\n  program: x\n  colour: red\n": `f:4: there is no field "colour"`,
		valid + "  program: y\n":                          "f:4: \"program\" is there twice",
		valid + valid:                                     "f:4: \"x\" is there twice",
		valid + "  allow: {a: b}\n":                       "f:4: allow: ",
		"[a]\n":                                           "f:1: write a mapping",
		"x: y\n":                                          "f:1: write a mapping",
		"x:\n  package: ../../x\n  program: x\n":          "f:1: x: package",
		"x:\n  package: x\n  program: ../x\n":             "f:1: x: program",
		"x:\n  package: x\n":                              "f:1: x: program",
		"X y:\n  package: x\n  program: x\n":              "cannot be the name",
		valid + "  links: {../../.ssh: a}\n":              "not a path within a home",
		valid + "  login: [/etc/shadow]\n":                "not a path within a home",
		valid + "  env: {\"A;rm\": b}\n":                  "cannot be the name of a variable",
		valid + "  node: v22\n":                           "major version",
		valid + "  instructions: a/../../b\n":             "instructions",
		"\tx":                                             "f: ",
		strings.Repeat("#", maxFile+1):                    "more than",
	} {
		if list, err := Parse("f", []byte(text), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, %v, want %q", text, list, err, want)
		}
	}
}

// TestArguments: the arguments for full autonomy stand where the program takes them.
func TestArguments(t *testing.T) {
	agents := map[string]*Agent{}
	list := Builtin()
	for i := range list {
		agents[list[i].Name] = &list[i]
	}
	for _, c := range []struct {
		agent string
		args  []string
		want  string
	}{
		{"claude", []string{"-p", "x"}, "--dangerously-skip-permissions -p x"},
		{"claude", nil, "--dangerously-skip-permissions"},
		{"codex", []string{"exec", "x"}, "--dangerously-bypass-approvals-and-sandbox exec x"},
		{"opencode", nil, "--auto"},
		{"opencode", []string{"run", "x", "run"}, "run --auto x run"},
		{"opencode", []string{"auth", "login"}, "auth login"},
		{"opencode", []string{"--continue", "run"}, "--auto --continue run"},
		{"opencode", []string{"./run"}, "--auto ./run"},
		{"gemini", []string{"mcp", "list"}, "mcp list"},
		{"gemini", []string{"-p", "mcp"}, "--yolo -p mcp"},
	} {
		if got := strings.Join(agents[c.agent].Arguments(c.args), " "); got != c.want {
			t.Errorf("%s %q: %q, want %q", c.agent, c.args, got, c.want)
		}
	}
	changed, err := Parse("f", []byte("opencode:\n  subcommands: {run: [--all]}\n"), Builtin())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range changed {
		if a.Name == "opencode" && (len(a.Subcommands) != 1 || len(agents["opencode"].Subcommands) == 1) {
			t.Errorf("%v", a.Subcommands)
		}
	}
}
