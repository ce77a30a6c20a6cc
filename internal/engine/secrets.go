package engine

import (
	"context"
	"errors"
	"fmt"

	"bawn.dev/bawn/internal/egress"
	"bawn.dev/bawn/internal/inspect"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/secret"
)

// NoSecret is the reason when there is no secret of that name for that directory.
const NoSecret Reason = "no-secret"

// SecretDir returns the project directory whose secrets a command in a directory means: that
// of its sandbox, or if it has none the directory itself (ProjectDir).
func (e *Engine) SecretDir(dir string) (string, error) {
	spec, err := e.Find(dir)
	switch {
	case err == nil:
		return spec.Dir, nil
	case ReasonOf(err) == NotFound:
		return ProjectDir(dir)
	}
	return "", err
}

// SetSecret adds a secret, or takes the place of the one of the same name and directory. value
// is empty for one with a command. It also makes the certificate authority that guests have
// to trust; sandboxes that run trust a new one from their next boot on. It returns the entry.
func (e *Engine) SetSecret(ctx context.Context, s secret.Secret, value string) (secret.Secret, error) {
	all, err := secret.Open()
	if err != nil {
		return s, err
	}
	if _, err := inspect.OpenCA(ctx, e.sandboxes.Root()); err != nil {
		return s, fmt.Errorf("certificate authority: %w", err)
	}
	return all.Set(ctx, s, value)
}

// Secrets returns all entries, by name. None has its value.
func (e *Engine) Secrets() ([]secret.Secret, error) {
	all, err := secret.Open()
	if err != nil {
		return nil, err
	}
	return all.List()
}

// RemoveSecret removes a secret of a project directory, or if dir is empty one for all. In
// running sandboxes its placeholder is worthless from the next request on. None is NoSecret.
func (e *Engine) RemoveSecret(ctx context.Context, name, dir string) error {
	all, err := secret.Open()
	if err != nil {
		return err
	}
	err = all.Remove(ctx, name, dir)
	if errors.Is(err, secret.ErrNone) {
		return &Error{Reason: NoSecret, Err: err}
	}
	return err
}

// SecretCheck is what would become of a secret.
type SecretCheck struct {
	secret.Secret
	Unavailable error // why the value cannot be had; nil: it can
	// Denied are the hosts that no rule of the sandbox allows. Without a sandbox it is empty.
	Denied []secret.Host
}

// CheckSecret looks at the secret of that name that the sandboxes of a project directory
// have, and asks for its value without returning it. None is NoSecret.
func (e *Engine) CheckSecret(ctx context.Context, name, dir string) (SecretCheck, error) {
	all, err := secret.Open()
	if err != nil {
		return SecretCheck{}, err
	}
	list, err := all.Of(dir)
	if err != nil {
		return SecretCheck{}, err
	}
	for i := range list {
		if list[i].Name != name {
			continue
		}
		c := SecretCheck{Secret: list[i]}
		_, c.Unavailable = all.Value(ctx, &list[i])
		c.Denied, err = e.deniedHosts(ctx, dir, list[i].For)
		return c, err
	}
	return SecretCheck{}, &Error{Reason: NoSecret, Err: fmt.Errorf("%w: %s", secret.ErrNone, name)}
}

// deniedHosts returns the hosts that the rules of a directory's sandbox do not allow.
func (e *Engine) deniedHosts(ctx context.Context, dir string, hosts []secret.Host) (denied []secret.Host, err error) {
	spec, err := e.Find(dir)
	if ReasonOf(err) == NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rules, err := e.Rules(ctx, Scope{Sandbox: spec.Name})
	if err != nil {
		return nil, err
	}
	set := policy.Compile(rules)
	for _, h := range hosts {
		if !egress.Check(set, policy.Flow{Name: h.Name, Port: h.Port, Proto: policy.TCP}).Allow {
			denied = append(denied, h)
		}
	}
	return denied, nil
}

// NamedSecret is a secret that a bawn.yaml names.
type NamedSecret struct {
	Name string        `json:"name"`
	For  []secret.Host `json:"for,omitempty"` // to which the person has bound it; none: it is not set
}

// NamedSecrets returns what the person has set of the secrets that a project names.
func NamedSecrets(dir string, names []string) ([]NamedSecret, error) {
	if len(names) == 0 {
		return nil, nil
	}
	all, err := secret.Open()
	if err != nil {
		return nil, err
	}
	set, err := all.Of(dir)
	if err != nil {
		return nil, err
	}
	list := make([]NamedSecret, len(names))
	for i, n := range names {
		list[i].Name = n
		for _, s := range set {
			if s.Name == n {
				list[i].For = s.For
			}
		}
	}
	return list, nil
}

// sayMissingSecrets reports the secrets that the approved bawn.yaml names and that are not set.
// The sandbox starts without them.
func (e *Engine) sayMissingSecrets(spec *sandbox.Spec) {
	p, err := approvedProposal(e.sandboxes, spec)
	if err != nil {
		return // the start has failed with it, or does
	}
	list, err := NamedSecrets(spec.Dir, p.Secrets)
	if err != nil {
		e.notify(Notice{Reason: SecretMissing, Sandbox: spec.Name, Path: spec.Dir, Text: "the secrets cannot be read: " + err.Error(), Err: err})
		return
	}
	for _, s := range list {
		if len(s.For) == 0 {
			e.notify(Notice{Reason: SecretMissing, Sandbox: spec.Name, Path: spec.Dir, Fields: []string{s.Name},
				Text: fmt.Sprintf("%s names the secret %s, which is not set", project.Name, s.Name)})
		}
	}
}

// SecretEnv returns the environment variables (NAME=PLACEHOLDER) of a sandbox's secrets.
func SecretEnv(spec *sandbox.Spec) (env []string, err error) {
	all, err := secret.Open()
	if err != nil {
		return nil, err
	}
	list, err := all.Bindings(spec.Dir, spec.ID).List()
	for _, b := range list {
		env = append(env, b.Environ()...)
	}
	return env, err
}
