package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/supervisor/pool"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/meminfo"
	"bawn.dev/bawn/internal/sys/size"
)

// maxPool bounds how many machines may wait: each takes the memory of an idle
// sandbox.
const maxPool = 16

func poolCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "pool [NUMBER]",
		Short: "Keep machines waiting, from which new sandboxes start at once",
		Long: `Keep NUMBER machines restored and waiting. A new sandbox with the processors,
memory, disk and image of the last one that was started takes one of them, and
another is made ready. Each takes the memory of an idle sandbox, and ends when the
host does. 0, which is how it is at first, ends them all.

Without NUMBER: list what waits.`,
		Example: `  bawn pool 2
  bawn pool 0`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			sandboxes, err := store.Open()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return listPool(c.OutOrStdout(), sandboxes, asJSON)
			}
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 0 || n > maxPool {
				return hint(fmt.Errorf("%q machines: want a number from 0 to %d", args[0], maxPool), "bawn pool 2")
			}
			return resizePool(c.Context(), sandboxes, n)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// poolSize is how many machines are to wait.
func poolSize(sandboxes *store.Store) (int, error) {
	b, err := os.ReadFile(poolSizeFile(sandboxes))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 0 || n > maxPool {
		return 0, hint(fmt.Errorf("%s: %q is not a number of machines", poolSizeFile(sandboxes), b), "bawn pool 0")
	}
	return n, nil
}

func poolSizeFile(sandboxes *store.Store) string { return filepath.Join(sandboxes.Root(), "pool.size") }

func resizePool(ctx context.Context, sandboxes *store.Store, n int) error {
	p, l, err := lockPool(ctx, sandboxes)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := atomicfile.Write(poolSizeFile(sandboxes), fmt.Appendln(nil, n)); err != nil {
		return err
	}
	if n == 0 {
		return showing("Ending what waits", func() error { return p.Empty(ctx) })
	}
	fmt.Fprintf(os.Stderr, "bawn: from the next start on, %s like that of the sandbox for others\n", count(n, "machine waits", "machines wait"))
	return nil
}

// warmPool is the pool of the store's sandboxes.
func warmPool(sandboxes *store.Store) (*pool.Pool, error) {
	members, err := sandboxes.Pool()
	if err != nil {
		return nil, err
	}
	return &pool.Pool{
		Members: members, User: guestUser(), MakeKeys: session.MakeKeys,
		Room: func(s *sandbox.Spec) bool {
			max, err := limits()
			return err == nil && sandboxes.Room(s, max) && meminfo.Available() > 2*startMemory
		},
	}, nil
}

// lockPool takes the right to top up or empty the pool.
func lockPool(ctx context.Context, sandboxes *store.Store) (*pool.Pool, *lockfile.Lock, error) {
	p, err := warmPool(sandboxes)
	if err != nil {
		return nil, nil, err
	}
	l, err := p.Members.LockNames(ctx)
	return p, l, err
}

// waitingRow is one machine in the list.
type waitingRow struct {
	ID     string        `json:"id"`
	State  sandbox.Phase `json:"state"`
	CPUs   int           `json:"cpus"`
	Memory int64         `json:"memory"`
	Disk   int64         `json:"disk"`
	Image  string        `json:"image"`
	Since  time.Time     `json:"since,omitzero"`
}

func listPool(w io.Writer, sandboxes *store.Store, asJSON bool) error {
	pool, err := sandboxes.Pool()
	if err != nil {
		return err
	}
	names, err := pool.Names()
	if err != nil {
		return err
	}
	rows := []waitingRow{}
	for _, name := range names {
		d := pool.Dir(name)
		spec, err := d.Spec()
		if err != nil {
			continue // taken meanwhile
		}
		st, err := d.State()
		if err != nil {
			return err
		}
		r := waitingRow{spec.ID, st.Phase, spec.CPUs, spec.Memory, spec.Disk, spec.Image, st.Since}
		if r.State == sandbox.Running {
			r.State = "waiting"
		}
		rows = append(rows, r)
	}
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(rows)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "ID\tSTATE\tCPUS\tMEMORY\tDISK\tIMAGE")
	for _, r := range rows {
		image := r.Image
		if image == "" {
			image = "default"
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%s\t%s\n", r.ID, r.State, r.CPUs, size.Format(r.Memory), size.Format(r.Disk), image)
	}
	return tw.Flush()
}

// fillPool lets as many machines wait as the person wants, like that of the spec,
// whose sandbox may be gone.
func fillPool(ctx context.Context, spec *sandbox.Spec) error {
	sandboxes, err := store.Open()
	if err != nil {
		return err
	}
	n, err := poolSize(sandboxes)
	if err != nil || n == 0 {
		return err
	}
	p, l, err := lockPool(ctx, sandboxes)
	if err != nil {
		return err
	}
	defer l.Close()
	return p.TopUp(ctx, n, spec)
}

// rehearsals are what is run in the guest of a machine that is to wait: a program,
// and a shell with its start-up files. Images that lack one start as well.
var rehearsals = [][]string{{"echo", "ready"}, {"bash", "-lc", "true"}, {"echo", "ready"}}

// rehearse runs commands in the guest of a machine that is to wait.
func rehearse(ctx context.Context, d store.Dir) error {
	for _, argv := range rehearsals {
		c, err := session.Dial(ctx, d, guestUser().Name)
		if err != nil {
			return err
		}
		_, err = c.Run(ctx, session.Command{Argv: argv, Stdout: io.Discard, Stderr: io.Discard})
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
	return nil
}

// claimWaiting lets a machine that waits become the sandbox, if one can.
func claimWaiting(ctx context.Context, sandboxes *store.Store, spec *sandbox.Spec, lock *lockfile.Lock, on launch.Progress) (how launch.Result, ok bool, err error) {
	n, err := poolSize(sandboxes)
	if err != nil || n == 0 || !spec.Fresh {
		return how, false, err
	}
	p, err := warmPool(sandboxes)
	if err != nil {
		return how, false, err
	}
	how, err = p.Claim(ctx, sandboxes.Dir(spec.Name), spec, lock, on)
	if errors.Is(err, pool.ErrNoMember) {
		return how, false, nil
	}
	return how, true, err
}
