package oci

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
)

// object is a JSON object of which only some members are looked at; the others stay as they are.
type object map[string]json.RawMessage

// mount is a mount of the OCI runtime specification (config.md, Mounts).
type mount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type,omitempty"`
	Source      string   `json:"source,omitempty"`
	Options     []string `json:"options,omitempty"`
}

// isBind reports whether the mount shows a file or a directory of the guest.
func (m mount) isBind() bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// inContainer is where a container has the certificates. Its /dev is made by runc.
const inContainer = "/dev/bawn-ca"

// container is the part of a specification that this package reads.
type container struct {
	Root    struct{ Path string }
	Mounts  []mount
	Process *struct{ Env []string }
}

// ownDev reports whether the container's /dev is a file system of its own. In another one, a
// folder would be made in the image or in the guest.
func (c *container) ownDev() bool {
	own := false
	for _, m := range c.Mounts {
		switch filepath.Clean(m.Destination) {
		case "/dev":
			own = m.Type == "tmpfs"
		case inContainer: // another runtime's change, or an attempt to hide the certificates
			return false
		}
	}
	return own
}

// adjustBundle adds the certificates to the specification of a container.
func adjustBundle(folder string, call command) error {
	file := filepath.Join(call.bundle, "config.json")
	var c container
	if err := readJSON(file, &c); err != nil {
		return err
	}
	if !c.ownDev() || c.Process == nil {
		return nil
	}
	root := c.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(call.bundle, root)
	}
	lists, err := collect(root, c.Process.Env, c.Mounts)
	if err != nil {
		return err
	}
	ca, err := hold(folder, call.id, lists)
	if err != nil {
		return err
	}
	return rewrite(file, func(spec object) error {
		var mounts []json.RawMessage
		if err := member(spec, "mounts", &mounts); err != nil {
			return err
		}
		added, err := json.Marshal(mount{inContainer, "bind", ca, []string{"bind", "ro", "nosuid", "nodev", "noexec"}})
		if err != nil {
			return err
		}
		if err := setMember(spec, "mounts", append(mounts, added)); err != nil {
			return err
		}
		var process object
		if err := member(spec, "process", &process); err != nil {
			return err
		}
		if err := changeEnv(process, ca); err != nil {
			return err
		}
		return setMember(spec, "process", process)
	})
}

// adjustProcess adds the variables to a process that is started in a container. root is the
// container's.
func adjustProcess(file, root string) error {
	return rewrite(file, func(process object) error { return changeEnv(process, root+inContainer) })
}

// changeEnv adds the variables to a process whose container has the folder ca.
func changeEnv(process object, ca string) error {
	var env []string
	if err := member(process, "env", &env); err != nil {
		return err
	}
	return setMember(process, "env", withVariables(env, func(name string) bool {
		_, err := os.Lstat(filepath.Join(ca, name))
		return err == nil
	}))
}

// rewrite changes a file with a JSON object. An error leaves it as it is.
func rewrite(file string, change func(object) error) error {
	var o object
	if err := readJSON(file, &o); err != nil {
		return err
	}
	if err := change(o); err != nil {
		return err
	}
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(file), "bawn-*")
	if err != nil {
		return err
	}
	defer os.Remove(next.Name()) // gone after the rename
	_, err = next.Write(b)
	if err == nil {
		err = next.Chmod(info.Mode().Perm())
	}
	if closed := next.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(next.Name(), file)
}

func readJSON(file string, into any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// member reads a member of an object, if it is there.
func member(o object, name string, into any) error {
	if o[name] == nil {
		return nil
	}
	return json.Unmarshal(o[name], into)
}

func setMember(o object, name string, value any) error {
	b, err := json.Marshal(value)
	o[name] = b
	return err
}
