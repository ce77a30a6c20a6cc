package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Saving and loading a machine. Two things make up a machine at rest: its
// memory, which is in the caller's memfd all along, and the state of its
// devices and processors, which QEMU writes as a migration stream. The
// capability x-ignore-shared keeps the memory out of that stream. It goes
// through a pipe, so QEMU needs no file and no newer form of "migrate".
//
// Order matters. Save: Pause, SaveState, copy the memory (or keep the memfd), then
// Resume or Kill. Load: fill the memfd, Start with Incoming, LoadState, then
// Resume. No share may be plugged during either (freeze.go).

// maxState bounds a saved state, in bytes. States of 50 to 300 KB were measured, and
// unshared memory (firmware) can add a few MB; a QEMU that was broken into
// could write for ever.
const maxState = 64 * mib

// capabilities that both sides set, in QEMU's order of asking.
var capabilities = map[string]any{"capabilities": []map[string]any{
	{"capability": "x-ignore-shared", "state": true},
	{"capability": "events", "state": true},
}}

// SaveState pauses the guest and writes the state of its devices and
// processors to w. The guest stays paused: its memory is what belongs to that
// state until Resume. After an error, w has a part of the state or none.
func (p *Process) SaveState(ctx context.Context, w io.Writer) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save the machine's state: %w", err)
		}
	}()
	r, err := p.openStatePipe(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	copied := make(chan error, 1)
	go func() {
		err := copyState(w, r)
		if err != nil {
			r.Close() // QEMU's write fails, and with it the migration
		}
		copied <- err
	}()
	if err := p.migrate(ctx, "migrate", "fd:state"); err != nil {
		r.Close()
		return errors.Join(err, <-copied)
	}
	// QEMU has written everything, and closes its end soon after.
	select {
	case err := <-copied:
		return err
	case <-ctx.Done():
		r.Close()
		return errors.Join(context.Cause(ctx), <-copied)
	}
}

// openStatePipe pauses the guest and gives QEMU a pipe to write its state to. The pipe
// ends when QEMU closes its end.
func (p *Process) openStatePipe(ctx context.Context) (r *os.File, err error) {
	r, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close() // QEMU has its own by then
	err = p.Pause(ctx)
	if err == nil {
		err = p.Execute(ctx, "migrate-set-capabilities", capabilities, nil)
	}
	if err == nil { // the default of 128 MiB/s is for networks
		err = p.Execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40}, nil)
	}
	if err == nil {
		err = p.ExecuteFile(ctx, "getfd", map[string]any{"fdname": "state"}, theirs, nil)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// copyState copies a state of at most maxState bytes.
func copyState(w io.Writer, r io.Reader) error {
	n, err := io.Copy(w, io.LimitReader(r, maxState+1))
	if err == nil && n > maxState {
		err = fmt.Errorf("it is longer than %d bytes", maxState)
	}
	return err
}

// LoadState reads what SaveState wrote. The machine must have been started with
// Incoming, its memory filled. The guest is paused until Resume. After an error
// only Kill is left.
func (p *Process) LoadState(ctx context.Context, state io.Reader) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("load the machine's state: %w", err)
		}
	}()
	w, err := p.openIncomingPipe(ctx)
	if err != nil {
		return err
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(w, state) // an error shows as a state that QEMU refuses
		w.Close()
	}()
	err = p.migrate(ctx, "migrate-incoming", "fd:state")
	// QEMU may stop reading before the end; what is left is not part of the state.
	w.Close()
	<-copied
	return err
}

// openIncomingPipe gives QEMU a pipe to read its state from.
func (p *Process) openIncomingPipe(ctx context.Context) (w *os.File, err error) {
	theirs, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close() // QEMU has its own by then
	err = p.Execute(ctx, "migrate-set-capabilities", capabilities, nil)
	if err == nil { // no gratuitous ARP: there is no switch that has to learn anything
		err = p.Execute(ctx, "migrate-set-parameters", map[string]any{"announce-rounds": 0}, nil)
	}
	if err == nil {
		err = p.ExecuteFile(ctx, "getfd", map[string]any{"fdname": "state"}, theirs, nil)
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// migrate runs one direction and waits for QEMU's report of how it ended.
func (p *Process) migrate(ctx context.Context, command, uri string) error {
	ends, stop := p.Watch(func(e Event) bool {
		s := migrationStatus(e)
		return s == "completed" || s == "failed" || s == "cancelled"
	})
	defer stop()
	if err := p.Execute(ctx, command, map[string]any{"uri": uri}, nil); err != nil {
		return err
	}
	select {
	case e := <-ends:
		if s := migrationStatus(e); s != "completed" {
			return p.migrationError(ctx, s)
		}
		return nil
	case <-p.Closed():
		// An incoming migration that fails ends QEMU, which prints why.
		select {
		case <-p.done:
			if p.err != nil {
				return p.err
			}
		case <-ctx.Done():
		}
		return errors.New("QEMU ended")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func migrationStatus(e Event) string {
	if e.Name != "MIGRATION" {
		return ""
	}
	var d struct {
		Status string `json:"status"`
	}
	_ = json.Unmarshal(e.Data, &d) // a wrong type leaves it empty
	return d.Status
}

// migrationError asks why a migration failed.
func (p *Process) migrationError(ctx context.Context, status string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var info struct {
		Desc string `json:"error-desc"`
	}
	if err := p.Execute(ctx, "query-migrate", nil, &info); err != nil || info.Desc == "" {
		return fmt.Errorf("QEMU reports that it %s", clean(status))
	}
	return errors.New(clean(info.Desc))
}
