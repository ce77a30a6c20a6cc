package guest

import (
	"fmt"
	"log"
	"os"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/tmpfiles"
	"bawn.dev/bawn/internal/wire"
)

// fillRun makes what programs expect in /run, which is empty at each start: the folder of
// locks, the one of the user's sockets, and what the image's packages ask for by
// tmpfiles.d(5). root is "" for /.
func fillRun(root string, u wire.User) error {
	if err := stickyDirs(root + "/run/lock"); err != nil {
		return err
	}
	// Links that Debian's base-files has, for images that lack them.
	for link, target := range map[string]string{"/var/run": "/run", "/var/lock": "/run/lock"} {
		if err := os.MkdirAll(root+"/var", 0o755); err != nil {
			return err
		}
		_ = os.Symlink(target, root+link) // what is there stays
	}
	for _, owner := range []wire.User{{}, u} { // root's first
		dir := root + accounts.RuntimeDir(owner.UID)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		if err := os.Lchown(dir, int(owner.UID), int(owner.GID)); err != nil {
			return err
		}
	}
	for _, err := range tmpfiles.Apply(root) { // a package's mistake must not stop the start
		log.Print(err)
	}
	return nil
}
