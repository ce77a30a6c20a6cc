package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bawn.dev/bawn/internal/engine"
)

func cpCommand() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use:   "cp SOURCE... DESTINATION",
		Short: "Copy files between the host and a sandbox",
		Long: `Copy files and directories between the host and a sandbox. One side is
NAME:PATH (or :PATH for this directory's sandbox); a relative PATH starts at the
home directory there. Directories are copied with all files in them; modes,
modification times and symbolic links are kept. Devices, pipes and sockets are left
out; bawn prints a line for each. Write a path of the host with a colon in it as
./with:colon.

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

// copyFlagError reports that bawn cp does not need the flags with which other programs
// copy directories.
func copyFlagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && slices.Contains([]string{"a", "p", "r", "R", "archive", "recursive"}, unknown.GetSpecifiedName()) {
		return hint(fmt.Errorf("bawn cp has no %s: it always copies directories with all files, modes and times", err.Error()[strings.LastIndexByte(err.Error(), ' ')+1:]), "run the same command without it")
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

// copyRequest returns what the arguments of cp mean. name is the sandbox's; it is empty for
// that of this directory.
func copyRequest(sources []string, dest string) (name string, r engine.CopyRequest, err error) {
	if slices.Contains(append(sources, dest), "-") {
		return "", r, hint(errors.New("bawn cp does not copy from or to a stream; a file of the name is ./-"), "bawn exec NAME -- tar -cf - PATH, or bawn exec NAME -- tar -xf -")
	}
	to := parsePlace(dest)
	r.ToGuest, r.Destination = to.remote, to.path
	name = to.name
	for i, s := range sources {
		from := parsePlace(s)
		if i == 0 && !to.remote {
			name = from.name
		}
		if from.remote == to.remote || from.remote && from.name != name {
			return "", r, hint(errors.New("bawn cp copies between a sandbox (NAME:PATH) and the host: exactly one side must be in a sandbox"), "bawn cp --help")
		}
		r.Sources = append(r.Sources, from.path)
	}
	return name, r, nil
}

func copyFiles(ctx context.Context, sources []string, dest, user string) error {
	name, r, err := copyRequest(sources, dest)
	if err != nil {
		return err
	}
	e, spec, err := namedSandbox([]string{name})
	if err != nil {
		return err
	}
	r.Sandbox, r.User = spec.Name, user
	left, err := e.Copy(ctx, r)
	if err == nil && left > 0 {
		err = fmt.Errorf("%s could not be copied; everything else was", count(left, "entry", "entries"))
	}
	return err
}
