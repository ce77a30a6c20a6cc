// Package sigv4 finds the signature of AWS (Signature Version 4) in a request, takes it off, and signs the
// request anew with other keys.
//
// # Theory of operation
//
// A client signs with an access key: its ID is in the request, its secret part is not. So a gateway cannot
// put the real key in the place of a placeholder, as it does with a token; it signs what is sent on with the
// real one. Find reads which key signed the request, for which region and service, in the header
// Authorization or in the query (a presigned URL). Strip takes the signature off. Sign signs, in the same
// place, with the time of this host.
//
// What is signed: the host, Content-Type, Content-Md5, each header X-Amz-…, and the headers that the client
// signed, but for those that a proxy changes. The hash of the body is the one that the client claims, or
// what the caller computed from the body.
//
// A body in the format aws-chunked (Body) has a signature in each of its chunks, each over the one before, or
// none and a checksum behind the last. Body reads the chunks, shows their contents to the caller, and signs them anew.
//
// SigV4a (AWS4-ECDSA-P256-SHA256) and event streams that are signed message by message are not signed: Find and Check
// return an error that says what to set in the client.
package sigv4
