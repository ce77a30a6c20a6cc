package cacert

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestPoliciesOfBrowsers(t *testing.T) {
	root := t.TempDir()
	old, _ := newCA(t, pkix.Name{CommonName: "old"})
	one, text := newCA(t, pkix.Name{CommonName: "one"})
	two, _ := newCA(t, pkix.Name{CommonName: "two"})
	updateBrowsers(root, []*x509.Certificate{old})
	updateBrowsers(root, []*x509.Certificate{one, two})
	for _, dir := range chromiumPolicies {
		var got struct{ CACertificates []string }
		readFile(t, root+dir+"/bawn.json", &got)
		if len(got.CACertificates) != 2 || got.CACertificates[0] != base64.StdEncoding.EncodeToString(one.Raw) {
			t.Errorf("%s: %v", dir, got)
		}
	}
	var firefox struct {
		Policies struct{ Certificates struct{ Install []string } }
	}
	readFile(t, root+firefoxPolicies, &firefox)
	files := firefox.Policies.Certificates.Install
	left, _ := filepath.Glob(root + firefoxCerts + "/*")
	if len(files) != 2 || len(left) != 2 {
		t.Fatalf("%v %v", files, left)
	}
	if b, err := os.ReadFile(root + files[0]); err != nil || string(b) != string(text) {
		t.Errorf("%s %v", b, err)
	}
}

// TestPoliciesOfOthersStay: those of the image, or of the person.
func TestPoliciesOfOthersStay(t *testing.T) {
	root := t.TempDir()
	cert, _ := newCA(t, pkix.Name{CommonName: "x"})
	theirs := []string{chromiumPolicies[0] + "/company.json", firefoxPolicies}
	for _, file := range theirs {
		must(t, os.MkdirAll(filepath.Dir(root+file), 0o755))
		must(t, os.WriteFile(root+file, []byte(`{"CACertificates":[]}`), 0o600))
	}
	updateBrowsers(root, []*x509.Certificate{cert})
	for _, file := range theirs {
		if b, err := os.ReadFile(root + file); err != nil || string(b) != `{"CACertificates":[]}` {
			t.Errorf("%s: %s %v", file, b, err)
		}
	}
	if _, err := os.Stat(root + chromiumPolicies[0] + "/bawn.json"); err == nil {
		t.Error("there are two policies")
	}
	if _, err := os.Stat(root + chromiumPolicies[1] + "/bawn.json"); err != nil {
		t.Error(err)
	}
}

func readFile(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	must(t, json.Unmarshal(b, into))
}
