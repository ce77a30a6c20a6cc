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
//
// OpenSSH takes the first value of an option that it finds, so the block sets each option
// by which a hostile guest could gain something: a later block cannot change it. The
// exceptions are options that collect values from all blocks (Collected).
func SSHConfig(d store.Dir, name, user, proxy string) (string, error) {
	for _, s := range []string{d.Path, proxy} {
		if strings.ContainsAny(s, "\n\r") || strings.Contains(s, "${") {
			return "", fmt.Errorf("%w %q", ErrUnquotable, s)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Host %s\n", HostAlias(name))
	reach := [][2]string{
		{"HostName", HostAlias(name)},
		{"User", user},
		{"ProxyCommand", strings.ReplaceAll(proxy, "%", "%%")}, // ssh_config(5), TOKENS
		{"IdentityFile", quotePath(d.File(store.ClientKeyFile))},
		{"HostKeyAlias", HostAlias(name)},
		{"UserKnownHostsFile", quotePath(d.File(store.KnownHostsFile))},
	}
	for _, l := range append(reach, guarded...) {
		fmt.Fprintf(&b, "  %s %s\n", l[0], l[1])
	}
	return b.String(), nil
}

// guarded are the options that have the same value for every sandbox. All of them are in
// OpenSSH 8.7, the oldest release that reads the quotes of quotePath; a name that ssh does
// not know would be an error.
var guarded = [][2]string{
	// The way to the guest.
	{"Port", "22"},
	{"ProxyJump", "none"},
	{"ProxyUseFdpass", "no"},
	{"CanonicalizeHostname", "no"},
	{"ControlMaster", "no"},
	{"ControlPath", "none"},
	{"ControlPersist", "no"},
	// The guest's key is the one that bawn made, and nothing else is believed or recorded.
	{"StrictHostKeyChecking", "yes"},
	{"GlobalKnownHostsFile", "none"},
	{"KnownHostsCommand", "none"},
	{"RevokedHostKeys", "none"},
	{"HostKeyAlgorithms", "ssh-ed25519"},
	{"CheckHostIP", "no"},
	{"VerifyHostKeyDNS", "no"},
	{"UpdateHostKeys", "no"},
	// The sandbox's key is the only proof of who the user is: a guest can neither ask for
	// a password nor see the user's other keys, tickets and certificates.
	{"PreferredAuthentications", "publickey"},
	{"PubkeyAuthentication", "yes"},
	{"PubkeyAcceptedAlgorithms", "ssh-ed25519"},
	{"IdentitiesOnly", "yes"},
	{"IdentityAgent", "none"},
	{"AddKeysToAgent", "no"},
	{"PKCS11Provider", "none"},
	{"PasswordAuthentication", "no"},
	{"KbdInteractiveAuthentication", "no"},
	{"HostbasedAuthentication", "no"},
	{"GSSAPIAuthentication", "no"},
	{"GSSAPIDelegateCredentials", "no"},
	// Nothing of the host is handed to the guest, or run on the host for it.
	{"ForwardAgent", "no"},
	{"ForwardX11", "no"},
	{"ForwardX11Trusted", "no"},
	{"Tunnel", "no"},
	{"GatewayPorts", "no"},
	{"PermitRemoteOpen", "none"},
	{"StreamLocalBindUnlink", "no"},
	{"PermitLocalCommand", "no"},
	{"LocalCommand", "none"},
	{"RemoteCommand", "none"},
	{"SetEnv", "BAWN_SSH=1"}, // the first SetEnv counts, so that no other is sent
	{"SendEnv", "-*"},        // takes back the variables of earlier blocks
}

// quotePath quotes a path as OpenSSH has read it since 8.7: within quotes, a backslash
// escapes a quote or a backslash (misc.c, argv_split).
func quotePath(s string) string {
	return `"` + strings.NewReplacer("%", "%%", `\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// Collected returns the options in the output of "ssh -G" for a sandbox, one a line, that
// hand something of the host to the guest though SSHConfig cannot forbid them: OpenSSH adds
// up their values over all blocks. d is the sandbox's folder.
func Collected(d store.Dir, output string) []string {
	var list []string
	for l := range strings.Lines(output) {
		l = strings.TrimSpace(l)
		option, value, _ := strings.Cut(l, " ")
		switch option {
		case "remoteforward", "localforward", "dynamicforward", "certificatefile":
		case "identityfile":
			if strings.ReplaceAll(value, "%%", "%") == d.File(store.ClientKeyFile) {
				continue
			}
		case "sendenv":
			if ordinaryEnv[value] {
				continue
			}
		default:
			continue
		}
		list = append(list, l)
	}
	return list
}

// ordinaryEnv are the variables that distributions send to every host: how to show text.
var ordinaryEnv = map[string]bool{"LANG": true, "LANGUAGE": true, "LC_*": true, "COLORTERM": true, "NO_COLOR": true, "TERM": true}
