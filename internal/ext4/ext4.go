// Package ext4 writes file systems without mounting them. It is the one place that knows
// which library does so (docs/adr/0014).
package ext4

import (
	"errors"
	"io"
	"os"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
)

// FromTar writes the tar stream r as a read-only ext4 file system to the new file out
// (mode 0600). It keeps owners, modes, times, hard links, device nodes and extended
// attributes; parents that the stream leaves out are made. A hard link must come after
// its target. The file system has as many bytes as it needs, and at most limit; one that
// would be larger is an error. Equal streams make equal files.
//
// After an error the file may be left, and is of no use. Not safe: the stream is not
// checked otherwise; one that is not trusted has to be bounded and cleaned before.
func FromTar(r io.Reader, out string, limit int64) error {
	f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = tar2ext4.ConvertTarToExt4(r, f, tar2ext4.MaximumDiskSize(limit))
	return errors.Join(err, f.Close())
}
