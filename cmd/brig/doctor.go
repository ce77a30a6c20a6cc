package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"brig.dev/brig/internal/confine"
	"brig.dev/brig/internal/qemu"
	"brig.dev/brig/internal/sandbox"
)

// finding is what a check found. Remedy is empty when all is well.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Fatal  bool   `json:"fatal"` // brig cannot work without it
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
	Said   string `json:"said,omitempty"` // by another program, word for word
}

func doctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check this host and name a remedy for what is missing",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			found := examine(c.Context())
			if asJSON {
				if err := printJSON(c.OutOrStdout(), found); err != nil {
					return err
				}
			} else if err := showFindings(c.OutOrStdout(), found); err != nil {
				return err
			}
			for _, f := range found {
				if !f.OK && f.Fatal {
					return errors.New("brig cannot run here yet; see the remedies above")
				}
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

// examine runs all checks.
func examine(ctx context.Context) []finding {
	found := []finding{checkQEMU(ctx), checkAccel(ctx), checkLandlock()}
	for _, t := range []struct{ tool, pkg, why string }{
		{"mmdebstrap", "mmdebstrap", "builds the default image"},
		{"mke2fs", "e2fsprogs", "formats the sandbox's disk"},
		{"depmod", "kmod", "indexes the guest's kernel modules"},
		{"apt-get", "apt", "fetches and verifies the guest's kernel"},
	} {
		found = append(found, checkTool(t.tool, t.pkg, t.why))
	}
	found = append(found, checkSubIDs(), checkMemory())
	if store, err := sandbox.Open(); err != nil {
		found = append(found, finding{Check: "state", Fatal: true, Detail: err.Error(), Remedy: "set XDG_STATE_HOME to a folder of yours"})
	} else {
		found = append(found, checkSpace("state", store.Root(), 1<<30))
	}
	if cache, err := sandbox.CacheDir(); err != nil {
		found = append(found, finding{Check: "cache", Fatal: true, Detail: err.Error(), Remedy: "set XDG_CACHE_HOME to a folder of yours"})
	} else if err := os.MkdirAll(cache, 0o700); err != nil {
		found = append(found, finding{Check: "cache", Fatal: true, Detail: err.Error(), Remedy: "set XDG_CACHE_HOME to a folder of yours"})
	} else {
		found = append(found, checkSpace("cache", cache, 4<<30))
	}
	return found
}

func checkQEMU(ctx context.Context) finding {
	f := finding{Check: "qemu", Fatal: true}
	v, err := qemu.Find(ctx, "") // asked anew
	if err != nil {
		f.Detail, f.Remedy = err.Error(), "sudo apt-get install "+qemu.Package()
		return f
	}
	f.OK, f.Detail = true, v.String()
	return f
}

func checkAccel(ctx context.Context) finding {
	f := finding{Check: "kvm"}
	cache, err := sandbox.CacheDir()
	if err != nil {
		f.Detail = err.Error()
		return f
	}
	a, err := qemu.Accelerator(ctx, cache)
	if err != nil {
		f.Detail = err.Error()
		return f
	}
	if a.OK() {
		f.OK, f.Detail = true, "works"
		return f
	}
	f.Detail, f.Remedy, f.Said = a.Reason+"; "+slower, a.Remedy, a.Said
	return f
}

func checkLandlock() finding {
	l := confine.Probe(confine.Profile{})
	f := finding{Check: "landlock", OK: l.Full(), Fatal: l.ABI == 0, Detail: l.String()}
	if !f.OK {
		f.Remedy = "boot a newer kernel, with landlock among the lsm= modules"
	}
	return f
}

func checkTool(tool, pkg, why string) finding {
	f := finding{Check: tool, Fatal: true}
	for _, p := range append(strings.Split(os.Getenv("PATH"), ":"), "/usr/sbin", "/sbin") {
		if _, err := exec.LookPath(p + "/" + tool); err == nil {
			f.OK, f.Detail = true, p+"/"+tool
			return f
		}
	}
	f.Detail = "not found; it " + why
	f.Remedy = "sudo apt-get install " + pkg
	return f
}

func checkSubIDs() finding {
	f := finding{Check: "subuid", OK: true, Detail: "not needed by root"}
	if os.Geteuid() == 0 {
		return f
	}
	me, err := user.Current()
	if err != nil {
		return finding{Check: "subuid", Detail: err.Error()}
	}
	b, _ := os.ReadFile("/etc/subuid") // absent is the same as empty
	for _, l := range strings.Split(string(b), "\n") {
		if owner, _, _ := strings.Cut(l, ":"); owner == me.Username || owner == me.Uid {
			f.Detail = l
			return f
		}
	}
	return finding{Check: "subuid", Detail: "no subordinate ids: the default image cannot be built",
		Remedy: "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 " + me.Username}
}

func checkMemory() finding {
	total := totalMemory()
	f := finding{Check: "memory", OK: total >= 2<<30, Detail: fmt.Sprintf("%s, %d CPUs", sandbox.FormatSize(total), runtime.NumCPU())}
	if !f.OK {
		f.Remedy = "give sandboxes less: --memory 512m"
	}
	return f
}

func checkSpace(what, dir string, want int64) finding {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return finding{Check: what, Detail: err.Error()}
	}
	free := int64(st.Bavail) * st.Bsize //nolint:gosec // below 8 EiB
	f := finding{Check: what, OK: free >= want, Detail: fmt.Sprintf("%s (%s free)", dir, sandbox.FormatSize(free))}
	if !f.OK {
		f.Remedy = fmt.Sprintf("free some space there: %s is wanted", sandbox.FormatSize(want))
	}
	return f
}
