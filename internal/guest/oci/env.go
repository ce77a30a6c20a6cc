package oci

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Files of a folder with certificates. One for a file that a variable of the container names
// comes beside them (combinedFile).
const (
	ownFile    = "bawn.crt"   // the certificates of the host
	systemFile = "system.crt" // the image's list, and those of the host
	allFile    = "all.crt"    // the lists of the image and the guest, all that variables name, and those of the host
	javaFile   = "java.jks"   // the image's list for Java, and those of the host
	aptFile    = "apt.conf"   // apt.conf(5)
	wgetFile   = "wgetrc"     // the system's wgetrc of wget(1)
	gitDir     = "git"        // the certificates of the host by their hashes
)

// fileVariables name a file of certificates in PEM. A container that does not set the variable gets
// it with the file use. An empty use adds nothing: the programs that read the variable read another
// one, too, or have a list to which otherVariables add.
var fileVariables = []struct{ name, use string }{
	{"SSL_CERT_FILE", systemFile}, // OpenSSL, Go, Rust, .NET, Ruby, curl
	{"NODE_EXTRA_CA_CERTS", ownFile},
	{"DENO_CERT", ownFile},
	// Programs with a list of their own, which the file replaces.
	{"REQUESTS_CA_BUNDLE", allFile},
	{"PIP_CERT", allFile},
	{"AWS_CA_BUNDLE", allFile},
	{"CARGO_HTTP_CAINFO", allFile},
	{"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", allFile},
	{"HTTPLIB2_CA_CERTS", allFile},
	{"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", allFile},
	{"HEX_CACERTS_PATH", allFile},
	{"CURL_CA_BUNDLE", ""},
	{"GIT_SSL_CAINFO", ""},
	{"NIX_SSL_CERT_FILE", ""},
}

// otherVariables are set in a container that does not set them. Git, wget and apt of Debian use
// GnuTLS, which reads no variable.
var otherVariables = []struct{ name, use string }{
	{"GIT_SSL_CAPATH", gitDir}, // beside git's own list
	{"SYSTEM_WGETRC", wgetFile},
	{"APT_CONFIG", aptFile},
}

// javaVariable has options for every Java virtual machine (JVM TI, JAVA_TOOL_OPTIONS). Of an
// option that comes twice the last counts.
const javaVariable = "JAVA_TOOL_OPTIONS"

// combinedFile is the name of the file that has the host's certificates beside those of a file
// of the container.
func combinedFile(path string) string {
	sum := sha256.Sum256([]byte(filepath.Clean(path)))
	return fmt.Sprintf("file-%x.crt", sum[:8])
}

// withVariables returns an environment with the variables that lead programs to the certificates.
// What the container sets stays, except that the name of a file is replaced by that of its
// combined file, if the folder has one.
func withVariables(env []string, has func(file string) bool) []string {
	env = slices.Clone(env)
	for _, v := range fileVariables {
		i := find(env, v.name)
		switch {
		case i < 0 && v.use != "":
			env = append(env, v.name+"="+filepath.Join(inContainer, v.use))
		case i >= 0:
			if file := combinedFile(value(env[i])); has(file) {
				env[i] = v.name + "=" + filepath.Join(inContainer, file)
			}
		}
	}
	for _, v := range otherVariables {
		if find(env, v.name) < 0 {
			env = append(env, v.name+"="+filepath.Join(inContainer, v.use))
		}
	}
	store := "-Djavax.net.ssl.trustStore=" + filepath.Join(inContainer, javaFile)
	switch i := find(env, javaVariable); {
	case i < 0:
		env = append(env, javaVariable+"="+store)
	case value(env[i]) != "" && !strings.Contains(env[i], "javax.net.ssl."):
		env[i] = javaVariable + "=" + store + " " + value(env[i])
	}
	return env
}

// namedFiles returns the files of certificates that an environment names.
func namedFiles(env []string) (paths []string) {
	for _, v := range fileVariables {
		if i := find(env, v.name); i >= 0 && filepath.IsAbs(value(env[i])) && !slices.Contains(paths, value(env[i])) {
			paths = append(paths, value(env[i]))
		}
	}
	return paths
}

// find returns the index of a variable, or -1. Of two with the same name the last counts: runc sets
// them one after the other.
func find(env []string, name string) int {
	for i, v := range slices.Backward(env) {
		if strings.HasPrefix(v, name+"=") {
			return i
		}
	}
	return -1
}

func value(variable string) string {
	_, v, _ := strings.Cut(variable, "=")
	return v
}
