package cacert

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"

	"bawn.dev/bawn/internal/guest/etc"
)

// JavaLists are the files of Java's list in images of Debian, of RHEL and of Eclipse Temurin.
var JavaLists = []string{"/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts", "/opt/java/openjdk/lib/security/cacerts"}

// JavaHomes is the directory in which distributions have a directory for each Java.
const JavaHomes = "/usr/lib/jvm"

// javaStores returns the files of Java's lists in the guest, each once.
func javaStores() (files []string) {
	homes, _ := filepath.Glob(JavaHomes + "/*/lib/security/cacerts")
	for _, path := range slices.Concat(JavaLists, homes) {
		if file, err := filepath.EvalSymlinks(path); err == nil && !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	return files
}

// updateJava makes certificates bawn's part of Java's lists. A list that it cannot read stays as
// it is, which is logged.
func updateJava(files []string, certs []*x509.Certificate) {
	for _, file := range files {
		store, err := withJava(etc.Read(file), certs)
		if err == nil {
			err = etc.Replace(file, store, 0o644)
		}
		if err != nil {
			log.Printf("certificates for Java: %s: %v", file, err)
		}
	}
}

// javaLink is the link that update-ca-certificates(8) would make, from which Debian's package
// of Java's list makes that list when it is installed later.
const javaLink = hashDir + "/bawn.pem"

func linkForJava() {
	if err := os.Symlink(ourCA, javaLink); err != nil && !errors.Is(err, fs.ErrExist) {
		log.Printf("certificates for Java: %v", err) // a full disk, for example
	}
}
