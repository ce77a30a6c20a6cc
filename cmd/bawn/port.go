package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/sandbox"
)

func portCommand() *cobra.Command {
	var remove []string
	var asJSON bool
	var name string
	c := &cobra.Command{
		Use:   "port [flags] [[HOST:]GUEST...]",
		Short: "Publish guest ports on 127.0.0.1 of the host, or list the published ports",
		Example: `  bawn port 3000           guest port 3000 on 127.0.0.1:3000
  bawn port 8080:80        guest port 80 on 127.0.0.1:8080
  bawn port --remove 8080  close port 8080 of the host
  bawn port                list the published ports`,
		RunE: func(c *cobra.Command, args []string) error {
			add, drop, err := portArguments(args, remove)
			if err != nil {
				return err
			}
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			spec, err := find(e, name)
			if err != nil {
				return err
			}
			ports, err := e.ChangePorts(c.Context(), spec.Name, add, drop)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), ports)
			}
			return listPorts(c.OutOrStdout(), ports)
		},
	}
	c.Flags().StringVarP(&name, "name", "n", "", "`NAME` of the sandbox (default: this directory's)")
	c.Flags().StringArrayVarP(&remove, "remove", "r", nil, "close the published `PORT` of the host (repeatable)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = c.RegisterFlagCompletionFunc("name", completeNames)
	return c
}

// portArguments reads the ports to be opened and closed.
func portArguments(args, remove []string) (add []sandbox.Port, drop []uint16, err error) {
	for _, a := range args {
		p, err := sandbox.ParsePort(a)
		if err != nil {
			return nil, nil, err
		}
		add = append(add, p)
	}
	for _, r := range remove {
		n, err := strconv.ParseUint(r, 10, 16)
		if err != nil {
			return nil, nil, fmt.Errorf("--remove %q: write a port number of the host", r)
		}
		drop = append(drop, uint16(n))
	}
	return add, drop, nil
}

func listPorts(w io.Writer, ports []sandbox.Port) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "HOST\tGUEST")
	for _, p := range ports {
		fmt.Fprintf(tw, "127.0.0.1:%s\t%d\n", hostPort(p), p.Guest)
	}
	return tw.Flush()
}

// hostPort returns how a port of the host is shown.
func hostPort(p sandbox.Port) string {
	if p.Host == 0 {
		return "any"
	}
	return strconv.Itoa(int(p.Host))
}
