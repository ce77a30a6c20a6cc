package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/size"
)

func volumeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "volume", Short: "Manage the volumes, which outlast sandboxes",
		Long: `Manage the named volumes. A volume is a directory that bawn keeps on the host for
sandboxes to write to; it outlasts them. bawn run --volume NAME:PATH gives it to the
directory's sandbox, and makes it if need be.

One sandbox at a time writes to a volume, from its start until it is stopped; others
may read it meanwhile (--volume NAME:PATH:ro). What a sandbox leaves in a volume is
there for the next one, also what a tricked agent has put there.`,
		Example: `  bawn run --volume pgdata:/var/lib/postgresql -- make test
  bawn volume cp pgdata:/dump.sql .
  bawn volume rm pgdata`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(volumeLsCommand(), volumeCreateCommand(), volumeInspectCommand(), volumeCpCommand(), volumeRmCommand(), volumePruneCommand())
	return c
}

func volumeLsCommand() *cobra.Command {
	var asJSON, quiet bool
	c := &cobra.Command{
		Use: "ls", Short: "List the volumes", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			list, err := e.Volumes()
			if asJSON {
				return errors.Join(err, printJSON(c.OutOrStdout(), append([]engine.Volume{}, list...)))
			}
			return errors.Join(err, printVolumes(c.OutOrStdout(), list, quiet))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the names only")
	return c
}

func printVolumes(out io.Writer, list []engine.Volume, quiet bool) error {
	if quiet {
		for _, v := range list {
			fmt.Fprintln(out, v.Name)
		}
		return nil
	}
	tw := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "NAME\tUSED\tSIZE\tCREATED\tWRITER\tSANDBOXES")
	for _, v := range list {
		limit := "-"
		if v.Size > 0 {
			limit = size.Format(v.Size)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s ago\t%s\t%s\n", v.Name, size.Format(v.Used), limit, age(time.Since(v.Created)), orDash(v.Writer), orDash(strings.Join(v.Sandboxes, ", ")))
	}
	return tw.Flush()
}

// orDash returns the text, or a dash for none, as a cell of a table.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func volumeCreateCommand() *cobra.Command {
	var limit string
	c := &cobra.Command{
		Use: "create NAME", Short: "Make an empty volume", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			var bytes int64
			if c.Flags().Changed("size") {
				var err error
				if bytes, err = size.Parse(limit); err != nil {
					return fmt.Errorf("--size: %w", err)
				}
			}
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			if err := e.CreateVolume(c.Context(), args[0], bytes); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), args[0])
			return nil
		},
	}
	c.Flags().StringVar(&limit, "size", "", "the most `SIZE` that its files may take of the host's disk (default: all that bawn leaves to guests)")
	return c
}

func volumeInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inspect NAME...", Short: "Show all about volumes, as JSON", Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeVolumes,
		RunE: func(c *cobra.Command, args []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			list := []engine.Volume{}
			for _, name := range args {
				v, verr := e.Volume(name)
				if err = errors.Join(err, verr); verr == nil {
					list = append(list, *v)
				}
			}
			return errors.Join(err, printJSON(c.OutOrStdout(), list))
		},
	}
}

func volumeRmCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "rm NAME...", Short: "Remove volumes that no sandbox has", Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeVolumes,
		RunE: func(c *cobra.Command, args []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			for _, name := range args {
				rerr := e.RemoveVolume(c.Context(), name)
				switch {
				case rerr == nil:
					fmt.Fprintln(c.OutOrStdout(), name)
				case force && engine.ReasonOf(rerr) == engine.NoVolume:
				default:
					err = errors.Join(err, rerr)
				}
			}
			return err
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "it is no error if there is no such volume")
	return c
}

func volumePruneCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "prune", Short: "Remove all volumes that no sandbox has", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return pruneVolumes(c.Context(), c.OutOrStdout(), force) },
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return c
}

func pruneVolumes(ctx context.Context, out io.Writer, force bool) error {
	e, _, err := openEngine()
	if err != nil {
		return err
	}
	list, err := e.UnusedVolumes()
	if err != nil {
		return err
	}
	if len(list) > 0 && !force {
		if !attended() {
			return hint(errors.New("no volume was removed, since there is no terminal to ask at"), "bawn volume prune --force")
		}
		if err := printVolumes(os.Stderr, list, false); err != nil {
			return err
		}
		if !askYes("Remove these volumes with all that is in them?") {
			return errors.New("no volume was removed")
		}
	}
	removed, err := e.PruneVolumes(ctx, list)
	var sum int64
	for _, v := range removed {
		fmt.Fprintln(out, v.Name)
		sum += v.Used
	}
	fmt.Fprintf(out, "Total reclaimed space: %s\n", size.Format(sum))
	return err
}

func volumeCpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cp SOURCE DESTINATION", Short: "Copy files between a volume and the host",
		Long: `Copy a file or directory between a volume and the host. One of the two is
NAME:PATH, from the root of the volume; write a path of the host with a colon in it
as ./with:colon. Links in the volume that lead out of it are not followed.`,
		Example: `  bawn volume cp seed.sql pgdata:/
  bawn volume cp pgdata:/dump.sql .`,
		Args: cobra.ExactArgs(2), ValidArgsFunction: completeVolumePlaces,
		RunE: func(c *cobra.Command, args []string) error {
			copied := engine.VolumeCopy{From: volumePath(args[0]), To: volumePath(args[1])}
			if (copied.From.Volume == "") == (copied.To.Volume == "") {
				return hint(errors.New("exactly one of SOURCE and DESTINATION must be in a volume"), "bawn volume cp NAME:PATH PATH, or bawn volume cp PATH NAME:PATH")
			}
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			left, err := e.CopyVolume(c.Context(), copied)
			if err == nil && left > 0 {
				err = fmt.Errorf("%s could not be copied; everything else was", count(left, "entry", "entries"))
			}
			return err
		},
	}
}

// volumePath reads a side of bawn volume cp.
func volumePath(s string) engine.VolumePath {
	name, p, ok := strings.Cut(s, ":")
	if !ok || strings.ContainsAny(name, "/.") || name == "" {
		return engine.VolumePath{Path: s}
	}
	return engine.VolumePath{Volume: name, Path: p}
}

// volumeNames returns the names of all volumes, for completion. It returns none if they cannot be
// read.
func volumeNames() []string {
	e, _, err := openEngine()
	if err != nil {
		return nil
	}
	names, _ := e.VolumeNames()
	return names
}

func completeVolumes(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return volumeNames(), cobra.ShellCompDirectiveNoFileComp
}

// completeVolumePlaces completes names of volumes with a colon, beside files.
func completeVolumePlaces(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	if strings.ContainsAny(word, "/:") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var places []string
	for _, n := range volumeNames() {
		places = append(places, n+":")
	}
	return places, cobra.ShellCompDirectiveNoSpace
}
