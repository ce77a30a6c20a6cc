package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"bawn.dev/bawn/internal/sys/bounded"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/settings"
)

// Theory of operation. The person's logins at registries are where docker and podman keep them (docker-login(1),
// containers-auth.json(5)): in a file, or with a program docker-credential-NAME that the file names. The libraries
// for this take a file that a guest may have written, and look the program up on the whole PATH, on which a guest may
// have put one. So the file is read, and the program is found and run, as all others on the host (packages settings
// and proc).

const (
	// maxLogins bounds the file with the logins, in bytes.
	maxLogins = 4 << 20
	// helperTime bounds a credential helper, which may ask the person for something.
	helperTime = time.Minute
	// maxCredentials bounds what a credential helper prints, in bytes.
	maxCredentials = 64 << 10
	// tokenUser is the name that stands for an identity token (docker-login(1), credential helper protocol).
	tokenUser = "<token>"
)

// keychain has the person's logins. The zero value is ready. Its methods may be called concurrently.
type keychain struct{}

// Resolve is ResolveContext without a deadline but that of credential helpers.
func (k keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), target)
}

// ResolveContext returns the login at a registry; authn.Anonymous if the person has none.
func (keychain) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	file, text, err := loginFile()
	if err != nil {
		return nil, fmt.Errorf("logins at registries: %w", err)
	}
	if file == "" {
		return authn.Anonymous, nil
	}
	conf, err := config.LoadFromReader(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("logins at registries: %s: %w", file, err)
	}
	for _, key := range []string{target.String(), target.RegistryStr()} {
		if key == name.DefaultRegistry {
			key = authn.DefaultAuthKey
		}
		login, err := loginAt(ctx, conf, key)
		if err != nil {
			return nil, fmt.Errorf("the login at %s, as %s has it: %w", key, file, err)
		}
		if login != (authn.AuthConfig{}) {
			return authn.FromConfig(login), nil
		}
	}
	return authn.Anonymous, nil
}

// loginFile returns the first file with logins that is there, and its contents.
func loginFile() (path string, text []byte, err error) {
	for _, path := range loginFiles() {
		text, err := settings.Read(path, maxLogins)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return path, text, err
		}
	}
	return "", nil, nil
}

// loginFiles returns the absolute paths of the files that may have logins: docker's, then podman's.
func loginFiles() (list []string) {
	home, _ := os.UserHomeDir()
	add := func(dir string, names ...string) {
		if filepath.IsAbs(dir) {
			list = append(list, filepath.Join(append([]string{dir}, names...)...))
		}
	}
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		add(dir, "config.json")
	} else {
		add(home, ".docker", "config.json")
	}
	add(os.Getenv("REGISTRY_AUTH_FILE"))
	add(os.Getenv("XDG_RUNTIME_DIR"), "containers", "auth.json")
	if dir, err := os.UserConfigDir(); err == nil {
		add(dir, "containers", "auth.json")
	}
	return list
}

// loginAt returns the login that a key of the file, or a credential helper, has.
func loginAt(ctx context.Context, conf *configfile.ConfigFile, key string) (authn.AuthConfig, error) {
	helper, ok := conf.CredentialHelpers[key]
	if !ok {
		helper = conf.CredentialsStore
	}
	if helper != "" {
		return askHelper(ctx, helper, key)
	}
	plain := &configfile.ConfigFile{AuthConfigs: conf.AuthConfigs} // names no helper
	login, err := plain.GetAuthConfig(key)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	login.ServerAddress = "" // set in any case
	if login == (types.AuthConfig{}) {
		return authn.AuthConfig{}, nil
	}
	return authn.AuthConfig{
		Username: login.Username, Password: login.Password, Auth: login.Auth,
		IdentityToken: login.IdentityToken, RegistryToken: login.RegistryToken,
	}, nil
}

// askHelper asks a credential helper. None for the key is no error.
func askHelper(ctx context.Context, helper, key string) (authn.AuthConfig, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	program := "docker-credential-" + helper
	found, err := client.Get(func(args ...string) client.Program {
		return &helperProgram{proc.Command(ctx, program, args...)}
	}, key)
	switch {
	case credentials.IsErrCredentialsNotFound(err):
		return authn.AuthConfig{}, nil
	case err != nil && ctx.Err() != nil:
		return authn.AuthConfig{}, fmt.Errorf("%s did not end within %v", program, helperTime)
	case err != nil:
		return authn.AuthConfig{}, fmt.Errorf("%s: %w; install it, or take it out of the file", program, err)
	case found.Username == tokenUser:
		return authn.AuthConfig{IdentityToken: found.Secret}, nil
	}
	return authn.AuthConfig{Username: found.Username, Password: found.Secret}, nil
}

// helperVariables pass to credential helpers: by these they find their agents, and those of clouds the account. None
// of them names a program.
var helperVariables = []string{
	"XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
	"AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
}

// helperFolders pass to credential helpers as well. They have settings, which may name programs.
var helperFolders = []string{"GNUPGHOME", "PASSWORD_STORE_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"}

// helperProgram runs a credential helper as a client.Program.
type helperProgram struct{ cmd *exec.Cmd }

// Input sets the standard input.
func (p *helperProgram) Input(in io.Reader) { p.cmd.Stdin = in }

// Output runs the helper and returns what it printed, also if it fails.
func (p *helperProgram) Output() ([]byte, error) {
	out := &bounded.Writer{Max: maxCredentials}
	p.cmd.Stdout = out
	p.cmd.Dir = "/"
	if err := errors.Join(settings.CheckFolders(helperFolders...), settings.CheckGnuPG()); err != nil {
		return nil, err
	}
	p.cmd.Env = append(p.cmd.Env, settings.Passed(slices.Concat(helperFolders, helperVariables)...)...)
	proc.InSession(p.cmd)
	err := proc.Run(p.cmd)
	if err == nil && out.Over {
		err = fmt.Errorf("it printed more than %d bytes", maxCredentials)
	}
	return out.Kept, err
}
