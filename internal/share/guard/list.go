package guard

import (
	"path"
	"strings"
)

// Rule is one line of the list. docs/guard.md shows all of them.
type Rule struct {
	// Path is a name, or the last components of a path, on every level of the tree. In the last
	// component, * stands for any characters and # for a hexadecimal digit.
	Path   string
	Kind   Kind
	Reason string // what the host does with it, or what it holds
	Source string // where that is documented

	files bool     // directories of the name are Free
	there bool     // only what the host has and the guest did not make
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
	if r.there && (!p.Has(p.Name) || p.Made()) {
		return false
	}
	return r.holds == nil || p.Contains(r.holds) && !p.Made()
}

// glob is a folded name in which * stands for any characters, split at these, and # for a hexadecimal
// digit.
type glob []string

func globOf(pattern string) glob { return strings.Split(pattern, "*") }

// match reports whether the glob matches a folded name.
func (g glob) match(name string) bool {
	first, last := g[0], g[len(g)-1]
	if len(g) == 1 {
		return len(name) == len(first) && begins(name, first)
	}
	if len(name) < len(first)+len(last) || !begins(name, first) || !begins(name[len(name)-len(last):], last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, part := range g[1 : len(g)-1] {
		_, after, found := strings.Cut(name, part)
		if !found {
			return false
		}
		name = after
	}
	return true
}

// begins reports whether a name, which is as long at least, begins like a part of a glob.
func begins(name, part string) bool {
	for i := range len(part) {
		if c := name[i]; c != part[i] && (part[i] != '#' || (c < '0' || c > '9') && (c < 'a' || c > 'f')) {
			return false
		}
	}
	return true
}

// globs are rules whose last component is a glob. Names of all files of a project are looked up, so the
// rules are found by what their globs end or begin with.
type globs struct {
	ends  map[string][]*Rule // by what stands behind the last dot, with it
	heads [256][]*Rule       // by the first byte
	rest  []*Rule
}

func (g *globs) add(r *Rule) {
	if last := r.glob[len(r.glob)-1]; path.Ext(last) != "" {
		g.ends[path.Ext(last)] = append(g.ends[path.Ext(last)], r)
		return
	}
	if first := r.glob[0]; first != "" {
		g.heads[first[0]] = append(g.heads[first[0]], r)
		return
	}
	g.rest = append(g.rest, r)
}

// find returns the first rule whose glob matches a folded name, and for which ok is true.
func (g *globs) find(name string, ok func(*Rule) bool) *Rule {
	if name == "" {
		return nil
	}
	for _, list := range [][]*Rule{g.ends[path.Ext(name)], g.heads[name[0]], g.rest} {
		for _, r := range list {
			if r.glob.match(name) && ok(r) {
				return r
			}
		}
	}
	return nil
}

// privateKey stands in every private key in PEM form (RFC 7468 section 10 and 11, and OpenSSH), and in those
// of OpenPGP, age and OpenVPN.
var privateKey = []string{"PRIVATE KEY-----", "PRIVATE KEY BLOCK-----", "AGE-SECRET-KEY-1", "OpenVPN Static key"}

// GitConfig are texts of which a file of git's configuration has one: of each repository that git makes.
var GitConfig = []string{"repositoryformatversion", "[core]", "[remote \"", "[branch \""}

// assigned stands where a variable is set whose name says that it is a secret.
var assigned = []string{"SECRET=", "SECRET_KEY=", "TOKEN=", "PASSWORD=", "PASSWD=", "API_KEY=", "ACCESS_KEY=", "PRIVATE_KEY=", "CREDENTIALS="}

// issued begins keys and tokens that are known by their form, and what is a secret under any name.
var issued = append([]string{
	"ghp_", "gho_", "ghu_", "ghs_", "github_pat_", "glpat-", "sk-ant-", "sk-proj-", "sk_live_", "rk_live_", "whsec_", "AKIA", "ASIA", "AIza", "xoxb-", "xoxp-",
	"dop_v1_", "dckr_pat_", "pypi-AgE", "secret_key_base", "aws_secret_access_key", "client_secret",
}, privateKey...)

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
	{Path: ".git", Kind: Guarded, Reason: "as a file it leads to a repository, whose configuration counts", Source: "gitrepository-layout(5)"},
	{Path: "rebase-merge", Kind: Guarded, Reason: "commands that git runs when a rebase is continued", Source: "git-rebase(1), --exec and --strategy"},
	{Path: "rebase-apply", Kind: Guarded, Reason: "as rebase-merge, of git am", Source: "git-am(1)"},
	{Path: "sequencer", Kind: Guarded, Reason: "as rebase-merge, of picks and reverts", Source: "git-cherry-pick(1)"},
	{Path: "BISECT_NAMES", Kind: Guarded, Reason: "git before 2.40 evaluates it in a shell when a bisection is looked at", Source: "git-bisect(1), visualize"},
	{Path: "BISECT_START", Kind: Guarded, Reason: "as BISECT_NAMES, the state of a bisection", Source: "git-bisect(1)"},
	{Path: "BISECT_LOG", Kind: Guarded, Reason: "as BISECT_NAMES, the state of a bisection", Source: "git-bisect(1)"},
	{Path: "BISECT_TERMS", Kind: Guarded, Reason: "as BISECT_NAMES, the state of a bisection", Source: "git-bisect(1)"},
	{Path: "BISECT_RUN", Kind: Guarded, Reason: "as BISECT_NAMES, the state of a bisection", Source: "git-bisect(1)"},
	{Path: "BISECT_FIRST_PARENT", Kind: Guarded, Reason: "as BISECT_NAMES, the state of a bisection", Source: "git-bisect(1)"},
	{Path: "BISECT_ANCESTORS_OK", Kind: Guarded, Reason: "as BISECT_NAMES, the state of a bisection", Source: "git-bisect(1)"},
	{Path: "BISECT_EXPECTED_REV", Kind: Guarded, Reason: "as BISECT_NAMES, the state of a bisection", Source: "git-bisect(1)"},
	{Path: "BISECT_HEAD", Kind: Guarded, Reason: "as BISECT_NAMES, the state of a bisection", Source: "git-bisect(1)"},
	{Path: "worktrees", Kind: Guarded, Reason: "where the host has none: worktrees of the guest, which the host's git would prune", Source: "git-worktree(1)"},
}

