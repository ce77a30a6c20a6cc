package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
)

// finding is the result of a check as it is printed.
type finding struct {
	Check  engine.CheckID `json:"check"`
	OK     bool           `json:"ok"`
	Fatal  bool           `json:"fatal"` // bawn cannot work without it
	Detail string         `json:"detail"`
	Remedy string         `json:"remedy,omitempty"`
	Output string         `json:"output,omitempty"` // by another program, word for word
}

func doctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this host can run sandboxes, and how to fix what it lacks",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var found []finding
			failed := false
			for _, f := range engine.Doctor(c.Context()) {
				found = append(found, finding{f.Check, f.OK, f.Fatal, f.Detail, remedyWords(f.Remedy), f.Output})
				failed = failed || !f.OK && f.Fatal
			}
			show := showFindings
			if asJSON {
				show = func(w io.Writer, found []finding) error { return printJSON(w, found) }
			}
			if err := show(c.OutOrStdout(), found); err != nil {
				return err
			}
			if failed {
				return errors.New("bawn cannot run on this host yet: fix the lines marked FAIL above, then run bawn doctor again")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func showFindings(w io.Writer, found []finding) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range found {
		mark := "ok"
		switch {
		case !f.OK && f.Fatal:
			mark = "FAIL"
		case !f.OK:
			mark = "note"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", mark, f.Check, f.Detail)
		if f.Remedy != "" {
			fmt.Fprintf(tw, "\t\t-> %s\n", f.Remedy)
		}
	}
	return tw.Flush()
}

// remedies words each kind of remedy. %s is its text.
var remedies = map[engine.RemedyKind]string{
	engine.RunThis:       "%s",
	engine.InstallDeb:    "sudo apt-get install %s",
	engine.UseDebian:     "run bawn on Debian or Ubuntu",
	engine.UseLinux:      "run bawn on Linux",
	engine.UpdateKernel:  "boot Linux %s or later",
	engine.EnableLSM:     "boot Linux 5.13 or later with landlock in the lsm= list of the kernel command line",
	engine.MoveState:     "set XDG_STATE_HOME to a folder that you own, on a local disk",
	engine.MoveCache:     "set XDG_CACHE_HOME to a folder that you own",
	engine.MoveFolder:    "move that folder to another file system",
	engine.FreeSpace:     "free disk space there until %s are free",
	engine.LessMemory:    "give each sandbox less memory: --memory 512m",
	engine.GiveMemory:    "set the memory of each sandbox: --memory 2g",
	engine.InstallQEMU:   "install QEMU first (see qemu above)",
	engine.FixAccel:      "fix the error above",
	engine.FixProxy:      "correct or unset that variable; sandboxes that run keep the proxy that they started with until bawn stop",
	engine.RemoveCache:   "rm -r %s, while no sandbox runs",
	engine.RefreshImages: "bawn image update builds it from today's packages, with today's kernel",
}

// remedyWords returns the text of a remedy for the user; "" if there is nothing to do.
func remedyWords(r engine.Remedy) string {
	format := remedies[r.Kind]
	if !strings.Contains(format, "%s") {
		return format
	}
	if r.Text == "" {
		return ""
	}
	if r.Kind == engine.RemoveCache {
		r.Text = pathArgument(r.Text)
	}
	return fmt.Sprintf(format, r.Text)
}
