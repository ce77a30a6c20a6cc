package policy

import (
	"slices"
	"strings"
)

// Names of services, as _ldap._tcp.example.org (RFC 2782), below the name of a host or
// domain: they have records and no address.

const (
	// maxService bounds a label of a service without its underscore (RFC 6335, section 5.1).
	maxService = 15
	// maxServiceLabels is how many labels are before the name, as in
	// _ldap._tcp.dc._msdcs.example.org.
	maxServiceLabels = 4
)

// IsService reports whether a name is that of a service of a name that Resolves: a rule
// for a name is one for its services. A rule that denies the service itself wins.
func (s *Set) IsService(name string) bool {
	base, ok := serviceOf(name)
	if !ok || base == HostName || !s.Resolves(base) {
		return false
	}
	_, denied := s.protos(name)
	return !denied[TCP] && !denied[UDP]
}

// serviceOf returns the name of which another one names a service. Its labels have an
// underscore and are short, so that they carry little; others are those by which an
// Active Directory names its servers ([MS-ADTS], section 6.3.2.3).
func serviceOf(name string) (base string, ok bool) {
	labels := strings.Split(name, ".")
	n := 0
	for n < len(labels) && (isServiceLabel(labels[n]) || isDirectoryLabel(labels[n:])) {
		n++
	}
	if n == 0 || n > maxServiceLabels || n == len(labels) {
		return "", false
	}
	return strings.Join(labels[n:], "."), true
}

func isServiceLabel(l string) bool {
	rest, ok := strings.CutPrefix(l, "_")
	return ok && len(rest) <= maxService && isLabel(rest)
}

// isDirectoryLabel reports whether labels begin with the kind of a server of an Active
// Directory.
func isDirectoryLabel(labels []string) bool {
	return len(labels) > 1 && labels[1] == "_msdcs" && slices.Contains([]string{"dc", "gc", "pdc"}, labels[0])
}
