package session

import (
	"errors"
	"fmt"
	"strings"

	"bawn.dev/bawn/internal/sandbox/store"
)

// ErrUnquotable means that ssh_config(5) has no way to write a path or command.
var ErrUnquotable = errors.New("ssh_config cannot hold")

// SSHConfig renders the Host block of ssh_config(5) with which OpenSSH clients reach the
// sandbox name in d as user, under the name HostAlias(name). proxy is the shell command
// that joins its standard input and output to the guest's SSH server. The keys must exist
// (MakeKeys). A path or command that ssh_config cannot hold is ErrUnquotable.
func SSHConfig(d store.Dir, name, user, proxy string) (string, error) {
	for _, s := range []string{d.Path, proxy} {
		if strings.ContainsAny(s, "\n\r") || strings.Contains(s, "${") {
			return "", fmt.Errorf("%w %q", ErrUnquotable, s)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Host %s\n", HostAlias(name))
	for _, l := range [][2]string{
		{"User", user},
		{"ProxyCommand", strings.ReplaceAll(proxy, "%", "%%")}, // ssh_config(5), TOKENS
		{"IdentityFile", quotePath(d.File(store.ClientKeyFile))},
		{"IdentitiesOnly", "yes"},
		{"HostKeyAlias", HostAlias(name)},
		{"UserKnownHostsFile", quotePath(d.File(store.KnownHostsFile))},
		{"StrictHostKeyChecking", "yes"},
		{"ForwardAgent", "no"}, // a hostile guest could use the keys in it
		{"ForwardX11", "no"},
	} {
		fmt.Fprintf(&b, "  %s %s\n", l[0], l[1])
	}
	return b.String(), nil
}

// quotePath quotes a path as OpenSSH has read it since 8.7: within quotes, a backslash
// escapes a quote or a backslash (misc.c, argv_split).
func quotePath(s string) string {
	return `"` + strings.NewReplacer("%", "%%", `\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
