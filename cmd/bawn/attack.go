package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/attack"
	"bawn.dev/bawn/internal/sys/text"
)

// attackCommand measures a sandbox, ours or another, by the list of attacks. It is for
// those who work on sandboxes, so it is hidden.
func attackCommand() *cobra.Command {
	var c attack.Config
	var addr string
	var asJSON bool
	cmd := &cobra.Command{
		Use:    "attack --adapter COMMAND",
		Hidden: true,
		Short:  "Attack a sandbox from inside, and judge it by what arrives on the host",
		Long: `Make a project directory with baits around it in the home directory, start servers
that count, run this program inside a sandbox on that directory, and let it try to get
out. Each attack is judged by what arrived or changed on the host.

--adapter is the beginning of a shell command line that runs a command in the sandbox,
with the project directory as current directory. It may use these variables:
  $ATTACK_DIR      the project directory; the sandbox must share it at this path
  $ATTACK_ADDR     the address of the servers
  $ATTACK_ALLOWED  a name for it that may be allowed, for the ports $ATTACK_PORTS
  $ATTACK_DENIED   a name for it that is not allowed
  $ATTACK_LOOP     a name for 127.0.0.1 that may be allowed

The exit status is 1 if an attack is not held or was not measured.`,
		Example: `  bawn attack --adapter 'bwrap --ro-bind /usr /usr --symlink usr/bin /bin --proc /proc --unshare-all --bind "$ATTACK_DIR" "$ATTACK_DIR" --'
  bawn attack --listen 172.17.0.1 --adapter 'docker run --rm -v "$ATTACK_DIR:$ATTACK_DIR" -w "$ATTACK_DIR" debian'`,
		Args:              cobra.NoArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runAttack(cmd, c, addr, asJSON) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&c.Adapter, "adapter", "", "shell command line that runs a command in the sandbox")
	f.StringVar(&addr, "listen", "", "address of this host for the servers (default: one of the loopback)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// runAttack attacks from this program, with servers on addr or, if it is empty, on the
// loopback. An attack that is not held is an exitStatus.
func runAttack(cmd *cobra.Command, c attack.Config, addr string, asJSON bool) (err error) {
	if c.Adapter == "" {
		return hint(errors.New("--adapter is missing: say how to run a command in the sandbox"), "bawn attack --help")
	}
	if addr != "" {
		if c.Addr, err = netip.ParseAddr(addr); err != nil {
			return hint(fmt.Errorf("--listen: %q is not an address of this host", addr), "bawn attack --listen 127.0.0.1 …")
		}
	}
	if c.Program, err = os.Executable(); err != nil {
		return err
	}
	if c.Home, err = os.UserHomeDir(); err != nil {
		return err
	}
	r, err := attack.Run(cmd.Context(), c)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(cmd.OutOrStdout(), r)
	} else {
		err = printAttacks(cmd.OutOrStdout(), r)
	}
	if err == nil && !r.Held() {
		err = exitStatus(1)
	}
	return err
}

// attackProbe is the side of the attacks that runs in the sandbox.
func attackProbe() *cobra.Command {
	return &cobra.Command{
		Use: attack.Verb, Hidden: true, DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error { return attack.Probe(args, c.OutOrStdout()) },
	}
}

// maxWhy bounds what the table shows of a reason, in characters.
const maxWhy = 70

func printAttacks(w io.Writer, r *attack.Report) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "NO\tKIND\tATTACK\tOUTCOME\tWHY")
	for _, v := range r.Results {
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\n", v.Number, v.Kind, v.Attack, v.Outcome, text.Short(v.Why, maxWhy))
	}
	return tw.Flush()
}
