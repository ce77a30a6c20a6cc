package review

import (
	"path"
	"strings"
)

// named is a name, or the last components of a path, whose class is known by it. The last
// component may have wildcards (path.Match); names are compared without regard to case.
type named struct {
	pattern string
	class   Class
	why     string
}

// byName lists what programs run or trust by its name. The first entry that matches counts.
var byName = flatten([]group{
	{CI, "runs in CI", []string{
		".github/workflows/*", ".github/actions/*", ".github/actions/*/*", "action.yml", "action.yaml", ".gitlab-ci.yml", ".gitlab/ci/*",
		".circleci/*", "azure-pipelines.yml", "azure-pipelines.yaml", "Jenkinsfile", ".travis.yml", ".drone.yml", "bitbucket-pipelines.yml",
		".buildkite/*", "appveyor.yml", ".appveyor.yml", ".woodpecker.yml", ".woodpecker/*", "cloudbuild.yaml", ".forgejo/workflows/*",
		".gitea/workflows/*", ".teamcity/*", "buildspec.yml", ".cirrus.yml", ".semaphore/*", "Procfile",
	}},
	{Lock, "chooses the packages that the host installs", []string{
		"package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb", "deno.lock", "Cargo.lock", "poetry.lock",
		"uv.lock", "pdm.lock", "pylock.toml", "Pipfile.lock", "requirements*.txt", "Gemfile.lock", "composer.lock", "go.sum", "flake.lock", "gradle.lockfile",
		"packages.lock.json", "mix.lock", "pubspec.lock", "Podfile.lock", "Package.resolved", "MODULE.bazel.lock", ".terraform.lock.hcl",
	}},
	{Build, "package managers run or obey it", []string{
		".npmrc", ".yarnrc", ".yarnrc.yml", ".pnp.cjs", ".pnp.loader.mjs", ".pnpmfile.cjs", ".pnpmfile.mjs", "pnpm-workspace.yaml", ".yarn/releases/*", ".yarn/plugins/*/*", ".yarn/sdks/*", ".yarn/sdks/*/*", ".yarn/sdks/*/*/*",
		"bunfig.toml", "deno.json", "deno.jsonc", "binding.gyp", "composer.json", "Gemfile", "*.gemspec", "Pipfile", "pip.conf", "Brewfile",
		"go.mod", "go.work", "Package.swift", "mix.exs", "pubspec.yaml", "nuget.config", "*.nuspec",
	}},
	{Build, "make and its like run it", []string{
		"Makefile", "GNUmakefile", "BSDmakefile", "*.mk", "Makefile.*", "justfile", ".justfile", "*.just", "Taskfile.yml", "Taskfile.yaml", "Rakefile", "*.rake",
		"CMakeLists.txt", "*.cmake", "CMakePresets.json", "CMakeUserPresets.json", "meson.build", "SConstruct", "SConscript", "wscript", "configure.ac", "*.m4",
		"BUILD", "BUILD.bazel", "WORKSPACE", "WORKSPACE.bazel", "MODULE.bazel", ".bazelrc", "*.bzl", "BUCK", "build.ninja", "Earthfile", "magefile.go",
		"Cargo.toml", "build.rs", ".cargo/config", ".cargo/config.toml", "rust-toolchain", "rust-toolchain.toml", "build.zig",
		"pom.xml", ".mvn/*", ".mvn/wrapper/*", "build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts", "gradle.properties", "gradle/wrapper/*", "init.gradle", "*.sbt", "project/plugins.sbt",
		"*.csproj", "*.fsproj", "*.vbproj", "*.vcxproj", "*.props", "*.targets", "*.sln", ".bazelversion", "tools/bazel", "flake.nix", "shell.nix", "default.nix", "devenv.nix", "devenv.yaml", "devbox.json", ".flox/env/*", "pixi.toml", "environment.yml", "Vagrantfile",
		"Dockerfile", "Dockerfile.*", "*.dockerfile", "Containerfile", "compose.yml", "compose.yaml", "compose.*.yml", "compose.*.yaml", "docker-compose*.yml", "docker-compose*.yaml", "skaffold.yaml", "Tiltfile", "*.tf", "*.pkr.hcl",
	}},
	{Build, "tests, linters and editors run it", []string{
		"setup.py", "setup.cfg", "pyproject.toml", "tox.ini", "noxfile.py", "conftest.py", "pytest.ini", "sitecustomize.py", "usercustomize.py", "*.pth", "tasks.py", "manage.py", ".pylintrc", "fabfile.py", "dodo.py", ".rubocop.yml", ".luacheckrc", ".formatter.exs", ".credo.exs", "phpstan.neon*", "phpunit.xml*", ".clj-kondo/config.edn", "Dangerfile", "Guardfile", "Fastfile", "Capfile",
		"tsconfig*.json", "jsconfig.json", ".eslintrc*", ".prettierrc*", ".babelrc*", ".stylelintrc*", ".swcrc",
		"*.config.js", "*.config.cjs", "*.config.mjs", "*.config.ts", "*.config.mts", "*.config.cts", "Gruntfile.js", "gulpfile.js", "gulpfile.ts", "gulpfile.mjs", "Jakefile", ".mocharc.js", "karma.conf.js",
		".pre-commit-config.yaml", ".pre-commit-hooks.yaml", "lefthook.yml", ".lefthook.yml", ".lefthook/*", ".lintstagedrc*", ".huskyrc*", ".simple-git-hooks.*", ".overcommit.yml", ".golangci.yml", ".golangci.yaml",
		".watchmanconfig", ".rspec", ".irbrc", ".pryrc", ".perlcriticrc", ".Rprofile", ".Renviron", ".ocamlinit", ".ghci", "*.code-snippets", ".editorconfig.js", ".tmux.conf", ".bashrc", ".bash_profile", ".profile", ".zshrc", ".zshenv", "desktop.ini", "*.desktop", ".directory", ".screenrc", ".inputrc",
		"startup.m", ".python-version", "*-gdb.py", "*-gdb.gdb", ".ctags", ".ctags.d/*", ".gutctags", ".projections.json", ".config/nextest.toml", ".tmuxinator.yml", ".tmuxp.yaml", ".overmind.env", "mise/config.toml", ".user.ini", ".htaccess", "web.config", "profile_default/startup/*",
	}},
	{Build, "agents that you run on the host obey it", []string{
		"AGENTS.md", "AGENTS.override.md", "CLAUDE.md", "CLAUDE.local.md", "GEMINI.md", "QWEN.md", ".claude/rules/*", ".cursorrules", ".cursor/rules/*", ".windsurfrules", ".windsurf/rules/*",
		".clinerules", ".clinerules/*", ".goosehints", ".rules", ".roorules", ".roo/rules/*", ".kiro/steering/*", ".junie/guidelines.md", ".github/copilot-instructions.md", ".github/instructions/*", ".github/prompts/*",
	}},
	{Git, "git fetches what it names at the next submodule update", []string{".gitmodules"}},
	{Git, "chooses where Git LFS and Gerrit send to", []string{".lfsconfig", ".gitreview"}},
	{Git, "chooses filters and merge drivers", []string{".gitattributes"}},
	{Git, "git log shows other names of authors", []string{".mailmap"}},
})

