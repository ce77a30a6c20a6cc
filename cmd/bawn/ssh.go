package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
)

func sshConfigCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ssh-config [NAME]",
		Short: "Print the ssh_config that lets ssh, rsync, git and editors reach a sandbox",
		Long: `Print the ssh_config(5) of a sandbox, or of this directory's. With it, ssh,
sftp, rsync, git, VS Code Remote and JetBrains Gateway reach the sandbox as the
host "bawn-NAME". A sandbox that is stopped is started by the connection.`,
		Example: `  bawn ssh-config >> ~/.ssh/config
  bawn ssh-config myproject > /tmp/c && rsync -e 'ssh -F /tmp/c' -a bawn-myproject:out/ out/`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeName,
		RunE: func(c *cobra.Command, args []string) error {
			sandboxes, spec, err := named(args)
			if err != nil {
				return err
			}
			d := sandboxes.Dir(spec.Name)
			if err := session.MakeKeys(d, spec.Name); err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			for _, path := range []string{d.Path, self} {
				if strings.ContainsAny(path, "\n\r") || strings.Contains(path, "${") {
					return hint(fmt.Errorf("ssh_config cannot hold the path %q", path), "set XDG_STATE_HOME to a folder without line breaks and ${ in its name, and move bawn's there")
				}
			}
			_, err = io.WriteString(c.OutOrStdout(), sshConfig(d, spec.Name, self))
			return err
		},
	}
	return c
}

// sshConfig writes a Host block of ssh_config(5).
func sshConfig(d store.Dir, name, self string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Host %s\n", session.HostAlias(name))
	for _, l := range [][2]string{
		{"User", guestUser().Name},
		{"ProxyCommand", proxyCommand(self, name)},
		{"IdentityFile", sshQuote(d.File(store.ClientKeyFile))},
		{"IdentitiesOnly", "yes"},
		{"HostKeyAlias", session.HostAlias(name)},
		{"UserKnownHostsFile", sshQuote(d.File(store.KnownHostsFile))},
		{"StrictHostKeyChecking", "yes"},
		{"ForwardAgent", "no"}, // a hostile guest could use the keys in it
		{"ForwardX11", "no"},
	} {
		fmt.Fprintf(&b, "  %s %s\n", l[0], l[1])
	}
	return b.String()
}

// proxyCommand names bawn's folders when they are not where a later bawn, run by an
// editor with another environment, would look: the rules for all sandboxes are there.
func proxyCommand(self, name string) string {
	cmd := shellQuote(self) + " __ssh-proxy " + name
	var env string
	for _, k := range []string{"XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"} {
		if v := os.Getenv(k); v != "" {
			env += k + "=" + shellQuote(v) + " "
		}
	}
	if env != "" {
		cmd = "env " + env + cmd
	}
	return strings.ReplaceAll(cmd, "%", "%%") // ssh_config(5), TOKENS
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// sshQuote quotes a path as OpenSSH has read it since 8.7: in quotes a backslash
// takes the meaning from a quote or another (misc.c, argv_split).
func sshQuote(s string) string {
	return `"` + strings.NewReplacer("%", "%%", `\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// sshProxyCommand joins standard input and output to the guest's SSH server.
func sshProxyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "__ssh-proxy NAME", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			sandboxes, spec, err := named(args)
			if err != nil {
				return err
			}
			if err := ensureRunning(c.Context(), sandboxes, spec.Name); err != nil {
				return err
			}
			conn, err := sandboxes.Dir(spec.Name).Dial(c.Context(), store.SSHSocket)
			if err != nil {
				return err
			}
			return join(c.Context(), conn, os.Stdin, os.Stdout)
		},
	}
}

// join copies until the guest ends the connection or a signal comes. The end
// of standard input is passed on, and the rest of the answer awaited.
func join(ctx context.Context, conn net.Conn, in io.Reader, out io.Writer) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go func() {
		_, _ = io.Copy(conn, in)
		_ = conn.(*net.UnixConn).CloseWrite()
	}()
	_, err := io.Copy(out, conn)
	if ctx.Err() != nil {
		return nil // ssh ends its proxy by a signal: nothing to tell
	}
	return err
}
