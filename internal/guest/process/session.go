package process

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Member is a process found by its session.
type Member struct {
	PID     int
	ignores uint64 // signals, bit n-1 for signal n
}

// IgnoresHangup reports whether it was told to outlive its terminal (nohup).
func (m Member) IgnoresHangup() bool { return m.ignores&(1<<(uint(syscall.SIGHUP)-1)) != 0 }

// Session lists the living processes of a session, by walking /proc. A session
// number stays taken while one process is in it.
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
		status, _ := os.ReadFile("/proc/" + n + "/status") // without it, it ignores nothing
		list = append(list, Member{pid, ignored(string(status))})
	}
	return list
}

// statSession takes session and state from /proc/PID/stat (proc_pid_stat(5)):
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
