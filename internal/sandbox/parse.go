package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// ParsePort reads [HOST:]GUEST; without HOST the same number is used.
func ParsePort(s string) (Port, error) {
	host, guest, two := strings.Cut(s, ":")
	if !two {
		guest = host
	}
	h, err1 := strconv.ParseUint(host, 10, 16)
	g, err2 := strconv.ParseUint(guest, 10, 16)
	if errors.Join(err1, err2) != nil || g == 0 {
		return Port{}, fmt.Errorf("invalid port %q: write GUEST or HOST:GUEST, each 1 to 65535 (HOST 0 picks a free one)", s)
	}
	return Port{Host: uint16(h), Guest: uint16(g)}, nil
}

// ParseMount reads SRC[:DST][:ro]. The source stays as it is written; without
// DST the target is empty. A colon in a path cannot be written.
func ParseMount(s string) (Source, error) {
	parts := strings.Split(s, ":")
	var m Source
	if n := len(parts); n > 1 && (parts[n-1] == "ro" || parts[n-1] == "rw") {
		if parts[n-1] == "ro" {
			m.Mode = ReadOnly
		}
		parts = parts[:n-1]
	}
	if len(parts) > 2 || parts[0] == "" {
		return m, fmt.Errorf("mount %q: write SRC, SRC:DST or SRC:DST:ro", s)
	}
	m.Host = parts[0]
	if len(parts) == 2 {
		m.Guest = filepath.Clean(parts[1])
		if !filepath.IsAbs(m.Guest) || m.Guest == "/" {
			return m, fmt.Errorf("mount %q: the path in the guest must be absolute and below /", s)
		}
	}
	return m, nil
}
