package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/confine"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/share"
	"bawn.dev/bawn/internal/supervisor"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/templatebuild"
)

// The verbs of this file are processes that bawn starts itself; they are not
// for people.

func superviseCommand() *cobra.Command {
	return &cobra.Command{
		Use: handoff.SuperviseVerb + " DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return supervisor.Run(c.Context(), store.Dir{Path: args[0]}, guestUser())
		},
	}
}

// waitCommand is the supervisor of a machine that waits in the pool's folder.
func waitCommand() *cobra.Command {
	return &cobra.Command{
		Use: handoff.PoolMemberVerb + " DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			d := store.Dir{Path: args[0]}
			return supervisor.RunPoolMember(c.Context(), d, guestUser(), func(ctx context.Context) error { return rehearse(ctx, d) })
		},
	}
}

// fillDelay is how long a start has the processors for itself before the next
// machine is made ready.
const fillDelay = 2 * time.Second

// fillCommand lets machines wait that can become sandboxes like that one.
func fillCommand() *cobra.Command {
	return &cobra.Command{
		Use: handoff.TopUpVerb + " DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := store.Dir{Path: args[0]}.Spec()
			if err != nil {
				return err
			}
			select { // the command that the sandbox was started for comes first
			case <-time.After(fillDelay):
			case <-c.Context().Done():
				return context.Cause(c.Context())
			}
			return fillPool(c.Context(), spec)
		},
	}
}

// templateCommand makes what the next sandbox like that one starts from.
func templateCommand() *cobra.Command {
	return &cobra.Command{
		Use: handoff.TemplateVerb + " DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			d := store.Dir{Path: args[0]}
			spec, err := d.Spec()
			if err != nil {
				return err
			}
			if err := templatebuild.Make(c.Context(), spec, guestUser()); err != nil {
				return err
			}
			return fillPool(c.Context(), spec)
		},
	}
}

// shareCommand serves one share as the supervisor says on the inherited socket.
func shareCommand() *cobra.Command {
	return &cobra.Command{
		Use: handoff.ShareVerb + " OPTIONS", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var opt share.Options
			if err := json.Unmarshal([]byte(args[0]), &opt); err != nil {
				return fmt.Errorf("share options: %w", err)
			}
			control := os.NewFile(handoff.ShareFD, "control")
			p, level, err := share.Prepare(opt)
			if err != nil {
				return err
			}
			if !level.Full() {
				fmt.Fprintf(os.Stderr, "share %s: %s\n", opt.Root, level)
			}
			return p.Serve(c.Context(), control)
		},
	}
}

// confineCommand restricts itself and becomes another program.
func confineCommand() *cobra.Command {
	return &cobra.Command{
		Use: confine.Verb, Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error { return confine.Main(args) },
	}
}
