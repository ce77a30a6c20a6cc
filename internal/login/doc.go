// Package login keeps the logins of agents (OAuth tokens) on the host, and makes the exchange of a
// token endpoint's requests and answers: real tokens on the server's side, placeholders on the guest's.
//
// # Theory of operation
//
// An agent's Definition says where its tokens come from (endpoints) and where its access token goes (API
// hosts). A login is kept once for each user and agent, for all sandboxes with that agent:
//
//   - its entry in the index (logins.json in the configuration folder) has no token;
//   - its tokens are kept as the values of secrets are (package secret);
//   - its placeholders are derived from the entry's ID (placeholder.go). They stay the same when a token
//     changes, also over a logout and a new login, because the agent's home, where it writes them, goes
//     from sandbox to sandbox.
//
// The gateway (package inspect) ends TLS to the endpoints, and passes each request for a token through
// an Exchange: Begin replaces placeholders by tokens, Done keeps the tokens of the answer and
// replaces them by placeholders. One exchange of a login runs at a time, over all sandboxes (a
// file lock). A refresh that waited while another one succeeded gets that one's answer, since the token
// that it would send is used up.
//
// Whose login. A stranger's login could carry data out on the API hosts. So a new one is taken only in two
// cases: the person asked for it (Store.Open, for one sandbox and a time), or no login is kept and
// no secret or other login is for an API host, so that these hosts did not refuse other accounts before.
//
// A login may also be the one that the agent has on the host itself (hostfile.go). Its file is only
// read; the guest's refresh is answered with the tokens that are in it.
package login
