package cacert

import (
	"crypto/x509/pkix"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEachCertificateHasAFile: Debian's tools take the first certificate of a file alone, so that a Java
// which is installed later would not trust the second.
func TestEachCertificateHasAFile(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(root+hashDir, 0o755))
	must(t, os.MkdirAll(root+otherAnchors[0], 0o755))
	must(t, os.Symlink("theirs.pem", root+hashDir+"/00000000.0"))
	_, gone := newCA(t, pkix.Name{CommonName: "same"})
	_, one := newCA(t, pkix.Name{CommonName: "same"})
	two, twoText := newCA(t, pkix.Name{CommonName: "same"})
	must(t, addCertificates(root, gone, nil))
	// update-ca-certificates(8) makes its links anew in another way.
	hash, err := subjectHash(two)
	must(t, err)
	must(t, os.Remove(root+hashDir+"/"+hashName(hash, 0)))
	must(t, os.Symlink(strings.TrimSuffix(filepath.Base(linked(t, root)[0]), ".crt")+".pem", root+hashDir+"/"+hashName(hash, 0)))
	both := slices.Concat(one, twoText)
	must(t, addCertificates(root, both, gone))
	must(t, addCertificates(root, both, both))

	for _, dir := range []string{ownAnchors, otherAnchors[0]} {
		if got := contents(t, root+dir, "*.crt"); !maps.Equal(got, map[string]bool{string(one): true, string(twoText): true}) {
			t.Errorf("%s: %v", dir, got)
		}
	}
	for _, pattern := range []string{"*.pem", "????????.[0-9]"} {
		names, _ := filepath.Glob(root + hashDir + "/" + pattern)
		if pattern != "*.pem" {
			names = slices.DeleteFunc(names, func(s string) bool { return filepath.Base(s) == "00000000.0" })
		}
		if len(names) != 2 {
			t.Errorf("%s: %v", pattern, names)
		}
	}
	if _, err := os.Readlink(root + hashDir + "/00000000.0"); err != nil {
		t.Error("another's link is gone")
	}
	if got := linked(t, root); len(got) != 2 || got[0] == got[1] {
		t.Error(got)
	}
	if _, err := os.Stat(root + otherAnchors[1]); err == nil {
		t.Error("a directory of another distribution was made")
	}
	if b, err := os.ReadFile(root + Bundles[0]); err != nil || string(b) != string(both) {
		t.Errorf("%s %v", b, err)
	}
}

// linked returns the files to which the links of hashDir that end in .pem lead.
func linked(t *testing.T, root string) (files []string) {
	t.Helper()
	links, err := filepath.Glob(root + hashDir + "/*.pem")
	must(t, err)
	for _, link := range links {
		target, err := os.Readlink(link)
		must(t, err)
		if _, err := os.Stat(root + target); err != nil {
			t.Error(err)
		}
		files = append(files, target)
	}
	return files
}

// contents returns what the files of a directory hold.
func contents(t *testing.T, dir, pattern string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(dir + "/" + pattern)
	must(t, err)
	all := map[string]bool{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		must(t, err)
		all[string(b)] = true
	}
	return all
}
