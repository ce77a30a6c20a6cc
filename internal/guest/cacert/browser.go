package cacert

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/guest/etc"
)

// Browsers have a list of certificates of their own. Their administrators' policies add to it, also
// for browsers that are installed later, and for every user.
var (
	// chromiumPolicies are where Chromium, Chrome and Chrome for Testing read all JSON files.
	chromiumPolicies = []string{
		"/etc/chromium/policies/managed", "/etc/opt/chrome/policies/managed", "/etc/opt/chrome_for_testing/policies/managed",
	}
	// firefoxPolicies is the one file that Firefox reads. It names files with one certificate each.
	firefoxPolicies = "/etc/firefox/policies/policies.json"
	firefoxCerts    = "/etc/firefox/policies/bawn"
)

// chromiumPolicy is the name of Chromium's policy with a list of certificates, in base64 of DER.
const chromiumPolicy = "CACertificates"

// updateBrowsers makes browsers trust certificates. Policies of others stay, which is logged where
// they are in the way. root is put before all paths.
func updateBrowsers(root string, certs []*x509.Certificate) {
	for _, dir := range chromiumPolicies {
		if err := updateChromium(root+dir, certs); err != nil {
			log.Printf("certificates for browsers: %v", err)
		}
	}
	if err := updateFirefox(root, certs); err != nil {
		log.Printf("certificates for browsers: %v", err)
	}
}

// updateChromium writes the policy of a directory. Of two files with the policy only one counts.
func updateChromium(dir string, certs []*x509.Certificate) error {
	ours := filepath.Join(dir, "bawn.json")
	files, _ := filepath.Glob(dir + "/*.json")
	for _, file := range files {
		if file != ours && bytes.Contains(etc.Read(file), []byte(chromiumPolicy)) {
			return fmt.Errorf("%s sets the policy %s already: the browser refuses inspected hosts until the certificates in %s are added there", file, chromiumPolicy, ourCA)
		}
	}
	var list [][]byte // in base64, as JSON has bytes
	for _, c := range certs {
		list = append(list, c.Raw)
	}
	return writeJSON(ours, map[string]any{chromiumPolicy: list})
}

// updateFirefox writes Firefox's policies, unless they are another's.
func updateFirefox(root string, certs []*x509.Certificate) error {
	if old := etc.Read(root + firefoxPolicies); len(old) > 0 && !bytes.Contains(old, []byte(firefoxCerts)) {
		return errors.New(firefoxPolicies + " is there already: Firefox refuses inspected hosts until that file installs the certificates in " + ourCA)
	}
	if err := os.RemoveAll(root + firefoxCerts); err != nil { // those of an earlier call
		return err
	}
	var paths []string
	for _, c := range certs {
		path := fmt.Sprintf("%s/%x.pem", firefoxCerts, sha256.Sum256(c.Raw))
		if err := etc.Replace(root+path, encode(c), 0o644); err != nil {
			return err
		}
		paths = append(paths, path)
	}
	return writeJSON(root+firefoxPolicies, map[string]any{"policies": map[string]any{"Certificates": map[string]any{"Install": paths}}})
}

func writeJSON(file string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return etc.Replace(file, append(b, '\n'), 0o644)
}
