// Package gitssh ends a guest's connections of git over SSH, and makes sessions on the real server in
// place of those that are allowed. It decides nothing: the caller judges each command and each push.
package gitssh

// Theory of operation.
//
// A connection has three parts that the guest can speak to: x/crypto/ssh, which does the exchange of keys and
// the channels; the requests of a session (connection.go), of which one command is taken and GIT_PROTOCOL; and
// the input of the command (relay.go). Nobody is authenticated: whoever reaches the gateway is the guest.
//
// A command is taken apart (command.go) and judged before the real server is dialled. The session there is
// a new one, with the command written anew and the login of the person (Login), and the keys and agents
// for it are never named to the guest. Of a push, the list of refs is judged before a byte of it is sent
// on. No request of the guest's is passed on, no channel but sessions is opened, and none of the server's.
//
// What is refused ends with a message on the session's error stream, which git shows, and status 128, as
// git itself ends.
