package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
)

func imageCommitCommand() *cobra.Command {
	return &cobra.Command{
		Use: "commit SANDBOX NAME", Short: "Make an image of what is installed in a sandbox",
		Long: `Make an image of what a sandbox has on its disk: programs that were installed, and
all that is in home directories, what an agent knows of you after a log-in among it.
The project, other mounts, Docker's data and /tmp are left out. New sandboxes start
from it with --image local:NAME.`,
		Example: `  bawn run --allow preset:npm -- sudo npm install -g @openai/codex
  bawn image commit shop agents
  cd ../other && bawn run --image local:agents -- codex`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeName,
		RunE: func(c *cobra.Command, args []string) error {
			if err := image.CheckLocal(args[1]); err != nil {
				return err
			}
			sandboxes, err := store.Open()
			if err != nil {
				return err
			}
			spec, err := lookup(sandboxes, args[0])
			if err != nil {
				return err
			}
			i, err := commit(c.Context(), sandboxes, spec.Name, args[1])
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s\t%s\n", i.Ref, i.Digest)
			return nil
		},
	}
}

// packScript writes the guest's root as a tar stream to standard output. Its arguments
// are what to leave out. The root is bound to another place, where nothing is mounted
// over it.
const packScript = `
sync
at=$(mktemp -d /run/commit.XXXXXX)
trap 'rmdir "$at"' EXIT
flags=
if tar --help 2>&1 | grep -q -- --xattrs-include; then flags='--numeric-owner --xattrs --xattrs-include=security.capability'; fi
unshare -m sh -euc 'at=$1; shift; mount --bind / "$at"; exec tar -C "$at" -cf - "$@" .' sh "$at" $flags "$@"
`

// tarDiffers is tar's exit status when a file changed while it was read (tar(1)).
const tarDiffers = 1

// commit makes the image local:NAME of a sandbox, which is started if need be.
func commit(ctx context.Context, sandboxes *store.Store, sandboxName, name string) (*image.Image, error) {
	s, err := images()
	if err != nil {
		return nil, err
	}
	if err := ensureRunning(ctx, sandboxes, sandboxName); err != nil {
		return nil, err
	}
	spec, err := sandboxes.Dir(sandboxName).Spec() // as it was started
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, sandboxes, spec.Name, "root")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	tree, w := io.Pipe()
	go func() {
		exit, err := c.Run(ctx, session.Command{
			Argv: append([]string{"sh", "-euc", packScript, "sh"}, leftOut(spec)...), Dir: "/",
			Stdin: null, Stdout: w, Stderr: os.Stderr,
		})
		if err == nil && exit.Status > tarDiffers {
			err = fmt.Errorf("the guest could not pack its files (exit status %d): it needs tar, unshare and mount", exit.Status)
		}
		w.CloseWithError(err) // nil is the end
	}()
	defer tree.CloseWithError(errors.New("nobody reads on"))
	most := spec.Disk
	if fi, err := os.Stat(spec.Boot.Image); err == nil {
		most += fi.Size()
	}
	bar := newBars(os.Stderr)
	defer bar.close()
	return s.Save(ctx, name, tree, spec.Boot.ImageEnv, most, bar)
}

// leftOut are tar's arguments about what is not of the image: places of mounts, and
// what is not kept over a start anyway.
func leftOut(spec *sandbox.Spec) (args []string) {
	leave := []string{"/tmp/*", "/run/*", "/var/tmp/*", spec.GuestDir()}
	for _, m := range spec.Mounts {
		leave = append(leave, m.Target)
	}
	for _, p := range leave {
		args = append(args, "--exclude=."+path.Clean(p))
	}
	return args
}
