package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/regular"
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
// traffic must be denied. So is one whose path leads to or through what the guest of any
// sandbox can change, or could: it would write its own rules.
func (d Dir) Rules() ([]policy.Rule, error) {
	files, err := d.RuleFiles()
	if err != nil {
		return nil, err
	}
	guests, err := d.store().Changeable()
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	var rules []policy.Rule
	for _, file := range files {
		if err := proc.Beyond(file, guests); err != nil {
			return nil, fmt.Errorf("policy: %w; or move the rules out of that directory", err)
		}
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
	b, err := ReadRules(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return policy.ParseFile(file, b)
}

// ReadRules reads the text of a file of rules, through symbolic links. If there is no such
// file the error is fs.ErrNotExist; a link that leads nowhere is another error, since rules
// are missing there that the user has, and so is anything that is no regular file.
func ReadRules(file string) ([]byte, error) {
	f, err := regular.Open(file, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if derr := danglingLink(file); derr != nil {
			return nil, derr
		}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, policy.MaxFile+1)) // a longer one is refused by policy.ParseFile
}

// WriteRules replaces the text of a file of rules in one step. A symbolic link stays: the
// file that it leads to is replaced, and keeps its permissions.
func WriteRules(file string, text []byte) error {
	if fi, err := os.Lstat(file); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		return atomicfile.Write(file, text)
	}
	target, err := filepath.EvalSymlinks(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = danglingLink(file)
	}
	if err != nil {
		return err
	}
	if fi, err := os.Lstat(target); err != nil {
		return err
	} else if !fi.Mode().IsRegular() { // a device, say: it must not be replaced by a file
		return fmt.Errorf("%s is a symbolic link to %s, which is not a regular file", file, target)
	}
	return atomicfile.Replace(target, text, 0o600)
}

// RemoveRules removes a file of rules, if there is one. Of a symbolic link, the file that it
// leads to is emptied; a link that leads nowhere is removed.
func RemoveRules(file string) error {
	fi, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return danglingLink(filepath.Dir(file))
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(file); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		return WriteRules(file, nil)
	}
	return os.Remove(file)
}

// MakeRulesFolder makes the folder of a file of rules.
func MakeRulesFolder(file string) error {
	dir := filepath.Dir(file)
	if err := danglingLink(dir); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o700)
}

// danglingLink returns an error if a path that does not exist, or one of the folders in it,
// is a symbolic link to something that does not exist; nil if the path exists, or simply
// is not there.
func danglingLink(path string) error {
	for p := path; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); err == nil {
			return nil
		}
		fi, err := os.Lstat(p)
		if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
			to, _ := os.Readlink(p)
			return fmt.Errorf("%s is a symbolic link to %s, which does not exist: restore that, or remove the link", p, to)
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}
