package guard

import (
	"path"
	"strings"
)

// Rule is one line of the list. docs/guard.md shows all of them.
type Rule struct {
	// Path is a name, or the last components of a path, on every level of the tree. The last
	// component may have one * in it.
	Path   string
	Kind   Kind
	Reason string // what the host does with it, or what it holds
	Source string // where that is documented

	files bool     // directories of the name are Free
	holds []string // only files of the host that contain one of the texts
	but   []string // names that are Free

	parts []string // Path, folded
	glob  glob     // the last of them
}

// applies reports whether a rule whose last component matches applies in a directory, whose
// components are folded.
func (r *Rule) applies(p Place, dir []string) bool {
	up := r.parts[:len(r.parts)-1]
	if len(dir) < len(up) {
		return false
	}
	for i, part := range up {
		if dir[len(dir)-len(up)+i] != part {
			return false
		}
	}
	for _, b := range r.but {
		if globOf(b).match(fold(p.Name)) {
			return false
		}
	}
	if r.files && p.IsDir() {
		return false
	}
	return r.holds == nil || p.Contains(r.holds) && !p.Made()
}

// glob is a folded name, which may have one * in it.
type glob struct {
	before, after string
	star          bool
}

func globOf(pattern string) glob {
	before, after, star := strings.Cut(pattern, "*")
	return glob{before, after, star}
}

// match reports whether the glob matches a folded name.
func (g glob) match(name string) bool {
	if !g.star {
		return g.before == name
	}
	return len(name) >= len(g.before)+len(g.after) && strings.HasPrefix(name, g.before) && strings.HasSuffix(name, g.after)
}

// privateKey begins every private key in PEM form (RFC 7468 section 10 and 11, and OpenSSH).
var privateKey = []string{"PRIVATE KEY-----"}

// Git are the rules in a directory of git: one named .git or below it, and any other that has
// a HEAD. inGit applies them.
var Git = []Rule{
	{Path: "config", Kind: Guarded, Reason: "core.fsmonitor, core.sshCommand, filters, aliases and pagers are programs that git runs", Source: "git-config(1)"},
	{Path: "config.worktree", Kind: Guarded, Reason: "as config, for one worktree", Source: "git-worktree(1), CONFIGURATION FILE"},
	{Path: "hooks", Kind: Guarded, Reason: "git runs them", Source: "githooks(5)"},
	{Path: "attributes", Kind: Guarded, Reason: "info/attributes chooses filters and merge drivers", Source: "gitattributes(5)"},
	{Path: "commondir", Kind: Guarded, Reason: "names the directory whose config and hooks count", Source: "gitrepository-layout(5)"},
	{Path: "gitdir", Kind: Guarded, Reason: "leads to an existing worktree", Source: "gitrepository-layout(5)"},
	{Path: "HEAD", Kind: Guarded, Reason: "outside of .git it makes a bare repository of a directory", Source: "git-config(1), safe.bareRepository"},
	{Path: "alternates", Kind: Guarded, Reason: "of objects/info: the host's git copies objects of the repositories that it names", Source: "gitrepository-layout(5)"},
	{Path: "http-alternates", Kind: Guarded, Reason: "as alternates", Source: "gitrepository-layout(5)"},
	{Path: "remotes", Kind: Guarded, Reason: "where git fetches from and pushes to, in the old form", Source: "gitrepository-layout(5)"},
	{Path: "branches", Kind: Guarded, Reason: "as remotes", Source: "gitrepository-layout(5)"},
	{Path: "objects", Kind: Guarded, Reason: "below refs and logs it makes a repository of a directory", Source: "gitrepository-layout(5)"},
	{Path: ".git", Kind: Guarded, Reason: "an existing file leads to the repository of a worktree or submodule", Source: "gitrepository-layout(5)"},
}

