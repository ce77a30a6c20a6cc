package sshd

import (
	"syscall"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/wire"
)

// ending is the request that reports a command's end (RFC 4254, section 6.10).
type ending struct {
	kind    string
	payload []byte
}

func exitStatus(n uint32) ending {
	return ending{"exit-status", ssh.Marshal(struct{ Status uint32 }{n})}
}

// endOf returns the request for a wait status. A signal without a name in SSH is reported
// as status 128+n, as shells do.
func endOf(st syscall.WaitStatus) ending {
	if !st.Signaled() {
		return exitStatus(uint32(st.ExitStatus()))
	}
	name := wire.SignalName(st.Signal())
	if name == "" {
		return exitStatus(128 + uint32(st.Signal()))
	}
	return ending{"exit-signal", ssh.Marshal(struct {
		Signal     string
		CoreDumped bool
		Message    string
		Language   string
	}{name, st.CoreDump(), st.Signal().String(), ""})}
}
