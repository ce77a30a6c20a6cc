// Package transfer copies files and directories between this host and a guest, over SFTP.
//
// Theory of operation. The guest is hostile: it chooses the names and contents that it
// sends, it changes them while they are read, and it can write to the directories of the
// host that are shared with it. A transfer therefore
//
//   - opens one directory of the host and works beneath that handle only (os.Root, in
//     host.go): a symbolic link or ".." that leads out of it is ErrEscapes, also when it
//     appears while files are copied;
//   - begins, for a path inside a directory that a guest can change, at that directory,
//     so that no link inside it is followed out of it;
//   - follows no link at all in what it copies from the host, so that the guest gets nothing
//     that is hidden from it under another name;
//   - accepts from the guest only names that are one path element;
//   - takes from the guest no more than Limits, and no more than the host's disk has
//     beside its reserve (package reserve), whatever sizes the guest names: ErrTooMuch;
//   - writes a file beside the old one and renames it when it is complete.
//
// Links of the user's own, outside those directories, are followed as by cp(1).
package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/fileid"
)

// Errors that a caller can branch on.
var (
	// ErrEscapes means that a symbolic link or ".." leads out of a directory that a
	// guest can change.
	ErrEscapes = errors.New("a symbolic link or .. leads out of a directory that a sandbox can change")
	// ErrLink means that a path that is read leads over a symbolic link in a directory that a guest can change.
	ErrLink = errors.New("a symbolic link in a directory that a sandbox can change is not followed")
	// ErrSpecial means that the destination on the host is a device, a pipe or a socket,
	// which a copy would replace by a file.
	ErrSpecial = errors.New("is neither a file nor a directory")
	// ErrKind is about an entry of a directory that cannot be copied: a device, a pipe or
	// a socket.
	ErrKind = errors.New("neither a file, a directory nor a symbolic link")
	// ErrTooMuch means that what comes from the guest is beyond Limits, or that the host's
	// disk has no room for it.
	ErrTooMuch = errors.New("more than bawn copies from a sandbox")
)

// Limits bound what one Download takes from a guest.
type Limits struct {
	Entries int   // files, directories and links, also those that are skipped
	Depth   int   // directories in each other
	Listing int64 // bytes of the list of one directory, as the guest sends it
	Held    int   // bytes of the names in the directories that are being copied
}

// DefaultLimits leave room for the largest trees in everyday use. One list is in memory at
// a time, about twice, beside the names of the directories above.
var DefaultLimits = Limits{Entries: 4 << 20, Depth: 256, Listing: 64 << 20, Held: 128 << 20}

// beyond is ErrTooMuch, with the bound.
func beyond[N int | int64](bound N, of string) error {
	return fmt.Errorf("%w: there are more than %d %s", ErrTooMuch, bound, of)
}

// Transfer is a connection to a guest and what its copies have in common. Its methods may
// not be called at once.
type Transfer struct {
	Guest   *Guest // the caller closes it
	Sandbox string // its name, for error texts
	Limits  Limits

	// Writable are the directories of the host that any guest can change, or could.
	Writable []fileid.ID

	// Progress receives the bytes copied and the names of files. Required.
	Progress progress.Task

	// Skipped is called for each entry of a directory that cannot be copied (ErrKind).
	// The copy continues. Required.
	Skipped func(error)
}

// Upload copies src of the host to dst in the guest, whole if it is a directory. Into a
// directory it is copied under its own name; mustBeDir makes anything else an error. Modes,
// times of change and symbolic links are kept. What was copied before a failure stays.
func (t *Transfer) Upload(ctx context.Context, src, dst string, mustBeDir bool) error {
	host, name, err := openSource(t.Writable, src)
	if err != nil {
		return err
	}
	defer host.close()
	return t.copier(ctx, host, t.guest(ctx)).into(name, baseName(src), dst, mustBeDir || strings.HasSuffix(dst, "/"))
}

// Download is Upload in the other direction. A dst that is a device, a pipe or a socket is
// ErrSpecial.
func (t *Transfer) Download(ctx context.Context, src, dst string, mustBeDir bool) error {
	return t.toHost(ctx, t.guest(ctx), src, baseName(src), dst, mustBeDir)
}

// Local copies src of this host to dst of this host, either of which may lie in a directory that
// guests change. In any other respect it is Download.
func (t *Transfer) Local(ctx context.Context, src, dst string) error {
	host, name, err := openSource(t.Writable, src)
	if err != nil {
		return err
	}
	defer host.close()
	return t.toHost(ctx, host, name, baseName(src), dst, false)
}

// toHost copies src, which from has, to dst on this host. In a directory the copy is called base.
func (t *Transfer) toHost(ctx context.Context, from files, src, base, dst string, mustBeDir bool) error {
	if fi, err := os.Stat(dst); err == nil && !fi.IsDir() && !fi.Mode().IsRegular() {
		return fmt.Errorf("%s %w", dst, ErrSpecial)
	}
	host, name, err := openDestination(t.Writable, dst)
	if err != nil {
		return err
	}
	defer host.close()
	room, err := host.room()
	if err != nil {
		return err
	}
	defer room.close()
	c := t.copier(ctx, from, host)
	c.bound = &bound{Limits: t.Limits, room: room}
	return c.into(src, base, name, mustBeDir || strings.HasSuffix(dst, "/"))
}

func (t *Transfer) guest(ctx context.Context) guestFiles {
	return guestFiles{t.Guest, t.Sandbox, ctx, t.Limits.Listing}
}

func (t *Transfer) copier(ctx context.Context, src, dst files) *copier {
	return &copier{ctx: ctx, src: src, dst: dst, task: t.Progress, skip: t.Skipped}
}

// baseName is the name that a copy gets inside a directory; "" if the path has none.
func baseName(p string) string {
	if b := filepath.Base(p); b != "." && b != ".." && b != "/" {
		return b
	}
	return ""
}