// Defaults are the rules everywhere.
var Defaults = []Rule{
	{Path: ".gitmodules", Kind: Noted, Reason: "git submodule update fetches what it names", Source: "gitmodules(5)"},
	{Path: ".git/safe", Kind: Guarded, Reason: "puts bin of the project on the PATH of shells that have .git/safe/../../bin on theirs", Source: "github.com/thoughtbot/dotfiles"},
	{Path: ".husky", Kind: Guarded, Reason: "git hooks of husky", Source: "typicode.github.io/husky"},
	{Path: ".githooks", Kind: Guarded, Reason: "a usual core.hooksPath", Source: "git-config(1), core.hooksPath"},
	{Path: ".git-hooks", Kind: Guarded, Reason: "a usual core.hooksPath, and hooks of overcommit", Source: "github.com/sds/overcommit"},
	{Path: ".huskyrc*", Kind: Guarded, Reason: "programs that the hooks of husky 4 run", Source: "typicode.github.io/husky"},
	{Path: ".cargo-husky", Kind: Guarded, Reason: "git hooks of cargo-husky", Source: "github.com/rhysd/cargo-husky"},

	{Path: ".pre-commit-config.yaml", Kind: Guarded, Reason: "programs that the hook of pre-commit runs", Source: "pre-commit.com"},
	{Path: "lefthook.yml", Kind: Guarded, Reason: "programs that the hooks of lefthook run", Source: "lefthook.dev"},
	{Path: ".lefthook.yml", Kind: Guarded, Reason: "as lefthook.yml", Source: "lefthook.dev"},
	{Path: "lefthook-local.yml", Kind: Guarded, Reason: "as lefthook.yml", Source: "lefthook.dev"},
	{Path: "lefthook*.yaml", Kind: Guarded, Reason: "as lefthook.yml", Source: "lefthook.dev"},
	{Path: "lefthook*.toml", Kind: Guarded, Reason: "as lefthook.yml", Source: "lefthook.dev"},
	{Path: "lefthook*.json", Kind: Guarded, Reason: "as lefthook.yml", Source: "lefthook.dev"},
	{Path: ".lefthook*", Kind: Guarded, Reason: "as lefthook.yml, and programs that it runs", Source: "lefthook.dev"},
	{Path: ".config/lefthook*", Kind: Guarded, Reason: "as lefthook.yml", Source: "lefthook.dev"},
	{Path: ".pre-commit-config.yml", Kind: Guarded, Reason: "as .pre-commit-config.yaml, for prek", Source: "prek.j178.dev"},
	{Path: "prek.toml", Kind: Guarded, Reason: "as .pre-commit-config.yaml, for prek", Source: "prek.j178.dev"},
	{Path: ".overcommit.yml", Kind: Guarded, Reason: "programs that the hooks of overcommit run", Source: "github.com/sds/overcommit"},
	{Path: "captainhook.json", Kind: Guarded, Reason: "programs that the hooks of CaptainHook run", Source: "captainhook.info"},
	{Path: "grumphp.yml*", Kind: Guarded, Reason: "programs that the hooks of GrumPHP run", Source: "github.com/phpro/grumphp"},
	{Path: ".rusty-hook.toml", Kind: Guarded, Reason: "programs that the hooks of rusty-hook run", Source: "github.com/swellaby/rusty-hook"},
	{Path: ".lintstagedrc*", Kind: Guarded, Reason: "programs that a hook runs", Source: "github.com/lint-staged/lint-staged"},
	{Path: ".simple-git-hooks.*", Kind: Guarded, Reason: "programs that become git hooks", Source: "github.com/toplenboren/simple-git-hooks"},
	{Path: ".hg/hgrc", Kind: Guarded, Reason: "hooks and extensions of Mercurial", Source: "hgrc(5)"},
	{Path: ".hg/hgrc-not-shared", Kind: Guarded, Reason: "as hgrc", Source: "hgrc(5)"},
	{Path: ".hg/sharedpath", Kind: Guarded, Reason: "names the repository whose hgrc counts", Source: "Mercurial, help internals.requirements"},
	{Path: ".sl/config", Kind: Guarded, Reason: "as hgrc, of Sapling", Source: "sapling-scm.com/docs"},
	{Path: ".jj/repo/config.toml", Kind: Guarded, Reason: "programs that Jujutsu runs", Source: "docs.jj-vcs.dev, config"},
	{Path: ".jj/repo/config-id", Kind: Guarded, Reason: "names the configuration that counts", Source: "docs.jj-vcs.dev, config"},
	{Path: ".jj/workspace-config.toml", Kind: Guarded, Reason: "as config.toml, for one workspace", Source: "docs.jj-vcs.dev, config"},
	{Path: ".jj/workspace-config-id", Kind: Guarded, Reason: "as config-id", Source: "docs.jj-vcs.dev, config"},
	{Path: ".jj/repo", Kind: Guarded, files: true, Reason: "as a file it names the repository whose configuration counts", Source: "docs.jj-vcs.dev, working copy"},
	{Path: ".jj/repo/store/git_target", Kind: Guarded, there: true, Reason: "an existing one names the repository of git that Jujutsu writes to", Source: "docs.jj-vcs.dev, Git compatibility"},
	{Path: ".sl/sharedpath", Kind: Guarded, Reason: "as .hg/sharedpath", Source: "sapling-scm.com/docs"},
	{Path: ".pijul/config", Kind: Guarded, Reason: "hooks of Pijul", Source: "pijul.org/manual"},
	{Path: ".fslckout", Kind: Guarded, Reason: "names the repository of Fossil whose settings count, and these name programs", Source: "fossil-scm.org, settings"},
	{Path: "_FOSSIL_", Kind: Guarded, Reason: "as .fslckout", Source: "fossil-scm.org, settings"},
	{Path: "*.fossil", Kind: Guarded, files: true, there: true, Reason: "an existing repository of Fossil has settings that name programs", Source: "fossil-scm.org, settings"},
	{Path: ".fslckout-*", Kind: Guarded, Reason: "SQLite plays it back into .fslckout", Source: "sqlite.org, Temporary Files"},
	{Path: "_FOSSIL_-*", Kind: Guarded, Reason: "as .fslckout-*", Source: "sqlite.org, Temporary Files"},
	{Path: "*.fossil-journal", Kind: Guarded, files: true, Reason: "SQLite plays it back into a repository of Fossil", Source: "sqlite.org, Temporary Files"},
	{Path: "*.fossil-wal", Kind: Guarded, files: true, Reason: "as *.fossil-journal", Source: "sqlite.org, Temporary Files"},
	{Path: "_darcs/prefs", Kind: Guarded, Reason: "programs that darcs runs (posthook, test)", Source: "darcs.net manual, prefs"},
	{Path: "CVS/Root", Kind: Guarded, Reason: "names the program by which CVS reaches its server", Source: "CVS manual, Remote repositories"},
	{Path: ".p4config", Kind: Guarded, Reason: "as CVS/Root, of Perforce (P4PORT), and editors", Source: "Helix Core command-line reference, P4CONFIG"},
	{Path: ".repo/repo", Kind: Guarded, Reason: "the program that repo runs", Source: "source.android.com, repo"},
	{Path: ".gclient", Kind: Guarded, Reason: "Python that gclient runs, and its hooks", Source: "chromium.googlesource.com, depot_tools"},
	{Path: ".west/config", Kind: Guarded, Reason: "names the manifest whose commands west runs", Source: "docs.zephyrproject.org, west"},
	{Path: ".arcconfig", Kind: Guarded, Reason: "libraries that Arcanist loads", Source: "secure.phabricator.com, Arcanist user guide"},
	{Path: ".arclint", Kind: Guarded, Reason: "programs that Arcanist runs", Source: "secure.phabricator.com, Arcanist user guide"},
	{Path: ".ruby-version", Kind: Guarded, Reason: "names a directory of programs that rbenv runs, by a way with .. in it before rbenv 1.3", Source: "github.com/rbenv/rbenv"},
	{Path: ".node-version", Kind: Guarded, Reason: "as .ruby-version, of nodenv", Source: "github.com/nodenv/nodenv"},
	{Path: ".java-version", Kind: Guarded, Reason: "as .ruby-version, of jenv", Source: "github.com/jenv/jenv"},
	{Path: ".perl-version", Kind: Guarded, Reason: "as .ruby-version, of plenv", Source: "github.com/tokuhirom/plenv"},
	{Path: ".php-version", Kind: Guarded, Reason: "as .ruby-version, of phpenv", Source: "github.com/phpenv/phpenv"},
	{Path: ".go-version", Kind: Guarded, Reason: "as .ruby-version, of goenv", Source: "github.com/go-nv/goenv"},
	{Path: ".rbenv-vars", Kind: Guarded, Reason: "the environment of programs that rbenv runs", Source: "github.com/rbenv/rbenv-vars"},
	{Path: ".rvmrc", Kind: Guarded, Reason: "RVM runs it in the shell", Source: "rvm.io/workflow/rvmrc"},
	{Path: ".pythonrc*", Kind: Guarded, Reason: "a usual PYTHONSTARTUP", Source: "python(1), PYTHONSTARTUP"},
	{Path: ".emacs.desktop", Kind: Guarded, Reason: "emacs evaluates it when it restores a session", Source: "GNU Emacs manual, Saving Emacs Sessions"},
	{Path: "Session.vim", Kind: Guarded, Reason: "vim runs it when it restores a session", Source: "vim, :help session-file"},
	{Path: ".kakrc", Kind: Guarded, Reason: "plug-ins of Kakoune run it", Source: "github.com/mawww/kakoune"},
	{Path: ".factorypath", Kind: Guarded, Reason: "annotation processors that Eclipse and the language server of Java run", Source: "help.eclipse.org, Annotation Processing"},
	{Path: ".kdev4", Kind: Guarded, Reason: "programs that KDevelop starts", Source: "docs.kde.org, KDevelop"},
	{Path: ".psqlrc*", Kind: Guarded, Reason: "psql runs it, if the project is a home directory or its files are linked there", Source: "psql(1), FILES"},
	{Path: ".sqliterc", Kind: Guarded, Reason: "as .psqlrc, of sqlite3", Source: "sqlite3(1), INIT FILE"},
	{Path: ".lessfilter", Kind: Guarded, Reason: "less runs it by lesspipe, if the project is a home directory", Source: "lesspipe(1)"},
	{Path: ".bash_completion", Kind: Guarded, Reason: "as .bashrc, which reads it by bash-completion", Source: "github.com/scop/bash-completion"},
	{Path: ".login", Kind: Guarded, Reason: "as .cshrc", Source: "csh(1)"},
	{Path: ".logout", Kind: Guarded, Reason: "as .cshrc", Source: "csh(1)"},
	{Path: ".xsessionrc", Kind: Guarded, Reason: "as .profile", Source: "Xsession(5)"},
	{Path: ".direnvrc", Kind: Guarded, Reason: "direnv runs it in the shell", Source: "direnv(1)"},
	{Path: ".config/direnv", Kind: Guarded, Reason: "as .direnvrc", Source: "direnv(1)"},
	{Path: ".config/starship.toml", Kind: Guarded, Reason: "commands that each prompt of a shell runs", Source: "starship.rs/config"},
	{Path: ".config/zsh", Kind: Guarded, Reason: "as .zshrc", Source: "zsh(1), ZDOTDIR"},
	{Path: ".config/tmux", Kind: Guarded, Reason: "as .tmux.conf", Source: "tmux(1)"},
	{Path: ".config/gdb", Kind: Guarded, Reason: "as .gdbinit", Source: "gdb manual, Startup"},
	{Path: ".config/helix", Kind: Guarded, Reason: "as .helix", Source: "docs.helix-editor.com/configuration.html"},
	{Path: ".config/kak", Kind: Guarded, Reason: "as .kakrc", Source: "github.com/mawww/kakoune"},
	{Path: ".config/zed", Kind: Guarded, Reason: "as .zed", Source: "zed.dev/docs/configuring-zed"},
	{Path: ".config/Code", Kind: Guarded, Reason: "as .vscode, for all projects", Source: "code.visualstudio.com/docs/configure/settings"},
	{Path: ".config/i3", Kind: Guarded, Reason: "commands that the window manager runs", Source: "i3wm.org/docs/userguide.html"},
	{Path: ".config/sway", Kind: Guarded, Reason: "as .config/i3", Source: "sway(5)"},
	{Path: ".config/hypr", Kind: Guarded, Reason: "as .config/i3", Source: "wiki.hypr.land"},
	{Path: ".wezterm.lua", Kind: Guarded, Reason: "wezterm runs it", Source: "wezterm.org/config/files.html"},
	{Path: ".config/wezterm", Kind: Guarded, Reason: "as .wezterm.lua", Source: "wezterm.org/config/files.html"},
	{Path: ".local/share/applications", Kind: Guarded, Reason: "programs that the desktop starts", Source: "specifications.freedesktop.org/desktop-entry-spec"},
	{Path: "rust-toolchain", Kind: Guarded, Reason: "names a directory of programs that rustup runs", Source: "rust-lang.github.io/rustup/overrides.html"},
	{Path: "rust-toolchain.toml", Kind: Guarded, Reason: "as rust-toolchain", Source: "rust-lang.github.io/rustup/overrides.html"},
	{Path: "global.json", Kind: Guarded, Reason: "names the directory of the .NET SDK", Source: "learn.microsoft.com/dotnet, global.json"},

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
	{Path: ".Renviron", Kind: Guarded, Reason: "chooses what R runs at its start", Source: "R, ?Startup"},
	{Path: "renv/activate.R", Kind: Guarded, Reason: "a usual .Rprofile runs it", Source: "rstudio.github.io/renv"},
	{Path: "packrat/init.R", Kind: Guarded, Reason: "a usual .Rprofile runs it", Source: "rstudio.github.io/packrat"},
	{Path: ".pdbrc.py", Kind: Guarded, Reason: "as .pdbrc", Source: "docs.python.org/3/library/pdb.html"},
	{Path: ".rdbgrc*", Kind: Guarded, Reason: "Ruby's debugger runs it", Source: "github.com/ruby/debug"},
	{Path: ".byebugrc", Kind: Guarded, Reason: "byebug runs it", Source: "github.com/deivid-rodriguez/byebug"},
	{Path: ".iex.exs", Kind: Guarded, Reason: "iex runs it", Source: "IEx documentation"},
	{Path: ".erlang", Kind: Guarded, Reason: "erl runs it", Source: "erl(1)"},
	{Path: ".ocamlinit", Kind: Guarded, Reason: "ocaml runs it", Source: "OCaml manual, toplevel"},
	{Path: ".scilab", Kind: Guarded, Reason: "Scilab runs it at its start", Source: "Scilab help, startup"},
	{Path: ".gnuplot", Kind: Guarded, Reason: "gnuplot runs it at its start", Source: "gnuplot manual, Initialization"},
	{Path: "jupyter_*config.py", Kind: Guarded, Reason: "Jupyter may run it at its start", Source: "docs.jupyter.org, Common Directories"},
	{Path: "ipython_config.py", Kind: Guarded, Reason: "IPython may run it at its start", Source: "ipython.readthedocs.io, configuration"},

	{Path: ".vscode", Kind: Guarded, Reason: "tasks, launch configurations, settings that name programs", Source: "code.visualstudio.com/docs/editor/workspace-trust"},
	{Path: "*.code-workspace", Kind: Guarded, Reason: "as .vscode", Source: "code.visualstudio.com/docs/editor/workspaces"},
	{Path: ".idea", Kind: Guarded, Reason: "run configurations and startup tasks", Source: "jetbrains.com/help/idea/project-security.html"},
	{Path: ".run", Kind: Guarded, Reason: "shared run configurations", Source: "jetbrains.com/help/idea/run-debug-configuration.html"},
	{Path: ".fleet", Kind: Guarded, Reason: "run configurations", Source: "jetbrains.com/help/fleet"},
	{Path: ".vs", Kind: Guarded, Reason: "launch and task files of Visual Studio", Source: "learn.microsoft.com/visualstudio/ide/customize-build-and-debug-tasks-in-visual-studio"},
	{Path: ".theia", Kind: Guarded, Reason: "as .vscode", Source: "theia-ide.org/docs"},
	{Path: ".nova", Kind: Guarded, Reason: "tasks of Nova", Source: "help.nova.app"},
	{Path: ".lapce", Kind: Guarded, Reason: "run configurations and settings of Lapce", Source: "docs.lapce.dev"},
	{Path: ".kateproject*", Kind: Guarded, Reason: "builds and language servers of Kate", Source: "docs.kde.org, Kate"},
	{Path: ".tm_properties", Kind: Guarded, Reason: "the PATH of TextMate", Source: "macromates.com"},
	{Path: "*.ipr", Kind: Guarded, Reason: "as .idea", Source: "jetbrains.com/help/idea/creating-and-managing-projects.html"},
	{Path: "*.iws", Kind: Guarded, Reason: "as .idea", Source: "jetbrains.com/help/idea/creating-and-managing-projects.html"},
	{Path: ".project", Kind: Guarded, files: true, Reason: "names builders that Eclipse runs", Source: "help.eclipse.org, External Tools Builders"},
	{Path: ".externalToolBuilders", Kind: Guarded, Reason: "programs that Eclipse runs on a build", Source: "help.eclipse.org, External Tools Builders"},
	{Path: ".bsp", Kind: Guarded, Reason: "programs that Metals and IDEA start", Source: "build-server-protocol.github.io"},
	{Path: ".bloop", Kind: Guarded, Reason: "programs of builds that Metals runs", Source: "scalacenter.github.io/bloop"},
	{Path: "buildServer.json", Kind: Guarded, Reason: "the program that SourceKit-LSP starts", Source: "github.com/swiftlang/sourcekit-lsp"},
	{Path: ".sourcekit-lsp", Kind: Guarded, Reason: "settings of SourceKit-LSP", Source: "github.com/swiftlang/sourcekit-lsp"},
	{Path: "hie.yaml", Kind: Guarded, Reason: "programs that the language server of Haskell runs", Source: "haskell-language-server.readthedocs.io"},
	{Path: ".hie-bios", Kind: Guarded, Reason: "the language server of Haskell runs it", Source: "haskell-language-server.readthedocs.io"},
	{Path: ".merlin", Kind: Guarded, Reason: "preprocessors that the language server of OCaml runs", Source: "ocaml.github.io/merlin"},
	{Path: ".tern-project", Kind: Guarded, Reason: "plug-ins of Tern", Source: "ternjs.net/doc"},
	{Path: ".lsp/config.edn", Kind: Guarded, Reason: "programs that clojure-lsp runs", Source: "clojure-lsp.io"},
	{Path: ".joyride", Kind: Guarded, Reason: "programs that Joyride runs", Source: "github.com/BetterThanTomorrow/joyride"},
	{Path: "omnisharp.json", Kind: Guarded, Reason: "libraries that OmniSharp loads", Source: "github.com/OmniSharp/omnisharp-roslyn"},
	{Path: ".zed", Kind: Guarded, Reason: "tasks, language servers, context servers", Source: "zed.dev/docs/tasks"},
	{Path: ".devcontainer", Kind: Guarded, Reason: "initializeCommand runs on the host", Source: "containers.dev/implementors/json_reference"},
	{Path: ".devcontainer.json", Kind: Guarded, Reason: "as .devcontainer", Source: "containers.dev/implementors/json_reference"},
	{Path: ".exrc", Kind: Guarded, Reason: "vim runs it with 'exrc'", Source: "vim, :help 'exrc'"},
	{Path: ".vimrc", Kind: Guarded, Reason: "as .exrc", Source: "vim, :help 'exrc'"},
	{Path: ".nvimrc", Kind: Guarded, Reason: "as .exrc", Source: "neovim, :help 'exrc'"},
	{Path: ".nvim.lua", Kind: Guarded, Reason: "as .exrc", Source: "neovim, :help 'exrc'"},
	{Path: ".gvimrc", Kind: Guarded, Reason: "as .exrc", Source: "vim, :help 'exrc'"},
	{Path: "_vimrc", Kind: Guarded, Reason: "as .exrc", Source: "vim, :help 'exrc'"},
	{Path: "_gvimrc", Kind: Guarded, Reason: "as .exrc", Source: "vim, :help 'exrc'"},
	{Path: "_exrc", Kind: Guarded, Reason: "as .exrc", Source: "vim, :help 'exrc'"},
	{Path: ".lvimrc", Kind: Guarded, Reason: "a plug-in of vim runs it", Source: "github.com/embear/vim-localvimrc"},
	{Path: ".local.vimrc", Kind: Guarded, Reason: "a plug-in of vim runs it", Source: "github.com/LucHermitte/local_vimrc"},
	{Path: ".lazy.lua", Kind: Guarded, Reason: "lazy.nvim runs it", Source: "lazy.folke.io"},
	{Path: ".nvim", Kind: Guarded, Reason: "plug-ins of neovim run what is in it", Source: "neovim, :help exrc"},
	{Path: ".vim", Kind: Guarded, Reason: "language servers of coc.nvim (coc-settings.json), and the configuration of vim", Source: "github.com/neoclide/coc.nvim"},
	{Path: ".vim-lsp-settings", Kind: Guarded, Reason: "commands of language servers that vim starts when a file is opened", Source: "github.com/mattn/vim-lsp-settings"},
	{Path: ".nlsp-settings", Kind: Guarded, Reason: "settings of language servers of neovim, which name programs", Source: "github.com/tamago324/nlsp-settings.nvim"},
	{Path: ".neoconf.json", Kind: Guarded, Reason: "as .nlsp-settings", Source: "github.com/folke/neoconf.nvim"},
	{Path: "codesettings.json", Kind: Guarded, Reason: "as .nlsp-settings", Source: "github.com/mrjones2014/codesettings.nvim"},
	{Path: ".phpactor.json", Kind: Guarded, Reason: "programs that its language server runs when a file is opened", Source: "phpactor.readthedocs.io, configuration"},
	{Path: ".phpactor.yml", Kind: Guarded, Reason: "as .phpactor.json", Source: "phpactor.readthedocs.io, configuration"},
	{Path: ".luarc.json", Kind: Guarded, Reason: "names a plug-in that the language server for Lua runs", Source: "luals.github.io/wiki/settings"},
	{Path: ".luarc.jsonc", Kind: Guarded, Reason: "as .luarc.json", Source: "luals.github.io/wiki/settings"},
	{Path: ".lite_project.lua", Kind: Guarded, Reason: "Lite XL runs it when it opens the project", Source: "github.com/lite-xl/lite-xl"},
	{Path: ".solargraph.yml", Kind: Guarded, Reason: "plug-ins that the language server for Ruby loads", Source: "solargraph.org/guides/configuration"},
	{Path: ".vimspector.json", Kind: Guarded, Reason: "programs that vimspector runs", Source: "puremourning.github.io/vimspector"},
	{Path: ".ycm_extra_conf.py", Kind: Guarded, Reason: "YouCompleteMe runs it", Source: "github.com/ycm-core/YouCompleteMe"},
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
	{Path: ".kshrc", Kind: Guarded, Reason: "as .bashrc, of ksh", Source: "ksh(1)"},
	{Path: ".mkshrc", Kind: Guarded, Reason: "as .bashrc, of mksh", Source: "mksh(1)"},
	{Path: ".cshrc", Kind: Guarded, Reason: "as .bashrc, of csh", Source: "csh(1)"},
	{Path: ".tcshrc", Kind: Guarded, Reason: "as .bashrc, of tcsh", Source: "tcsh(1)"},
	{Path: ".xonshrc", Kind: Guarded, Reason: "as .bashrc, of xonsh", Source: "xon.sh"},
	{Path: ".inputrc", Kind: Guarded, Reason: "keys that run commands", Source: "readline(3)"},
	{Path: ".tmux.conf", Kind: Guarded, Reason: "tmux runs it", Source: "tmux(1)"},
	{Path: ".screenrc", Kind: Guarded, Reason: "screen runs it", Source: "screen(1)"},
	{Path: ".xinitrc", Kind: Guarded, Reason: "as .profile", Source: "xinit(1)"},
	{Path: ".xprofile", Kind: Guarded, Reason: "as .profile", Source: "Xsession(5)"},
	{Path: ".xsession", Kind: Guarded, Reason: "as .profile", Source: "Xsession(5)"},
	{Path: ".pam_environment", Kind: Guarded, Reason: "the environment of a session", Source: "pam_env(8)"},
	{Path: ".config/environment.d", Kind: Guarded, Reason: "the environment of a session", Source: "environment.d(5)"},
	{Path: ".config/systemd", Kind: Guarded, Reason: "services of the user", Source: "systemd.unit(5)"},
	{Path: ".config/autostart", Kind: Guarded, Reason: "programs that the desktop starts", Source: "specifications.freedesktop.org/autostart-spec"},
	{Path: ".local/bin", Kind: Guarded, Reason: "programs on the PATH, if the project is a home directory", Source: "file-hierarchy(7)"},
	{Path: ".local/share/fish", Kind: Guarded, Reason: "as .config/fish", Source: "fish(1), configuration files"},
	{Path: ".config/nushell", Kind: Guarded, Reason: "as .bashrc, of nushell", Source: "nushell.sh/book"},
	{Path: ".config/powershell", Kind: Guarded, Reason: "as .bashrc, of PowerShell", Source: "learn.microsoft.com/powershell, about_Profiles"},
	{Path: ".config/xonsh", Kind: Guarded, Reason: "as .bashrc, of xonsh", Source: "xon.sh"},
	{Path: ".config/elvish", Kind: Guarded, Reason: "as .bashrc, of elvish", Source: "elv.sh"},
	{Path: ".config/nvim", Kind: Guarded, Reason: "neovim runs it", Source: "neovim, :help config"},
	{Path: ".emacs", Kind: Guarded, Reason: "emacs runs it", Source: "GNU Emacs manual, Init File"},
	{Path: ".emacs.d", Kind: Guarded, Reason: "emacs runs it", Source: "GNU Emacs manual, Init File"},
	{Path: ".config/emacs", Kind: Guarded, Reason: "emacs runs it", Source: "GNU Emacs manual, Init File"},
	{Path: ".hgrc", Kind: Guarded, Reason: "as .hg/hgrc", Source: "hgrc(5)"},
	{Path: ".jjconfig.toml", Kind: Guarded, Reason: "as .jj/repo/config.toml", Source: "docs.jj-vcs.dev, config"},
	{Path: ".config/jj", Kind: Guarded, Reason: "as .jj/repo/config.toml", Source: "docs.jj-vcs.dev, config"},
	{Path: ".config/fish", Kind: Guarded, Reason: "as .bashrc, of fish", Source: "fish(1), configuration files"},
	{Path: ".gitconfig", Kind: Guarded, Reason: "as .git/config, if the project is a home directory or its files are linked there", Source: "git-config(1), FILES"},
	{Path: ".config/git", Kind: Guarded, Reason: "as .gitconfig", Source: "git-config(1), FILES"},
	{Path: ".envrc", Kind: Hidden, files: true, holds: assigned, Reason: "as .env, if it sets a secret", Source: "direnv(1)"},
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
	{Path: ".autoenv*", Kind: Guarded, Reason: "as .autoenv, for cd and leaving, also of zsh", Source: "github.com/Tarrasch/zsh-autoenv"},
	{Path: ".mise.*.toml", Kind: Guarded, Reason: "as .mise.toml", Source: "mise.jdx.dev/configuration.html"},
	{Path: "mise.*.toml", Kind: Guarded, Reason: "as .mise.toml", Source: "mise.jdx.dev/configuration.html"},
	{Path: ".mise-tasks", Kind: Guarded, Reason: "programs that mise runs", Source: "mise.jdx.dev/tasks"},
	{Path: ".rtx.*.toml", Kind: Guarded, Reason: "as .mise.toml", Source: "mise.jdx.dev/configuration.html"},
	{Path: ".config/rtx", Kind: Guarded, Reason: "as .mise.toml", Source: "mise.jdx.dev/configuration.html"},

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
	{Path: ".claude-plugin", Kind: Guarded, Reason: "plugins with programs", Source: "docs.claude.com, plugins"},
	{Path: ".claude.json", Kind: Guarded, Reason: "programs and permissions of Claude Code, if the project is a home directory", Source: "docs.claude.com, Claude Code settings"},
	{Path: ".claude/workflows", Kind: Guarded, Reason: "programs that Claude Code runs", Source: "docs.claude.com, Claude Code settings"},
	{Path: ".claude/statusline*", Kind: Guarded, Reason: "a usual program of its status line", Source: "docs.claude.com, status line"},
	{Path: ".codex/agents", Kind: Guarded, Reason: "agents with tools", Source: "developers.openai.com/codex"},
	{Path: ".codex/skills", Kind: Guarded, Reason: "skills with programs", Source: "developers.openai.com/codex"},
	{Path: ".codex/environments", Kind: Guarded, Reason: "commands that prepare a working tree", Source: "developers.openai.com/codex"},
	{Path: ".gemini/agents", Kind: Guarded, Reason: "agents with tools", Source: "geminicli.com/docs"},
	{Path: ".gemini/skills", Kind: Guarded, Reason: "skills with programs", Source: "geminicli.com/docs"},
	{Path: ".gemini/policies", Kind: Guarded, Reason: "permissions of Gemini CLI", Source: "geminicli.com/docs"},
	{Path: ".gemini/sandbox*", Kind: Guarded, Reason: "the sandbox of Gemini CLI", Source: "geminicli.com/docs"},
	{Path: ".cursor/skills", Kind: Guarded, Reason: "skills with programs", Source: "docs.cursor.com"},
	{Path: ".cursor/plugins", Kind: Guarded, Reason: "plugins with programs", Source: "docs.cursor.com"},
	{Path: ".cursor/sandbox.json", Kind: Guarded, Reason: "permissions of Cursor's agent", Source: "docs.cursor.com"},
	{Path: ".cursor/permissions.json", Kind: Guarded, Reason: "permissions of Cursor's agent", Source: "docs.cursor.com"},
	{Path: ".cursor/worktrees.json", Kind: Guarded, Reason: "commands that prepare a working tree", Source: "docs.cursor.com"},
	{Path: ".qwen/commands", Kind: Guarded, Reason: "commands with shell text", Source: "qwenlm.github.io/qwen-code-docs"},
	{Path: ".qwen/agents", Kind: Guarded, Reason: "agents with tools", Source: "qwenlm.github.io/qwen-code-docs"},
	{Path: ".qwen/skills", Kind: Guarded, Reason: "skills with programs", Source: "qwenlm.github.io/qwen-code-docs"},
	{Path: ".qwen/extensions", Kind: Guarded, Reason: "extensions with programs", Source: "qwenlm.github.io/qwen-code-docs"},
	{Path: ".qwen/hooks", Kind: Guarded, Reason: "programs that hooks run", Source: "qwenlm.github.io/qwen-code-docs"},
	{Path: ".opencode.json", Kind: Guarded, Reason: "as opencode.json", Source: "opencode.ai/docs/config"},
	{Path: ".amp/settings.jsonc", Kind: Guarded, Reason: "as settings.json", Source: "ampcode.com/manual"},
	{Path: ".amp/commands", Kind: Guarded, Reason: "commands with shell text", Source: "ampcode.com/manual"},
	{Path: ".amp/toolbox", Kind: Guarded, Reason: "programs that are tools", Source: "ampcode.com/manual"},
	{Path: ".amp/tools", Kind: Guarded, Reason: "programs that are tools", Source: "ampcode.com/manual"},
	{Path: ".amp/skills", Kind: Guarded, Reason: "skills with programs", Source: "ampcode.com/manual"},
	{Path: ".amp/plugins", Kind: Guarded, Reason: "plugins with programs", Source: "ampcode.com/manual"},
	{Path: ".kiro/agents", Kind: Guarded, Reason: "agents with tools and hooks", Source: "kiro.dev/docs"},
	{Path: ".kiro/skills", Kind: Guarded, Reason: "skills with programs", Source: "kiro.dev/docs"},
	{Path: ".kiro/powers", Kind: Guarded, Reason: "programs that Kiro starts", Source: "kiro.dev/docs"},
	{Path: ".roo/commands", Kind: Guarded, Reason: "commands with shell text", Source: "docs.roocode.com"},
	{Path: ".roo/tools", Kind: Guarded, Reason: "programs that are tools", Source: "docs.roocode.com"},
	{Path: ".roo/skills", Kind: Guarded, Reason: "skills with programs", Source: "docs.roocode.com"},
	{Path: ".windsurf/mcp_config.json", Kind: Guarded, Reason: "programs that Windsurf starts", Source: "docs.windsurf.com"},
	{Path: ".windsurf/workflows", Kind: Guarded, Reason: "commands with shell text", Source: "docs.windsurf.com"},
	{Path: ".windsurf/skills", Kind: Guarded, Reason: "skills with programs", Source: "docs.windsurf.com"},
	{Path: ".continuerc.json", Kind: Guarded, Reason: "as .continue", Source: "docs.continue.dev"},
	{Path: ".github/mcp.json", Kind: Guarded, Reason: "programs that Copilot starts", Source: "docs.github.com, Copilot CLI"},
	{Path: ".github/lsp.json", Kind: Guarded, Reason: "programs that Copilot starts", Source: "docs.github.com, Copilot CLI"},
	{Path: ".github/agents", Kind: Guarded, Reason: "agents with tools", Source: "docs.github.com, custom agents"},
	{Path: ".github/skills", Kind: Guarded, Reason: "skills with programs", Source: "docs.github.com, agent skills"},
	{Path: ".github/extensions", Kind: Guarded, Reason: "programs that Copilot runs", Source: "docs.github.com, Copilot CLI"},
	{Path: ".copilot", Kind: Guarded, Reason: "hooks, programs and permissions of Copilot, if the project is a home directory", Source: "docs.github.com, Copilot CLI"},
	{Path: ".clinerules/workflows", Kind: Guarded, Reason: "commands with shell text", Source: "docs.cline.bot"},
	{Path: ".cline", Kind: Guarded, Reason: "hooks, skills and programs of Cline", Source: "docs.cline.bot"},
	{Path: ".kilocode/workflows", Kind: Guarded, Reason: "commands with shell text", Source: "kilocode.ai/docs"},
	{Path: ".kilocode/skills", Kind: Guarded, Reason: "skills with programs", Source: "kilocode.ai/docs"},
	{Path: ".kilo", Kind: Guarded, Reason: "as .opencode, of Kilo Code", Source: "kilocode.ai/docs"},
	{Path: "kilo.json*", Kind: Guarded, Reason: "as opencode.json", Source: "kilocode.ai/docs"},
	{Path: ".amazonq/agents", Kind: Guarded, Reason: "as cli-agents", Source: "docs.aws.amazon.com, Amazon Q Developer"},
	{Path: ".junie/commands", Kind: Guarded, Reason: "commands with shell text", Source: "jetbrains.com/help/junie"},
	{Path: ".junie/agents", Kind: Guarded, Reason: "agents with tools", Source: "jetbrains.com/help/junie"},
	{Path: ".junie/skills", Kind: Guarded, Reason: "skills with programs", Source: "jetbrains.com/help/junie"},
	{Path: ".crush", Kind: Guarded, Reason: "commands and skills of Crush", Source: "github.com/charmbracelet/crush"},
	{Path: ".agents/plugins", Kind: Guarded, Reason: "programs that goose starts", Source: "goose-docs.ai"},
	{Path: ".agents/hooks", Kind: Guarded, Reason: "programs that hooks run", Source: "agentskills.io"},
	{Path: ".agents/commands", Kind: Guarded, Reason: "commands with shell text", Source: "agentskills.io"},
	{Path: ".agents/mcp.json", Kind: Guarded, Reason: "programs that agents start", Source: "agentskills.io"},
	{Path: ".agent/workflows", Kind: Guarded, Reason: "commands that Antigravity runs", Source: "antigravity.google/docs"},
	{Path: ".agent/skills", Kind: Guarded, Reason: "skills with programs", Source: "antigravity.google/docs"},
	{Path: ".goose", Kind: Guarded, Reason: "hooks, tools, commands and permissions of goose", Source: "goose-docs.ai"},
	{Path: ".augment", Kind: Guarded, Reason: "hooks, tools, commands and permissions of Auggie", Source: "docs.augmentcode.com"},
	{Path: ".openhands", Kind: Guarded, Reason: "hooks, tools, commands and permissions of OpenHands (setup.sh, hooks)", Source: "docs.openhands.dev"},
	{Path: ".pi", Kind: Guarded, Reason: "hooks, tools, commands and permissions of pi", Source: "github.com/badlogic/pi-mono"},
	{Path: ".vibe", Kind: Guarded, Reason: "hooks, tools, commands and permissions of Mistral Vibe", Source: "docs.mistral.ai"},
	{Path: ".iflow", Kind: Guarded, Reason: "hooks, tools, commands and permissions of iFlow", Source: "platform.iflow.cn"},
	{Path: ".codebuddy", Kind: Guarded, Reason: "hooks, tools, commands and permissions of CodeBuddy", Source: "codebuddy.ai/docs"},
	{Path: ".qoder", Kind: Guarded, Reason: "hooks, tools, commands and permissions of Qoder", Source: "docs.qoder.com"},
	{Path: ".rovodev", Kind: Guarded, Reason: "hooks, tools, commands and permissions of Rovo Dev", Source: "support.atlassian.com, Rovo Dev"},
	{Path: ".tabnine", Kind: Guarded, Reason: "hooks, tools, commands and permissions of Tabnine's agent", Source: "docs.tabnine.com"},
	{Path: ".grok", Kind: Guarded, Reason: "hooks, tools, commands and permissions of Grok CLI", Source: "docs.x.ai"},
	{Path: ".kimi", Kind: Guarded, Reason: "hooks, tools, commands and permissions of Kimi CLI", Source: "moonshotai.github.io/kimi-cli"},
	{Path: ".zencoder", Kind: Guarded, Reason: "hooks, tools, commands and permissions of Zencoder", Source: "docs.zencoder.ai"},
	{Path: ".trae/mcp.json", Kind: Guarded, Reason: "programs that Trae starts", Source: "docs.trae.ai"},
	{Path: ".aider.conf.yaml", Kind: Guarded, Reason: "as .aider.conf.yml", Source: "aider.chat/docs/config.html"},
	{Path: "conductor.json", Kind: Guarded, Reason: "commands that prepare a working tree", Source: "docs.conductor.build"},
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
	{Path: ".env-*", Kind: Hidden, files: true, Reason: "as .env", Source: "12factor.net/config"},
	{Path: ".env_*", Kind: Hidden, files: true, Reason: "as .env", Source: "12factor.net/config"},
	{Path: "*.env", Kind: Hidden, files: true, holds: assigned, Reason: "as .env, if it sets a secret", Source: "docs.docker.com, env_file"},
	{Path: ".flaskenv", Kind: Hidden, files: true, holds: assigned, Reason: "as .env, if it sets a secret", Source: "flask.palletsprojects.com, cli"},
	{Path: ".dev.vars", Kind: Hidden, files: true, Reason: "secrets of an application", Source: "developers.cloudflare.com/workers, secrets"},
	{Path: ".dev.vars.*", Kind: Hidden, files: true, but: []string{"*.example", "*.sample"}, Reason: "as .dev.vars; not .example, .sample", Source: "developers.cloudflare.com/workers, secrets"},
	{Path: "id_*", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "ssh(1), FILES"},
	{Path: "*_rsa", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "ssh-keygen(1)"},
	{Path: "*_dsa", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "ssh-keygen(1)"},
	{Path: "*_ecdsa", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "ssh-keygen(1)"},
	{Path: "*_ed25519", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "ssh-keygen(1)"},
	{Path: "ssh_host_*", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "sshd(8), FILES"},
	{Path: "*.ppk", Kind: Hidden, files: true, Reason: "private key", Source: "PuTTY manual"},
	{Path: "*.p8", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "RFC 5958"},
	{Path: "*.crt", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "RFC 7468"},
	{Path: "*.cer", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "RFC 7468"},
	{Path: "*.cert", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "RFC 7468"},
	{Path: "*.asc", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "gpg(1)"},
	{Path: "*.ovpn", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "openvpn(8)"},
	{Path: "*.agekey", Kind: Hidden, files: true, holds: privateKey, Reason: "private key, if it holds one", Source: "age(1)"},
	{Path: "keys.txt", Kind: Hidden, files: true, holds: privateKey, Reason: "private key of age, if it holds one", Source: "github.com/getsops/sops"},
	{Path: "wg*.conf", Kind: Hidden, files: true, holds: []string{"PrivateKey"}, Reason: "private key of WireGuard, if it holds one", Source: "wg(8)"},
	{Path: "*.jks", Kind: Hidden, files: true, Reason: "private keys with their certificates", Source: "keytool(1)"},
	{Path: "*.keystore", Kind: Hidden, files: true, but: []string{"debug.keystore"}, Reason: "as *.jks; not debug.keystore", Source: "developer.android.com, app signing"},
	{Path: "*.pkcs12", Kind: Hidden, files: true, Reason: "as *.p12", Source: "RFC 7292"},
	{Path: "*.kdbx", Kind: Hidden, files: true, Reason: "passwords of KeePass", Source: "keepass.info"},
	{Path: "*.kdb", Kind: Hidden, files: true, Reason: "passwords of KeePass", Source: "keepass.info"},
	{Path: "master.key", Kind: Hidden, files: true, Reason: "key of an application's secrets", Source: "guides.rubyonrails.org/security.html"},
	{Path: "production.key", Kind: Hidden, files: true, Reason: "as master.key", Source: "guides.rubyonrails.org/security.html"},
	{Path: "staging.key", Kind: Hidden, files: true, Reason: "as master.key", Source: "guides.rubyonrails.org/security.html"},
	{Path: "development.key", Kind: Hidden, files: true, Reason: "as master.key", Source: "guides.rubyonrails.org/security.html"},
	{Path: ".streamlit/secrets.toml", Kind: Hidden, files: true, Reason: "secrets of an application", Source: "docs.streamlit.io, secrets management"},
	{Path: "secrets*.json", Kind: Hidden, files: true, holds: issued, Reason: "keys and tokens, if it holds any that are known by their form", Source: "12factor.net/config"},
	{Path: "secrets*.yml", Kind: Hidden, files: true, holds: issued, Reason: "keys and tokens, if it holds any that are known by their form", Source: "12factor.net/config"},
	{Path: "secrets*.yaml", Kind: Hidden, files: true, holds: issued, Reason: "keys and tokens, if it holds any that are known by their form", Source: "12factor.net/config"},
	{Path: "secrets*.toml", Kind: Hidden, files: true, holds: issued, Reason: "keys and tokens, if it holds any that are known by their form", Source: "12factor.net/config"},
	{Path: "*service*account*.json", Kind: Hidden, files: true, holds: privateKey, Reason: "key of a service account, if it holds one", Source: "cloud.google.com/iam/docs, service account keys"},
	{Path: "*adminsdk*.json", Kind: Hidden, files: true, holds: privateKey, Reason: "key of a service account, if it holds one", Source: "cloud.google.com/iam/docs, service account keys"},
	{Path: "gcp*.json", Kind: Hidden, files: true, holds: privateKey, Reason: "key of a service account, if it holds one", Source: "cloud.google.com/iam/docs, service account keys"},
	{Path: "google*.json", Kind: Hidden, files: true, holds: privateKey, Reason: "key of a service account, if it holds one", Source: "cloud.google.com/iam/docs, service account keys"},
	{Path: "*key*.json", Kind: Hidden, files: true, holds: privateKey, Reason: "key of a service account, if it holds one", Source: "cloud.google.com/iam/docs, service account keys"},
	{Path: "*-############.json", Kind: Hidden, files: true, holds: privateKey, Reason: "key of a service account, if it holds one; # is a hexadecimal digit", Source: "cloud.google.com/iam/docs, service account keys"},
	{Path: "gha-creds-*.json", Kind: Hidden, files: true, Reason: "credentials of a cloud", Source: "github.com/google-github-actions/auth"},
	{Path: "application_default_credentials.json", Kind: Hidden, files: true, Reason: "credentials of a cloud", Source: "cloud.google.com/docs/authentication"},
	{Path: "client_secret*.json", Kind: Hidden, files: true, holds: []string{"client_secret"}, Reason: "secret of an application, if it holds one", Source: "developers.google.com/identity"},
	{Path: "token.json", Kind: Hidden, files: true, holds: []string{"refresh_token", "access_token"}, Reason: "token, if it holds one", Source: "developers.google.com/identity"},
	{Path: "auth.json", Kind: Hidden, files: true, holds: []string{"oauth", "http-basic", "bearer", "token", "auth\":"}, Reason: "passwords of registries, tokens of agents, if it holds any", Source: "getcomposer.org, Authentication"},
	{Path: "auth.toml", Kind: Hidden, files: true, holds: []string{"password", "token"}, Reason: "passwords of registries, if it holds any", Source: "python-poetry.org, repositories"},
	{Path: ".credentials.json", Kind: Hidden, files: true, Reason: "login of an agent", Source: "docs.claude.com, Claude Code settings"},
	{Path: "oauth_creds.json", Kind: Hidden, files: true, Reason: "login of an agent", Source: "geminicli.com/docs"},
	{Path: "credentials.toml", Kind: Hidden, files: true, holds: []string{"token", "secret", "password"}, Reason: "token, if it holds one", Source: "doc.rust-lang.org/cargo, cargo login"},
	{Path: "credentials.tfrc.json", Kind: Hidden, files: true, Reason: "token", Source: "developer.hashicorp.com/terraform/cli/config"},
	{Path: ".gem/credentials", Kind: Hidden, files: true, Reason: "token", Source: "RubyGems guides"},
	{Path: ".config/git/credentials", Kind: Hidden, files: true, Reason: "passwords of git", Source: "git-credential-store(1)"},
	{Path: "terraform.rc", Kind: Hidden, files: true, holds: []string{"token"}, Reason: "token, if it holds one", Source: "developer.hashicorp.com/terraform/cli/config"},
	{Path: "*.tfstate", Kind: Hidden, files: true, holds: []string{"password", "secret", "token", "private_key"}, Reason: "secrets of the infrastructure, if it holds any", Source: "developer.hashicorp.com/terraform, sensitive data"},
	{Path: "*.tfstate.*", Kind: Hidden, files: true, holds: []string{"password", "secret", "token", "private_key"}, Reason: "secrets of the infrastructure, if it holds any", Source: "developer.hashicorp.com/terraform, sensitive data"},
	{Path: "*.tfvars", Kind: Hidden, files: true, holds: []string{"password", "secret", "token", "private_key"}, Reason: "secrets of the infrastructure, if it holds any", Source: "developer.hashicorp.com/terraform, sensitive data"},
	{Path: "*.tfvars.json", Kind: Hidden, files: true, holds: []string{"password", "secret", "token", "private_key"}, Reason: "secrets of the infrastructure, if it holds any", Source: "developer.hashicorp.com/terraform, sensitive data"},
	{Path: ".terraform.d", Kind: Hidden, Reason: "tokens", Source: "developer.hashicorp.com/terraform/cli/config"},
	{Path: ".vault-token", Kind: Hidden, files: true, Reason: "token", Source: "developer.hashicorp.com/vault"},
	{Path: ".vault_pass*", Kind: Hidden, files: true, Reason: "password of Ansible", Source: "docs.ansible.com, vault"},
	{Path: ".vault-pass*", Kind: Hidden, files: true, Reason: "password of Ansible", Source: "docs.ansible.com, vault"},
	{Path: "vault_pass", Kind: Hidden, files: true, Reason: "password of Ansible", Source: "docs.ansible.com, vault"},
	{Path: "vault_pass.txt", Kind: Hidden, files: true, Reason: "password of Ansible", Source: "docs.ansible.com, vault"},
	{Path: "vault_password", Kind: Hidden, files: true, Reason: "password of Ansible", Source: "docs.ansible.com, vault"},
	{Path: "vault_password.txt", Kind: Hidden, files: true, Reason: "password of Ansible", Source: "docs.ansible.com, vault"},
	{Path: "vault-pass", Kind: Hidden, files: true, Reason: "password of Ansible", Source: "docs.ansible.com, vault"},
	{Path: "vault-pass.txt", Kind: Hidden, files: true, Reason: "password of Ansible", Source: "docs.ansible.com, vault"},
	{Path: "vault-password", Kind: Hidden, files: true, Reason: "password of Ansible", Source: "docs.ansible.com, vault"},
	{Path: "vault-password.txt", Kind: Hidden, files: true, Reason: "password of Ansible", Source: "docs.ansible.com, vault"},
	{Path: ".pgpass", Kind: Hidden, files: true, Reason: "passwords", Source: "postgresql.org, The Password File"},
	{Path: "pgpass.conf", Kind: Hidden, files: true, Reason: "passwords", Source: "postgresql.org, The Password File"},
	{Path: ".my.cnf", Kind: Hidden, files: true, holds: []string{"password"}, Reason: "password, if it holds one", Source: "dev.mysql.com, option files"},
	{Path: ".mylogin.cnf", Kind: Hidden, files: true, Reason: "passwords", Source: "dev.mysql.com, mysql_config_editor"},
	{Path: ".authinfo", Kind: Hidden, files: true, Reason: "passwords", Source: "GNU Emacs auth-source manual"},
	{Path: ".htpasswd", Kind: Hidden, files: true, Reason: "hashes of passwords", Source: "httpd.apache.org, htpasswd"},
	{Path: ".s3cfg", Kind: Hidden, files: true, Reason: "keys of a cloud", Source: "s3tools.org"},
	{Path: ".boto", Kind: Hidden, files: true, Reason: "keys of a cloud", Source: "cloud.google.com/storage/docs, boto"},
	{Path: "rclone.conf", Kind: Hidden, files: true, holds: []string{"pass", "token", "secret", "key"}, Reason: "keys of clouds, if it holds any", Source: "rclone.org/docs"},
	{Path: ".dockercfg", Kind: Hidden, files: true, Reason: "passwords of registries", Source: "docs.docker.com, docker login"},
	{Path: ".dockerconfigjson", Kind: Hidden, files: true, Reason: "passwords of registries", Source: "kubernetes.io, pull an image"},
	{Path: "kubeconfig*", Kind: Hidden, files: true, holds: []string{"client-key-data", "token:", "password:"}, Reason: "credentials of a cluster, if it holds any", Source: "kubernetes.io, kubeconfig"},
	{Path: "*.kubeconfig", Kind: Hidden, files: true, holds: []string{"client-key-data", "token:", "password:"}, Reason: "credentials of a cluster, if it holds any", Source: "kubernetes.io, kubeconfig"},
	{Path: "admin.conf", Kind: Hidden, files: true, holds: []string{"client-key-data", "token:", "password:"}, Reason: "credentials of a cluster, if it holds any", Source: "kubernetes.io, kubeconfig"},
	{Path: ".oci", Kind: Hidden, Reason: "credentials of a cloud", Source: "docs.oracle.com, OCI CLI"},
	{Path: ".aliyun", Kind: Hidden, Reason: "credentials of a cloud", Source: "alibabacloud.com, CLI"},
	{Path: ".bluemix", Kind: Hidden, Reason: "credentials of a cloud", Source: "cloud.ibm.com/docs/cli"},
	{Path: ".config/gh", Kind: Hidden, Reason: "token", Source: "cli.github.com/manual"},
	{Path: ".config/glab-cli", Kind: Hidden, Reason: "token", Source: "docs.gitlab.com, glab"},
	{Path: ".config/hub", Kind: Hidden, Reason: "token", Source: "hub.github.com"},
	{Path: ".config/doctl", Kind: Hidden, Reason: "credentials of a cloud", Source: "docs.digitalocean.com"},
	{Path: ".config/hcloud", Kind: Hidden, Reason: "credentials of a cloud", Source: "github.com/hetznercloud/cli"},
	{Path: ".config/scw", Kind: Hidden, Reason: "credentials of a cloud", Source: "scaleway.com/docs"},
	{Path: ".config/op", Kind: Hidden, Reason: "passwords", Source: "developer.1password.com"},
	{Path: ".config/sops", Kind: Hidden, Reason: "keys", Source: "github.com/getsops/sops"},
	{Path: ".config/github-copilot", Kind: Hidden, Reason: "token", Source: "docs.github.com, Copilot"},
	{Path: ".config/solana", Kind: Hidden, Reason: "keys", Source: "solana.com/docs"},
	{Path: ".password-store", Kind: Hidden, Reason: "passwords", Source: "pass(1)"},
	{Path: ".putty", Kind: Hidden, Reason: "keys", Source: "PuTTY manual"},
	{Path: ".cloudflared", Kind: Hidden, Reason: "credentials of a tunnel", Source: "developers.cloudflare.com"},
	{Path: ".kaggle", Kind: Hidden, Reason: "token", Source: "Kaggle API documentation"},
	{Path: ".huggingface", Kind: Hidden, Reason: "token", Source: "Hugging Face documentation"},
	{Path: ".pulumi", Kind: Hidden, Reason: "credentials", Source: "pulumi.com/docs"},
	{Path: ".databrickscfg", Kind: Hidden, files: true, Reason: "token", Source: "docs.databricks.com"},
	{Path: ".sentryclirc", Kind: Hidden, files: true, holds: []string{"token"}, Reason: "token, if it holds one", Source: "docs.sentry.io"},
	{Path: "ngrok.yml", Kind: Hidden, files: true, holds: []string{"authtoken"}, Reason: "token, if it holds one", Source: "ngrok.com/docs"},
	{Path: "wallet.dat", Kind: Hidden, files: true, Reason: "keys", Source: "bitcoin.org"},
	{Path: "UTC--*", Kind: Hidden, files: true, Reason: "key", Source: "geth.ethereum.org"},
	{Path: ".yarnrc", Kind: Hidden, files: true, holds: []string{"_authToken", "_password"}, Reason: "token, if it holds one", Source: "Yarn 1 documentation"},
	{Path: "pip.conf", Kind: Hidden, files: true, holds: []string{"@"}, Reason: "password, if it holds one", Source: "pip.pypa.io, configuration"},
	{Path: ".bundle/config", Kind: Hidden, files: true, holds: []string{"__COM:", "__IO:", "__ORG:", "__NET:"}, Reason: "password, if it holds one", Source: "bundler.io, bundle config"},
	{Path: "nuget.config", Kind: Hidden, files: true, holds: []string{"ClearTextPassword", "\"Password\""}, Reason: "password, if it holds one", Source: "learn.microsoft.com/nuget, nuget.config"},
	{Path: ".m2/settings.xml", Kind: Hidden, files: true, holds: []string{"<password>"}, Reason: "password, if it holds one", Source: "maven.apache.org/settings.html"},
	{Path: "settings-security.xml", Kind: Hidden, files: true, Reason: "password", Source: "maven.apache.org, password encryption"},
	{Path: "gradle.properties", Kind: Hidden, files: true, holds: []string{"assword=", "assword =", "oken=", "oken =", "ecret=", "ecret ="}, Reason: "password, if it holds one", Source: "docs.gradle.org, build environment"},
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
