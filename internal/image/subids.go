package image

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// subordinates checks that subuid(5) or subgid(5) gives this user enough ids.
func subordinates(file string) Need {
	n := Need{What: filepath.Base(file)}
	u, err := user.Current()
	if err != nil {
		n.Detail, n.Remedy = err.Error(), "add an entry for this user to /etc/passwd"
		return n
	}
	if n.OK = hasSubordinates(file, u); n.OK {
		n.Detail = file + " has ids for " + u.Username
		return n
	}
	n.Detail = fmt.Sprintf("%s does not give %s %d subordinate ids", file, u.Username, minSubordinates)
	first := freeSubordinates("/etc/subuid", "/etc/subgid")
	last := first + subordinateRange - 1
	n.Remedy = fmt.Sprintf("sudo usermod --add-subuids %d-%d --add-subgids %d-%d %s", first, last, first, last, u.Username)
	return n
}

// minSubordinates is how many ids Debian's accounts need: up to that of nobody, 65534.
const minSubordinates = 65535

const (
	subordinateStart = 100_000 // SUB_UID_MIN, login.defs(5)
	subordinateRange = 65_536  // SUB_UID_COUNT
)

// subordinateIDs is one line of subuid(5): a range of ids that belongs to a user.
type subordinateIDs struct {
	owner        string // by name or number
	first, count int64
}

// readSubordinates reads the file and leaves out lines that are not valid. A file that
// cannot be read has none.
func readSubordinates(file string) (list []subordinateIDs) {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 {
			continue
		}
		first, err1 := strconv.ParseInt(f[1], 10, 64)
		count, err2 := strconv.ParseInt(f[2], 10, 64)
		if err1 == nil && err2 == nil {
			list = append(list, subordinateIDs{f[0], first, count})
		}
	}
	return list
}

// freeSubordinates returns the first id above all ranges in the files.
func freeSubordinates(files ...string) int64 {
	free := int64(subordinateStart)
	for _, file := range files {
		for _, ids := range readSubordinates(file) {
			free = max(free, ids.first+ids.count)
		}
	}
	return free
}

// hasSubordinates reports whether the file gives the user enough ids.
func hasSubordinates(file string, u *user.User) bool {
	return slices.ContainsFunc(readSubordinates(file), func(ids subordinateIDs) bool {
		return (ids.owner == u.Username || ids.owner == u.Uid) && ids.count >= minSubordinates
	})
}
