package agents

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/sys/text"
)

// Marker is the first line of the instructions that bawn keeps up to date. A file without it is
// the person's own and stays.
const Marker = "<!-- bawn keeps this file up to date; remove this line to keep your own text -->"

// instructions is the text about the sandbox that an agent reads.
const instructions = Marker + `

# You run in a sandbox (bawn)

- This is a virtual machine of its own. The project directory is the user's, live; everything else
  here is the sandbox's: install and change what you need. sudo works, and so does Docker.
- There are no credentials of the user here. Do not ask for them. What is in variables such as
  ANTHROPIC_API_KEY or GH_TOKEN is a placeholder. Do not print the environment: a request to the
  model with the placeholder of another service in its text is refused (403), and so is each one
  after it in that conversation.
- Only hosts that the user allowed can be reached. Others fail at once: a name does not resolve, a
  connection is reset, an HTTP request gets status 403. Trying again or another way does not help.
- http://bawn.internal/ (curl it) has the rules, the latest denials, and how to ask the user for a
  rule: curl http://bawn.internal/ask --data-urlencode rule=HOST:PORT --data-urlencode 'reason=why'
  Nothing changes until the user decides. Go on meanwhile, and say in your answer what you asked for.
- Changes of some files that the host runs or trusts (.git/hooks, .git/config, .envrc, .vscode,
  settings of agents) stay in the sandbox, and files with secrets (.env, private keys) are hidden.
`

// script returns the program bin/NAME: it prepares the agent's home in the guest, and becomes the
// agent. programs and home are the agent's directories in the guest, program is the file to run.
func (a *Agent) script(programs, home, program string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#!/bin/sh\n# bawn made this: it starts %s with its home in %s.\n", a.Name, home)
	if len(a.Links) > 0 {
		b.WriteString("link() { # path below the user's home, path in the agent's home\n" +
			"\tmkdir -p \"" + home + "/$2\" \"$(dirname \"$HOME/$1\")\"\n" +
			"\t[ -e \"$HOME/$1\" ] || ln -sfn \"" + home + "/$2\" \"$HOME/$1\"\n}\n")
	}
	for _, from := range slices.Sorted(maps.Keys(a.Links)) {
		fmt.Fprintf(&b, "link %s %s\n", text.ShellWord(from), text.ShellWord(a.Links[from]))
	}
	if a.Instructions != "" {
		to := text.ShellWord(home + "/" + a.Instructions)
		fmt.Fprintf(&b, "mkdir -p %s\n", text.ShellWord(path.Dir(home+"/"+a.Instructions)))
		fmt.Fprintf(&b, "if [ ! -e %[1]s ] || head -n 1 %[1]s | grep -qxF '%[2]s'; then\n\tcat %[3]s >%[1]s.$$ && mv %[1]s.$$ %[1]s\nfi\n", to, Marker, text.ShellWord(programs+"/instructions.md"))
	}
	for _, name := range slices.Sorted(maps.Keys(a.Env)) {
		fmt.Fprintf(&b, "[ -n \"${%[1]s+set}\" ] || %[1]s=%[2]s\nexport %[1]s\n", name, text.ShellWord(strings.ReplaceAll(a.Env[name], "{home}", home)))
	}
	fmt.Fprintf(&b, "PATH=%s/bin:$PATH; export PATH\n", programs)
	if a.Node != "" {
		fmt.Fprintf(&b, "exec %s/node/bin/node %s \"$@\"\n", programs, text.ShellWord(program))
	} else {
		fmt.Fprintf(&b, "exec %s \"$@\"\n", text.ShellWord(program))
	}
	return b.String()
}
