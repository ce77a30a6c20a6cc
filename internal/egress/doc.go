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
//   - A protocol that turns to TLS in its middle (STARTTLS, PostgreSQL) is bound
//     to the name and port that were dialled; its server name is not looked at.
//
// Not let through, and sometimes missed: a client that sends ECH, also in its
// GREASE form (Chromium does unless told otherwise), TLS without a server name,
// CONNECT, and HTTP/2 by upgrade (the request goes on as HTTP/1.1).
package egress
