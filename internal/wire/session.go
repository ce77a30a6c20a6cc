package wire

// Input is a kind of standard input.
type Input string

// The kinds of standard input.
const (
	InputPipe    Input = ""        // a pipe
	InputNone    Input = "none"    // /dev/null
	InputCounted Input = "counted" // a pipe; RequestConsumed reports what is read from it
	// InputFile is a file with the bytes of the InputParts that the agent has accepted. At the
	// command's end RequestConsumed reports the position in it.
	InputFile Input = "file"

	// What the host cannot read gives the same errors in the guest. To agents of older builds these
	// are pipes.
	InputDirectory Input = "directory" // a directory: EISDIR
	InputWriteOnly Input = "writeonly" // not open for reading: EBADF
)

// InputExact is the number of bytes of standard input up to which RequestConsumed follows
// each read. Beyond it there is one more RequestConsumed, when the command ends.
const InputExact = 256 << 10

// SSHVersion identifies an agent that knows the requests below. Earlier ones call
// themselves SSH-2.0-bawn.
const SSHVersion = "SSH-2.0-bawn_2"

// Requests on a session channel beside those of RFC 4254, without a reply where none is named.
const (
	// RequestExecPart carries an ExecPart, from the host. An SSH packet is smaller than an
	// argument list may be; so the parts of a long command string precede the exec request.
	RequestExecPart = "exec-part@bawn.dev"
	// RequestInputPart carries an InputPart, from the host, before the exec request. The first
	// one has a reply: agents of older builds refuse it.
	RequestInputPart = "input-part@bawn.dev"
	// RequestConsumed carries a Consumed, from the guest.
	RequestConsumed = "input-consumed@bawn.dev"
	// RequestStopped carries a Stopped, from the guest.
	RequestStopped = "stopped@bawn.dev"
)

// ExecPart is a piece of a command string. The string is all parts and the exec request's.
type ExecPart struct{ Part string }

// InputPart is a piece of an InputFile.
type InputPart struct{ Data string }

// Consumed is what the guest's processes have read of the standard input.
type Consumed struct {
	Bytes uint64 // since the command's start
	// Unread means that no process has the standard input open any more.
	Unread bool
}

// Stopped means that a signal has stopped the command. The host sends CONT to continue it.
type Stopped struct{ Signal string } // a name of SignalByName

// Bounds on command strings and input files, in bytes.
const (
	MaxExecPart = 128 << 10 // of one part
	// MaxExec is the longest string. Linux accepts at most 6 MiB of arguments and
	// environment (execve(2)), which the encoding makes twice as long.
	MaxExec = 32 << 20

	MaxInputPart = 64 << 10 // of one part
	// MaxInputFile is the longest InputFile. The command starts when all of it is there, and it
	// takes the guest's memory while a process has it open.
	MaxInputFile = 4 << 20
)

// SplitExec cuts a command string into parts of at most MaxExecPart bytes. There is
// always a last one, which belongs in the exec request.
func SplitExec(s string) (parts []string, last string) {
	for len(s) > MaxExecPart {
		parts, s = append(parts, s[:MaxExecPart]), s[MaxExecPart:]
	}
	return parts, s
}
