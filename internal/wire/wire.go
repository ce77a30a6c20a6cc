// Package wire is what crosses the virtio-serial ports between the supervisor
// on the host and the agent (PID 1) in the guest.
//
// Two ports exist. PortControl carries JSON, one message a line: the host asks
// (Request), the guest answers (Reply), in order. PortMux carries one yamux
// session at a time; the host opens each stream and writes a one-line JSON
// StreamHeader first, after which the stream is raw bytes.
//
// A port has no notion of a connection: bytes of an earlier session may still
// be under way after a snapshot was restored or a supervisor replaced. Each mux
// session therefore begins with a nonce that the host chose and named in
// OpMux: each side throws away what it reads until it has seen the nonce.
//
// Not safe: the guest is hostile. The host must treat every byte from either
// port as an attacker's: lines longer than MaxLine, unknown fields of the wrong
// type and unasked replies end the port, never the supervisor.
package wire

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Names of the virtio-serial ports, seen in the guest as
// /dev/virtio-ports/NAME (or by /sys/class/virtio-ports/*/name).
const (
	PortControl = "dev.bawn.control"
	PortMux     = "dev.bawn.mux"
)

// MaxLine bounds a line on PortControl and a StreamHeader, in bytes.
const MaxLine = 1 << 20

// NonceLen is the length in bytes of a mux session's nonce (MuxRequest.Nonce).
const NonceLen = 32

// Op names a request from host to guest.
type Op string

const (
	// OpHello asks for HelloReply; the agent answers as soon as it runs.
	OpHello Op = "hello"
	// OpPrepare carries PrepareRequest: ready what every sandbox of a kind has
	// in common, before the machine is saved as their template.
	OpPrepare Op = "prepare"
	// OpSetup carries SetupRequest: make a sandbox of this VM. Once per boot.
	OpSetup Op = "setup"
	// OpIdentify carries Identity: who this VM is from now on, after it was
	// restored as a copy of one that was set up.
	OpIdentify Op = "identify"
	// OpMount carries Mount: mount one virtiofs share that the host plugged.
	// Answered when mounted.
	OpMount Op = "mount"
	// OpUnmount carries Mount: let go of a share.
	OpUnmount Op = "unmount"
	// OpMux carries MuxRequest: drop the mux session, if any, and start anew.
	// The guest answers, then reads the nonce from PortMux and echoes it.
	OpMux Op = "mux"
	// OpQuiesce flushes file systems before a snapshot.
	OpQuiesce Op = "quiesce"
	// OpSuspend holds everything in the guest but the agent, and flushes file
	// systems: the machine is about to be saved.
	OpSuspend Op = "suspend"
	// OpResume carries Identity: the machine goes on, as the same sandbox or as a
	// copy of it. What OpSuspend held goes on when it is who it shall be.
	OpResume Op = "resume"
	// OpProcess carries a list of ProcessRequest: whose are these connections.
	// Answered with a ProcessReply for each, out of turn and without touching a
	// mounted file.
	OpProcess Op = "process"
	// OpTime carries a time.Time: what the host's clock says.
	OpTime Op = "time"
	// OpShutdown ends all processes, unmounts, powers off. Answered at once.
	OpShutdown Op = "shutdown"
)

// Request is one line from host to guest.
type Request struct {
	ID   uint64          `json:"id"`
	Op   Op              `json:"op"`
	Body json.RawMessage `json:"body,omitempty"`
}

