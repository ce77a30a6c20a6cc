package main

import (
	"context"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func sshConfigCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ssh-config [NAME]",
		Short: "Print the ssh_config for reaching a sandbox with ssh, rsync, git and editors",
		Long: `Print the ssh_config(5) of a sandbox, or of this directory's. With it, ssh,
sftp, rsync, git, VS Code Remote and JetBrains Gateway reach the sandbox as the
host "bawn-NAME". The connection starts the sandbox if it is stopped.

Put it before everything else in ~/.ssh/config: OpenSSH takes the first value of a
setting that it finds, so a "Host *" above it could forward your agent into the sandbox.`,
		Example: `  bawn ssh-config > ~/.ssh/bawn-shop    then make "Include bawn-shop" the first line of ~/.ssh/config
  bawn ssh-config myproject > /tmp/c && rsync -e 'ssh -F /tmp/c' -a bawn-myproject:out/ out/`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeName,
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := namedSandbox(args)
			if err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			text, err := e.SSHConfig(spec.Name, proxyCommand(self, spec.Name))
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.OutOrStdout(), text)
			return err
		},
	}
	return c
}

// proxyCommand returns the shell command that ssh runs to reach a sandbox. It sets the
// variables that name bawn's folders: an editor may run it with another environment, and a bawn that
// looks elsewhere would miss the sandbox and the rules for all sandboxes.
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
	return cmd
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// sshProxyCommand joins standard input and output to the guest's SSH server.
func sshProxyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "__ssh-proxy NAME", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := namedSandbox(args)
			if err != nil {
				return err
			}
			conn, err := e.DialSSH(c.Context(), spec.Name)
			if err != nil {
				return err
			}
			return join(c.Context(), conn, os.Stdin, os.Stdout)
		},
	}
}

// join copies in both directions until the guest ends the connection or ctx ends. The end
// of in closes only that direction, so that the guest's remaining output still arrives.
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
		return nil // ssh ends its proxy by a signal
	}
	return err
}
