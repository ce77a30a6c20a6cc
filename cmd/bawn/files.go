package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
)

func filesCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "files", Short: "Show what a sandbox was kept from changing on the host",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(filesLogCommand())
	return c
}

func filesLogCommand() *cobra.Command {
	var follow, asJSON bool
	var name string
	c := &cobra.Command{
		Use: "log", Short: "Show the changes of guarded paths that a sandbox asked for", Args: cobra.NoArgs,
		Long: `Show the changes of guarded paths that a sandbox asked for, once for each path and
process: time, what bawn did, process in the guest, path. Kept means that the change went
to a private version which only the guest sees; refused, that nothing was changed;
changed, that the host's file was changed. The guest reports the process, and may lie
about it. docs/guard.md lists the guarded paths.`,
		RunE: func(c *cobra.Command, _ []string) error {
			e, of, err := (&scope{name: name}).open()
			if err != nil {
				return err
			}
			if !asJSON {
				fmt.Fprintln(c.OutOrStdout(), engine.FileEventHeading)
			}
			each := func(ev engine.FileEvent) error {
				if asJSON {
					return json.NewEncoder(c.OutOrStdout()).Encode(ev)
				}
				_, err := fmt.Fprintln(c.OutOrStdout(), ev.Text())
				return err
			}
			if !follow {
				return e.ReadFilesLog(of.Sandbox, each)
			}
			err = e.FollowFilesLog(c.Context(), of.Sandbox, each)
			if engine.ReasonOf(err) == engine.NotFound {
				return nil // there is no more to show
			}
			return err
		},
	}
	c.Flags().StringVar(&name, "name", "", "`NAME` of the sandbox (default: this directory's)")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing new events")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return c
}
