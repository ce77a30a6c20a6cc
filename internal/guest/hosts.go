package guest

import (
	"fmt"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/guest/etc"
)

// The files /etc/hosts and /etc/hostname belong to the guest's administrator, as on any
// host. The agent changes only its own lines of hosts(5), which a comment marks, and the host
// name only while it is the one that the agent gave: the first name of its own line.

// ownLine is the comment that marks a line of ours.
const ownLine = "# written by bawn"

// updateHosts returns the contents of a hosts file with our lines for a host of that name,
// and the name that our lines had before. Loopback names that a line of the administrator's
// has are left to it. alias is another name of the host; it may be the same.
func updateHosts(old, hostname, alias string) (text, before string) {
	var lines []string
	for line := range strings.Lines(old) {
		line = strings.TrimRight(line, "\r\n")
		if entry, ours := strings.CutSuffix(line, ownLine); ours {
			if f := strings.Fields(entry); len(f) > 1 && f[0] == hostAddress {
				before = f[1]
			}
			continue
		}
		lines = append(lines, line)
	}
	if before == "" {
		lines, before = dropUnmarked(lines)
	}
	names := hostname
	if alias != "" && alias != hostname {
		names += " " + alias
	}
	var own []string
	if !hasLocalhost(lines, "127.") {
		own = append(own, own4)
	}
	if !hasLocalhost(lines, "::1") {
		own = append(own, own6)
	}
	own = append(own, hostAddress+"\t"+names)
	for i, line := range own {
		own[i] = line + "\t" + ownLine
	}
	// Some programs take the name of an address from its first line: localhost's comes first.
	return strings.Join(append(lines, own...), "\n") + "\n", before
}

// hostAddress is the address of the host's own name in Debian (hostname(1)).
const hostAddress = "127.0.1.1"

const (
	own4 = "127.0.0.1\tlocalhost"
	own6 = "::1\tlocalhost ip6-localhost ip6-loopback"
)

// dropUnmarked removes the lines of earlier builds, which wrote the whole file and marked
// nothing, and returns the name in it.
func dropUnmarked(lines []string) (left []string, name string) {
	if len(lines) < 3 || lines[0] != own4 || lines[2] != own6 {
		return lines, ""
	}
	name, ok := strings.CutPrefix(lines[1], hostAddress+"\t")
	if !ok {
		return lines, ""
	}
	return slices.Concat(lines[:1:1], lines[2:]), name
}

// hasLocalhost reports whether a line gives an address that begins so the name localhost.
func hasLocalhost(lines []string, address string) bool {
	return slices.ContainsFunc(lines, func(line string) bool {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		return len(f) > 1 && strings.HasPrefix(f[0], address) && slices.Contains(f[1:], "localhost")
	})
}

// nameHost writes the host's name to /etc/hostname and /etc/hosts below root, and returns
// the name that the machine has: another one, if the administrator has edited /etc/hostname
// since the agent wrote it.
func nameHost(root, hostname string) (string, error) {
	hosts, file := root+"/etc/hosts", root+"/etc/hostname"
	name := hostname
	_, before := updateHosts(string(etc.Read(hosts)), hostname, "")
	if before != "" {
		if kept := fileHostname(etc.Read(file)); kept != "" && kept != before {
			name = kept
		}
	}
	if name == hostname {
		if err := etc.Overwrite(file, []byte(hostname+"\n"), 0o644); err != nil {
			return "", err
		}
	}
	// The first name is ours also where the machine has another: the next start compares.
	text, _ := updateHosts(string(etc.Read(hosts)), hostname, name)
	if err := etc.Replace(hosts, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("hosts: %w", err)
	}
	return name, nil
}

// maxHostname is the longest name of a host, in bytes (gethostname(2), Linux).
const maxHostname = 64

// fileHostname returns the name in a hostname(5) file: the first line that is neither empty
// nor a comment. It is empty where that cannot be a name.
func fileHostname(b []byte) string {
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if len(line) > maxHostname || strings.ContainsAny(line, " \t\x00/") {
			return ""
		}
		return line
	}
	return ""
}
