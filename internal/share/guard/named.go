package guard

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Files that guarded configuration of the host names: a program of a hook, what .envrc loads and puts on the
// PATH. The host runs these without being asked as it does the configuration, so they are guarded as well.

// agentFiles are configuration of agents with commands that run by themselves.
var agentFiles = []string{
	".claude/settings.json", ".claude/settings.local.json", ".codex/hooks.json", ".gemini/settings.json", ".qwen/settings.json", ".cursor/hooks.json", ".windsurf/hooks.json",
	".github/hooks/*.json", ".codebuddy/settings.json", ".qoder/settings.json", ".augment/settings.json",
}

// hookFiles are hooks of git, and what hooks read to know what to run.
var hookFiles = []string{
	".git/hooks/*", ".husky/*", ".githooks/*", ".git-hooks/*", ".git-hooks/*/*", ".lefthook/*/*", ".pre-commit-config.yaml", "lefthook.yml", "lefthook.yaml", ".lefthook.yml", "lefthook-local.yml",
	".overcommit.yml", "captainhook.json", "grumphp.yml", ".lintstagedrc", ".lintstagedrc.json", ".simple-git-hooks.json",
}

// namedByConfig returns the files and directories of a project that its hooks, its .envrc and the
// configuration of mise name.
func namedByConfig(root string) (list []string) {
	if _, err := os.Lstat(filepath.Join(root, ".git", "safe")); err == nil { // the person has marked the project, see the rule of .git/safe
		list = append(list, filepath.Join(root, "bin"))
	}
	eachFile(root, agentFiles, func(text string) {
		var value any
		if json.Unmarshal([]byte(text), &value) != nil {
			return
		}
		for _, command := range commandsIn(value, false) {
			list = append(list, filesIn(root, command, true)...)
		}
	})
	eachFile(root, hookFiles, func(text string) { // which may name files that they only look at
		list = append(list, slices.DeleteFunc(filesIn(root, text, false), func(at string) bool { return !isProgram(at) })...)
	})
	eachFile(root, []string{".envrc"}, func(text string) {
		for line := range strings.Lines(text) {
			list = append(list, namedByEnvrc(root, line)...)
		}
	})
	eachFile(root, []string{"mise.toml", ".mise.toml"}, func(text string) {
		for line := range strings.Lines(text) {
			if strings.Contains(line, "_.path") || strings.Contains(line, "_.source") {
				line = strings.NewReplacer("{{config_root}}", "$PWD", "{{ config_root }}", "$PWD").Replace(line)
				list = append(list, append(directoriesIn(root, line), filesIn(root, line, true)...)...)
			}
		}
	})
	return list
}

// eachFile calls f with the text of each file of a project that matches a pattern.
func eachFile(root string, patterns []string, f func(text string)) {
	for _, pattern := range patterns {
		files, _ := filepath.Glob(filepath.Join(globEscape.Replace(root), pattern)) // the patterns are well-formed
		files = slices.DeleteFunc(files, func(file string) bool { return strings.HasSuffix(file, ".sample") })
		for _, file := range files[:min(len(files), maxIncludes)] {
			if text, err := readSmall(file); err == nil {
				f(string(text))
			}
		}
	}
}

var globEscape = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// scripts are ends of names of programs that an interpreter runs.
var scripts = []string{".sh", ".bash", ".zsh", ".py", ".js", ".mjs", ".cjs", ".ts", ".mts", ".rb", ".pl", ".php", ".lua", ".ps1", ".exs"}

// isProgram reports whether a file is a program by its name or its mode.
func isProgram(path string) bool {
	fi, err := os.Stat(path)
	return slices.Contains(scripts, filepath.Ext(path)) || err == nil && fi.Mode()&0o111 != 0
}

