package session

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox/store"
)

// TestSSHConfigIsRead by ssh itself, whatever the names of the folders are.
func TestSSHConfigIsRead(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("no ssh here")
	}
	for _, folder := range []string{"plain", "two words", `a "quoted" one`, `back\slash`, `50%d`, `end\`, "it's", "#no comment"} {
		d := store.Dir{Path: filepath.Join(t.TempDir(), folder)}
		config := filepath.Join(t.TempDir(), "config")
		text, err := SSHConfig(d, "x", "me", "'"+strings.ReplaceAll(d.Path, "'", `'\''`)+"/bawn' proxy x")
		if err == nil {
			err = os.WriteFile(config, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), ssh, "-G", "-F", config, "bawn-x").CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", folder, err, out)
		}
		// ssh -G shows the tokens of the known hosts as they were written.
		for _, want := range []string{"identityfile " + d.File(store.ClientKeyFile), "userknownhostsfile " + d.File(store.KnownHostsFile)} {
			if !strings.Contains(strings.ReplaceAll(string(out), "%%", "%"), want+"\n") {
				t.Errorf("%s: no %q in\n%s", folder, want, out)
			}
		}
	}
}

// TestSSHConfigRefuses what ssh would read as something else.
func TestSSHConfigRefuses(t *testing.T) {
	for _, c := range [][2]string{{"/a\nb", "proxy"}, {"/a\rb", "proxy"}, {"/${HOME}", "proxy"}, {"/a", "/b\n/proxy"}} {
		if got, err := SSHConfig(store.Dir{Path: c[0]}, "x", "me", c[1]); !errors.Is(err, ErrUnquotable) {
			t.Errorf("%q: %v\n%s", c, err, got)
		}
	}
}

// hostileBlock says for every host the opposite of what a sandbox needs.
const hostileBlock = `
Host *
  HostName other.example
  User root
  Port 2222
  ProxyCommand nc evil.example 1
  ProxyJump jump.example
  ProxyUseFdpass yes
  CanonicalizeHostname always
  ControlMaster auto
  ControlPath ~/.ssh/%C
  ControlPersist yes
  HostKeyAlias other.example
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  GlobalKnownHostsFile /dev/null
  KnownHostsCommand /bin/false
  RevokedHostKeys /dev/null
  HostKeyAlgorithms ssh-rsa
  CheckHostIP yes
  VerifyHostKeyDNS yes
  UpdateHostKeys yes
  PreferredAuthentications password,keyboard-interactive,gssapi-with-mic,hostbased
  PubkeyAuthentication no
  PubkeyAcceptedAlgorithms ssh-rsa
  IdentitiesOnly no
  IdentityAgent /tmp/agent
  AddKeysToAgent yes
  PKCS11Provider /lib/opensc.so
  PasswordAuthentication yes
  KbdInteractiveAuthentication yes
  HostbasedAuthentication yes
  GSSAPIAuthentication yes
  GSSAPIDelegateCredentials yes
  ForwardAgent yes
  ForwardX11 yes
  ForwardX11Trusted yes
  Tunnel yes
  GatewayPorts yes
  PermitRemoteOpen any
  StreamLocalBindUnlink yes
  PermitLocalCommand yes
  LocalCommand touch /tmp/x
  RemoteCommand evil
  SetEnv TOKEN=secret
Match all
  ForwardAgent yes
Match final all
  ForwardAgent yes
  PasswordAuthentication yes
`

// effective returns what ssh makes of a configuration for the sandbox x, each option with
// its values.
func effective(t *testing.T, config string) map[string][]string {
	t.Helper()
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("no ssh here")
	}
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), ssh, "-G", "-F", file, "bawn-x").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	options := map[string][]string{}
	for l := range strings.Lines(string(out)) {
		option, value, _ := strings.Cut(strings.TrimSpace(l), " ")
		options[option] = append(options[option], value)
	}
	return options
}

// TestNoOtherBlockChangesASandboxs: ssh itself reads the block with hostile ones after it,
// which is where Include as the first line leaves them.
func TestNoOtherBlockChangesASandboxs(t *testing.T) {
	d := store.Dir{Path: "/state/x"}
	block, err := SSHConfig(d, "x", "me", "bawn proxy x")
	if err != nil {
		t.Fatal(err)
	}
	alone, got := effective(t, block), effective(t, block+hostileBlock)
	for option, values := range alone {
		if !slices.Equal(got[option], values) {
			t.Errorf("%s is %q among other blocks, and %q alone", option, got[option], values)
		}
	}
	for option, values := range got {
		if alone[option] == nil {
			t.Errorf("another block sets %s to %q", option, values)
		}
	}
	for option, want := range map[string]string{
		"user": "me", "hostname": "bawn-x", "port": "22", "proxycommand": "bawn proxy x",
		"identityfile": "/state/x/id_ed25519", "userknownhostsfile": "/state/x/known_hosts", "globalknownhostsfile": "none",
		"hostkeyalias": "bawn-x", "stricthostkeychecking": "true", "hostkeyalgorithms": "ssh-ed25519",
		"checkhostip": "no", "verifyhostkeydns": "false", "updatehostkeys": "false",
		"preferredauthentications": "publickey", "pubkeyauthentication": "true", "pubkeyacceptedalgorithms": "ssh-ed25519",
		"identitiesonly": "yes", "identityagent": "none", "addkeystoagent": "false", "passwordauthentication": "no",
		"kbdinteractiveauthentication": "no", "hostbasedauthentication": "no",
		"forwardagent": "no", "forwardx11": "no", "forwardx11trusted": "no", "tunnel": "false", "gatewayports": "no",
		"permitremoteopen": "none", "streamlocalbindunlink": "no", "permitlocalcommand": "no",
		"canonicalizehostname": "false", "controlmaster": "false", "controlpersist": "no", "setenv": "BAWN_SSH=1",
	} {
		if !slices.Equal(got[option], []string{want}) {
			t.Errorf("%s is %q, want %s", option, got[option], want)
		}
	}
	for _, option := range []string{"sendenv", "proxyjump", "controlpath", "knownhostscommand", "pkcs11provider", "localcommand", "remotecommand", "revokedhostkeys"} {
		if v := got[option]; v != nil && v[0] != "none" {
			t.Errorf("%s is %q", option, v)
		}
	}
}

// TestCollectedOptionsAreFound: those that OpenSSH adds up over all blocks.
func TestCollectedOptionsAreFound(t *testing.T) {
	d := store.Dir{Path: "/state/50%x"}
	block, err := SSHConfig(d, "x", "me", "bawn proxy x")
	if err != nil {
		t.Fatal(err)
	}
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("no ssh here")
	}
	for _, c := range []struct {
		other string
		want  []string
	}{
		{"", nil},
		{"SendEnv LANG LC_*", nil},
		{"SendEnv AWS_*", []string{"sendenv AWS_*"}},
		{"RemoteForward 8080 localhost:80", []string{"remoteforward 8080 [localhost]:80"}},
		{"LocalForward 8080 localhost:80", []string{"localforward 8080 [localhost]:80"}},
		{"DynamicForward 1080", []string{"dynamicforward 1080"}},
		{"IdentityFile /home/me/.ssh/id_ed25519", []string{"identityfile /home/me/.ssh/id_ed25519"}},
		{"CertificateFile /home/me/.ssh/cert", []string{"certificatefile /home/me/.ssh/cert"}},
	} {
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(block+"Host *\n  "+c.other+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), ssh, "-G", "-F", file, "bawn-x").Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := Collected(d, string(out)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.other, got, c.want)
		}
		excluded := strings.Replace(block+"Host * !bawn-*\n  "+c.other+"\n", "Host *\n", "", 1)
		if err := os.WriteFile(file, []byte(excluded), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err = exec.CommandContext(t.Context(), ssh, "-G", "-F", file, "bawn-x").Output(); err != nil {
			t.Fatal(err)
		}
		if got := Collected(d, string(out)); got != nil {
			t.Errorf("%s of Host * !bawn-*: %q", c.other, got)
		}
	}
}

// TestIncludeChangesNothingElse: what WithInclude adds, WithoutInclude takes away, and every
// other byte stays.
func TestIncludeChangesNothingElse(t *testing.T) {
	line := IncludeLine("/home/me/.local/state/bawn", "ssh_config")
	for _, config := range []string{"", "Host *\n  ForwardAgent yes\n", "no newline at the end", "\n\nHost a\r\n\tUser b\r\n", "\xef\xbb\xbfHost *\n", "Include other\n", "\x00\xff"} {
		with := WithInclude([]byte(config), line)
		if !strings.HasPrefix(string(with), line+"\n") {
			t.Errorf("%q: the first line is not the Include: %q", config, with)
		}
		if again := WithInclude(with, line); string(again) != string(with) {
			t.Errorf("%q: twice is %q", config, again)
		}
		if without := WithoutInclude(with, line); string(without) != config {
			t.Errorf("%q became %q", config, without)
		}
		if moved := WithInclude([]byte("Host *\n"+line+"\n"), line); string(moved) != line+"\nHost *\n" {
			t.Errorf("a line that is not the first stays: %q", moved)
		}
	}
}
