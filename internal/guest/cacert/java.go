package cacert

import (
	"crypto/x509"
	"log"
	"path/filepath"
	"slices"

	"bawn.dev/bawn/internal/guest/etc"
)

// JavaLists are the files of Java's list in images of Debian, of RHEL and of Eclipse Temurin.
var JavaLists = []string{"/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts", "/opt/java/openjdk/lib/security/cacerts"}

// JavaHomes is the directory in which distributions have a directory for each Java.
const JavaHomes = "/usr/lib/jvm"

// javaStores returns the files of Java's lists in the guest, each once. root is put before all paths.
func javaStores(root string) (files []string) {
	homes, _ := filepath.Glob(root + JavaHomes + "/*/lib/security/cacerts")
	for _, path := range JavaLists {
		homes = append(homes, root+path)
	}
	for _, path := range homes {
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
