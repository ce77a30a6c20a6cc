// Package wire is the protocol between the supervisor on the host and the agent
// (process 1) in the guest: what crosses the two virtio-serial ports that join them.
//
// PortControl carries JSON, one message a line. The host sends a Request; the guest
// answers each with a Reply of the same ID. Requests about the machine as a whole are
// answered in the order in which they came. The others (OpMount and OpUnmount, OpMux,
// OpProcess, OpTime and OpClock, OpShutdown) may be answered before an earlier one, each group in its
// own order. The guest never sends a line that is not a Reply.
//
// PortMux carries one yamux session at a time, in which the host is the client: it opens
// each stream and writes a StreamHeader first, as one line of JSON. After that the stream
// is raw bytes (StreamSSH), a StreamReply and then raw bytes (StreamTCP), lines from
// the guest (StreamPorts), or lines of both sides (StreamWatch).
//
// A port has no notion of a connection: bytes of an earlier session may still be under way
// after a snapshot was restored or a supervisor replaced. Each mux session therefore
// begins with a nonce, which the host chooses and names in OpMux. The host writes it on
// PortMux, the guest writes it back, and each side discards what it reads until it has
// seen the nonce. On PortControl, a line that the guest cannot parse is skipped, and a
// Reply whose ID the host did not send is an error.
//
// An agent outlives the bawn that built it: it is part of templates, suspended sandboxes
// and snapshots. So names of operations and JSON keys do not change, a field that is added
// may be missing in what the other side sends, and unknown fields are ignored.
//
// Not safe: the guest is hostile. The host must treat every byte from either port as an
// attacker's. A line longer than MaxLine, a field of the wrong type and a Reply that
// nobody asked for end the port, never the supervisor.
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

// MaxLine bounds a line on PortControl and a StreamHeader, in bytes, newline included.
const MaxLine = 1 << 20

// NonceLen is the length in bytes of a mux session's nonce (MuxRequest.Nonce).
const NonceLen = 32

// Op names a request from host to guest.
type Op string

const (
	// OpHello has no body. Answered with a HelloReply as soon as the agent runs.
	OpHello Op = "hello"
	// OpPrepare carries a PrepareRequest: the guest readies what all sandboxes of a kind
	// have in common, before the machine is saved as their template. Before OpSetup only.
	OpPrepare Op = "prepare"
	// OpSetup carries a SetupRequest: the guest makes this machine a sandbox. Once per
	// boot; a second one is an error.
	OpSetup Op = "setup"
	// OpIdentify carries an Identity: the guest takes it on, in a machine that was
	// restored as a copy of one that was set up. After OpSetup only.
	OpIdentify Op = "identify"
	// OpMount carries a Mount: the guest mounts a share that the host has plugged.
	// Answered when it is mounted.
	OpMount Op = "mount"
	// OpUnmount carries a Mount: the guest unmounts the share, also while it is in use.
	// No error where it is not mounted.
	OpUnmount Op = "unmount"
	// OpLocal carries LocalDirs: the guest puts folders of its own disk over directories of a
	// share, which is mounted, and keeps them there, in place of those that the share had.
	OpLocal Op = "local"
	// OpMux carries a MuxRequest: the guest ends the mux session, if there is one, and
	// answers. Then it waits for the nonce on PortMux, echoes it, and begins a session.
	OpMux Op = "mux"
	// OpQuiesce has no body. The guest writes file systems out before a snapshot.
	OpQuiesce Op = "quiesce"
	// OpSuspend has no body. The guest freezes all processes but the agent and writes file
	// systems out: the machine is about to be saved. After an error nothing is frozen.
	OpSuspend Op = "suspend"
	// OpResume carries an Identity: the guest takes it on, as the same sandbox or as a
	// copy (another MachineID), and thaws what OpSuspend froze, also after an error.
	OpResume Op = "resume"
	// OpProcess carries a list of ProcessRequest: the guest looks for the processes that
	// use these connections. Answered with a list of ProcessReply of the same length and
	// order, without access to any file of a share.
	OpProcess Op = "process"
	// OpTime carries a time.Time, the host's clock: the guest corrects its own. It is for
	// agents that do not know OpClock.
	OpTime Op = "time"
	// OpClock carries a ClockRequest: the guest corrects its clock by a difference. Answered
	// with a ClockReply.
	OpClock Op = "clock"
	// OpShutdown has no body. Answered at once; then the guest ends all processes, writes
	// file systems out, and powers the machine off.
	OpShutdown Op = "shutdown"
)

