package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sys/proc"
)

// What a sandbox takes of the host, measured in /proc: processor time, memory, and bytes to and
// from disks, of this process, the machine's and the share servers'.

// Usage implements control.Service.
func (s *supervisor) Usage() (control.Usage, error) {
	u := control.Usage{Time: time.Now()}
	u.NetSent, u.NetReceived = s.network.gate.Traffic()
	u.Tokens = s.network.gate.Tokens()
	if err := addProcess(&u, s.machine.Pid(), "VmRSS"); err != nil {
		return u, err
	}
	// The guest's memory is mapped by the share servers too, and counts once.
	if err := addProcess(&u, os.Getpid(), "RssAnon"); err != nil {
		return u, err
	}
	for _, sh := range s.shareServers() {
		if sh == nil { // its replacement failed
			continue
		}
		if err := addProcess(&u, sh.Pid(), "RssAnon"); err != nil && !gone(err) {
			return u, err
		}
	}
	return u, nil
}

// gone reports whether an error means that the process has ended.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// addProcess adds what a process takes; memory is the field of /proc/PID/status that counts.
func addProcess(u *control.Usage, pid int, memory string) error {
	work, err := processorTime(pid)
	if err != nil {
		return err
	}
	resident, err := procField(pid, "status", memory)
	if err != nil {
		return err
	}
	read, err := procField(pid, "io", "read_bytes")
	if err != nil {
		return err
	}
	written, err := procField(pid, "io", "write_bytes")
	if err != nil {
		return err
	}
	u.CPU += work
	u.Memory += resident
	u.DiskRead += read
	u.DiskWritten += written
	return nil
}

// procField is proc.Field for a number of bytes or of kB. It returns bytes, and 0 if there is no such
// line, as for the memory of a process that has ended.
func procField(pid int, file, name string) (int64, error) {
	text, err := proc.Field(pid, file, name)
	if err != nil || text == "" {
		return 0, err
	}
	number, kb := strings.CutSuffix(text, " kB")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/%d/%s: %s: %w", pid, file, name, err)
	}
	if kb {
		n <<= 10
	}
	return n, nil
}
