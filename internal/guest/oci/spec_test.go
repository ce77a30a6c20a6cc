package oci

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const spec = `{"ociVersion":"1.2.0","process":{"user":{"uid":1000},"env":["PATH=/bin","NODE_EXTRA_CA_CERTS=/mine"],"rlimits":[{"hard":18446744073709551615}]},
"root":{"path":"rootfs"},"mounts":[{"destination":"/dev","type":"tmpfs","source":"tmpfs"},{"destination":"/data","type":"bind","source":"/x","uidMappings":[1]}],"linux":{"x":1.50}}`

// bundle makes a bundle with a specification.
func bundle(t *testing.T, text string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "rootfs"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600))
	return dir
}

// trusting makes adjustBundle use a certificate of the host.
func trusting(t *testing.T, own string) {
	t.Helper()
	old := trusted
	trusted = func() (mine, all []byte) { return []byte(own), nil }
	t.Cleanup(func() { trusted = old })
}

// TestContainersGetTheCertificates: a mount and variables are added, and all else stays.
func TestContainersGetTheCertificates(t *testing.T) {
	trusting(t, newCA(t, "own"))
	dir, folder := bundle(t, spec), t.TempDir()
	for range 2 { // the second time there is nothing to do
		must(t, adjust(folder, parse([]string{"--log", "/l", "create", "--bundle", dir, "id"})))
	}
	var got struct {
		Process struct {
			User    struct{ UID int }
			Env     []string
			Rlimits json.RawMessage
		}
		Mounts []json.RawMessage
		Linux  json.RawMessage
	}
	must(t, readJSON(filepath.Join(dir, "config.json"), &got))
	made, _ := filepath.Glob(folder + "/ca-*")
	if len(made) != 1 || len(got.Mounts) != 3 || string(got.Mounts[2]) != `{"destination":"/dev/bawn-ca","type":"bind","source":"`+made[0]+`","options":["bind","ro","nosuid","nodev","noexec"]}` ||
		!strings.Contains(string(got.Mounts[1]), `"uidMappings":[1]`) {
		t.Errorf("%s %s", made, got.Mounts)
	}
	if env := got.Process.Env; !slices.Equal(env[:2], []string{"PATH=/bin", "NODE_EXTRA_CA_CERTS=/mine"}) || !slices.Contains(env, "SSL_CERT_FILE=/dev/bawn-ca/system.crt") {
		t.Error(env)
	}
	if got.Process.User.UID != 1000 || string(got.Process.Rlimits) != `[{"hard":18446744073709551615}]` || string(got.Linux) != `{"x":1.50}` {
		t.Errorf("%+v", got)
	}
	info, err := os.Stat(filepath.Join(dir, "config.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	must(t, adjust(folder, parse([]string{"delete", "--force", "id"})))
	if left, _ := filepath.Glob(folder + "/used-*"); len(left) != 0 {
		t.Error(left)
	}
}

// TestOtherContainersStayAsTheyAre: without a /dev of their own, damaged, or of another call.
func TestOtherContainersStayAsTheyAre(t *testing.T) {
	trusting(t, newCA(t, "own"))
	folder := t.TempDir()
	for name, text := range map[string]string{
		"the guest's dev": strings.Replace(spec, `"type":"tmpfs"`, `"type":"bind"`, 1),
		"no dev":          strings.Replace(spec, `"/dev"`, `"/other"`, 1),
		"a mount there":   strings.Replace(spec, `"/data"`, `"/dev/bawn-ca/"`, 1),
		"no process":      `{"root":{"path":"rootfs"},"mounts":[{"destination":"/dev","type":"tmpfs"}]}`,
		"no root":         strings.Replace(spec, `"rootfs"`, `"none"`, 1),
		"damaged":         spec[:100],
		"env":             strings.Replace(spec, `["PATH=/bin","NODE_EXTRA_CA_CERTS=/mine"]`, `3`, 1),
	} {
		dir := bundle(t, text)
		_ = adjust(folder, parse([]string{"run", "-b", dir, "id"}))
		if b, err := os.ReadFile(filepath.Join(dir, "config.json")); err != nil || string(b) != text {
			t.Errorf("%s: %s %v", name, b, err)
		}
	}
	dir := bundle(t, spec)
	for _, args := range []string{"exec --process " + dir + "/config.json none", "exec --process " + dir + "/config.json ../x", "state id", "delete ../id"} {
		if err := adjust(folder, parse(strings.Fields("--root "+dir+" "+args))); err != nil && !strings.HasPrefix(args, "delete") {
			t.Errorf("%s: %v", args, err)
		}
		if b, _ := os.ReadFile(filepath.Join(dir, "config.json")); string(b) != spec {
			t.Errorf("%s changed the file", args)
		}
	}
}

// TestProcessesInAContainer: a process that docker exec starts gets what the container has.
func TestProcessesInAContainer(t *testing.T) {
	root := image(t, map[string]string{inContainer + "/" + combinedFile("/mine"): "x"})
	file := filepath.Join(t.TempDir(), "process.json")
	must(t, os.WriteFile(file, []byte(`{"args":["sh"],"env":["SSL_CERT_FILE=/mine","AWS_CA_BUNDLE=/other"]}`), 0o600))
	must(t, adjustProcess(file, root))
	b, err := os.ReadFile(file)
	must(t, err)
	for _, want := range []string{`"args":["sh"]`, `"SSL_CERT_FILE=/dev/bawn-ca/` + combinedFile("/mine") + `"`, `"AWS_CA_BUNDLE=/other"`, `"PIP_CERT=/dev/bawn-ca/all.crt"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s is missing in %s", want, b)
		}
	}
}

// TestArrange: the link is made once.
func TestArrange(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "bawn", "oci")
	for range 2 {
		must(t, arrange(folder))
		if to, err := os.Readlink(filepath.Join(folder, Mode)); err != nil || to != self {
			t.Errorf("%s %v", to, err)
		}
	}
}
