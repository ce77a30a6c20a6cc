package engine

import (
	"context"
	"errors"
	"fmt"

	"bawn.dev/bawn/internal/egress/gitsign"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
)

// Signatures of commits by the user's key (egress/sign.go has how they are made). What they need is checked at each
// start: a key that is missing, or a program that no longer exists, would otherwise show at the agent's first commit.

const (
	// SigningNotSetUp is the reason when a sandbox's commits are to be signed, and the user's git on the host cannot
	// (Sandbox).
	SigningNotSetUp Reason = "signing-not-set-up"
	// SigningNoRepository is the reason when a sandbox's commits are to be signed, and no rule allows it to push to
	// a repository (Sandbox).
	SigningNoRepository Reason = "signing-no-repository"
)

// checkSigning returns an error if the sandbox's commits are to be signed and cannot be. Its own rules are in
// force.
func (e *Engine) checkSigning(ctx context.Context, spec *sandbox.Spec) error {
	if !spec.Signs() {
		return nil
	}
	if err := signingSetUp(ctx, spec); err != nil {
		return &Error{Reason: SigningNotSetUp, Sandbox: spec.Name, Err: fmt.Errorf("commits of sandbox %s cannot be signed: %w", spec.Name, err)}
	}
	rules, err := e.sandboxes.Dir(spec.Name).Rules()
	if err != nil {
		return Scope{Sandbox: spec.Name}.syntax(err)
	}
	if policy.Compile(rules).Pushes() == nil {
		return failf(SigningNoRepository, spec.Name, "commits of sandbox %s are not signed: no rule allows it to push to a repository", spec.Name)
	}
	return nil
}

// signingSetUp returns what the user has to set on the host before commits can be signed.
func signingSetUp(ctx context.Context, spec *sandbox.Spec) error {
	if spec.NoGitIdentity {
		return errors.New("they would have nobody's name, because of --no-git-identity: lift that by --no-git-identity=false")
	}
	author := gitAuthor(ctx, spec)
	switch {
	case author.Name == "":
		return errors.New("git of this host has no name for you: git config --global user.name NAME")
	case author.Email == "":
		return errors.New("git of this host has no e-mail address for you: git config --global user.email ADDRESS")
	}
	_, err := gitsign.Read(ctx, spec.Project.Guest)
	return err
}
