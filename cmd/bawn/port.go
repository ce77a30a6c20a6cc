package main

import (
	"fmt"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

func portCommand() *cobra.Command {
	var remove []string
	var asJSON bool
	var name string
	c := &cobra.Command{
		Use:   "port [flags] [[HOST:]GUEST...]",
		Short: "Publish guest ports on 127.0.0.1, or list those that are",
		Example: `  bawn port 3000           guest port 3000 on 127.0.0.1:3000
  bawn port 8080:80        guest port 80 on 127.0.0.1:8080
  bawn port --remove 8080  close it
  bawn port                list`,
		RunE: func(c *cobra.Command, args []string) error {
			var add []sandbox.Port
			for _, a := range args {
				p, err := sandbox.ParsePort(a)
				if err != nil {
					return err
				}
				add = append(add, p)
			}
			var drop []uint16
			for _, r := range remove {
				n, err := strconv.ParseUint(r, 10, 16)
				if err != nil {
					return fmt.Errorf("--remove %q: want a port number of the host", r)
				}
				drop = append(drop, uint16(n))
			}
			sandboxes, err := store.Open()
			if err != nil {
				return err
			}
			spec, err := lookup(sandboxes, name)
			if err != nil {
				return err
			}
			ports, err := changePorts(c, sandboxes.Dir(spec.Name), add, drop)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), ports)
			}
			tw := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(tw, "HOST\tGUEST")
			for _, p := range ports {
				fmt.Fprintf(tw, "127.0.0.1:%s\t%d\n", hostPort(p), p.Guest)
			}
			return tw.Flush()
		},
	}
	c.Flags().StringVarP(&name, "name", "n", "", "`NAME` of the sandbox (default: this directory's)")
	c.Flags().StringArrayVarP(&remove, "remove", "r", nil, "close the published `PORT` of the host (repeatable)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = c.RegisterFlagCompletionFunc("name", completeNames)
	return c
}

// changePorts changes the published ports at once, where the sandbox runs, and
// in its spec for the next start. It returns those that are then published.
func changePorts(c *cobra.Command, d store.Dir, add []sandbox.Port, drop []uint16) ([]sandbox.Port, error) {
	l, err := d.LockStart(c.Context())
	if err != nil {
		return nil, err
	}
	defer l.Close()
	spec, err := d.Spec()
	if err != nil {
		return nil, err
	}
	st, err := d.State()
	if err != nil {
		return nil, err
	}
	client := control.NewClient(d.DialControl)
	running := st.Phase == sandbox.Running
	open := spec.Ports
	if running {
		st, err := client.Status(c.Context())
		if err != nil {
			return nil, err
		}
		open = st.Ports
	}
	for _, h := range drop {
		i := slices.IndexFunc(open, func(p sandbox.Port) bool { return p.Host == h })
		if i < 0 {
			return nil, hint(fmt.Errorf("port %d is not published", h), "bawn port")
		}
		spec.Ports = withoutPort(spec.Ports, open[i])
	}
	if running {
		if add, err = client.ChangePorts(c.Context(), add, drop); err != nil {
			return nil, err
		}
	}
	for _, p := range add {
		spec.Ports = addPort(spec.Ports, p)
		spec.Project.Ports = slices.DeleteFunc(spec.Project.Ports, func(o sandbox.Port) bool { return o.Host == p.Host }) // a person's now
	}
	if err := spec.Check(); err != nil {
		return nil, err
	}
	if len(add)+len(drop) > 0 {
		if err := d.WriteSpec(spec); err != nil {
			return nil, err
		}
	}
	if !running {
		return spec.Ports, nil
	}
	now, err := client.Status(c.Context())
	return now.Ports, err
}

// withoutPort leaves a published port out, or what it was published for: any
// port of the host that is free.
func withoutPort(list []sandbox.Port, p sandbox.Port) []sandbox.Port {
	return slices.DeleteFunc(slices.Clone(list), func(o sandbox.Port) bool {
		return o.Host == p.Host || o.Host == 0 && o.Guest == p.Guest
	})
}

// hostPort is how a port of the host is shown.
func hostPort(p sandbox.Port) string {
	if p.Host == 0 {
		return "any"
	}
	return strconv.Itoa(int(p.Host))
}
