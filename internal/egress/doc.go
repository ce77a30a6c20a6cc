// Package egress decides on every flow that leaves the guest. Package netstack
// hands it connections and datagrams by address; egress finds the name behind a
// synthetic address, asks package policy, looks at the first bytes (TLS, HTTP),
// resolves and dials on the host, relays, and writes the audit log.
//
// Order of a TCP connection (tcp.go):
//
//	guest SYN -> name of the synthetic address -> policy -> first bytes
//	  -> resolve on the host -> floor (floor.go) -> dial that very address -> relay
//
// Denials are quick and distinct: NXDOMAIN, a TCP reset, an ICMP error, a TLS
// alert, or an HTTP 403 that says which rule was missing.
//
// Not safe, and known:
//   - Inside TLS nothing is seen: after the server name was checked, a shared
//     front end may serve another name of its own on that connection.
//   - A rule marked raw lets any bytes through to the named host and port.
//   - UDP is bound to a name and a port, not to its contents.
package egress
