package supervisor

import (
	"os"

	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox/store"
)

// gdbEnv, when set, lets a debugger of this user attach to the machine, through
// store.GDBSocket. CONTRIBUTING.md says how.
const gdbEnv = "BAWN_GDB"

// serveGDB lets debuggers attach to the machine m, whose process is p, if gdbEnv is set.
// A goroutine that belongs to the machine serves them until the machine ends.
func (s *supervisor) serveGDB(m *machine, p *qemu.Process) error {
	if os.Getenv(gdbEnv) == "" {
		return nil
	}
	l, err := s.dir.Listen(store.GDBSocket)
	if err != nil {
		return err
	}
	m.watched.Go(func() {
		p.ServeGDB(l, func(err error) { s.log.Warn("a debugger could not attach", "error", err) })
	})
	return nil
}
