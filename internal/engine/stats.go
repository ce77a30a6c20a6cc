package engine

import (
	"context"
	"iter"
	"sync"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
)

// Stat is what one sandbox takes of the host.
type Stat struct {
	Name        string         `json:"name"`
	Phase       sandbox.Phase  `json:"phase"`
	CPUs        int            `json:"cpus"`
	MemoryLimit int64          `json:"memoryLimit"`     // bytes of the guest's memory
	Disk        int64          `json:"disk"`            // bytes of the sandbox's files on the host
	DiskLimit   int64          `json:"diskLimit"`       // of its disk
	Usage       *control.Usage `json:"usage,omitempty"` // nil unless it runs, answers and measures
	// CPUPercent is the processor time since the measurement before, as a share of one processor
	// in percent. It is nil where there is none.
	CPUPercent *float64 `json:"cpuPercent,omitempty"`
}

// StatsRequest selects the sandboxes of Stats.
type StatsRequest struct {
	Names    []string // empty: all that run
	All      bool     // also those that do not run
	Interval time.Duration
}

// Stats measures sandboxes again and again, and yields the list of them in the order of their
// names each Interval, the first time after one. It ends when ctx ends; on a failure, the last
// element is the error: NotFound if there is no sandbox of one of the names.
func (e *Engine) Stats(ctx context.Context, r StatsRequest) iter.Seq2[[]Stat, error] {
	return func(yield func([]Stat, error) bool) {
		before := map[string]*control.Usage{}
		every := time.NewTicker(r.Interval)
		defer every.Stop()
		for first := true; ; first = false {
			list, err := e.measure(ctx, r)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range list {
				s := &list[i]
				s.CPUPercent = percent(before[s.Name], s.Usage)
				before[s.Name] = s.Usage
			}
			if !first && !yield(list, nil) {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-every.C:
			}
		}
	}
}

// percent returns the share of one processor between two measurements. It returns nil unless there
// are two, of the same start of the sandbox.
func percent(before, now *control.Usage) *float64 {
	if before == nil || now == nil || !now.Time.After(before.Time) || now.CPU < before.CPU {
		return nil
	}
	p := 100 * (now.CPU - before.CPU).Seconds() / now.Time.Sub(before.Time).Seconds()
	return &p
}

// measure measures each sandbox that a request selects, all at the same time.
func (e *Engine) measure(ctx context.Context, r StatsRequest) ([]Stat, error) {
	infos, err := e.selected(ctx, r)
	if err != nil {
		return nil, err
	}
	list := make([]Stat, len(infos))
	var wg sync.WaitGroup
	for i, info := range infos {
		list[i] = Stat{
			Name: info.Name, Phase: info.State.Phase, CPUs: info.CPUs, MemoryLimit: info.Memory,
			Disk: info.DiskUsed + info.SnapshotsUsed + info.SuspendedUsed, DiskLimit: info.Disk,
		}
		if info.State.Phase == sandbox.Running {
			wg.Go(func() { list[i].Usage = e.usageOf(ctx, info.Name) })
		}
	}
	wg.Wait()
	return list, nil
}

// selected describes the sandboxes that a request selects.
func (e *Engine) selected(ctx context.Context, r StatsRequest) (list []*Info, err error) {
	for _, name := range r.Names {
		i, err := e.describe(ctx, name)
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	if len(r.Names) > 0 {
		return list, nil
	}
	all, _, err := e.List(ctx) // one that cannot be described is left out
	for _, i := range all {
		if r.All || i.State.Phase == sandbox.Running {
			list = append(list, i)
		}
	}
	return list, err
}

// usageOf returns what a running sandbox takes; nil if it does not answer, or is of an older build.
func (e *Engine) usageOf(ctx context.Context, name string) *control.Usage {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	u, err := control.NewClient(e.sandboxes.Dir(name).DialControl).Usage(ctx)
	if err != nil {
		return nil
	}
	return &u
}
