package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/transfer"
)

// The reasons about copies.
const (
	// PathEscapes: a symbolic link or ".." leads out of a directory that a sandbox can
	// change, or a path to read from leads over a symbolic link in there.
	PathEscapes Reason = "path-escapes"
	// SpecialDestination: the destination on the host is a device, a pipe or a socket
	// (Sandbox, Path of the source in the guest).
	SpecialDestination Reason = "special-destination"
	// NotCopied is a notice: an entry of a directory is a device, a pipe or a socket, and
	// is left out (Sandbox).
	NotCopied Reason = "entry-not-copied"
)

// CopyRequest says what to copy between this host and a sandbox.
type CopyRequest struct {
	Sandbox string
	User    string // in the guest; empty is the user's own
	ToGuest bool   // otherwise from it

	// Sources are files and directories. In the guest, a relative path begins at the home
	// directory of User.
	Sources []string
	// Destination is a directory, to copy into, or with one source also the path of the
	// copy. Then nothing or a file may be there.
	Destination string
}

// Copy copies files and directories, with modes, times of change and symbolic links. A
// sandbox that does not run is started. It returns how many entries it left out, each of
// which is a notice (NotCopied). What was copied before a failure stays.
func (e *Engine) Copy(ctx context.Context, r CopyRequest) (left int, err error) {
	if _, err := e.dirOf(r.Sandbox); err != nil {
		return 0, err
	}
	writable, err := e.writable()
	if err != nil {
		return 0, err
	}
	if err := e.EnsureRunning(ctx, r.Sandbox); err != nil {
		return 0, err
	}
	client, err := e.Dial(ctx, r.Sandbox, r.User)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	stop := context.AfterFunc(ctx, func() { client.Close() }) // SFTP knows no contexts
	defer stop()
	var guest *transfer.Guest
	err = e.during("Waiting for the sandbox to answer", func() error {
		conn, err := client.SFTP()
		if err == nil {
			guest, err = transfer.NewGuest(conn)
		}
		return err
	})
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, err
	}
	return e.transfer(transfer.Transfer{Guest: guest, Sandbox: r.Sandbox, Writable: writable}, func(t *transfer.Transfer) error {
		err := r.copyAll(ctx, t)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return err
	})
}

// transfer calls run with a transfer that shows its progress, within the default limits. It returns
// how many entries run left out, each of which is a notice (NotCopied).
func (e *Engine) transfer(t transfer.Transfer, run func(*transfer.Transfer) error) (left int, err error) {
	task := e.progress().Start("Copying", 0, progress.Bytes)
	t.Limits, t.Progress = transfer.DefaultLimits, task
	t.Skipped = func(err error) {
		left++
		e.notify(Notice{Reason: NotCopied, Sandbox: t.Sandbox, Err: err, Text: fmt.Sprintf("left out %v", err)})
	}
	err = run(&t)
	task.Done(err)
	return left, err
}

// copyAll copies the sources one after the other.
func (r *CopyRequest) copyAll(ctx context.Context, t *transfer.Transfer) error {
	run := t.Download
	if r.ToGuest {
		run = t.Upload
	}
	for _, source := range r.Sources {
		err := run(ctx, source, r.Destination, len(r.Sources) > 1)
		switch {
		case errors.Is(err, transfer.ErrSpecial):
			return &Error{Reason: SpecialDestination, Sandbox: r.Sandbox, Path: source, Err: err}
		case err != nil:
			return escapeError(r.Sandbox, err)
		}
	}
	return nil
}

// escapeError returns PathEscapes for the errors transfer.ErrEscapes and transfer.ErrLink, and any other as it is.
func escapeError(sandbox string, err error) error {
	if errors.Is(err, transfer.ErrEscapes) || errors.Is(err, transfer.ErrLink) {
		return &Error{Reason: PathEscapes, Sandbox: sandbox, Err: err}
	}
	return err
}

// writable returns the directories and files of the host that guests can change, or could once.
func (e *Engine) writable() (list []fileid.ID, err error) {
	places, err := e.sandboxes.Changeable()
	for _, p := range places {
		list = append(list, p.ID)
	}
	return list, err
}

// OpenSource opens a regular file of the host that the person named. Where a guest can change it, no
// symbolic link of what is shared is followed (PathEscapes). The caller closes it.
func (e *Engine) OpenSource(path string) (*os.File, error) {
	list, err := e.writable()
	if err != nil {
		return nil, err
	}
	f, err := transfer.OpenSource(list, path)
	return f, escapeError("", err)
}
