// Package bawn is the root of the bawn command: it runs coding agents, or any command, in a
// virtual machine of their own. There is no code here; this is the two-minute tour.
//
// A person types `bawn run -- make test`. The CLI (cmd/bawn) reads the flags and calls the
// engine (internal/engine), which is the whole application as a Go API: other front ends
// would call it as well. The engine finds or makes the sandbox of the directory
// (internal/sandbox, kept on disk by internal/sandbox/store) and checks that a bawn.yaml
// there is approved (internal/project). It gets what the machine boots from
// (internal/kernel, internal/image, internal/initramfs, all kept by internal/cache and
// fetched by internal/debian). Then it claims a machine of the warm pool
// (internal/supervisor/pool) or launches a supervisor (internal/supervisor/launch).
//
// Each sandbox has a supervisor (internal/supervisor and the packages below it). The engine
// talks to it over a Unix socket (internal/control). Commands go over another socket by SSH,
// end to end between the engine (internal/session) and the guest. internal/process has the
// main functions of supervisors and of the other processes that bawn starts of its own
// program.
//
// The supervisor runs QEMU (internal/qemu) under Landlock and seccomp (internal/confine), on
// memory that bawn can save and restore (internal/memory). For each directory it runs a
// share server (internal/share), which is a vhost-user device (internal/share/vhostuser).
// The guest's network card ends in internal/netstack; internal/egress decides about every
// flow by the rules of internal/policy.
//
// In the guest, process 1 is the agent (cmd/bawn-guest, internal/guest; each of its jobs is
// a package below). internal/wire is the protocol between it and the supervisor. Everything
// that comes from the guest is hostile.
//
// A machine can be saved: as a template, from which new sandboxes start (internal/template,
// built by internal/supervisor/templatebuild), or as one sandbox at one point in time
// (internal/snapshot). internal/transfer and internal/workcopy copy files for `bawn cp` and
// `bawn fork`.
//
// internal/sys is the base layer below all of these: leaves that know nothing of sandboxes,
// such as atomic files, locks, text that is safe for a terminal, sparse copies and child
// processes. internal/ext4 and internal/disk write file systems.
//
// internal/vmtest tests all of it in real machines. docs/architecture.md has the table of
// packages and the way of a start through the code, SECURITY.md the promises and the test
// of each.
package bawn
