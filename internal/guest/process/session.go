package process

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Member is a process of a session.
type Member struct {
	PID     int
	ignores uint64 // signals, bit n-1 for signal n
}

// IgnoresHangup reports whether the process ignores SIGHUP, as one started by nohup does.
func (m Member) IgnoresHangup() bool { return m.ignores&(1<<(uint(syscall.SIGHUP)-1)) != 0 }

// Session lists the living processes of a session (setsid(2)), from /proc. The number is
// not used again for another session while it has a process.
func Session(sid int) []Member {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what was read counts
	var list []Member
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + n + "/stat")
		if err != nil {
			continue // ended meanwhile
		}
		if s, state := statSession(string(b)); s != sid || state == "Z" || state == "X" {
			continue
		}
		status, _ := os.ReadFile("/proc/" + n + "/status") // missing, it ignores none
		list = append(list, Member{pid, ignored(string(status))})
	}
	return list
}

// statSession returns session and state from /proc/PID/stat (proc_pid_stat(5)):
// after the name in parentheses come state, parent, group, session.
func statSession(stat string) (sid int, state string) {
	i := strings.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, ""
	}
	f := strings.Fields(stat[i+1:])
	if len(f) < 4 {
		return 0, ""
	}
	sid, err := strconv.Atoi(f[3])
	if err != nil {
		return 0, ""
	}
	return sid, f[0]
}

// ignored returns the set of signals that a process ignores, from /proc/PID/status.
func ignored(status string) uint64 {
	_, rest, ok := strings.Cut(status, "\nSigIgn:")
	if !ok {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return 0
	}
	return n
}
