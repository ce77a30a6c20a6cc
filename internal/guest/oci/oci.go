// Package oci makes containers that Docker starts in the guest trust the host's certificates, as the
// guest does.
//
// # Theory of operation
//
// Dockerd and its BuildKit start every container, also each RUN step of a build, by the program runc,
// which they look up in PATH. Dockerd's PATH begins with Folder. Once the host has given the guest
// a certificate to trust, Folder has a link named runc, which leads to the agent (Arrange); until
// then there is none, and runc is the image's. Called as runc, the agent changes the
// container's specification (config.json of the OCI runtime specification) and then becomes the
// real runc by execve(2): no process of its own stays.
//
// The change is a read-only bind mount of a folder with certificates at /dev/bawn-ca, and environment
// variables that name files in it (env.go). The container's /dev is a file system in memory:
// no file of the image changes, and neither a layer of a build nor docker commit nor docker
// export gets anything of it. Docker's own configuration of the container and of the image stays without
// the variables, too. A file mounted over the image's list would reach more programs, but would break
// apt-get install ca-certificates in a build: a mount point cannot be renamed over.
//
// A variable replaces a program's own list, so its file has the image's list with the host's
// certificates added (folder.go). The image's files are read before the container starts, with
// links resolved in the container's root (rootfs.go): an image cannot lead to a file of the guest.
//
// A container that cannot be changed starts as it is, with a message on the console: its
// programs then refuse inspected hosts.
package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Mode is the name under which the agent executes itself for a container.
const Mode = "runc"

// Folder has the link to the agent, and the folders with certificates. It is in memory.
const Folder = "/run/bawn/oci"

// self is the agent for every process of root: it is process 1.
const self = "/proc/1/exe"

// Arrange makes containers that start from now on trust the host's certificates. It may be called again.
func Arrange() error { return arrange(Folder) }

// arrange is Arrange for a folder. The link is never removed: BuildKit may have looked runc up.
func arrange(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(self, filepath.Join(folder, Mode)); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Path returns a PATH in which the link that Arrange makes comes first.
func Path(path string) string { return Folder + ":" + path }

// Main is runc: it changes the container that the arguments are about, and replaces this
// process by the real runc. It returns, with an exit status, only if there is none.
func Main(args []string) int {
	if err := adjust(Folder, parse(args)); err != nil {
		report(fmt.Sprintf("bawn: container %q does not trust the host's certificates: %v\n", parse(args).id, err))
	}
	path := slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool { return filepath.Clean(dir) == Folder })
	env := append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PATH=") }), "PATH="+strings.Join(path, ":"))
	for _, dir := range path {
		err := syscall.Exec(filepath.Join(dir, Mode), append([]string{Mode}, args...), env)
		if !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Join(dir, Mode), err)
			return 126
		}
	}
	fmt.Fprintf(os.Stderr, "%s: not found in %s\n", Mode, strings.Join(path, ":"))
	return 127
}

// report writes a message to the console, which bawn logs shows, and to standard error, which
// BuildKit shows as the step's: containerd drops what a runc writes that succeeds.
func report(message string) {
	_, _ = os.Stderr.WriteString(message)
	console, err := os.OpenFile("/dev/console", os.O_WRONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return
	}
	_, _ = console.WriteString(message)
	console.Close()
}

// adjust changes what a call of runc is about, if it starts a container or a process in one. The
// container starts whatever is in its image: a panic over that is an error.
func adjust(folder string, c command) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	switch c.verb {
	case "create", "run":
		return adjustBundle(folder, c)
	case "exec":
		if root := c.initRoot(); c.process != "" && root != "" {
			return adjustProcess(c.process, root)
		}
	case "delete":
		if c.initRoot() == "" {
			return release(folder, c.id)
		}
	}
	return nil
}
