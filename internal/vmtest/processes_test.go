//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// processes returns the command lines, by number, of the supervisors, share servers and
// machines that have the folder in their command line or an open file in it.
func processes(dir string) map[int]string {
	found := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		cmd, err := os.ReadFile(d + "/cmdline")
		if err != nil || len(cmd) == 0 {
			continue
		}
		line := strings.ReplaceAll(string(cmd), "\x00", " ")
		if !strings.Contains(line, "__supervise") && !strings.Contains(line, "__share") && !strings.Contains(line, "__pool-member") &&
			!strings.Contains(line, "qemu-system") && !strings.Contains(line, "__confine") {
			continue
		}
		mine := strings.Contains(line, dir)
		fds, _ := filepath.Glob(d + "/fd/*")
		for _, fd := range fds {
			if l, err := os.Readlink(fd); err == nil && strings.HasPrefix(l, dir) {
				mine = true
			}
		}
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil && mine {
			found[pid] = line
		}
	}
	return found
}

// waitGone waits until no process of a sandbox's is left.
func waitGone(t *testing.T, state string) {
	t.Helper()
	wait(t, "the end of all processes", func() bool { return len(processes(state)) == 0 })
}

func kill9(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("kill %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// shares returns the share servers of a project.
func shares(dir string) map[int]string {
	found := map[int]string{}
	for pid, line := range processes(dir) {
		if strings.Contains(line, "__share") {
			found[pid] = line
		}
	}
	return found
}

// lives reports whether a process runs and is no zombie.
func lives(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && len(b) > 0
}

// children returns the children of a process.
func children(parent int) (list []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if strings.Contains(string(b), fmt.Sprintf("\nPPid:\t%d\n", parent)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			list = append(list, pid)
		}
	}
	return list
}

// parentOf returns a process's parent (proc_pid_stat(5), field 4), or 0 if it has ended.
func parentOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), ") ")
	var state string
	var parent int
	_, _ = fmt.Sscan(after, &state, &parent)
	return parent
}
