package sshlogin

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"bawn.dev/bawn/internal/sys/bounded"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/regular"
	"bawn.dev/bawn/internal/sys/text"
)

const (
	// settingsTime bounds ssh -G, which may run commands of the person's (Match exec).
	settingsTime = 10 * time.Second
	// maxSettings bounds what it prints, in bytes.
	maxSettings = 256 << 10
)

// settings are those of the person's ssh for one server.
type settings struct {
	user       string
	agent      string // the socket; empty: none
	keyFiles   []string
	onlyNamed  bool // no key of the agent's that is not in a file
	knownHosts []string
}

// readSettings asks the host's ssh for the settings for a server. Without ssh, they are its defaults. An error is an
// *Error.
func readSettings(ctx context.Context, name, as string) (*settings, error) {
	s := &settings{agent: os.Getenv("SSH_AUTH_SOCK")}
	account := ""
	if u, err := user.Current(); err == nil {
		s.user, account = u.Username, u.HomeDir
	}
	ctx, cancel := context.WithTimeout(ctx, settingsTime)
	defer cancel()
	err := trustConfig(ctx, account, name)
	var out []byte
	if err == nil {
		out, _, err = printSettings(ctx, account, name)
	}
	switch {
	case proc.Missing(err, "openssh-client") != nil:
		s.setDefaults()
		return s, nil
	case err != nil:
		return nil, &Error{"the settings of SSH on the host cannot be used: bawn logs --supervisor says there why", err.Error()}
	}
	s.parse(string(out), expander(account, name, as, s.user))
	return s, nil
}

// printSettings runs ssh -G for a server, with further variables. It returns what ssh prints to either stream.
func printSettings(ctx context.Context, account, name string, env ...string) (out, said []byte, err error) {
	args := configArgs(account)
	if len(env) > 0 {
		args = append(args, "-v")
	}
	c := proc.Command(ctx, "ssh", append(args, "-G", "--", name)...)
	c.Env = append(c.Env, env...)
	stdout, stderr := &bounded.Writer{Max: maxSettings}, &bounded.Writer{Max: maxSettings}
	c.Stdout, c.Stderr = stdout, stderr
	proc.InSession(c)
	switch err = proc.Run(c); {
	case err != nil && ctx.Err() != nil:
		err = fmt.Errorf("ssh -G: %w", ctx.Err())
	case err != nil && len(stderr.Kept) > 0:
		err = fmt.Errorf("ssh -G: %w: %s", err, text.Line(strings.TrimSpace(string(stderr.Kept))))
	case err == nil && (stdout.Over || stderr.Over):
		err = fmt.Errorf("ssh -G printed more than %d bytes", maxSettings)
	}
	return stdout.Kept, stderr.Kept, err
}

// configArgs make ssh read the configuration in $HOME, also where that is not the account's home.
func configArgs(account string) []string {
	if home() == account || account == "" {
		return nil
	}
	file := filepath.Join(home(), ".ssh/config")
	if f, err := regular.Open(file, 0); err == nil {
		f.Close()
		return []string{"-F", file}
	}
	return []string{"-F", "none"}
}

// setDefaults sets those of OpenSSH (ssh_config(5)).
func (s *settings) setDefaults() {
	for _, k := range []string{"rsa", "ecdsa", "ed25519"} {
		s.keyFiles = append(s.keyFiles, filepath.Join(home(), ".ssh/id_"+k))
	}
	s.knownHosts = []string{filepath.Join(home(), ".ssh/known_hosts"), "/etc/ssh/ssh_known_hosts"}
}

// parse reads the output of ssh -G.
func (s *settings) parse(printed string, expand func(string) string) {
	for line := range strings.Lines(printed) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "user":
			s.user = value
		case "identitiesonly":
			s.onlyNamed = value == "yes"
		case "identityfile":
			s.keyFiles = append(s.keyFiles, expand(value))
		case "identityagent":
			s.setAgent(value, expand)
		case "userknownhostsfile", "globalknownhostsfile":
			for f := range strings.FieldsSeq(value) {
				if f != "none" && f != os.DevNull {
					s.knownHosts = append(s.knownHosts, expand(f))
				}
			}
		}
	}
}

// setAgent reads IdentityAgent.
func (s *settings) setAgent(value string, expand func(string) string) {
	switch {
	case value == "none":
		s.agent = ""
	case value == "SSH_AUTH_SOCK":
	case strings.HasPrefix(value, "$"):
		s.agent = os.Getenv(strings.Trim(value[1:], "{}"))
	default:
		s.agent = expand(value)
	}
}

// expander returns what replaces the tokens of file names (ssh_config(5), TOKENS), and the home of the
// account by $HOME.
func expander(account, host, remoteUser, localUser string) func(string) string {
	tokens := strings.NewReplacer("%%", "%", "%d", home(), "%h", host, "%n", host, "%r", remoteUser, "%u", localUser)
	return func(file string) string {
		file = tokens.Replace(file)
		if rest, ok := strings.CutPrefix(file, "~/"); ok {
			return filepath.Join(home(), rest)
		}
		if rest, ok := strings.CutPrefix(file, account+"/"); ok && account != "" {
			return filepath.Join(home(), rest)
		}
		return file
	}
}
