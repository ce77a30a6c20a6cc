// Package bawn is the root of the bawn command: it runs coding agents, or any
// command, in a virtual machine of their own. There is no code here; this is the
// two-minute tour.
//
// A person types `bawn run -- make test`. The CLI (cmd/bawn) reads the flags and calls
// the engine (internal/engine), which is all that bawn does, as a Go API: another front
// end would call it as well. The engine finds or makes the sandbox of the directory
// (internal/sandbox, kept on disk by internal/sandbox/store), checks that a bawn.yaml
// there is approved (internal/project), gets what the machine boots from
// (internal/kernel, internal/image, internal/initramfs, all kept by internal/cache and
// fetched by internal/debian) and launches a supervisor (internal/supervisor and the
// packages below it), one for each sandbox. The two talk over a Unix socket
// (internal/control); commands go over another one by SSH, end to end between the
// engine (internal/session) and the guest. internal/process has the main functions of
// supervisors and of the other processes that bawn starts of its own program.
//
// The supervisor runs QEMU (internal/qemu) under Landlock and seccomp
// (internal/confine), on memory that it can save and fill (internal/memory), and a
// share server (internal/share) for each directory,
// which is a vhost-user device (internal/share/vhostuser). The guest's network card
// ends in internal/netstack, where internal/egress decides about every flow by
// the rules of internal/policy.
//
// In the guest, process 1 is the agent (cmd/bawn-guest, internal/guest; each of its
// jobs is a package below). What crosses between it and the supervisor is
// internal/wire. Everything from there is hostile.
//
// internal/sys is the base layer below all of these: leaves that know nothing of
// sandboxes, such as atomic files, locks, text that is safe for a terminal, sparse
// copies and child processes. internal/ext4 and internal/disk write file systems.
//
// internal/vmtest runs all of it in real machines. docs/architecture.md says
// more, SECURITY.md what it is good for.
package bawn
