package guest

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/wire"
)

// TestOwnersOfMountPoints: the directories that a start makes for a share outside of the home belong to
// root. Those that it makes for a package manager's cache belong to the user, wherever they are: Go of
// an image with GOPATH=/go writes to /go/pkg/mod beside the cache.
func TestOwnersOfMountPoints(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give directories away")
	}
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "go"), 0o755))
	a := &agent{logins: accounts.NewLogins("")}
	a.logins.Configure(wire.User{Name: "u", UID: 1234, GID: 1234, Home: filepath.Join(root, "home")}, nil)
	must(t, a.makeMountPoint(filepath.Join(root, "srv/data")))
	must(t, a.makeMountPoint(filepath.Join(root, "home/data")))
	must(t, a.makeDirs(filepath.Join(root, "go/pkg/mod/cache/download"), func(string) bool { return true }))
	for dirs, want := range map[string]uint32{"srv srv/data home go": 0, "home/data go/pkg go/pkg/mod go/pkg/mod/cache/download": 1234} {
		for _, dir := range strings.Fields(dirs) {
			fi, err := os.Lstat(filepath.Join(root, dir))
			must(t, err)
			if uid := fi.Sys().(*syscall.Stat_t).Uid; uid != want {
				t.Errorf("%s belongs to %d", dir, uid)
			}
		}
	}
}
