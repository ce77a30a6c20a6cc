package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"

	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/sys/lines"
	"bawn.dev/bawn/internal/wire"
)

// GuestMessage is a notice: a line that a program in the guest printed (Sandbox). The guest
// chose its bytes.
const GuestMessage Reason = "guest-message"

// packScript writes the guest's root as a tar stream to standard output. Its arguments
// are tar's. The root is bind-mounted at another place, where nothing hides parts of it, and
// in it the data directories (internal/guest/datadir), which mountinfo (proc_pid_mountinfo(5))
// shows as those of wire.DataFolder that are mounted at their own path.
const packScript = `
sync
at=$(mktemp -d /run/commit.XXXXXX)
trap 'rmdir "$at"' EXIT
flags=
if tar --help 2>&1 | grep -q -- --xattrs-include; then flags='--numeric-owner --xattrs --xattrs-include=security.capability'; fi
unshare -m sh -euc 'at=$1; shift
places=
while read -r _ _ _ root point _; do
	case " $places " in *" $point "*)
		echo "$point is hidden by what is mounted over it: what it holds is left out" >&2
		rest=
		for p in $places; do [ "$p" = "$point" ] || rest="$rest $p"; done
		places=$rest;;
	esac
	[ "$root" != "` + wire.DataFolder + `$point" ] || places="$places $point"
done </proc/self/mountinfo
mount --bind / "$at"
for p in $places; do mount --bind "$p" "$at$p"; done
exec tar -C "$at" -cf - "$@" .' sh "$at" $flags "$@"
`

// tarDiffers is tar's exit status when a file changed while it was read (tar(1)).
const tarDiffers = 1

// CommitImage makes an image from the disk of a sandbox, without its shares, temporary files,
// and what container engines store in /var/lib. New sandboxes start from it by the reference "local:NAME". The sandbox is
// started if need be, and keeps running.
func (e *Engine) CommitImage(ctx context.Context, sandboxName, name string) (*Image, error) {
	if err := image.CheckLocal(name); err != nil {
		return nil, err
	}
	s, err := e.images()
	if err != nil {
		return nil, err
	}
	d, err := e.dirOf(sandboxName)
	if err != nil {
		return nil, err
	}
	if err := e.EnsureRunning(ctx, sandboxName); err != nil {
		return nil, err
	}
	spec, err := d.Spec() // with what it was started from
	if err != nil {
		return nil, err
	}
	tree, err := e.packGuest(ctx, spec)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tree.Close() }() // it was only read
	limit := spec.Disk
	if fi, err := os.Stat(spec.Boot.Image); err == nil {
		limit += fi.Size()
	}
	return s.Save(ctx, name, tree, spec.Boot.ImageEnv, limit, e.progress())
}

// guestTree is a running guest's root as a tar stream.
type guestTree struct {
	*io.PipeReader
	client *session.Client
	packed sync.WaitGroup
}

// Close ends the connection, and with it the packing.
func (t *guestTree) Close() error {
	err := errors.Join(t.PipeReader.Close(), t.client.Close())
	t.packed.Wait()
	return err
}

// packGuest has a running guest pack its root. A failure of that is the error with which
// the stream ends. The caller closes the stream.
func (e *Engine) packGuest(ctx context.Context, spec *sandbox.Spec) (*guestTree, error) {
	client, err := e.Dial(ctx, spec.Name, "root")
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	t := &guestTree{PipeReader: r, client: client}
	t.packed.Go(func() {
		messages := e.newLineNotices(spec.Name)
		exit, err := client.Run(ctx, session.Command{
			Argv: append([]string{"sh", "-euc", packScript, "sh"}, excludeArgs(spec)...), Dir: "/",
			Stdout: w, Stderr: messages, WaitOutput: true,
		})
		messages.flush()
		if err == nil && exit.Status > tarDiffers {
			err = fmt.Errorf("the guest could not pack its files (exit status %d): tar, unshare and mount must be installed in it", exit.Status)
		}
		w.CloseWithError(err) // nil becomes io.EOF
	})
	return t, nil
}

// excludeArgs are tar's arguments for what is not part of an image: shares, and what is
// lost at a start anyway.
func excludeArgs(spec *sandbox.Spec) (args []string) {
	exclude := []string{"/tmp/*", "/run/*", "/var/tmp/*", spec.Project.Guest}
	for _, m := range spec.Mounts {
		exclude = append(exclude, m.Guest)
	}
	for _, p := range exclude {
		args = append(args, "--exclude=."+path.Clean(p))
	}
	return args
}

// Limits on what a guest's program may report: the length of a line in bytes, and lines.
const (
	maxGuestLine  = 1000
	maxGuestLines = 50
)

// lineNotices is a writer that reports each line as a GuestMessage, within limits. It never fails.
type lineNotices struct {
	lines.Splitter
	engine  *Engine
	sandbox string
	count   int
}

func (e *Engine) newLineNotices(sandbox string) *lineNotices {
	l := &lineNotices{engine: e, sandbox: sandbox}
	l.Splitter = lines.Splitter{Limit: maxGuestLine, Cut: true, Each: func(line []byte) error {
		l.report(line)
		return nil
	}}
	return l
}

func (l *lineNotices) report(line []byte) {
	if len(line) > 0 && l.count < maxGuestLines {
		l.engine.notify(Notice{Reason: GuestMessage, Sandbox: l.sandbox, Text: string(line)})
	}
	l.count++
}

// flush reports what is left of an unfinished line.
func (l *lineNotices) flush() {
	l.report(l.Rest())
	l.Reset()
}