// Reply is one line from guest to host, with the ID of its Request.
// Error is empty on success.
type Reply struct {
	ID    uint64          `json:"id"`
	Error string          `json:"error,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// HelloReply says which agent answers.
type HelloReply struct {
	Version string `json:"version"` // of bawn that built the agent
	Kernel  string `json:"kernel"`  // uname -r
}

// PrepareRequest names the disks that all sandboxes of a kind have: the image
// and the kernel's modules, by serial as in SetupRequest.
type PrepareRequest struct {
	ImageSerial   string `json:"imageSerial"`
	ModulesSerial string `json:"modulesSerial"`
	// Tags are those of the shares that are plugged.
	Tags []string `json:"tags,omitempty"`
}

// Identity is what no two sandboxes have in common.
type Identity struct {
	Hostname  string    `json:"hostname"`
	MachineID string    `json:"machineID"` // 32 lower-case hex digits, machine-id(5)
	Seed      []byte    `json:"seed"`      // fresh random bytes from the host, credited as entropy before anything else
	Time      time.Time `json:"time"`

	HostKey        []byte   `json:"hostKey"`        // OpenSSH PEM private key of the guest's SSH server
	AuthorizedKeys []string `json:"authorizedKeys"` // authorized_keys lines

	MAC       string   `json:"mac,omitempty"`       // of the network card; empty without one
	Addresses []string `json:"addresses,omitempty"` // of the network card, in CIDR notation

	// Workdir is where shells and commands start that name no place; empty is
	// the home directory. It is used only where it exists.
	Workdir string `json:"workdir,omitempty"`
}

// SetupRequest makes a sandbox of the booted VM.
type SetupRequest struct {
	Identity
	Timezone string `json:"timezone,omitempty"` // an IANA name; empty is UTC

	User User `json:"user"`

	// Root: the read-only image below, the sandbox's own disk above.
	ImageSerial   string `json:"imageSerial"`             // virtio-blk serial of the image (ext4, read-only)
	DiskSerial    string `json:"diskSerial"`              // virtio-blk serial of the sandbox's disk (ext4, read-write)
	ModulesSerial string `json:"modulesSerial,omitempty"` // virtio-blk serial of the kernel's modules (ext4, read-only, holds lib/modules/VERSION)

	ImageEnv []string `json:"imageEnv,omitempty"` // KEY=VALUE from the OCI image's configuration

	Mounts []Mount `json:"mounts,omitempty"` // those already plugged; others come by OpMount
	Net    *Net    `json:"net,omitempty"`
}

// User is the unprivileged user inside.
type User struct {
	Name  string `json:"name"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Group string `json:"group"`
	Home  string `json:"home"`
}

// Mount is one shared directory (or file), known in the guest by its virtiofs tag.
type Mount struct {
	Tag      string `json:"tag"`
	Path     string `json:"path"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// File, when set, says that the share's root directory holds one file of
	// this name, to be bind-mounted at Path.
	File string `json:"file,omitempty"`
}

// MuxRequest begins a mux session.
type MuxRequest struct {
	Nonce []byte `json:"nonce"` // NonceLen bytes
}

// ProcessRequest names a connection or association of the guest by its ends, as
// the host sees them.
type ProcessRequest struct {
	Proto string         `json:"proto"` // "tcp", "udp"
	Src   netip.AddrPort `json:"src"`   // the guest's end
	Dst   netip.AddrPort `json:"dst"`
}

// ProcessReply says whose it is; PID 0 is not known.
type ProcessReply struct {
	PID  int    `json:"pid,omitempty"`  // of the agent's own namespace
	Name string `json:"name,omitempty"` // proc_pid_comm(5)
}

// Net configures the one network card; its addresses are in Identity.
type Net struct {
	MTU      int      `json:"mtu"`
	Gateways []string `json:"gateways"`
	DNS      []string `json:"dns"`
	// CACert, PEM, is added to the guest's trust store where not empty.
	CACert []byte `json:"caCert,omitempty"`
}

// StreamKind names what a mux stream is for.
type StreamKind string

const (
	// StreamSSH reaches the agent's SSH server.
	StreamSSH StreamKind = "ssh"
	// StreamTCP reaches a TCP port on the guest's loopback (published ports).
	// The guest answers one line, a StreamReply, before the raw bytes.
	StreamTCP StreamKind = "tcp"
)

// StreamHeader is the first line that the host writes on a stream.
type StreamHeader struct {
	Kind StreamKind `json:"kind"`
	Port uint16     `json:"port,omitempty"` // StreamTCP
}

// StreamReply is the guest's line on a StreamTCP stream. Error is empty when
// the connection stands.
type StreamReply struct {
	Error string `json:"error,omitempty"`
}
