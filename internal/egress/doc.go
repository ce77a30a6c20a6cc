// Package egress decides on every flow that leaves the guest. Package netstack
// hands it connections and datagrams by address; egress finds the name behind a
// synthetic address, asks package policy, inspects the first bytes (TLS, HTTP),
// resolves and dials on the host, relays, and writes the audit log.
//
// # Theory of operation
//
// Words: a flow is one connection or UDP association of the guest. Its target is a
// policy.Flow, and what is decided about it a policy.Decision. A synthetic address
// stands for a name in the guest. The reserved ranges are addresses that no name may
// lead to.
//
// Order of a TCP connection:
//
//	guest SYN (tcp.go) -> name of the synthetic address, limits (admit.go)
//	  -> policy -> first bytes (sniff.go, tls.go, http.go, http2.go)
//	  -> resolve on the host (dial.go) -> reserved ranges (reserved.go)
//	  -> dial that very address -> relay (relay.go)
//
// SetPolicy judges all open flows again, and cuts those that are forbidden now.
//
// Denials are quick and distinct: NXDOMAIN, a TCP reset, an ICMP error, a TLS
// alert, or an HTTP 403 that names the missing rule. Each is logged (package audit)
// and kept for the page that the agent in the guest reads (denials.go, info.go).
//
// The parsers of hostile bytes are packages of their own, pure and fuzzed:
// nameserver, tlshello, httpwire.
//
// # Limits of the inspection
//
// Known gaps:
//   - Inside TLS nothing is seen, but for hosts with a secret (inspected.go): after the
//     server name was checked, a shared front end may serve another name of its own on
//     that connection.
//   - A rule marked raw lets any bytes through to the named host and port.
//   - UDP is bound to a name and a port, not to its contents.
//   - A protocol that turns to TLS in its middle (STARTTLS, PostgreSQL) may do so
//     without a server name; one that it sends must be the name that was dialled.
//   - After an upgrade (HTTP 101) nothing is inspected.
//
// Not let through, and sometimes missed: a client that sends ECH, also in its
// GREASE form (Chromium does by default), TLS without a server name, CONNECT, and
// HTTP/2 by upgrade (the request continues as HTTP/1.1).
package egress
