package guest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The kernel generates its boot ID when it is first read. Nothing reads it in a template,
// so machines that are restored from one get different IDs. In a sandbox that is forked it
// may have been read, and the kernel cannot be given another. So a file of the agent's is
// mounted over it. File systems of proc that are mounted later, such as those of
// containers, still show the kernel's. The proc of the initramfs is left as it is: the
// kernel allows mounts of proc in a user namespace only while one exists that nothing is
// mounted over (Linux, fs/namespace.c, mnt_already_visible).

const bootIDPath = "/proc/sys/kernel/random/boot_id"

// changeBootID gives this machine a new boot ID.
func changeBootID() error {
	f, err := os.CreateTemp("/run", "boot-id-*")
	if err != nil {
		return fmt.Errorf("boot ID: %w", err)
	}
	defer os.Remove(f.Name()) // the mount keeps it
	_, err = f.WriteString(newUUID() + "\n")
	err = errors.Join(err, f.Chmod(0o444), f.Close())
	if err == nil {
		_ = unix.Unmount(bootIDPath, unix.MNT_DETACH) // the mount of the machine that was forked
		err = unix.Mount(f.Name(), bootIDPath, "", unix.MS_BIND, "")
	}
	if err != nil {
		return fmt.Errorf("boot ID: %w", err)
	}
	return nil
}

// newUUID returns a random UUID (RFC 9562, 5.4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
