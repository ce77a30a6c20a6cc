package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/xdg"
)

// CommonPolicy returns the file of rules that hold for all of the owner's sandboxes:
// $XDG_CONFIG_HOME/bawn/policy, by default ~/.config/bawn/policy.
func CommonPolicy() (string, error) {
	dir, err := xdg.Config()
	return filepath.Join(dir, "policy"), err
}

// RuleFiles returns where the sandbox's rules are: those of all sandboxes, those of
// its project's approved bawn.yaml, and its own. Any may be missing.
func (d Dir) RuleFiles() ([]string, error) {
	common, err := CommonPolicy()
	return []string{common, d.File(ProjectPolicyFile), d.File(PolicyFile)}, err
}

// Rules reads the sandbox's rules, in the order of RuleFiles. A file that is not
// there has none; one that cannot be read or has a mistake is an error, and then all
// traffic must be denied.
func (d Dir) Rules() ([]policy.Rule, error) {
	files, err := d.RuleFiles()
	if err != nil {
		return nil, err
	}
	var rules []policy.Rule
	for _, file := range files {
		r, err := RulesIn(file)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r...)
	}
	return rules, nil
}

// RulesIn reads one file of rules.
func RulesIn(file string) ([]policy.Rule, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return policy.ParseFile(file, b)
}
