package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/size"
)

// statsInterval is the time between two measurements.
const statsInterval = time.Second

func statsCommand() *cobra.Command {
	var all, once, asJSON bool
	c := &cobra.Command{
		Use: "stats [NAME...]", Short: "Show what the sandboxes take of the host, live",
		Long: `Show what the sandboxes that run (or those that are named) take of the host, each
second until you press Ctrl-C. CPU is in percent of one processor: a sandbox with two
may have 200%. MEMORY is what it takes of the host's, and how much the guest has. DISK is
the space that the sandbox's disk, snapshots and suspended memory take, and the largest
size of its disk. READ and WRITTEN are bytes of the host's disks, SENT and RECEIVED those
of the network, since the start.

If a sandbox used the API of a language model on a host that bawn inspects (one with a
secret, or with rules about requests), TOKENS shows what the API's answers said since the
start: IN are tokens of prompts that came from no cache, CACHED those from the API's
cache, OUT those that were generated. That is no bill. --json has them by host, with the
tokens that were written to the cache.

With --json each measurement of a sandbox is a line.`,
		Example: `  bawn stats
  bawn stats --once my-project
  bawn stats --once --json | jq -r '[.name, .usage.memory] | @tsv'`,
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			list := e.Stats(c.Context(), engine.StatsRequest{Names: args, All: all, Interval: statsInterval})
			return followStats(c.Context(), list, statsView{out: c.OutOrStdout(), all: all, once: once, json: asJSON, screen: !once && !asJSON && isScreen(c.OutOrStdout())})
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "show sandboxes that do not run, too, with their state")
	c.Flags().BoolVar(&once, "once", false, "measure once, for a second, and exit")
	c.Flags().BoolVar(&once, "no-stream", false, "the same as --once")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return c
}

// isScreen reports whether w is a terminal, where a table can take the place of the one before.
func isScreen(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f)
}

// statsView is how measurements are shown.
type statsView struct {
	out                     io.Writer
	all, once, json, screen bool
}

// followStats shows measurements until ctx ends, which is no error, or after the first one with once.
func followStats(ctx context.Context, list iter.Seq2[[]engine.Stat, error], v statsView) error {
	for stats, err := range list {
		if err != nil {
			return err
		}
		text, err := v.format(stats)
		if err != nil {
			return err
		}
		if _, err := v.out.Write(text); err != nil {
			return err
		}
		if v.once {
			return nil
		}
	}
	if v.once { // interrupted before there was anything to show
		return context.Cause(ctx)
	}
	return nil
}

// clearScreen moves the cursor to the upper left corner and erases what follows (ECMA-48, CUP and
// ED).
const clearScreen = "\x1b[H\x1b[J"

// format returns one measurement as it is shown.
func (v statsView) format(stats []engine.Stat) ([]byte, error) {
	var b bytes.Buffer
	if v.json {
		enc := json.NewEncoder(&b)
		for _, s := range stats {
			if err := enc.Encode(s); err != nil {
				return nil, err
			}
		}
		return b.Bytes(), nil
	}
	if v.screen {
		b.WriteString(clearScreen)
	}
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	tokens := slices.ContainsFunc(stats, hasTokens)
	title := "CPU\tMEMORY\tDISK\tREAD / WRITTEN\tSENT / RECEIVED"
	if tokens {
		title += "\tTOKENS IN / CACHED / OUT"
	}
	name := func(s engine.Stat) string { return s.Name + "\t" }
	head := "NAME\t"
	if v.all {
		name = func(s engine.Stat) string { return s.Name + "\t" + string(s.Phase) + "\t" }
		head += "STATE\t"
	}
	fmt.Fprintln(w, head+title)
	for _, s := range stats {
		row := name(s) + statsRow(s)
		if tokens {
			row += "\t" + tokensCell(s)
		}
		fmt.Fprintln(w, row)
	}
	err := w.Flush()
	switch {
	case len(stats) > 0 || !v.screen: // as bawn ls prints it
	case v.all:
		b.WriteString("(there is no sandbox: bawn run -- COMMAND creates one)\n")
	default:
		b.WriteString("(no sandbox runs: bawn stats --all shows those that do not, bawn run -- COMMAND starts one)\n")
	}
	return b.Bytes(), err
}

// statsRow returns what one sandbox takes, as the cells of a row of the table.
func statsRow(s engine.Stat) string {
	cpu, memory, disks, net := "-", "-", "-", "-"
	if s.CPUPercent != nil {
		cpu = fmt.Sprintf("%.1f%%", *s.CPUPercent)
	}
	if u := s.Usage; u != nil {
		memory = size.Format(u.Memory) + " of " + size.Format(s.MemoryLimit)
		disks = size.Format(u.DiskRead) + " / " + size.Format(u.DiskWritten)
		net = size.Format(u.NetSent) + " / " + size.Format(u.NetReceived)
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", cpu, memory, size.Format(s.Disk)+" of "+size.Format(s.DiskLimit), disks, net)
}

// hasTokens reports whether any tokens of a sandbox were counted.
func hasTokens(s engine.Stat) bool { return s.Usage != nil && len(s.Usage.Tokens) > 0 }

// tokensCell returns the tokens of a sandbox, of all hosts together.
func tokensCell(s engine.Stat) string {
	if !hasTokens(s) {
		return "-"
	}
	var in, cached, out int64
	for _, t := range s.Usage.Tokens {
		in, cached, out = in+t.Input+t.CacheWrite, cached+t.CacheRead, out+t.Output
	}
	return short(in) + " / " + short(cached) + " / " + short(out)
}

// short returns a count with three digits or so: 950, 12.3k, 4.0M.
func short(n int64) string {
	switch {
	case n < 1000:
		return strconv.FormatInt(n, 10)
	case n < 999_950: // what is rounded to 1000.0k is 1.0M
		return fmt.Sprintf("%.1fk", float64(n)/1e3)
	default:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	}
}
