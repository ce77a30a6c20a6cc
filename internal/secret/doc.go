// Package secret keeps the person's secrets (API keys, tokens) on the host, with the hosts
// that each is for and the place in a request where it belongs.
//
// # Theory of operation
//
// A secret has three parts, which are kept apart:
//
//   - its entry in the index (secrets.json in the configuration folder): name, hosts, place,
//     the project directory that it is for, and how the value is found. No value is in it.
//   - its value: in the desktop's keyring (Secret Service) where there is one, else in a file
//     of mode 0600 below secrets/ in the configuration folder, else the output of a command,
//     which runs when the value is needed (value.go).
//   - its placeholder: what the guest has in $NAME instead. It has the form of the kind of
//     secret, so that clients that check a prefix or a length accept it, and is derived from
//     a key of the host, the sandbox's ID and the entry (placeholder.go): another one in each
//     sandbox and fork, the same at each start of one.
//
// The gateway of a sandbox reads the entries by Bindings, which notices each change of the
// index. An index that cannot be read is an error, never an empty list: the hosts of secrets
// are reached through the gateway's inspection only.
//
// Neither folder is in any share (store.CheckShare).
package secret
