package shareserver

import (
	"context"
	"fmt"

	"bawn.dev/bawn/internal/share"
	"bawn.dev/bawn/internal/wire"
)

// Watched returns the directories of files of the share that the guest watches (share.Control.Watched).
func (sh *Server) Watched(ctx context.Context, nodes []uint64) ([][]byte, error) {
	dirs, err := sh.control.Watched(ctx, nodes)
	if err != nil {
		return nil, fmt.Errorf("share %s: %w", sh.Plan.Options.Root, err)
	}
	return dirs, nil
}

// Announce returns the events for changes on the host (share.Control.Announce).
func (sh *Server) Announce(ctx context.Context, thread uint32, changes []share.HostChange) ([]wire.FileEvent, error) {
	events, err := sh.control.Announce(ctx, thread, changes)
	if err != nil {
		return nil, fmt.Errorf("share %s: %w", sh.Plan.Options.Root, err)
	}
	return events, nil
}
