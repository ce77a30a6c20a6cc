package proc

import (
	"fmt"
	"os"
	"strings"
)

// Field returns the text of a field in a file of lines "NAME: TEXT" below /proc/PID
// (proc_pid_status(5), proc_pid_io(5)); empty if there is no such line.
func Field(pid int, file, name string) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(text), nil
		}
	}
	return "", nil
}
