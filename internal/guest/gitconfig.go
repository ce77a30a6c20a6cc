package guest

import (
	"bytes"
	"strings"

	"bawn.dev/bawn/internal/guest/etc"
)

// gitConfig is git's configuration of the whole system (git-config(1)).
const gitConfig = "/etc/gitconfig"

// maxGitConfig is the size from which on the file is left alone, in bytes.
const maxGitConfig = 64 << 10

// trustRepositories lets every user of the guest use git in a shared directory, whose
// repositories belong to one of them (git-config(1), safe.directory). It keeps what the file
// has.
func trustRepositories(file, dir string) error {
	text := etc.Read(file)
	section := gitSection(dir)
	if bytes.Contains(text, section) || len(text) >= maxGitConfig {
		return nil
	}
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	return etc.Replace(file, append(text, section...), 0o644)
}

// gitSection is the part of the file for a directory and the repositories below it.
func gitSection(dir string) []byte {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(dir)
	return []byte("[safe]\n\tdirectory = \"" + quoted + "\"\n\tdirectory = \"" + quoted + "/*\"\n")
}
