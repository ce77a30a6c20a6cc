package image

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"bawn.dev/bawn/internal/sys/proc/proctest"
)

// logins is a home with a folder of programs on the PATH, and a shared directory.
type logins struct {
	*testing.T
	home, bin, shared string
}

func newLogins(t *testing.T) *logins {
	t.Helper()
	l := &logins{T: t, home: t.TempDir(), bin: t.TempDir(), shared: t.TempDir()}
	for _, k := range append([]string{"DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "DOCKER_AUTH_CONFIG"}, append(helperFolders, helperVariables...)...) {
		t.Setenv(k, "")
	}
	t.Setenv("HOME", l.home)
	t.Setenv("PATH", l.shared+":"+l.bin+":"+os.Getenv("PATH"))
	proctest.Share(t, l.shared)
	return l
}

func (l *logins) write(path, text string) {
	l.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		l.Fatal(err)
	}
}

// docker writes docker's file.
func (l *logins) docker(text string) { l.write(filepath.Join(l.home, ".docker", "config.json"), text) }

// helper writes a credential helper, which prints an answer for a key and fails for all others.
func (l *logins) helper(dir, key, answer string) {
	l.write(filepath.Join(dir, "docker-credential-box"), fmt.Sprintf("#!/bin/sh\ntouch %s/ran\nread -r key\n[ \"$1 $key\" = 'get %s' ] || { echo 'credentials not found in native keychain'; exit 1; }\necho '%s'\n", dir, key, answer))
}

func (l *logins) login(registry string) (*authn.AuthConfig, error) {
	l.Helper()
	r, err := name.NewRepository(registry + "/own/app")
	if err != nil {
		l.Fatal(err)
	}
	a, err := authn.Resolve(l.Context(), keychain{}, r)
	if err != nil {
		return nil, err
	}
	got, err := a.Authorization()
	if err != nil {
		l.Fatal(err)
	}
	return got, nil
}

// want wants a login at a registry.
func (l *logins) want(registry string, want authn.AuthConfig) {
	l.Helper()
	got, err := l.login(registry)
	if err != nil {
		l.Error(err)
		return
	}
	got.Auth = "" // of user and password
	if *got != want {
		l.Errorf("%s: %+v, want %+v", registry, *got, want)
	}
}

func auth(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// TestLoginsOfDockerAndPodman are found where these keep them.
func TestLoginsOfDockerAndPodman(t *testing.T) {
	l := newLogins(t)
	l.want("one.test", authn.AuthConfig{})
	l.write(filepath.Join(l.home, ".config/containers/auth.json"), fmt.Sprintf(`{"auths": {"one.test": {"auth": %q}}}`, auth("pod", "man")))
	l.want("one.test", authn.AuthConfig{Username: "pod", Password: "man"})
	t.Setenv("XDG_RUNTIME_DIR", l.home)
	l.write(filepath.Join(l.home, "containers/auth.json"), fmt.Sprintf(`{"auths": {"one.test": {"auth": %q}}}`, auth("run", "time")))
	l.want("one.test", authn.AuthConfig{Username: "run", Password: "time"})

	l.docker(fmt.Sprintf(`{"auths": {"one.test": {"auth": %q}, "two.test/own/app": {"auth": %q}, "https://index.docker.io/v1/": {"auth": %q}},
		"credHelpers": {"helped.test": "box", "token.test": "box"}}`, auth("ada", "1"), auth("eve", "2"), auth("hub", "3")))
	l.want("one.test", authn.AuthConfig{Username: "ada", Password: "1"})
	l.want("two.test", authn.AuthConfig{Username: "eve", Password: "2"})
	l.want("index.docker.io", authn.AuthConfig{Username: "hub", Password: "3"})
	l.want("none.test", authn.AuthConfig{})
	l.helper(l.bin, "helped.test", `{"Username": "ada", "Secret": "4"}`)
	l.want("helped.test", authn.AuthConfig{Username: "ada", Password: "4"})
	l.want("token.test", authn.AuthConfig{}) // the helper has none
	l.helper(l.bin, "token.test", `{"Username": "<token>", "Secret": "5"}`)
	l.want("token.test", authn.AuthConfig{IdentityToken: "5"})

	other := t.TempDir()
	t.Setenv("DOCKER_CONFIG", other)
	l.write(filepath.Join(other, "config.json"), `{"credsStore": "box"}`)
	l.want("token.test", authn.AuthConfig{IdentityToken: "5"})
	for text, want := range map[string]string{
		`{"credsStore": "gone"}`: "docker-credential-gone",
		`{`:                      "config.json",
	} {
		l.write(filepath.Join(other, "config.json"), text)
		if got, err := l.login("one.test"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

// TestAttackCredentialHelpers: a guest neither puts a program among those that are asked for logins, nor names one.
func TestAttackCredentialHelpers(t *testing.T) {
	l := newLogins(t)
	l.helper(l.shared, "one.test", `{"Username": "eve", "Secret": "1"}`)
	l.docker(`{"credsStore": "box"}`)
	if got, err := l.login("one.test"); err == nil || !strings.Contains(err.Error(), "a guest can write to") {
		t.Errorf("a program on the PATH: %+v, %v", got, err)
	}
	l.docker(`{"credsStore": "/../` + l.shared[1:] + `/x"}`)
	l.write(filepath.Join(l.shared, "x"), "#!/bin/sh\ntouch "+l.shared+"/ran\n")
	if got, err := l.login("one.test"); err == nil {
		t.Errorf("a program by its path: %+v", got)
	}
	l.helper(l.bin, "one.test", `{"Username": "ada", "Secret": "2"}`)
	l.docker(`{"credsStore": "box"}`)
	l.want("one.test", authn.AuthConfig{Username: "ada", Password: "2"}) // the guest's is passed over
	t.Setenv("GNUPGHOME", l.shared)
	if got, err := l.login("one.test"); err == nil || !strings.Contains(err.Error(), "GNUPGHOME is not used") {
		t.Errorf("settings of GnuPG: %+v, %v", got, err)
	}
	t.Setenv("GNUPGHOME", "")
	t.Setenv("DOCKER_CONFIG", l.shared)
	l.write(filepath.Join(l.shared, "config.json"), `{"credsStore": "box"}`)
	if got, err := l.login("one.test"); err == nil || !strings.Contains(err.Error(), "config.json is not used") {
		t.Errorf("a file of the guest's: %+v, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(l.shared, "ran")); err == nil {
		t.Error("the guest's program ran on the host")
	}
}