// Request is one line from host to guest.
type Request struct {
	ID   uint64          `json:"id"` // chosen by the host, never 0, once per port
	Op   Op              `json:"op"`
	Body json.RawMessage `json:"body,omitempty"` // as the Op says
}

// Reply is one line from guest to host.
type Reply struct {
	ID    uint64          `json:"id"`              // of the Request
	Error string          `json:"error,omitempty"` // empty on success
	Body  json.RawMessage `json:"body,omitempty"`  // where the Op has an answer of its own
}

// HelloReply identifies the agent and the kernel.
type HelloReply struct {
	Version string `json:"version"` // of bawn that built the agent
	Kernel  string `json:"kernel"`  // uname -r
}

// PrepareRequest names the devices that all sandboxes of a kind have: the disks of the
// image and of the kernel's modules, by serial as in SetupRequest, and the shares.
type PrepareRequest struct {
	ImageSerial   string `json:"imageSerial"`
	ModulesSerial string `json:"modulesSerial"`
	// Tags are the tags of the shares that are plugged. The guest waits for their devices.
	Tags []string `json:"tags,omitempty"`
}

// Identity is what differs between any two sandboxes.
type Identity struct {
	Hostname  string    `json:"hostname"`
	MachineID string    `json:"machineID"` // 32 lower-case hex digits, machine-id(5)
	Seed      []byte    `json:"seed"`      // fresh random bytes from the host, credited as entropy before anything else
	Time      time.Time `json:"time"`

	HostKey        []byte   `json:"hostKey"`        // OpenSSH PEM private key of the guest's SSH server
	AuthorizedKeys []string `json:"authorizedKeys"` // authorized_keys lines

	MAC       string   `json:"mac,omitempty"`       // of the network card; empty without one
	Addresses []string `json:"addresses,omitempty"` // of the network card, in CIDR notation

	// Workdir is the working directory of shells and commands that name none. Where it is
	// empty or does not exist, they start in the user's home directory.
	Workdir string `json:"workdir,omitempty"`

	// CACert is the certificate in PEM of the authority by which the host ends TLS for hosts
	// with a secret; empty if there is none. The guest's programs shall trust it beside
	// those of Net.CACert. No template has it.
	CACert []byte `json:"caCert,omitempty"`

	// SSHAuthority is the public key, as a line of authorized_keys(5), of the authority that certifies the host keys
	// by which the host ends git over SSH; empty if it does not. The guest's ssh shall know it. No
	// template has it.
	SSHAuthority []byte `json:"sshAuthority,omitempty"`

	// Author is whose commits git makes where the guest's own settings name nobody.
	Author Author `json:"author,omitzero"`

	// Sign means that the host signs commits and tags of the guest: git shall ask it for that, by a program of
	// the agent's.
	Sign bool `json:"sign,omitempty"`
}

// Author is an identity in git (git-config(1), user.name and user.email). Each is one line;
// empty means that it is not known.
type Author struct {
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
}

// SetupRequest describes the sandbox that a booted machine becomes.
type SetupRequest struct {
	Identity
	Timezone string `json:"timezone,omitempty"` // an IANA name; empty is UTC

	User User `json:"user"`

	// Root: the read-only image below, the sandbox's own disk above.
	ImageSerial   string `json:"imageSerial"`             // virtio-blk serial of the image (ext4, read-only)
	DiskSerial    string `json:"diskSerial"`              // virtio-blk serial of the sandbox's disk (ext4, read-write)
	ModulesSerial string `json:"modulesSerial,omitempty"` // virtio-blk serial of the kernel's modules (ext4, read-only, holds lib/modules/VERSION)

	ImageEnv []string `json:"imageEnv,omitempty"` // KEY=VALUE from the OCI image's configuration

	Mounts []Mount `json:"mounts,omitempty"` // shares that are plugged already; others come by OpMount
	Net    *Net    `json:"net,omitempty"`    // nil without a network card
}

// DataFolder is the folder of the sandbox's disk whose directories the agent mounts over
// those of the same path in the guest, and which are part of an image made of the sandbox.
const DataFolder = "/data"

