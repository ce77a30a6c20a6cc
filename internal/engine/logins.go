package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"bawn.dev/bawn/internal/agents"
	"bawn.dev/bawn/internal/login"
	"bawn.dev/bawn/internal/sandbox"
)

// Logins of agents (package login).

// NoLogin is the reason when no login of an agent is kept.
const NoLogin Reason = "no-login"

// loginTime is how long a sandbox may log in after the person asked for it.
const loginTime = 15 * time.Minute

// Login is the login of an agent that is kept on this host.
type Login struct {
	Agent   string    `json:"agent"`
	Account string    `json:"account,omitempty"` // as the server names it
	Host    bool      `json:"host,omitempty"`    // it is the agent's login on the host itself
	Sandbox string    `json:"sandbox,omitempty"` // in which it was made
	Made    time.Time `json:"made"`
	Renewed time.Time `json:"renewed"`
	Expires time.Time `json:"expires,omitzero"`  // the access token
	Refused string    `json:"refused,omitempty"` // the error with which the server refused the latest refresh
}

// Logins returns the logins that are kept, by agent.
func (e *Engine) Logins() (list []Login, err error) {
	all, err := login.Open()
	if err != nil {
		return nil, err
	}
	entries, err := all.List()
	for _, l := range entries {
		if l.Kept() {
			list = append(list, Login{l.Agent, l.Account, l.UseHost, l.Sandbox, l.Made, l.Renewed, l.Expires, l.Refused})
		}
	}
	return list, err
}

// Logout removes the login of an agent from this host. It does not end it at the server.
func (e *Engine) Logout(agent string) error {
	all, err := login.Open()
	if err != nil {
		return err
	}
	err = all.Remove(agent)
	if errors.Is(err, login.ErrNone) {
		return failf(NoLogin, "", "no login of %s is kept on this host", agent)
	}
	return err
}

// HostLogin returns the file of the login that an agent has on the host itself; "" if there is none that
// bawn can use.
func (e *Engine) HostLogin(agent string) (string, error) {
	a, all, err := e.loginAgent(agent)
	if err != nil {
		return "", err
	}
	return all.HostFile(a.OAuth), nil
}

// UseHostLogin makes the login that an agent has on the host the one of its sandboxes.
func (e *Engine) UseHostLogin(agent string) error {
	_, all, err := e.loginAgent(agent)
	if err != nil {
		return err
	}
	return all.UseHostFile(agent)
}

// loginAgent returns an agent whose logins bawn can keep, and the store of them, which knows it.
func (e *Engine) loginAgent(name string) (*Agent, *login.Store, error) {
	a, err := e.agent(name)
	if err != nil {
		return nil, nil, err
	}
	if a.OAuth == nil {
		return nil, nil, failf(NoLogin, "", "bawn does not know how %s logs in: log in inside, where the sandbox has the login, or give it a key with bawn secret set", name)
	}
	all, err := login.Open()
	if err != nil {
		return nil, nil, err
	}
	return a, all, all.Define(a.Name, *a.OAuth)
}

// LoginArguments returns the arguments with which an agent logs in; none if it does so when it starts.
func (e *Engine) LoginArguments(agent string) ([]string, error) {
	a, _, err := e.loginAgent(agent)
	if err != nil {
		return nil, err
	}
	return a.OAuth.Command, nil
}

// OpenLogin lets the sandbox with that ID log an agent in anew, for a time. shut ends that.
func (e *Engine) OpenLogin(agent, sandboxID string) (shut func() error, err error) {
	_, all, err := e.loginAgent(agent)
	if err != nil {
		return nil, err
	}
	return func() error { return all.Shut(agent) }, all.Open(agent, sandboxID, loginTime)
}

// defineLogin tells the gateways how an agent logs in.
func defineLogin(a *agents.Agent) error {
	if a.OAuth == nil {
		return nil
	}
	all, err := login.Open()
	if err != nil {
		return err
	}
	return all.Define(a.Name, *a.OAuth)
}

// fillHome writes the file with an agent's login into its home, with placeholders, unless it is there; then
// it is remembered for other homes. The home is written by guests: no link in it is followed.
func fillHome(a *sandbox.Agent) error {
	all, err := login.Open()
	if err != nil {
		return err
	}
	file, err := all.FileOf(a.Name)
	if err != nil || file == "" {
		return err
	}
	home, err := os.OpenRoot(a.Home)
	if err != nil {
		return err
	}
	defer home.Close()
	has, err := readLogin(home, file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil // the guest put something in its way
	}
	text, err := all.HomeFile(a.Name, has)
	if err != nil || text == nil {
		return err
	}
	return writeLogin(home, file, text)
}

// writeLogin writes a file of a home, in place of what is there.
func writeLogin(home *os.Root, file string, text []byte) error {
	if err := home.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	if err := home.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("login: %w", err)
	}
	f, err := home.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("login: %w", err)
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
