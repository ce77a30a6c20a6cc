package main

import (
	"fmt"
	"io"
	"net/netip"
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
		Short: "Publish guest ports on localhost of the host, or list the published ports",
		Long: `Publish ports of the guest on localhost of the host (127.0.0.1 and ::1), or list the
published ports. A published port belongs to the sandbox while that runs; it refuses
connections while nobody listens in the guest.

Browsers keep cookies by host name and not by port: what a service on localhost sets, a
page on any published port of localhost gets too. The list shows a name for each sandbox,
NAME.localhost, which browsers take for localhost with cookies of its own. A sandbox with
--own-address (bawn run) publishes its ports on a loopback address of its own and nowhere
else: pages there have no cookies of localhost, and several sandboxes can have the same
port.`,
		Example: `  bawn port 3000           guest port 3000 on localhost:3000
  bawn port 8080:80        guest port 80 on localhost:8080
  bawn port --remove 8080  close port 8080 of the host
  bawn port                list the published ports`,
		RunE: func(c *cobra.Command, args []string) error {
			add, drop, err := portArguments(args, remove)
			if err != nil {
				return err
			}
			e, spec, err := openNamed(name)
			if err != nil {
				return err
			}
			ports, err := e.ChangePorts(c.Context(), spec.Name, add, drop)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), withAddresses(spec, ports))
			}
			return listPorts(c.OutOrStdout(), spec, ports)
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

// publishedPort is a published port with the addresses of the host where it is.
type publishedPort struct {
	sandbox.Port
	Addresses []netip.Addr `json:"addresses"`
}

func withAddresses(spec *sandbox.Spec, ports []sandbox.Port) []publishedPort {
	list := make([]publishedPort, len(ports))
	for i, p := range ports {
		list[i] = publishedPort{p, spec.Loopbacks()}
	}
	return list
}

// listPorts shows the published ports of a sandbox. A browser gets the sandbox's own name
// below localhost (RFC 6761, section 6.3), so that sandboxes share no cookies with each
// other nor with the services of the host.
func listPorts(w io.Writer, spec *sandbox.Spec, ports []sandbox.Port) error {
	host, browser := "localhost", spec.Name+".localhost"
	if spec.OwnAddress {
		host = spec.Loopbacks()[0].String()
		browser = host
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "HOST\tGUEST\tIN A BROWSER")
	for _, p := range ports {
		url := "-"
		if p.Host != 0 {
			url = fmt.Sprintf("http://%s:%d", browser, p.Host)
		}
		fmt.Fprintf(tw, "%s:%s\t%d\t%s\n", host, hostPort(p), p.Guest, url)
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
