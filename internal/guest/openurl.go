package guest

import (
	_ "embed"
	"errors"
	"io/fs"
	"log"
	"os"
	"path/filepath"
)

// openCommand is the command xdg-open(1) of an image without one. There is no browser, and the host's must not
// be opened from here: an address can carry what the guest has read to any server. So the script prints the address for
// the person, with the exit status of xdg-open where a tool is missing that it needs: programs then print the
// address or ask for a code, as on a machine without a screen. Many do not look whether there is an xdg-open, and
// end when they cannot start it.
//
//go:embed xdg-open.sh
var openCommand []byte

// addOpenCommand writes openCommand to dir, where no file has its name; that of a package takes its
// place. A failure is logged, since the machine must start, also with a full disk.
func addOpenCommand(dir string) {
	f, err := os.OpenFile(filepath.Join(dir, "xdg-open"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) { // the image's own; no such folder
		return
	}
	if err == nil {
		_, err = f.Write(openCommand)
		err = errors.Join(err, f.Chmod(0o755), f.Close()) // whatever the umask
	}
	if err != nil {
		log.Printf("the command xdg-open: %v", err)
	}
}
