// Package inspect ends TLS on the host for the hosts that have a secret (package secret),
// puts the secret in place of its placeholder, and speaks to the real server anew.
//
// # Theory of operation
//
// The gateway (package egress) judges a connection as any other, reads its ClientHello, and
// asks Wants. If the answer is yes it calls Serve, with a function that dials the server
// under the same rules and address checks. Serve, for one connection:
//
//	ClientHello -> dial the server, TLS handshake with it (upstream.go): verified by the
//	  host's roots and the name, offering the protocols that the client offers
//	  -> handshake with the client: a certificate for that very name (ca.go), and the
//	  protocol that the server chose
//	  -> net/http serves the client, httputil.ReverseProxy passes requests on (serve.go)
//
// Each request is judged whole (request.go) before its head is sent on:
//
//   - it is for the name and port of the connection;
//   - a placeholder in the place that its secret is for is replaced by the value
//     (credential.go); one anywhere else, in whatever encoding, is a refusal, but for one of a
//     secret of this host as text in a body that is no form;
//   - other credentials are refused (foreign.go, formbody.go), so that nobody else's account on the
//     host can be used to carry data out. They pass if a secret of the host allows them, or if the
//     host has no secret and is inspected for rules about requests only.
//
// The body is judged as it passes (requestbody.go): the last byte of a placeholder that is
// refused does not leave. In answers each copy of a value that was sent to the host is replaced by the
// placeholder (answer.go, replace.go), in headers, body and trailers, whatever the content
// coding and the escapes (forms.go, pattern.go); an answer in a coding that bawn cannot read is
// refused. hold.go says what is held of an answer that streams.
//
// Answers of language models say how many tokens they took: package tokens reads that as they pass
// (tokens.go).
//
// Bodies stream both ways and are never held as a whole, but for one into which a secret is
// put.
//
// # Limits
//
// What a server makes of a value (its parts, another encoding than those in forms.go, a
// message of WebSocket that is split) is not recognised. After an upgrade to
// WebSocket what the client sends is not looked into; it has no values to send.
package inspect
