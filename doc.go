// Package bawn is the root of the bawn command: it runs coding agents, or any
// command, in a virtual machine of their own. There is no code here; this is the
// two-minute tour.
//
// A person types `bawn run -- make test`. The CLI (cmd/bawn) finds or makes the
// sandbox of the directory (internal/sandbox), asks about a bawn.yaml there
// (internal/project), sees to what the machine boots from (internal/kernel,
// internal/image, internal/initramfs, all kept by internal/cache and fetched by
// internal/debian) and starts a supervisor (internal/supervisor), one for each
// sandbox. The two talk over a Unix socket (internal/control); commands go over
// another one by SSH, end to end between the CLI (internal/session) and the guest.
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
