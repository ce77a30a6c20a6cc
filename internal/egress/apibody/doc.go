// Package apibody judges bodies of requests to the APIs of code hosts, where method and path do not say
// what a request does: queries of GraphQL about repositories of GitHub and mutations of what is in them (GraphQL),
// queries of GraphQL about projects of GitLab (GitLabGraphQL), and what is written about issues and merge requests of GitLab (GitLab).
//
// Theory of operation. A body that is judged is worth what its reading here is worth: if the server reads it
// in another way, something else happens than what was judged. So whatever could be read in two ways is
// refused, rather than understood: JSON with a name twice, or that is not UTF-8, with a character that has no
// UTF-8, with fields that are not known; texts of GraphQL with escapes, block strings, quotes in comments, or characters beyond
// ASCII. What passes is sent on byte by byte as it came.
//
// What may be asked is a list, too: of fields, with their arguments and the types that they lead to
// (github.graphql, gitlab.graphql, and shared.graphql for both), so that what a server adds later is refused. In which repository a node of GitHub is, the server is asked
// (node.go); of GitLab, no query names a node.
//
// Everything here is pure, bounded by MaxBody and by maxTokens, maxFields, maxDepth and maxNodes, and may run
// concurrently, but for the methods of one Asked.
package apibody

// MaxBody bounds a body that is judged, in bytes.
const MaxBody = 64 << 10
