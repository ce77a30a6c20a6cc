package project

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/regular"
	"bawn.dev/bawn/internal/sys/xdg"
)

// Approvals is the folder of what was approved: one file for each project
// directory, named by the digest of its path, with the bytes of its bawn.yaml. What Of returns has the
// approvals of another file of the project beside them.
type Approvals struct {
	folder string
	name   string // of the file, relative to the project directory
	parse  parse
}

// parse makes a proposal of the text of a file.
type parse func(file string, text []byte) (*Proposal, error)

// Open returns the owner's approvals: $XDG_CONFIG_HOME/bawn/trust, by default
// ~/.config/bawn/trust. The folder need not exist.
func Open() (*Approvals, error) {
	dir, err := xdg.Config()
	if err != nil {
		return nil, err
	}
	return OpenAt(filepath.Join(dir, "trust")), nil
}

// OpenAt returns the approvals kept in a folder.
func OpenAt(folder string) *Approvals { return &Approvals{folder, Name, Parse} }

// Of returns the approvals of another file, which parse reads. name is its path relative to the project
// directory.
func (a *Approvals) Of(name string, parse func(file string, text []byte) (*Proposal, error)) *Approvals {
	return &Approvals{a.folder, name, parse}
}

// File returns where the approval of a project directory is kept.
func (a *Approvals) File(dir string) string {
	if a.name != Name {
		dir += "\x00" + a.name // which is in no path
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(a.folder, hex.EncodeToString(sum[:]))
}

// besideSuffix is added to the name of an approval for that of what is kept beside it.
const besideSuffix = ".features"

// maxBeside is the most that is kept beside an approval, in bytes.
const maxBeside = 4 << 20

// Beside returns what was kept beside the approval of a project directory (Check.Beside); nil if nothing was.
func (a *Approvals) Beside(dir string) ([]byte, error) {
	b, err := regular.Read(a.File(dir)+besideSuffix, maxBeside, regular.NoFollow)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("approval of %s: %w", dir, err)
	}
	return b, nil
}

// text returns the bytes that were approved. known is false when none were.
func (a *Approvals) text(dir string) (text []byte, known bool, err error) {
	text, err = read(a.File(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("approval of %s: %w", dir, err)
	}
	return text, true, nil
}

// Proposal returns what was approved for a project directory, whatever its file says
// now. It is empty when nothing was.
func (a *Approvals) Proposal(dir string) (*Proposal, error) {
	text, known, err := a.text(dir)
	if err != nil || !known {
		return &Proposal{}, err
	}
	p, err := a.parse(filepath.Join(dir, a.name), text)
	if err != nil {
		return nil, fmt.Errorf("as approved: %w", err)
	}
	return p, nil
}

// Approve keeps what the Check has read as approved: the file's bytes with what belongs beside them, or
// that there is no file. If it is interrupted, the old bytes may have the new ones' Beside, which has to
// tell to which bytes it belongs.
func (a *Approvals) Approve(c *Check) error {
	if c.Err != nil {
		return c.Err
	}
	if c.Proposal == nil {
		return a.Forget(c.Dir)
	}
	if err := os.MkdirAll(a.folder, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(a.folder, 0o700); err != nil { //nolint:gosec // a folder
		return err
	}
	if len(c.Beside) > maxBeside {
		return fmt.Errorf("what the features and compose files of %s ask for has more than %d bytes", c.File(), maxBeside)
	}
	if c.Beside != nil {
		if err := atomicfile.Write(a.File(c.Dir)+besideSuffix, c.Beside); err != nil {
			return err
		}
	}
	return atomicfile.Write(a.File(c.Dir), c.Text)
}

// Forget withdraws an approval.
func (a *Approvals) Forget(dir string) error {
	for _, file := range []string{a.File(dir), a.File(dir) + besideSuffix} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
