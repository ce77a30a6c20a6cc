package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/size"
	"bawn.dev/bawn/internal/sys/text"
)

func cacheCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "cache", Short: "Manage the packages that sandboxes share",
		Long: `Manage the packages of cargo, Go, npm and pip that sandboxes share. bawn run --cache npm,go
gives them to the directory's sandbox.

The host fetches the packages that the lock files of the project name (Cargo.lock,
go.sum, package-lock.json, requirements.txt, uv.lock …), from the registry of the host's own
settings, and keeps those that have the hash of the lock file. It fetches only what the sandbox's rules
allow the sandbox to fetch. Sandboxes see the packages read-only: nothing that a
sandbox writes reaches another one.`,
		Example: `  bawn run --cache npm -- npm ci
  bawn cache ls`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(cacheLsCommand(), cacheFillCommand(), cachePruneCommand())
	return c
}

func cacheLsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ls", Short: "List the kinds of packages and the room that they take", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			list, err := e.Caches()
			if asJSON {
				return errors.Join(err, printJSON(c.OutOrStdout(), append([]engine.CacheUsage{}, list...)))
			}
			return errors.Join(err, printCaches(c.OutOrStdout(), list))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printCaches(out io.Writer, list []engine.CacheUsage) error {
	tw := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "KIND\tFILES\tUSED\tLAST NAMED")
	for _, u := range list {
		last := "-"
		if !u.Named.IsZero() {
			last = age(time.Since(u.Named)) + " ago"
		}
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\n", u.Kind, u.Files, size.Format(u.Bytes), last)
	}
	return tw.Flush()
}

func cacheFillCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "fill [NAME]", Short: "Fetch now what the lock files of a sandbox's project name",
		Long: `Fetch the packages that the lock files of a sandbox's project name and that are not
shared yet. bawn does that by itself in the background: when a sandbox with caches
has started, and after each command in it.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := namedSandbox(args)
			if err != nil {
				return err
			}
			if len(spec.Caches) == 0 {
				return hint(fmt.Errorf("sandbox %s has no caches", spec.Name), "bawn run --cache npm,go -- true")
			}
			results, err := e.FillCaches(c.Context(), spec)
			if asJSON {
				return errors.Join(err, printJSON(c.OutOrStdout(), append([]engine.CacheResult{}, results...)))
			}
			for _, r := range results {
				fmt.Fprintln(c.OutOrStdout(), fillWords(r))
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// fillWords says what was done for a kind of packages.
func fillWords(r engine.CacheResult) string {
	words := fmt.Sprintf("%s: %s in %s; %d fetched (%s)", r.Kind, count(r.Named, "file", "files"), count(r.Locks, "lock file", "lock files"), r.Added, size.Format(r.Bytes))
	if r.Left > 0 {
		words += fmt.Sprintf("; %d not", r.Left)
	}
	if r.Why != "" {
		words += ": " + text.Line(r.Why)
	}
	return words
}

func cachePruneCommand() *cobra.Command {
	var unused time.Duration
	c := &cobra.Command{
		Use: "prune", Short: "Remove shared packages", Args: cobra.NoArgs,
		Long: `Remove the shared packages that no lock file has named for a time. Sandboxes that need
one of them fetch it themselves.`,
		RunE: func(c *cobra.Command, _ []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			if unused < 0 {
				return fmt.Errorf("--unused %s: must be 0 or more", unused)
			}
			freed, err := e.PruneCaches(c.Context(), unused)
			fmt.Fprintf(c.OutOrStdout(), "Total reclaimed space: %s\n", size.Format(freed))
			return err
		},
	}
	c.Flags().DurationVar(&unused, "unused", 0, "keep what a lock file has named within this `TIME`, such as 720h")
	return c
}
