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

// Files that guarded configuration of the host names: a program of a hook, what .envrc loads. The host
// runs these without being asked as it does the configuration, so they are guarded as well.

// hookFiles are configuration of agents with commands that run by themselves.
var hookFiles = []string{
	".claude/settings.json", ".claude/settings.local.json", ".codex/hooks.json", ".gemini/settings.json", ".qwen/settings.json", ".cursor/hooks.json", ".windsurf/hooks.json",
	".github/hooks/*.json", ".codebuddy/settings.json", ".qoder/settings.json", ".augment/settings.json",
}

// namedByConfig returns the files of a project that its hooks of agents and its .envrc name.
func namedByConfig(root string) (list []string) {
	for _, pattern := range hookFiles {
		files, _ := filepath.Glob(filepath.Join(root, pattern)) // the patterns are well-formed
		for _, file := range files {
			text, err := readSmall(file)
			var value any
			if err != nil || json.Unmarshal(text, &value) != nil {
				continue
			}
			for _, command := range commandsIn(value, false) {
				list = append(list, filesIn(root, command, true)...)
			}
		}
	}
	text, err := readSmall(filepath.Join(root, ".envrc"))
	if err != nil {
		return list
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		switch {
		case len(words) < 2 && (len(words) == 0 || !strings.HasPrefix(words[0], "./")):
		case words[0] == "use":
			list = append(list, filesIn(root, loadedBy[words[1]], false)...)
		case slices.Contains(runners, words[0]) || strings.HasPrefix(words[0], "./"):
			list = append(list, filesIn(root, line, true)...)
		}
	}
	return list
}

// runners are commands in .envrc that run a file, or have the shell read it.
var runners = []string{"source", ".", "source_env", "source_env_if_exists", "eval", "exec", "sh", "bash", "python", "python3", "node"}

// loadedBy are files that direnv's "use" loads (direnv-stdlib(1)).
var loadedBy = map[string]string{
	"flake": "flake.nix flake.lock", "nix": "shell.nix default.nix", "devenv": "devenv.nix devenv.yaml devenv.lock", "mise": "mise.toml", "guix": "guix.scm manifest.scm",
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
	command = strings.NewReplacer(`"`, "", "'", "").Replace(command) // "$DIR"/program
	words := strings.FieldsFunc(command, func(c rune) bool { return strings.ContainsRune(" \t\r\n`;&|()<>=,:!{}", c) })
	for _, word := range words {
		if _, rest, cut := strings.Cut(word, "/"); cut && strings.HasPrefix(word, "$") {
			word = rest // of $PWD, $CLAUDE_PROJECT_DIR and others
		}
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
