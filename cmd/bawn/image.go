package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/kernel"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/size"
	"bawn.dev/bawn/internal/sys/xdg"
)

func imageCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "image", Short: "Manage the images that sandboxes boot from",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(imageLsCommand(), imagePullCommand(), imageUpdateCommand(), imageCommitCommand(), imageRmCommand(), imagePruneCommand())
	return c
}

func images() (*image.Store, error) {
	cache, err := xdg.Cache()
	if err != nil {
		return nil, err
	}
	return image.Open(cache), nil
}

func imageLsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ls", Short: "List the images in the cache", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := images()
			if err != nil {
				return err
			}
			list, err := s.List()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), append([]image.Image{}, list...))
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
		Use: "pull [REFERENCE]", Short: "Fetch an image, or build the default one, ahead of its first use (see update)",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := images()
			if err != nil {
				return err
			}
			ref := ""
			if len(args) == 1 {
				ref = args[0]
			}
			bar := newBars(os.Stderr)
			i, err := s.Get(c.Context(), ref, bar)
			bar.close()
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
		Use: "update [REFERENCE...]", Short: "Fetch images anew, or build the default one from today's packages, with today's kernel",
		Long: `Fetch images anew. Without a REFERENCE, build the default image from today's
packages and fetch today's guest kernel, which stopped sandboxes start with from
then on.

New sandboxes get the new image. Those that exist keep theirs, for their disks are
laid over it: update what is in them from within (apt-get), or make them anew. An
image that has been superseded stays until bawn image prune.`,
		RunE: func(c *cobra.Command, args []string) error {
			cache, err := xdg.Cache()
			if err != nil {
				return err
			}
			bar := newBars(os.Stderr)
			defer bar.close()
			if len(args) == 0 {
				args = []string{image.DefaultRef}
				k, err := kernel.Open(cache).Refresh(c.Context(), bar)
				if err != nil {
					return err
				}
				bar.around(func() { fmt.Fprintf(c.OutOrStdout(), "kernel\t%s\n", k.Version) })
			}
			for _, ref := range args {
				i, err := image.Open(cache).Refresh(c.Context(), ref, bar)
				if err != nil {
					return err
				}
				bar.around(func() { fmt.Fprintf(c.OutOrStdout(), "%s\t%s\n", ref, i.Digest) })
			}
			return nil
		},
	}
}

func imageRmCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm REFERENCE...", Short: "Remove images that no sandbox uses", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, inUse, err := imagesAndUse()
			if err != nil {
				return err
			}
			var failed error
			for _, a := range args {
				err := s.Remove(a, inUse)
				if errors.Is(err, image.ErrInUse) {
					err = hint(err, "bawn ls, and bawn rm what has it")
				} else {
					err = hint(err, "bawn image ls")
				}
				failed = errors.Join(failed, err)
			}
			return failed
		},
	}
}

func imagePruneCommand() *cobra.Command {
	return &cobra.Command{
		Use: "prune", Short: "Remove images that have been superseded and that no sandbox uses", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, inUse, err := imagesAndUse()
			if err != nil {
				return err
			}
			list, err := s.List()
			if err != nil {
				return err
			}
			for _, i := range list {
				if !i.Superseded || inUse(i.Digest) {
					continue
				}
				if err := s.Remove(i.Digest, nil); err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "%.19s\t%s\n", i.Digest, size.Format(i.Size))
			}
			return nil
		},
	}
}

// imagesAndUse are the images and what is known of their use.
func imagesAndUse() (s *image.Store, inUse func(digest string) bool, err error) {
	if s, err = images(); err != nil {
		return nil, nil, err
	}
	sandboxes, err := store.Open()
	if err != nil {
		return nil, nil, err
	}
	used, err := imagesInUse(sandboxes)
	return s, func(digest string) bool { return used[digest] }, err
}

// imagesInUse are the digests that a sandbox's disk is laid over. A sandbox
// that cannot be read is an error: its image might be among those.
func imagesInUse(sandboxes *store.Store) (map[string]bool, error) {
	used := map[string]bool{}
	names, err := sandboxes.Names()
	for _, n := range names {
		spec, serr := sandboxes.Dir(n).Spec()
		if serr == nil {
			used[spec.Boot.ImageDigest] = true
		} else if !store.IsNotFound(serr) {
			err = errors.Join(err, serr)
		}
	}
	return used, err
}
