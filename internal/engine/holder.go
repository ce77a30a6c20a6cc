package engine

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

// Directories to which one sandbox at a time may write: homes of agents and volumes.
//
// Theory of operation. Locks and caches of one guest mean nothing in another, so two machines
// that write to one directory damage what is in it. A file beside the directory has the name of
// the sandbox that holds it, or held it last. Whether that sandbox still does is not in the file:
// it holds the directory while it runs, which the kernel knows by the lock of its supervisor,
// while it starts (its start lock), and while it is suspended. So nothing has to be given back,
// and a killed process holds nothing. The file is changed under a lock of the directory's kind.

// hold makes a sandbox the holder. The caller holds the sandbox's start lock, and the lock under
// which it has asked for the present holder.
func hold(file, name string) error { return os.WriteFile(file, []byte(name), 0o600) }

// release removes the file if it has the name of the sandbox. The caller holds the locks that hold
// needs.
func release(file, name string) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(b)) != name {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(file)
}

// holder returns the sandbox other than the named one that holds the directory of the file; ""
// if there is none.
func (e *Engine) holder(file, name string) string {
	b, err := os.ReadFile(file)
	owner := strings.TrimSpace(string(b))
	if err != nil || owner == "" || owner == name || sandbox.CheckName(owner) != nil {
		return ""
	}
	d := e.sandboxes.Dir(owner)
	st, err := d.State()
	if errors.Is(err, fs.ErrNotExist) || store.IsNotFound(err) {
		return ""
	}
	if err == nil && !d.StartLocked() && (st.Phase == sandbox.Stopped || st.Phase == sandbox.Dead) && !suspended(d) {
		return ""
	}
	return owner
}
