package vm

import (
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxTimezone bounds the name of a time zone, in bytes.
const maxTimezone = 256

// HostTimezone returns the host's time zone as an IANA name, "" if it is not known. The
// variable TZ counts first, as for every program of the host.
func HostTimezone() string { return timezone(os.Getenv("TZ"), "/etc") }

// timezone is HostTimezone with the value of TZ and the folder with the files localtime
// (localtime(5)) and timezone.
func timezone(tz, etc string) string {
	if name := zoneName(tz); name != "" {
		return name
	}
	if target, err := filepath.EvalSymlinks(etc + "/localtime"); err == nil && strings.Contains(target, "/zoneinfo/") {
		if name := zoneName(target); name != "" {
			return name
		}
	}
	f, err := os.Open(etc + "/timezone")
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 2*maxTimezone)) // what was read counts
	first, _, _ := strings.Cut(string(b), "\n")
	return zoneName(strings.TrimSpace(first))
}

// zoneName returns the IANA name in a value of TZ (tzset(3)): a name or the path of a zone's
// file, with or without a colon before it. Of a rule, such as <+03>-3, it returns "".
func zoneName(tz string) string {
	tz = strings.TrimPrefix(tz, ":")
	if _, name, ok := strings.Cut(tz, "/zoneinfo/"); ok {
		tz = name
	}
	if len(tz) > maxTimezone || !filepath.IsLocal(tz) || filepath.Clean(tz) != tz || tz == "." {
		return ""
	}
	for _, r := range tz {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("/_+-", r):
		default:
			return ""
		}
	}
	return tz
}