// Defaults are the rules everywhere.
var Defaults = []Rule{
	{Path: ".gitmodules", Kind: Noted, Reason: "git submodule update fetches what it names", Source: "gitmodules(5)"},
	{Path: ".husky", Kind: Guarded, Reason: "git hooks of husky", Source: "typicode.github.io/husky"},
	{Path: ".githooks", Kind: Guarded, Reason: "a usual core.hooksPath", Source: "git-config(1), core.hooksPath"},

	{Path: ".pre-commit-config.yaml", Kind: Guarded, Reason: "programs that the hook of pre-commit runs", Source: "pre-commit.com"},
	{Path: "lefthook.yml", Kind: Guarded, Reason: "programs that the hooks of lefthook run", Source: "lefthook.dev"},
	{Path: ".lefthook.yml", Kind: Guarded, Reason: "as lefthook.yml", Source: "lefthook.dev"},
	{Path: "lefthook-local.yml", Kind: Guarded, Reason: "as lefthook.yml", Source: "lefthook.dev"},
	{Path: ".hg/hgrc", Kind: Guarded, Reason: "hooks and extensions of Mercurial", Source: "hgrc(5)"},
	{Path: ".hg/hgrc-not-shared", Kind: Guarded, Reason: "as hgrc", Source: "hgrc(5)"},
	{Path: ".hg/sharedpath", Kind: Guarded, Reason: "names the repository whose hgrc counts", Source: "Mercurial, help internals.requirements"},
	{Path: ".sl/config", Kind: Guarded, Reason: "as hgrc, of Sapling", Source: "sapling-scm.com/docs"},
	{Path: ".jj/repo/config.toml", Kind: Guarded, Reason: "programs that Jujutsu runs", Source: "docs.jj-vcs.dev, config"},
	{Path: "rust-toolchain", Kind: Guarded, Reason: "names a directory of programs that rustup runs", Source: "rust-lang.github.io/rustup/overrides.html"},
	{Path: "rust-toolchain.toml", Kind: Guarded, Reason: "as rust-toolchain", Source: "rust-lang.github.io/rustup/overrides.html"},

	{Path: ".helix", Kind: Guarded, Reason: "language servers and formatters", Source: "docs.helix-editor.com/languages.html"},
	{Path: "*.sublime-project", Kind: Guarded, Reason: "build systems and language servers", Source: "sublimetext.com/docs/projects.html"},
	{Path: ".Rprofile", Kind: Guarded, Reason: "R runs it at its start", Source: "R, ?Startup"},
	{Path: ".RData", Kind: Guarded, Reason: "R loads it at its start", Source: "R, ?Startup"},
	{Path: ".irbrc", Kind: Guarded, Reason: "irb runs it", Source: "irb(1)"},
	{Path: ".pryrc", Kind: Guarded, Reason: "pry runs it", Source: "pry.github.io"},
	{Path: ".pdbrc", Kind: Guarded, Reason: "pdb runs it", Source: "docs.python.org/3/library/pdb.html"},
	{Path: ".ghci", Kind: Guarded, Reason: "GHCi runs it", Source: "GHC User's Guide, .ghci"},
	{Path: ".octaverc", Kind: Guarded, Reason: "Octave runs it", Source: "GNU Octave manual, Startup Files"},
	{Path: ".perldb", Kind: Guarded, Reason: "perl's debugger runs it", Source: "perldebug(1)"},

	{Path: ".vscode", Kind: Guarded, Reason: "tasks, launch configurations, settings that name programs", Source: "code.visualstudio.com/docs/editor/workspace-trust"},
	{Path: "*.code-workspace", Kind: Guarded, Reason: "as .vscode", Source: "code.visualstudio.com/docs/editor/workspaces"},
	{Path: ".idea", Kind: Guarded, Reason: "run configurations and startup tasks", Source: "jetbrains.com/help/idea/project-security.html"},
	{Path: ".run", Kind: Guarded, Reason: "shared run configurations", Source: "jetbrains.com/help/idea/run-debug-configuration.html"},
	{Path: ".fleet", Kind: Guarded, Reason: "run configurations", Source: "jetbrains.com/help/fleet"},
	{Path: ".vs", Kind: Guarded, Reason: "launch and task files of Visual Studio", Source: "learn.microsoft.com/visualstudio/ide/customize-build-and-debug-tasks-in-visual-studio"},
	{Path: ".zed", Kind: Guarded, Reason: "tasks, language servers, context servers", Source: "zed.dev/docs/tasks"},
	{Path: ".devcontainer", Kind: Guarded, Reason: "initializeCommand runs on the host", Source: "containers.dev/implementors/json_reference"},
	{Path: ".devcontainer.json", Kind: Guarded, Reason: "as .devcontainer", Source: "containers.dev/implementors/json_reference"},
	{Path: ".exrc", Kind: Guarded, Reason: "vim runs it with 'exrc'", Source: "vim, :help 'exrc'"},
	{Path: ".vimrc", Kind: Guarded, Reason: "as .exrc", Source: "vim, :help 'exrc'"},
	{Path: ".nvimrc", Kind: Guarded, Reason: "as .exrc", Source: "neovim, :help 'exrc'"},
	{Path: ".nvim.lua", Kind: Guarded, Reason: "as .exrc", Source: "neovim, :help 'exrc'"},
	{Path: ".dir-locals.el", Kind: Guarded, Reason: "emacs evaluates it", Source: "GNU Emacs manual, Directory Variables"},
	{Path: ".dir-locals-2.el", Kind: Guarded, Reason: "as .dir-locals.el", Source: "GNU Emacs manual, Directory Variables"},
	{Path: ".gdbinit", Kind: Guarded, Reason: "gdb runs it", Source: "gdb manual, Startup"},
	{Path: ".lldbinit", Kind: Guarded, Reason: "lldb runs it", Source: "lldb(1)"},

	{Path: ".bashrc", Kind: Guarded, Reason: "bash runs it, if the project is a home directory or its files are linked there", Source: "bash(1), FILES"},
	{Path: ".bash_profile", Kind: Guarded, Reason: "as .bashrc", Source: "bash(1), FILES"},
	{Path: ".bash_login", Kind: Guarded, Reason: "as .bashrc", Source: "bash(1), FILES"},
	{Path: ".bash_logout", Kind: Guarded, Reason: "as .bashrc", Source: "bash(1), FILES"},
	{Path: ".bash_aliases", Kind: Guarded, Reason: "as .bashrc, which may read it", Source: "bash(1), ALIASES"},
	{Path: ".profile", Kind: Guarded, Reason: "as .bashrc, for every shell", Source: "bash(1), FILES"},
	{Path: ".zshrc", Kind: Guarded, Reason: "as .bashrc, of zsh", Source: "zsh(1), FILES"},
	{Path: ".zshenv", Kind: Guarded, Reason: "as .zshrc", Source: "zsh(1), FILES"},
	{Path: ".zprofile", Kind: Guarded, Reason: "as .zshrc", Source: "zsh(1), FILES"},
	{Path: ".zlogin", Kind: Guarded, Reason: "as .zshrc", Source: "zsh(1), FILES"},
	{Path: ".zlogout", Kind: Guarded, Reason: "as .zshrc", Source: "zsh(1), FILES"},
	{Path: ".config/fish", Kind: Guarded, Reason: "as .bashrc, of fish", Source: "fish(1), configuration files"},
	{Path: ".gitconfig", Kind: Guarded, Reason: "as .git/config, if the project is a home directory or its files are linked there", Source: "git-config(1), FILES"},
	{Path: ".config/git", Kind: Guarded, Reason: "as .gitconfig", Source: "git-config(1), FILES"},
	{Path: ".envrc", Kind: Guarded, Reason: "direnv runs it in the shell", Source: "direnv(1)"},
	{Path: ".envrc.*", Kind: Guarded, Reason: "as .envrc, which may load it", Source: "direnv-stdlib(1)"},
	{Path: ".direnv", Kind: Guarded, Reason: "environments that direnv loads and programs that it puts on the PATH", Source: "direnv-stdlib(1)"},
	{Path: ".mise.toml", Kind: Guarded, Reason: "hooks, tasks, environment of mise", Source: "mise.jdx.dev/configuration.html"},
	{Path: ".mise.local.toml", Kind: Guarded, Reason: "as .mise.toml", Source: "mise.jdx.dev/configuration.html"},
	{Path: "mise.toml", Kind: Guarded, Reason: "as .mise.toml", Source: "mise.jdx.dev/configuration.html"},
	{Path: "mise.local.toml", Kind: Guarded, Reason: "as .mise.toml", Source: "mise.jdx.dev/configuration.html"},
	{Path: ".mise", Kind: Guarded, Reason: "as .mise.toml", Source: "mise.jdx.dev/configuration.html"},
	{Path: ".config/mise", Kind: Guarded, Reason: "as .mise.toml", Source: "mise.jdx.dev/configuration.html"},
	{Path: ".config/mise.toml", Kind: Guarded, Reason: "as .mise.toml", Source: "mise.jdx.dev/configuration.html"},
	{Path: ".rtx.toml", Kind: Guarded, Reason: "as .mise.toml", Source: "mise.jdx.dev/configuration.html"},
	{Path: ".tool-versions", Kind: Guarded, Reason: "names programs that asdf and mise install and run", Source: "asdf-vm.com/manage/configuration.html"},
	{Path: ".autoenv", Kind: Guarded, Reason: "autoenv runs it in the shell", Source: "github.com/hyperupcall/autoenv"},

	{Path: ".mcp.json", Kind: Guarded, Reason: "programs that agents start", Source: "modelcontextprotocol.io"},
	{Path: ".claude/settings.json", Kind: Guarded, Reason: "hooks and permissions of Claude Code", Source: "docs.claude.com, Claude Code settings"},
	{Path: ".claude/settings.local.json", Kind: Guarded, Reason: "as settings.json", Source: "docs.claude.com, Claude Code settings"},
	{Path: ".claude/hooks", Kind: Guarded, Reason: "programs that hooks run", Source: "docs.claude.com, hooks"},
	{Path: ".claude/commands", Kind: Guarded, Reason: "commands with shell text", Source: "docs.claude.com, slash commands"},
	{Path: ".claude/agents", Kind: Guarded, Reason: "agents with tools and hooks", Source: "docs.claude.com, subagents"},
	{Path: ".claude/skills", Kind: Guarded, Reason: "skills with programs", Source: "docs.claude.com, skills"},
	{Path: ".claude/plugins", Kind: Guarded, Reason: "plugins with programs", Source: "docs.claude.com, plugins"},
	{Path: ".codex/config.toml", Kind: Guarded, Reason: "programs and permissions of Codex", Source: "developers.openai.com/codex"},
	{Path: ".codex/hooks", Kind: Guarded, Reason: "programs that hooks run", Source: "developers.openai.com/codex"},
	{Path: ".codex/hooks.json", Kind: Guarded, Reason: "as hooks", Source: "developers.openai.com/codex"},
	{Path: ".codex/prompts", Kind: Guarded, Reason: "commands of Codex", Source: "developers.openai.com/codex"},
	{Path: ".codex/rules", Kind: Guarded, Reason: "permissions of Codex", Source: "developers.openai.com/codex"},
	{Path: ".gemini/settings.json", Kind: Guarded, Reason: "programs and permissions of Gemini CLI", Source: "geminicli.com/docs"},
	{Path: ".gemini/commands", Kind: Guarded, Reason: "commands with shell text", Source: "geminicli.com/docs"},
	{Path: ".gemini/extensions", Kind: Guarded, Reason: "extensions with programs", Source: "geminicli.com/docs"},
	{Path: ".gemini/hooks", Kind: Guarded, Reason: "programs that hooks run", Source: "geminicli.com/docs"},
	{Path: ".cursor/mcp.json", Kind: Guarded, Reason: "programs that Cursor starts", Source: "docs.cursor.com"},
	{Path: ".cursor/hooks.json", Kind: Guarded, Reason: "programs that Cursor runs", Source: "docs.cursor.com"},
	{Path: ".cursor/hooks", Kind: Guarded, Reason: "as hooks.json", Source: "docs.cursor.com"},
	{Path: ".cursor/cli.json", Kind: Guarded, Reason: "permissions of Cursor's agent", Source: "docs.cursor.com"},
	{Path: ".cursor/environment.json", Kind: Guarded, Reason: "commands of Cursor's agents", Source: "docs.cursor.com"},
	{Path: ".cursor/commands", Kind: Guarded, Reason: "commands of Cursor's agent", Source: "docs.cursor.com"},
	{Path: ".cursor/agents", Kind: Guarded, Reason: "agents of Cursor", Source: "docs.cursor.com"},
	{Path: ".qwen/settings.json", Kind: Guarded, Reason: "programs and permissions of Qwen Code", Source: "qwenlm.github.io/qwen-code-docs"},
	{Path: ".opencode", Kind: Guarded, Reason: "plugins, tools, commands and agents of opencode", Source: "opencode.ai/docs/config"},
	{Path: "opencode.json", Kind: Guarded, Reason: "programs and permissions of opencode", Source: "opencode.ai/docs/config"},
	{Path: "opencode.jsonc", Kind: Guarded, Reason: "as opencode.json", Source: "opencode.ai/docs/config"},
	{Path: ".amp/settings.json", Kind: Guarded, Reason: "programs and permissions of Amp", Source: "ampcode.com/manual"},
	{Path: ".kiro/hooks", Kind: Guarded, Reason: "programs that Kiro runs", Source: "kiro.dev/docs/hooks"},
	{Path: ".kiro/settings", Kind: Guarded, Reason: "programs that Kiro starts", Source: "kiro.dev/docs/mcp"},
	{Path: ".roo/mcp.json", Kind: Guarded, Reason: "programs that Roo Code starts", Source: "docs.roocode.com"},
	{Path: ".windsurf/hooks.json", Kind: Guarded, Reason: "programs that Windsurf runs", Source: "docs.windsurf.com"},
	{Path: ".aider.conf.yml", Kind: Guarded, Reason: "commands that aider runs", Source: "aider.chat/docs/config.html"},
	{Path: ".continue", Kind: Guarded, Reason: "programs that Continue starts", Source: "docs.continue.dev"},

	{Path: ".github/hooks", Kind: Guarded, Reason: "programs that hooks of Copilot run", Source: "docs.github.com, Copilot CLI hooks reference"},
	{Path: ".github/copilot", Kind: Guarded, Reason: "settings of Copilot, with hooks", Source: "docs.github.com, Copilot CLI hooks reference"},
	{Path: ".clinerules/hooks", Kind: Guarded, Reason: "programs that Cline runs", Source: "docs.cline.bot, hooks"},
	{Path: ".kilocode/mcp.json", Kind: Guarded, Reason: "programs that Kilo Code starts", Source: "kilocode.ai/docs"},
	{Path: ".amazonq/mcp.json", Kind: Guarded, Reason: "programs that Amazon Q starts", Source: "docs.aws.amazon.com, Amazon Q Developer"},
	{Path: ".amazonq/cli-agents", Kind: Guarded, Reason: "agents with tools and hooks", Source: "docs.aws.amazon.com, Amazon Q Developer"},
	{Path: ".junie/mcp", Kind: Guarded, Reason: "programs that Junie starts", Source: "jetbrains.com/help/junie"},
	{Path: ".factory", Kind: Guarded, Reason: "hooks, commands and programs of Droid", Source: "docs.factory.ai"},
	{Path: ".crush.json", Kind: Guarded, Reason: "programs that Crush starts", Source: "github.com/charmbracelet/crush"},
	{Path: "crush.json", Kind: Guarded, Reason: "as .crush.json", Source: "github.com/charmbracelet/crush"},
	{Path: ".agents/skills", Kind: Guarded, Reason: "skills with programs, of several agents", Source: "agentskills.io"},
	{Path: "bawn.yaml", Kind: Guarded, Reason: "settings of the sandbox itself", Source: "docs/policy.md"},

	{Path: ".env", Kind: Hidden, files: true, Reason: "secrets of an application", Source: "12factor.net/config"},
	{Path: ".env.*", Kind: Hidden, files: true, Reason: "as .env; not .env.example, .env.sample, .env.template, .env.dist, .env.defaults", Source: "12factor.net/config",
		but: []string{"*.example", "*.sample", "*.template", "*.dist", "*.defaults"}},
	{Path: "id_rsa", Kind: Hidden, files: true, Reason: "private key", Source: "ssh(1), FILES"},
	{Path: "id_dsa", Kind: Hidden, files: true, Reason: "private key", Source: "ssh(1), FILES"},
	{Path: "id_ecdsa", Kind: Hidden, files: true, Reason: "private key", Source: "ssh(1), FILES"},
	{Path: "id_ecdsa_sk", Kind: Hidden, files: true, Reason: "private key", Source: "ssh(1), FILES"},
	{Path: "id_ed25519", Kind: Hidden, files: true, Reason: "private key", Source: "ssh(1), FILES"},
	{Path: "id_ed25519_sk", Kind: Hidden, files: true, Reason: "private key", Source: "ssh(1), FILES"},
	{Path: "*.pem", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "RFC 7468"},
	{Path: "*.key", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "RFC 7468"},
	{Path: "*.p12", Kind: Hidden, files: true, Reason: "private key with its certificate", Source: "RFC 7292"},
	{Path: "*.pfx", Kind: Hidden, files: true, Reason: "as *.p12", Source: "RFC 7292"},
	{Path: ".npmrc", Kind: Hidden, files: true, holds: []string{"_authToken", "_auth=", "_auth =", "_password"}, Reason: "token, if it holds one", Source: "npm documentation, npmrc"},
	{Path: ".yarnrc.yml", Kind: Hidden, files: true, holds: []string{"npmAuthToken", "npmAuthIdent"}, Reason: "token, if it holds one", Source: "yarnpkg.com/configuration/yarnrc"},
	{Path: ".pypirc", Kind: Hidden, files: true, holds: []string{"password"}, Reason: "token, if it holds one", Source: "packaging.python.org, .pypirc"},
	{Path: ".netrc", Kind: Hidden, files: true, holds: []string{"password"}, Reason: "password, if it holds one", Source: "curl(1), --netrc"},
	{Path: "_netrc", Kind: Hidden, files: true, holds: []string{"password"}, Reason: "as .netrc", Source: "curl(1), --netrc"},
	{Path: ".git-credentials", Kind: Hidden, Reason: "passwords of git", Source: "git-credential-store(1)"},
	{Path: "credentials", Kind: Hidden, files: true, holds: []string{"secret", "token", "password", "private_key"}, Reason: "credentials, if it holds any", Source: "docs.aws.amazon.com, credential file settings"},
	{Path: "credentials.json", Kind: Hidden, files: true, holds: []string{"secret", "token", "password", "private_key"}, Reason: "credentials, if it holds any", Source: "cloud.google.com/docs/authentication"},
	{Path: ".aws", Kind: Hidden, Reason: "credentials of a cloud", Source: "docs.aws.amazon.com, credential file settings"},
	{Path: ".azure", Kind: Hidden, Reason: "credentials of a cloud", Source: "learn.microsoft.com/cli/azure"},
	{Path: ".config/gcloud", Kind: Hidden, Reason: "credentials of a cloud", Source: "cloud.google.com/docs/authentication"},
	{Path: ".kube", Kind: Hidden, Reason: "credentials of a cluster", Source: "kubernetes.io, kubeconfig"},
	{Path: "kubeconfig", Kind: Hidden, files: true, Reason: "credentials of a cluster", Source: "kubernetes.io, kubeconfig"},
	{Path: ".docker/config.json", Kind: Hidden, Reason: "passwords of registries", Source: "docs.docker.com, docker login"},
	{Path: ".ssh", Kind: Hidden, Reason: "keys", Source: "ssh(1), FILES"},
	{Path: ".gnupg", Kind: Hidden, Reason: "keys", Source: "gpg(1), FILES"},
	{Path: ".terraformrc", Kind: Hidden, holds: []string{"token"}, files: true, Reason: "token, if it holds one", Source: "developer.hashicorp.com/terraform/cli/config"},
}

// Describe returns a path of the list as it is shown: with .git/ before it for those of git.
func Describe(r *Rule) string {
	for i := range Git {
		if r == &Git[i] {
			return path.Join(".git", r.Path)
		}
	}
	return r.Path
}
