package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/transfer"
)

func cpCommand() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use:   "cp SOURCE... DESTINATION",
		Short: "Copy files between the host and a sandbox",
		Long: `Copy files and directories between the host and a sandbox. One side is
NAME:PATH (or :PATH for this directory's sandbox); a relative PATH is taken from
the home directory there. Directories are copied whole; modes, times of change
and symbolic links are kept. Devices, pipes and sockets in them are left out, which
bawn tells. A path of the host that holds a colon is written ./with:colon.

In a directory that the sandbox can change, bawn follows no symbolic link that
leads out of it.`,
		Example: `  bawn cp notes.txt myproject:/tmp/
  bawn cp :/var/log/docker.log .`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completePlaces,
		RunE: func(c *cobra.Command, args []string) error {
			return copyFiles(c.Context(), args[:len(args)-1], args[len(args)-1], user)
		},
	}
	c.SetFlagErrorFunc(copyFlagError)
	c.Flags().StringVarP(&user, "user", "u", "", "copy as `USER`: root, or you (default)")
	_ = c.RegisterFlagCompletionFunc("user", completeUsers)
	return c
}

// copyFlagError says of the flags with which other programs copy directories that
// none is needed.
func copyFlagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && slices.Contains([]string{"a", "p", "r", "R", "archive", "recursive"}, unknown.GetSpecifiedName()) {
		return hint(fmt.Errorf("bawn cp copies directories whole, with modes and times, and has no %s", err.Error()[strings.LastIndexByte(err.Error(), ' ')+1:]), "the same without it")
	}
	return flagError(c, err)
}

// place is one side of a copy.
type place struct {
	remote bool
	name   string // of the sandbox
	path   string
}

func parsePlace(s string) place {
	name, p, ok := strings.Cut(s, ":")
	if !ok || strings.Contains(name, "/") {
		return place{path: s}
	}
	if p == "~" || strings.HasPrefix(p, "~/") { // where relative paths begin
		p = strings.TrimLeft(p[1:], "/")
	}
	if p == "" {
		p = "."
	}
	return place{remote: true, name: name, path: p}
}

func copyFiles(ctx context.Context, sources []string, dest, user string) error {
	to := parsePlace(dest)
	from := make([]place, len(sources))
	for i, s := range sources {
		from[i] = parsePlace(s)
		if from[i].remote == to.remote || from[i].name != from[0].name {
			return hint(errors.New("one side must be in a sandbox (NAME:PATH) and the other on the host"), "bawn cp --help")
		}
	}
	sandboxes, err := store.Open()
	if err != nil {
		return err
	}
	spec, err := lookup(sandboxes, to.name+from[0].name)
	if err != nil {
		return err
	}
	shares, err := writable(sandboxes)
	if err != nil {
		return err
	}
	if err := ensureRunning(ctx, sandboxes, spec.Name); err != nil {
		return err
	}
	client, err := dial(ctx, sandboxes, spec.Name, user)
	if err != nil {
		return err
	}
	defer client.Close()
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	ft, err := client.SFTP()
	if err != nil {
		return err
	}
	bar := newBars(os.Stderr)
	defer bar.close()
	task := bar.Start("Copying", 0, progress.Bytes)
	defer task.Done(nil)
	skipped := 0
	t := transfer.Transfer{Guest: ft, Sandbox: spec.Name, Writable: shares, Progress: task, Skipped: func(err error) {
		skipped++
		bar.around(func() { fmt.Fprintf(os.Stderr, "bawn: left out %s\n", printable(err.Error())) })
	}}
	run := t.Download
	if to.remote {
		run = t.Upload
	}
	for _, f := range from {
		err := run(ctx, f.path, to.path, len(from) > 1)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, transfer.ErrEscapes):
			return hint(err, "name the place that it leads to, if you mean that")
		case errors.Is(err, transfer.ErrSpecial):
			return hint(err, "bawn exec %s -- cat %s", spec.Name, pathArgument(f.path))
		case err != nil:
			return err
		}
	}
	if skipped > 0 {
		return fmt.Errorf("%s could not be copied; everything else was", count(skipped, "entry", "entries"))
	}
	return nil
}

// writable are the directories that the guest of any sandbox can change.
func writable(sandboxes *store.Store) ([]string, error) {
	names, err := sandboxes.Names()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, n := range names {
		spec, err := sandboxes.Dir(n).Spec()
		if err != nil {
			continue // damaged: it cannot run
		}
		dirs = append(dirs, spec.Dir)
		for _, m := range spec.Mounts {
			if !m.ReadOnly {
				dirs = append(dirs, m.Source)
			}
		}
	}
	return dirs, nil
}
