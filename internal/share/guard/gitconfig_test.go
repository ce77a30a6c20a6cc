package guard

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// configurations are texts that git reads.
var configurations = map[string]string{
	"plain": "[core]\n\thooksPath = tools\n", "byte order mark": "\ufeff[core]\n\thooksPath = tools\n", "in the line of the head": "[core] hooksPath = tools\n",
	"no blanks": "[core]hooksPath=tools", "quoted": "[core]\n\thooksPath = \"tools\"\n", "partly quoted": "[core]\n\thooksPath = to\"ol\"s\n",
	"continued": "[core]\n\thooksPath = to\\\nols\n", "CR LF": "[core]\r\n\thooksPath = tools\r\n", "continued with CR LF": "[core]\r\n\thooksPath = to\\\r\nols\r\n",
	"comments": "# a\n;b\n[core] ; c\n\thooksPath = tools ; d\n\teditor = \"x;y\" # z\n", "dots": "[branch.master]\n\tx = y\n[core]\n\thooksPath = tools\n",
	"no value": "[core]\n\tbare\n\thooksPath = tools\n", "capitals": "[CORE]\n\tHOOKSPATH = tools\n", "no UTF-8": "[user]\n\tname = J\xfcrgen\n[core]\n\thooksPath = tools\n",
	"escapes": "[alias]\n\tx = \"!f() { echo \\\"hi\\\" \\\\ \\t\\n; }; f\"\n[core]\n\thooksPath = tools\n", "escapes in the head": "[remote \"a\\\"b\\\\c]\"]\n\turl = x\n[core]\n\thooksPath = tools\n",
	"dots and quotes": "[gui.x \"y\"]\n\ta = c\n[core]\n\thooksPath = tools\n", "blanks": "[remote   \"origin\"]\n\n\t a1-b   =   c  d \t\n [core]\n\thooksPath\t=\ttools\t\n",
	"empty": "[core]\n\teditor =\n\thooksPath = tools\n\tpager = \"\"\n", "blanks in quotes": "[a]\n\tb = \" x \" y \n",
}

// TestConfigurationAsGitReadsIt: each variable that git finds in a file is found.
func TestConfigurationAsGitReadsIt(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	for name, text := range configurations {
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("git", "config", "--file", file, "--list", "-z").Output()
		if err != nil {
			t.Fatalf("%s: git does not read it: %v", name, err)
		}
		var want, got []string
		for entry := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			key, value, _ := strings.Cut(entry, "\n")
			section, _, _ := strings.Cut(key, ".")
			want = append(want, section+"."+key[strings.LastIndexByte(key, '.')+1:]+"="+value)
		}
		for _, v := range variables(text) {
			got = append(got, v.section+"."+v.name+"="+v.value)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, git has %q", name, got, want)
		}
	}
}

// TestAttackProgramsOfGitsConfiguration: whatever names a program or file of the project in what git reads,
// it is guarded, also where it is not there yet.
func TestAttackProgramsOfGitsConfiguration(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	texts := map[string]string{
		"not there": "[core]\n\tsshCommand = ssh -o ProxyCommand=./tools\n", "broken, but for the end": "[x\n[]\n=\n]\n[core]\n\tfsmonitor = ./tools\n",
	}
	for name, text := range configurations {
		if strings.Contains(strings.ToLower(text), "hookspath") {
			texts[name] = text
		}
	}
	for _, line := range []string{
		"core|fsmonitor = \"sh tools\"", "core|editor = $PWD/tools -x", "core|pager = less | ./tools", "core|attributesFile = tools", "gpg \"ssh\"|program = ./tools", "gpg \"ssh\"|defaultKeyCommand = sh -c './tools'",
		"diff|external = ./tools", "diff \"x\"|textconv = ./tools", "interactive|diffFilter = ./tools", "web|browser = ./tools", "browser \"x\"|cmd = ./tools", "sendemail|smtpserver = ./tools", "sendemail|tocmd = ./tools",
		"remote \"origin\"|uploadpack = ./tools", "remote \"origin\"|receivepack = ./tools", "remote \"origin\"|url = ext::./tools %S", "submodule \"x\"|update = !./tools", "imap|tunnel = ./tools", "guitool \"x\"|cmd = ./tools",
		"instaweb|httpd = ./tools", "hook \"x\"|command = ./tools", "lfs \"customtransfer.x\"|path = ./tools", "lfs \"extension.x\"|clean = ./tools", "tar \"x\"|command = ./tools", "filter \"x\"|process = python3 ./tools",
		"sequence|editor = ./tools", "init|templateDir = ./tools", "mergetool \"x\"|path = ./tools", "uploadpack|packObjectsHook = ./tools", "credential \"https://x\"|helper = !./tools", "credential|helper = \"!f() { ./tools; }; f\"",
		"http|sslCAInfo = ./tools", "alias|x = !$(git rev-parse --show-toplevel)/tools", "alias|y = !sh ${PWD}/tools", "include|path = ../tools", "trailer \"x\"|cmd = ./tools", "merge \"x\"|driver = ./tools %O", "man \"x\"|cmd = ./tools",
		"receive|procReceiveRefs = refs/x\n\tcertNonceSeed = x\n[filter \"y\"]\n\tsmudge = ./tools", "core|gitProxy = ./tools for x", "blame|ignoreRevsFile = tools", "maintenance|strategy = x\n[sendpack]\n\tx = --exec=./tools",
	} {
		section, rest, _ := strings.Cut(line, "|")
		texts[line] = "[" + section + "]\n\t" + rest + "\n"
	}
	for name, text := range texts {
		root, err := filepath.EvalSymlinks(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(root, ".git"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, ".git/config"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if name != "not there" {
			if err := os.WriteFile(filepath.Join(root, "tools"), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if got, _ := Targets(root); !slices.Contains(got, "tools") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func FuzzGitConfig(f *testing.F) {
	for _, text := range configurations {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, v := range variables(text) {
			if v.name == "" || strings.ContainsAny(v.section, "\n\"") || len(v.value) > len(text) {
				t.Errorf("%+v", v)
			}
		}
	})
}
