package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"strings"
)

// Limits bound an image, so that a hostile one can fill neither the disk nor the memory of
// the host. The layers of an OCI image count together, with what a higher layer hides or
// removes in a lower one.
//
//	field      bounds                                                     default
//	Bytes      the data of all files, and each layer uncompressed         64 GiB
//	FileBytes  the data of one file                                       32 GiB
//	Entries    entries, and directories that only the path of one names   2 Mi
//	Names      the bytes of all paths, of the targets of links and of     256 MiB
//	           extended attributes
//	Path       the bytes of one path or target of a link                  4096
//	Depth      the directories above a file                               256
//	Attributes the bytes of the extended attributes of one file           64 KiB
//	Layers     the layers of an OCI image                                 512
//	Config     the bytes of the configuration of an OCI image             1 MiB
//
// A path and an entry cost some hundred bytes of memory beside the path itself while an
// image is made; nothing of them stays. A configuration takes in memory up to some hundred times its bytes, if it is full of
// the smallest entries; that of an image with 100 layers has some 50 KiB.
type Limits struct {
	Bytes, FileBytes        int64
	Entries                 int
	Names                   int64
	Path, Depth, Attributes int
	Layers                  int
	Config                  int64
}

// DefaultLimits leave room for the largest images in everyday use.
var DefaultLimits = Limits{
	Bytes: 64 << 30, FileBytes: 32 << 30, Entries: 2 << 20, Names: 256 << 20,
	Path: 4096, Depth: 256, Attributes: 64 << 10, Layers: 512, Config: 1 << 20,
}

// errTooLarge means that an image is beyond Limits.
var errTooLarge = errors.New("larger than bawn takes")

// beyond is errTooLarge, with the bound.
func beyond[N int | int64](bound N, of string) error {
	return fmt.Errorf("it has more than %d %s: %w", bound, of, errTooLarge)
}

// account is what an image has used of its Limits.
type account struct {
	Limits
	bytes, names int64
	entries      int
}

// entry counts an entry by its header, whose path is in the form of inside. It drops the
// records that the file system does not hold.
func (a *account) entry(h *tar.Header) error {
	attributes := 0
	for k, v := range h.PAXRecords {
		if !strings.HasPrefix(k, attributePrefix) {
			delete(h.PAXRecords, k)
			continue
		}
		attributes += len(k) + len(v)
	}
	switch {
	case len(h.Name) > a.Path || len(h.Linkname) > a.Path:
		return beyond(a.Path, "bytes in a path")
	case strings.Count(h.Name, "/") > a.Depth:
		return beyond(a.Depth, "directories above a file")
	case attributes > a.Attributes:
		return beyond(a.Attributes, "bytes of extended attributes of a file")
	case h.Size < 0 || h.Size > a.FileBytes:
		return beyond(a.FileBytes, "bytes in a file")
	}
	if a.bytes += h.Size; a.bytes > a.Bytes {
		return beyond(a.Bytes, "bytes in its files")
	}
	return a.path(len(h.Name) + len(h.Linkname) + attributes)
}

// path counts something that has a name of so many bytes.
func (a *account) path(n int) error {
	if a.entries++; a.entries > a.Entries {
		return beyond(a.Entries, "entries")
	}
	if a.names += int64(n); a.names > a.Names {
		return beyond(a.Names, "bytes in its paths")
	}
	return nil
}

// attributePrefix begins the names of PAX records that hold extended attributes.
const attributePrefix = "SCHILY.xattr."