// inGit lists what git on the host goes by in a directory .git, from there. Hooks and
// configuration are guarded: they are not on the host.
var inGit = flatten([]group{
	{Git, "has commands that git runs when the rebase is continued", []string{"rebase-merge/*", "rebase-apply/*", "sequencer/*", "worktrees/*/rebase-merge/*"}},
	{Git, "lends objects of another repository", []string{"objects/info/alternates", "objects/info/http-alternates"}},
	{Git, replaced, []string{"refs/replace/*", "info/grafts", "shallow"}},
	{Git, "git log goes by it, not by the commits (git commit-graph verify compares them)", []string{"objects/info/commit-graph", "objects/info/commit-graphs/*"}},
	{Git, "git settles conflicts of a merge by it", []string{"rr-cache/*/*"}},
	{Git, "references in a form that is not looked through: git replace --list names what is replaced", []string{"reftable/tables.list"}},
	{Git, "git status leaves out what it names", []string{"info/exclude", "info/sparse-checkout"}},
	{Git, "changes what git does here", []string{"info/*", "modules/*", "worktrees/*/*", "branches/*", "remotes/*"}},
})

type group struct {
	class Class
	why   string
	names []string
}

func flatten(groups []group) (list []named) {
	for _, g := range groups {
		for _, n := range g.names {
			list = append(list, named{strings.ToLower(n), g.class, g.why})
		}
	}
	return list
}

// match reports whether the last components of a path, which is in lower case, are those of a
// pattern.
func (n named) match(at string) bool {
	parts := strings.Count(n.pattern, "/") + 1
	from := len(at)
	for range parts {
		if from < 0 {
			return false
		}
		from = strings.LastIndexByte(at[:from], '/')
	}
	ok, err := path.Match(n.pattern, at[from+1:])
	return err == nil && ok
}

// nameClass returns the entry of a list for a path.
func nameClass(list []named, at string) (named, bool) {
	at = strings.ToLower(at)
	for _, n := range list {
		if n.match(at) {
			return n, true
		}
	}
	return named{}, false
}

// gitPath returns the part of a path below a directory .git.
func gitPath(at string) (below string, ok bool) {
	if strings.HasPrefix(strings.ToLower(at), ".git/") {
		return at[len(".git/"):], true
	}
	i := strings.Index(strings.ToLower(at), "/.git/")
	if i < 0 {
		return "", false
	}
	return at[i+len("/.git/"):], true
}