// User is the unprivileged user in the guest. UID 0 means that there is none beside root.
type User struct {
	Name  string `json:"name"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Group string `json:"group"`
	Home  string `json:"home"`
	// Shell is the user's shell on the host; the guest uses it where the image has it.
	Shell string `json:"shell,omitempty"`
	// Groups are the user's supplementary groups on the host.
	Groups []Group `json:"groups,omitempty"`
}

// Group is a group of the host's.
type Group struct {
	Name string `json:"name,omitempty"` // empty where it has none
	GID  uint32 `json:"gid"`
}

// Mount is one shared directory (or file), known in the guest by its virtiofs tag.
type Mount struct {
	Tag      string `json:"tag"`
	Path     string `json:"path"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// File, when set, says that the share's root directory holds one file of
	// this name, to be bind-mounted at Path.
	File string `json:"file,omitempty"`
	// Over, when set, is a directory at which the guest mounts an overlay: the share is below, a
	// folder of the guest's own disk above.
	Over string `json:"over,omitempty"`
}

// LocalDirs are directories of a share whose files are on the guest's own disk.
type LocalDirs struct {
	Share string   `json:"share"` // where it is mounted
	Dirs  []string `json:"dirs"`  // below that; made if they are missing
}

// ClockRequest says how wrong the guest's clock is, and which time zone the host is in.
type ClockRequest struct {
	// Forward is what to add to the clock, in nanoseconds; 0 only asks for the time. The
	// clock goes forward in one step, and back in one step or slowly, as the guest likes.
	Forward int64 `json:"forward,omitempty"`
	// Timezone is as in a SetupRequest; "" leaves the guest's alone.
	Timezone string `json:"timezone,omitempty"`
}

// ClockReply has the guest's time, in nanoseconds since 1970, after the request was obeyed.
type ClockReply struct {
	Now int64 `json:"now"`
}

// MuxRequest begins a mux session.
type MuxRequest struct {
	Nonce []byte `json:"nonce"` // NonceLen bytes
}

// ProcessRequest names a connection of the guest by its two ends, as the host sees them.
type ProcessRequest struct {
	Proto string         `json:"proto"` // "tcp", "udp"
	Src   netip.AddrPort `json:"src"`   // the guest's end
	Dst   netip.AddrPort `json:"dst"`
}

// ProcessReply is the process that uses a connection. PID 0 means that none was found.
type ProcessReply struct {
	PID  int    `json:"pid,omitempty"`  // in the agent's PID namespace
	Name string `json:"name,omitempty"` // proc_pid_comm(5)
}

// Net configures the one network card; its addresses are in Identity.
type Net struct {
	MTU      int      `json:"mtu"`      // bytes; 0 leaves the card's own
	Gateways []string `json:"gateways"` // addresses, one for each IP version
	DNS      []string `json:"dns"`      // addresses of name servers
	// CACert holds certificates in PEM that the guest's programs shall trust; may be empty.
	CACert []byte `json:"caCert,omitempty"`
}

// StreamKind is the purpose of a mux stream.
type StreamKind string

const (
	// StreamSSH is a connection to the agent's SSH server.
	StreamSSH StreamKind = "ssh"
	// StreamTCP is a connection to a TCP port on the guest's loopback (published ports).
	// The guest sends one line, a StreamReply, before the raw bytes.
	StreamTCP StreamKind = "tcp"
	// StreamPorts asks which ports of a list can be connected on the guest's loopback. The
	// guest sends a PortsReply at once and at each change, one a line, until the host
	// closes the stream. An agent that does not know it closes it without a line.
	StreamPorts StreamKind = "ports"
	// StreamWatch makes watchers in the guest see changes of the host in the shares of the header's
	// Mounts. The guest sends a WatchReply at once, at each change of what is watched, and
	// after each WatchBatch, which the host sends. One a line, until the host closes the stream.
	// An agent that does not know it closes it without a line.
	StreamWatch StreamKind = "watch"
)

// StreamHeader is the first line on a stream, from the host.
type StreamHeader struct {
	Kind StreamKind `json:"kind"`
	Port uint16     `json:"port,omitempty"` // StreamTCP

	Ports  []uint16 `json:"ports,omitempty"`  // StreamPorts
	Mounts []Mount  `json:"mounts,omitempty"` // StreamWatch
	// Umask is the file mode creation mask (umask(2)) of commands that ask for none (StreamSSH). Nil
	// leaves the agent's; agents of older builds ignore it.
	Umask *uint32 `json:"umask,omitempty"`
}

// PortsReply is a line from the guest on a StreamPorts stream.
type PortsReply struct {
	Open []uint16 `json:"open"` // of the ports that the host asked for
}

// StreamReply is the guest's line on a StreamTCP stream. The stream ends after an error.
type StreamReply struct {
	Error string `json:"error,omitempty"` // empty when the port was connected
}
