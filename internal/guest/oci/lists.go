package oci

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"

	"bawn.dev/bawn/internal/guest/cacert"
)

// imageLists are the files in which an image may have all certificates that it trusts. The last one
// is that of older RHEL.
var imageLists = append(slices.Clone(cacert.Bundles), "/etc/pki/tls/certs/ca-bundle.crt")

const maxJavaHomes = 16 // those that are looked into

// lists are the certificates from which a container's files are made.
type lists struct {
	own, guest []byte   // of the host; all that the guest trusts
	image      [][]byte // the image's
	java       [][]byte // the image's for Java, in one of Java's formats
	named      map[string][]byte
}

// trusted returns the certificates of the host, and all that the guest trusts.
var trusted = cacert.Trusted // tests have others

// collect reads the lists of a container with a root, an environment and mounts.
func collect(root string, env []string, mounts []mount) (*lists, error) {
	own, guest := trusted()
	return collectWith(own, guest, root, env, mounts)
}

func collectWith(own, guest []byte, root string, env []string, mounts []mount) (*lists, error) {
	l := &lists{own: own, guest: guest, named: map[string][]byte{}}
	if len(own) == 0 {
		return nil, errors.New("the guest has none")
	}
	r, err := openRootfs(root)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	add := func(to *[][]byte, file string) error {
		b, err := r.readMounted(file, mounts)
		if len(b) > 0 {
			*to = append(*to, b)
		}
		return err
	}
	for _, file := range imageLists {
		if err := add(&l.image, file); err != nil {
			return nil, err
		}
	}
	for _, file := range r.javaFiles(env) {
		if err := add(&l.java, file); err != nil {
			return nil, err
		}
	}
	for _, file := range namedFiles(env) {
		b, err := r.readMounted(file, mounts)
		if err != nil {
			return nil, err
		}
		if cacert.HasPEM(b) {
			l.named[combinedFile(file)] = b
		}
	}
	return l, nil
}

// javaFiles returns where Java's lists may be in a container with an environment.
func (r rootfs) javaFiles(env []string) []string {
	files := slices.Clone(cacert.JavaLists)
	var homes []string
	if i := find(env, "JAVA_HOME"); i >= 0 && filepath.IsAbs(value(env[i])) {
		homes = append(homes, value(env[i]))
	}
	for _, name := range r.names(cacert.JavaHomes, maxJavaHomes) {
		homes = append(homes, path.Join(cacert.JavaHomes, name))
	}
	for _, home := range homes {
		files = append(files, path.Join(home, "lib/security/cacerts"), path.Join(home, "jre/lib/security/cacerts"))
	}
	return files
}

// key names what the files of a container are made from.
func (l *lists) key() string {
	h := sha256.New()
	write := func(part []byte) {
		fmt.Fprintf(h, "%d ", len(part))
		_, _ = h.Write(part)
	}
	for _, parts := range [][][]byte{{l.own, l.guest}, l.image, l.java} {
		_, _ = io.WriteString(h, "\n")
		for _, part := range parts {
			write(part)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.named)) {
		write([]byte(name))
		write(l.named[name])
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:12])
}

// files returns the files that a container gets, by their names.
func (l *lists) files() (map[string][]byte, error) {
	system := l.image
	if len(system) == 0 {
		system = [][]byte{l.guest} // for programs that a build installs before it has a list
	}
	named := slices.Collect(maps.Values(l.named))
	java := cacert.InStores(l.java...)
	if len(java) == 0 {
		java = cacert.Certificates(system...)
	}
	files := map[string][]byte{
		ownFile:    l.own,
		systemFile: cacert.Combine(append(slices.Clone(system), l.own)...),
		allFile:    cacert.Combine(slices.Concat(l.image, [][]byte{l.guest}, named, [][]byte{l.own})...),
		javaFile:   cacert.JavaStore(append(java, cacert.Certificates(l.own)...)),
		aptFile:    []byte(`Acquire::https::CAInfo "` + inContainer + "/" + systemFile + `";` + "\n"),
		wgetFile:   []byte("ca_certificate = " + inContainer + "/" + ownFile + "\n"),
	}
	for name, b := range l.named {
		files[name] = cacert.Combine(b, l.own)
	}
	hashed, err := cacert.ByHash(l.own)
	if err != nil {
		return nil, err
	}
	for name, b := range hashed {
		files[gitDir+"/"+name] = b
	}
	return files, nil
}
