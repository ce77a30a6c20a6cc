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
// QEMU marks what is written (a dirty bitmap) while the caller copies the file. Then
// the machine is paused, and QEMU copies what was marked (a backup job by that
// bitmap), which takes as long as that is large. The job could go on while the guest
// runs, but then a target without room would be an error of the guest's disk.
//
// QEMU's documentation: docs/interop/bitmaps.rst, qapi/block-core.json
// (block-dirty-bitmap-add, blockdev-backup), qapi/job.json.

const (
	// trackGrain is what is marked, and so copied, at once, in bytes: what a backup
	// job copies at least.
	trackGrain = 64 << 10
	// trackName is the bitmap, the copy's node and the job: one at a time.
	trackName = "copy"
	// fdsetCopy is the descriptor set of the copy, beyond those of disks.
	fdsetCopy = 2 * fdsetHot
)

// Tracked is a disk of which QEMU marks what is written.
type Tracked struct {
	p    *Process
	node string
}

// TrackDisk begins to mark what is written to a disk. What is written when it
// returns is marked as well. End it with Forget; one disk at a time.
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

// Update makes a copy of the disk, which was begun after TrackDisk, what the disk is
// now. The machine must be paused, and not saved yet (SaveState lets go of disks).
// The file must be open for reading and writing and as long as the disk; it stays
// the caller's. After an error the copy is worth nothing, and the machine is
// as it was.
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
	defer func() { back.run(ctx, &err) }()
	if err := p.ExecuteFile(ctx, "add-fd", map[string]any{"fdset-id": fdsetCopy}, f, nil); err != nil {
		return err
	}
	back.add(func(ctx context.Context) { _ = p.removeSet(ctx, fdsetCopy) })
	return p.Execute(ctx, "blockdev-add", copyNode(), nil)
}

// removeCopy lets go of the copy, as far as QEMU still answers.
func (p *Process) removeCopy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	_ = p.removeNode(ctx, trackName)
	_ = p.removeSet(ctx, fdsetCopy)
}

// copyNode is the -blockdev of the copy. Nobody else has the file.
func copyNode() map[string]any {
	return map[string]any{
		"driver": "file", "node-name": trackName, "filename": fmt.Sprintf("/dev/fdset/%d", fdsetCopy),
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

// jobError is why a job that has concluded failed, or nil.
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
