package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/size"
)

func imageCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "image", Short: "Manage the images that sandboxes boot from",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(imageLsCommand(), imagePullCommand(), imageUpdateCommand(), imageBuildCommand(), imageCommitCommand(), imageRmCommand(), imagePruneCommand())
	return c
}

func imageLsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ls", Short: "List the images in the cache", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			list, err := e.Images()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), append([]engine.Image{}, list...))
			}
			tw := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(tw, "IMAGE\tDIGEST\tSIZE\tCREATED")
			for _, i := range list {
				ref := i.Ref
				if i.Superseded {
					ref += " (superseded)"
				}
				fmt.Fprintf(tw, "%s\t%.19s\t%s\t%s ago\n", ref, i.Digest, size.Format(i.Size), age(time.Since(i.Created)))
			}
			return tw.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func imagePullCommand() *cobra.Command {
	return &cobra.Command{
		Use: "pull [REFERENCE]", Short: "Fetch an image, or build the default one, before its first use",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			i, err := e.PullImage(c.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), i.Digest)
			return nil
		},
	}
}

func imageUpdateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "update [REFERENCE...]", Short: "Fetch newer images, or build a new default image and fetch a new kernel",
		Long: `Fetch newer images. Without a REFERENCE, build a new default image from today's
packages and fetch today's guest kernel; stopped sandboxes use the new kernel at
their next start.

New sandboxes use the new image. Existing sandboxes keep theirs, because their disks
are layers on top of it: update them from within (apt-get), or remove and create them
again. A superseded image is kept until bawn image prune.`,
		RunE: func(c *cobra.Command, args []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{engine.DefaultImage}
				version, err := e.UpdateKernel(c.Context())
				if err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "kernel\t%s\n", version)
			}
			for _, ref := range args {
				i, err := e.UpdateImage(c.Context(), ref)
				if err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "%s\t%s\n", ref, i.Digest)
			}
			return nil
		},
	}
}

func imageRmCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm REFERENCE...", Short: "Remove images that no sandbox uses", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			return e.RemoveImages(args)
		},
	}
}

func imagePruneCommand() *cobra.Command {
	var builders bool
	c := &cobra.Command{
		Use: "prune", Short: "Remove images that have been superseded and that no sandbox uses", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			if builders {
				names, err := e.RemoveBuilders(c.Context())
				for _, n := range names {
					fmt.Fprintln(c.OutOrStdout(), n)
				}
				if err != nil {
					return err
				}
			}
			removed, err := e.PruneImages()
			for _, i := range removed {
				fmt.Fprintf(c.OutOrStdout(), "%.19s\t%s\n", i.Digest, size.Format(i.Size))
			}
			return err
		},
	}
	c.Flags().BoolVar(&builders, "build-cache", false, "remove the sandboxes in which images were built, too, with the cache between builds")
	return c
}
