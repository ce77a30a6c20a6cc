package guest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The kernel makes its boot ID when somebody first reads it, so machines from one
// template have one each: nothing reads it before. A fork's has been read, maybe,
// and the kernel offers no way to set another. So a file of the agent's is bound
// over it. Not covered are file systems of proc that are mounted later, such as
// those of containers. The proc of the initramfs stays bare: without one, the
// kernel lets nobody mount another in a user namespace (Linux, fs/namespace.c,
// mnt_already_visible).

const bootIDPath = "/proc/sys/kernel/random/boot_id"

// changeBootID gives this machine another boot ID.
func changeBootID() error {
	f, err := os.CreateTemp("/run", "boot-id-*")
	if err != nil {
		return fmt.Errorf("boot ID: %w", err)
	}
	defer os.Remove(f.Name()) // it stays where it is bound
	_, err = f.WriteString(newUUID() + "\n")
	err = errors.Join(err, f.Chmod(0o444), f.Close())
	if err == nil {
		_ = unix.Unmount(bootIDPath, unix.MNT_DETACH) // of the machine that this is a fork of
		err = unix.Mount(f.Name(), bootIDPath, "", unix.MS_BIND, "")
	}
	if err != nil {
		return fmt.Errorf("boot ID: %w", err)
	}
	return nil
}

// newUUID is a random UUID (RFC 9562, 5.4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
