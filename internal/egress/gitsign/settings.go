package gitsign

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mattn/go-shellwords"

	"bawn.dev/bawn/internal/sys/gitconfig"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/regular"
	"bawn.dev/bawn/internal/sys/settings"
)

// settingsTime bounds the reading of the settings, and the command that prints the key. What they print is bounded
// as a signature is.
const settingsTime = 10 * time.Second

// maxKeyFile bounds a file with a public key, in bytes.
const maxKeyFile = 64 << 10

// SetupError is what the person has to set before anything can be signed.
type SetupError struct {
	Problem string
	Step    string // a command of the host; empty: the problem says what to do
}

func (e *SetupError) Error() string {
	if e.Step == "" {
		return e.Problem
	}
	return e.Problem + "; run " + e.Step
}

func setup(step, format string, args ...any) error {
	return &SetupError{fmt.Sprintf(format, args...), step}
}

// Settings are by what the person signs.
type Settings struct {
	format  *format
	program string // an absolute path
	key     string // a key ID or, for SSH, the path of a file
	literal string // a public key of SSH; empty: key has the path
}

// Format returns the name of the format: openpgp, ssh or x509.
func (s *Settings) Format() string { return s.format.name }

// steps that several problems have.
const (
	stepSSH = "git config --global gpg.format ssh && git config --global user.signingkey ~/.ssh/id_ed25519.pub"
	stepKey = "git config --global user.signingkey KEY"
)

// Read returns the settings of the person's git. They come from the configuration of the system and of
// the person, and from files that these include, never from a repository. project is the directory in which
// conditional includes count. An error is a *SetupError where the person can mend it.
func Read(ctx context.Context, project string) (*Settings, error) {
	ctx, cancel := context.WithTimeout(ctx, settingsTime)
	defer cancel()
	conf, err := readConfig(ctx, project)
	if err != nil {
		return nil, err
	}
	s := &Settings{}
	if s.format, err = formatOf(conf["gpg.format"]); err != nil {
		return nil, err
	}
	if s.program, err = s.format.find(conf); err != nil {
		return nil, err
	}
	key := conf["user.signingkey"]
	switch {
	case s.format.name != ssh && key == "":
		return nil, setup(stepKey, "git of this host has no signing key (user.signingkey)")
	case s.format.name != ssh && strings.HasPrefix(key, "-"):
		return nil, setup(stepKey, "the signing key %.60q of git (user.signingkey) begins with a hyphen", key)
	case s.format.name != ssh:
		s.key = key
		return s, nil
	case key == "":
		if key, err = defaultKey(ctx, conf["gpg.ssh.defaultkeycommand"]); err != nil {
			return nil, err
		}
	}
	return s, s.setSSHKey(key)
}

// setSSHKey takes a value of user.signingkey for SSH: a key, behind key:: or as it is, or the path of a
// file with a key (git-config(1)).
func (s *Settings) setSSHKey(value string) error {
	if literal, ok := literalKey(value); ok {
		s.literal = literal
		return nil
	}
	path, err := absolute(value)
	if err != nil {
		return setup(stepSSH, "the signing key %.60q of git (user.signingkey): %v", value, err)
	}
	if strings.HasSuffix(path, ".pub") {
		if _, err := regular.Read(path, maxKeyFile, 0); err != nil {
			return setup(stepSSH, "the file of the signing key (user.signingkey) cannot be read: %v", err)
		}
	} else if f, err := regular.Open(path, 0); err != nil {
		return setup(stepSSH, "the file of the signing key (user.signingkey) cannot be read: %v", err)
	} else {
		f.Close()
	}
	// Whoever can replace a public key chooses with which of the agent's keys is signed.
	for _, p := range []string{path, strings.TrimSuffix(path, ".pub"), strings.TrimSuffix(path, ".pub") + ".pub"} {
		if err := proc.Trusted(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return setup("", "the file of the signing key %s (user.signingkey) is not used: %v", path, err)
		}
	}
	s.key = path
	return nil
}

// literalKey returns a public key that a value is, and not the path of one.
func literalKey(value string) (key string, ok bool) {
	if rest, ok := strings.CutPrefix(value, "key::"); ok {
		return rest, true
	}
	return value, strings.HasPrefix(value, "ssh-")
}

// defaultKey runs the command that prints the key where none is set (git-config(1),
// gpg.ssh.defaultKeyCommand).
func defaultKey(ctx context.Context, command string) (string, error) {
	if command == "" {
		return "", setup(stepSSH, "git of this host has no signing key (user.signingkey, gpg.ssh.defaultKeyCommand)")
	}
	words, err := shellwords.Parse(command)
	if err != nil || len(words) == 0 {
		return "", setup(stepSSH, "the command that prints the signing key (gpg.ssh.defaultKeyCommand) cannot be read: %.60q", command)
	}
	program, err := findProgram(words[0])
	if err != nil {
		return "", setup("", "the command that prints the signing key (gpg.ssh.defaultKeyCommand): %v", err)
	}
	if err := settings.CheckCommand(command); err != nil { // it may run a script
		return "", setup("", "the command that prints the signing key (gpg.ssh.defaultKeyCommand): %v", err)
	}
	r, err := execute(ctx, program, words[1:], nil)
	if err != nil {
		return "", fmt.Errorf("the command that prints the signing key (gpg.ssh.defaultKeyCommand) failed: %w", err)
	}
	line, _, _ := strings.Cut(string(r.out), "\n")
	if _, ok := literalKey(line); !ok {
		return "", setup("ssh-add", "the command that prints the signing key (gpg.ssh.defaultKeyCommand) printed none")
	}
	return line, nil
}

// readConfig returns the last value of each key that is about signing, or about who signs: signatures are for the
// committer user.name and user.email. Each file that has one must be the person's or the administrator's alone.
func readConfig(ctx context.Context, project string) (map[string]string, error) {
	values, err := gitconfig.Read(ctx, project, `^(gpg\..*|user\.(signingkey|name|email))$`)
	var failed *gitconfig.Error
	switch {
	case errors.As(err, &failed) && failed.Said != "":
		return nil, setup("git config --global --list", "git's configuration cannot be read: %s", failed.Said)
	case errors.As(err, &failed):
		return nil, err
	case err != nil: // there is no git
		return nil, setup("", "%v", err)
	}
	conf := map[string]string{}
	for _, v := range values {
		if err := proc.Trusted(v.File); err != nil {
			return nil, setup("", "git's configuration %s, which sets %s, is not used: %v", v.File, v.Key, err)
		}
		conf[strings.ToLower(v.Key)] = v.Text
	}
	return conf, nil
}

// findProgram returns the absolute path of a program that git's configuration names. It is not one that a
// guest could have written.
func findProgram(name string) (string, error) {
	if !strings.Contains(name, "/") {
		return proc.Find(name)
	}
	path, err := absolute(name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 {
		return "", fmt.Errorf("%s is not a program", path)
	}
	if err := proc.Trusted(path); err != nil {
		return "", fmt.Errorf("%s is not run: %w", path, err)
	}
	return path, nil
}

// absolute returns an absolute path. It may begin with ~/, the person's home.
func absolute(path string) (string, error) {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		path = filepath.Join(home, rest)
	}
	if !filepath.IsAbs(path) {
		return "", errors.New("it is no absolute path, and does not begin with ~/")
	}
	return filepath.Clean(path), nil
}
