package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Copying the disk of a machine that runs.
//
// A large disk takes long to copy, and a copy made while the guest writes is torn. So
// QEMU marks the blocks that are written (a dirty bitmap) while the caller copies the
// file. Then the machine is paused, and QEMU copies the marked blocks (a backup job by
// that bitmap), which takes longer the more of them there are. The job could run
// while the guest runs, but then a full target would be an error of the guest's disk.
//
// QEMU's documentation: docs/interop/bitmaps.rst, qapi/block-core.json
// (block-dirty-bitmap-add, blockdev-backup), qapi/job.json.

const (
	// trackGrain is the size of a block that is marked and copied, in bytes: the least
	// that a backup job copies.
	trackGrain = 64 << 10
	// trackName names the bitmap, the copy's node and the job: there is one at a time.
	trackName = "copy"
	// fdsetCopy is the descriptor set of the copy. Those of disks count from 0.
	fdsetCopy = 1000
)

// Tracked is a disk whose written blocks QEMU marks.
type Tracked struct {
	p    *Process
	node string
}

// TrackDisk begins to mark the blocks that are written to a disk, the ones under way
// included. End it with Forget; one disk at a time.
func (p *Process) TrackDisk(ctx context.Context, serial string) (*Tracked, error) {
	t := &Tracked{p, nodeName(serial)}
	err := p.Execute(ctx, "block-dirty-bitmap-add", map[string]any{"node": t.node, "name": trackName, "granularity": trackGrain}, nil)
	if err != nil {
		return nil, fmt.Errorf("track disk %s: %w", serial, err)
	}
	return t, nil
}

// Forget ends the marking.
func (t *Tracked) Forget(ctx context.Context) error {
	return t.p.Execute(ctx, "block-dirty-bitmap-remove", map[string]any{"node": t.node, "name": trackName}, nil)
}

// Update brings a copy of the disk that was begun after TrackDisk up to date, by writing
// the blocks changed since. The machine must be paused, and its state not saved yet
// (SaveState releases the disks). The file must be open for reading and writing and as
// long as the disk; it stays the caller's. After an error the copy is unusable, and the
// machine is as it was.
func (t *Tracked) Update(ctx context.Context, f *os.File) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("update the copy of the disk: %w", err)
		}
	}()
	if err := t.p.addCopy(ctx, f); err != nil {
		return err
	}
	defer t.p.removeCopy(ctx)
	return t.p.job(ctx, "blockdev-backup", map[string]any{
		"device": t.node, "target": trackName, "sync": "bitmap", "bitmap": trackName, "bitmap-mode": "never",
	})
}

func (p *Process) addCopy(ctx context.Context, f *os.File) (err error) {
	var back undo
	defer back.runIf(ctx, &err)
	if err := p.ExecuteFile(ctx, "add-fd", map[string]any{"fdset-id": fdsetCopy}, f, nil); err != nil {
		return err
	}
	back.add(p.removeCopySet)
	return p.Execute(ctx, "blockdev-add", copyNode(), nil)
}

// removeCopy closes the copy, as far as QEMU still answers.
func (p *Process) removeCopy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	_ = p.Execute(ctx, "blockdev-del", map[string]any{"node-name": trackName}, nil)
	p.removeCopySet(ctx)
}

// removeCopySet removes the descriptor set of the copy. QEMU may refuse, because it has
// removed the set itself when the last user of its descriptors was gone.
func (p *Process) removeCopySet(ctx context.Context) {
	_ = p.Execute(ctx, "remove-fd", map[string]any{"fdset-id": fdsetCopy}, nil)
}

// copyNode returns the block device of the copy. Nobody else has the file.
func copyNode() map[string]any {
	return map[string]any{
		"driver": "file", "node-name": trackName, "filename": fdsetPath(fdsetCopy),
		"aio": "threads", "locking": "off", "discard": "unmap",
	}
}

// job runs a job (qapi/job.json) to its end.
func (p *Process) job(ctx context.Context, command string, args map[string]any) error {
	args["job-id"], args["auto-dismiss"] = trackName, false // or its error would be gone with it
	ends, stop := p.Watch(jobConcluded)
	defer stop()
	if err := p.Execute(ctx, command, args, nil); err != nil {
		return err
	}
	select {
	case <-ends:
	case <-p.Closed():
		return errors.New("QEMU ended")
	case <-ctx.Done():
		p.cancelJob(ctx, ends)
		return context.Cause(ctx)
	}
	return errors.Join(p.jobError(ctx), p.Execute(ctx, "job-dismiss", map[string]any{"id": trackName}, nil))
}

// cancelJob ends a job that takes too long, as far as QEMU still answers.
func (p *Process) cancelJob(ctx context.Context, ends <-chan Event) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	_ = p.Execute(ctx, "block-job-cancel", map[string]any{"device": trackName, "force": true}, nil)
	select {
	case <-ends:
	case <-ctx.Done():
	}
	_ = p.Execute(ctx, "job-dismiss", map[string]any{"id": trackName}, nil)
}

func jobConcluded(e Event) bool {
	var d struct{ ID, Status string }
	return e.Name == "JOB_STATUS_CHANGE" && json.Unmarshal(e.Data, &d) == nil && d.ID == trackName && d.Status == "concluded"
}

// jobError returns why a job that has concluded failed, or nil.
func (p *Process) jobError(ctx context.Context) error {
	var jobs []struct{ ID, Status, Error string }
	if err := p.Execute(ctx, "query-jobs", nil, &jobs); err != nil {
		return err
	}
	for _, j := range jobs {
		if j.ID == trackName && j.Error != "" {
			return errors.New(clean(j.Error))
		}
	}
	return nil
}