// namedByEnvrc returns what a line of .envrc runs, loads or puts on the PATH (direnv-stdlib(1)).
func namedByEnvrc(root, line string) []string {
	words := strings.Fields(line)
	switch {
	case len(words) == 0:
	case strings.HasPrefix(words[0], "./") || slices.Contains(runners, words[0]):
		return filesIn(root, line, true)
	case strings.EqualFold(words[0], "path_add"):
		return directoriesIn(root, "./"+strings.Join(words[1:], " ./"))
	case strings.Contains(line, "PATH="):
		return directoriesIn(root, line)
	case len(words) > 1 && (words[0] == "use" || words[0] == "layout"):
		return append(filesIn(root, loadedBy[words[1]], false), directoriesIn(root, layouts[words[1]])...)
	}
	return nil
}

// runners are commands in .envrc that run a file, or have the shell read it.
var runners = []string{"source", ".", "source_env", "source_env_if_exists", "eval", "exec", "sh", "bash", "python", "python3", "node"}

// loadedBy are files that direnv's "use" loads, and layouts what its "layout" puts on the PATH.
var (
	loadedBy = map[string]string{
		"flake": "flake.nix flake.lock", "nix": "shell.nix default.nix", "devenv": "devenv.nix devenv.yaml devenv.lock", "mise": "mise.toml", "guix": "guix.scm manifest.scm",
	}
	layouts = map[string]string{"node": "node_modules/.bin", "php": "vendor/bin", "go": "./bin"}
)

// directoriesIn returns the words of a line that name a directory of the project that is there, or a path.
func directoriesIn(root, line string) (list []string) {
	for _, word := range wordsOf(line) {
		path := from(root, word)
		fi, err := os.Lstat(path)
		if err == nil && fi.IsDir() && path != root || errors.Is(err, fs.ErrNotExist) && strings.Contains(word, "/") {
			list = append(list, path)
		}
	}
	return list
}

// commandsIn returns the texts of a configuration that say what to run. hook: the value belongs to a hook or
// to a status line.
func commandsIn(value any, hook bool) (list []string) {
	switch v := value.(type) {
	case []any:
		for _, one := range v {
			list = append(list, commandsIn(one, hook)...)
		}
	case map[string]any:
		for key, one := range v {
			key = strings.ToLower(key)
			text, isText := one.(string)
			switch {
			case isText && (hook && slices.Contains([]string{"command", "bash", "exec"}, key) || key == "apikeyhelper" || key == "awsauthrefresh"):
				list = append(list, text)
			default:
				list = append(list, commandsIn(one, hook || key == "hooks" || key == "statusline")...)
			}
		}
	}
	return list
}

// filesIn returns the words of a command that name a file of the project. isNew: also one that is not there
// yet, if the word is a path.
func filesIn(root, command string, isNew bool) (list []string) {
	for _, word := range wordsOf(command) {
		path := from(root, word)
		switch fi, err := os.Lstat(path); {
		case err == nil && (fi.Mode().IsRegular() || fi.Mode()&fs.ModeSymlink != 0), errors.Is(err, fs.ErrNotExist) && isNew && strings.Contains(word, "/"):
			list = append(list, path)
		}
		// What stood before it may be the project: $(git rev-parse --show-toplevel)/program.
		path = filepath.Join(root, word)
		if fi, err := os.Lstat(path); strings.HasPrefix(word, "/") && err == nil && fi.Mode().IsRegular() {
			list = append(list, path)
		}
	}
	return list
}

// wordsOf splits a command into words that may be paths. A variable before a path is left out: it is the
// project's directory, if the path is there.
func wordsOf(command string) []string {
	command = strings.NewReplacer(`"`, "", "'", "").Replace(command) // "$DIR"/program
	words := strings.FieldsFunc(command, func(c rune) bool { return strings.ContainsRune(" \t\r\n`;&|()<>=,:!{}[]", c) })
	for i, word := range words {
		if _, rest, cut := strings.Cut(word, "/"); cut && strings.HasPrefix(word, "$") {
			words[i] = "./" + rest // of $PWD, $CLAUDE_PROJECT_DIR and others
		}
	}
	return words
}
