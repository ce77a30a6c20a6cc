package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/sys/text"
)

func sshConfigCommand() *cobra.Command {
	var install, uninstall bool
	c := &cobra.Command{
		Use:   "ssh-config [--install | --uninstall | NAME]",
		Short: "Let ssh, rsync, git and editors reach the sandboxes",
		Long: `With --install, ssh, sftp, rsync, git, VS Code Remote and JetBrains Gateway reach each
sandbox, now and later, as the host "bawn-NAME". A connection starts the sandbox if it is
stopped. bawn keeps the settings in files of its own, and makes an Include of them the
first line of ~/.ssh/config: OpenSSH takes the first value of a setting that it finds, so
that no "Host *" there forwards your agent into a sandbox. --uninstall takes the line away.

Without --install, print the ssh_config(5) of a sandbox, or of this directory's, for
"ssh -F FILE".`,
		Example: `  bawn ssh-config --install    then, for instance: ssh bawn-myproject
  bawn ssh-config myproject > /tmp/c && rsync -e 'ssh -F /tmp/c' -a bawn-myproject:out/ out/`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeName,
		RunE: func(c *cobra.Command, args []string) error {
			if install || uninstall {
				if len(args) > 0 {
					return errors.New("--install and --uninstall are for all sandboxes: leave the name out")
				}
				return changeSSHConfig(c, install)
			}
			e, spec, err := namedSandbox(args)
			if err != nil {
				return err
			}
			text, err := e.SSHConfig(spec.Name)
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.OutOrStdout(), text)
			return err
		},
	}
	c.Flags().BoolVar(&install, "install", false, "make all sandboxes hosts of ~/.ssh/config")
	c.Flags().BoolVar(&uninstall, "uninstall", false, "take away what --install wrote")
	c.MarkFlagsMutuallyExclusive("install", "uninstall")
	return c
}

// changeSSHConfig installs bawn's line in the user's ssh_config, or takes it away.
func changeSSHConfig(c *cobra.Command, install bool) error {
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	e, _, err := openEngine()
	if err != nil {
		return err
	}
	path := filepath.Join(home, ".ssh", "config")
	if !install {
		return e.UninstallSSHConfig(c.Context(), path)
	}
	if err := e.InstallSSHConfig(c.Context(), path); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "bawn: ssh bawn-NAME now reaches the sandbox NAME; the first line of %s says so.\n", path)
	names, err := e.Names()
	if err != nil || len(names) == 0 {
		return err
	}
	found, err := e.CollectedSSH(c.Context(), path, names[0])
	if err != nil {
		fmt.Fprintf(c.ErrOrStderr(), "bawn: warning: not checked whether other blocks of the file apply to sandboxes: %s\n", text.Line(err.Error()))
		return nil
	}
	if len(found) > 0 {
		fmt.Fprintln(c.ErrOrStderr(), `bawn: warning: other blocks of the file give sandboxes more than bawn does, and ssh has no
setting that forbids it. Write "Host * !bawn-*" in place of "Host *" above these lines:`)
		for _, l := range found {
			fmt.Fprintf(c.ErrOrStderr(), "  %s\n", text.Line(l))
		}
	}
	return nil
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
