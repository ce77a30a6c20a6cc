package guest

import "syscall"

// signals are those that have a name in SSH (RFC 4254 section 6.10), and some
// beyond it that bawn's own command line knows too.
var signals = map[string]syscall.Signal{
	"ABRT": syscall.SIGABRT,
	"ALRM": syscall.SIGALRM,
	"FPE":  syscall.SIGFPE,
	"HUP":  syscall.SIGHUP,
	"ILL":  syscall.SIGILL,
	"INT":  syscall.SIGINT,
	"KILL": syscall.SIGKILL,
	"PIPE": syscall.SIGPIPE,
	"QUIT": syscall.SIGQUIT,
	"SEGV": syscall.SIGSEGV,
	"TERM": syscall.SIGTERM,
	"USR1": syscall.SIGUSR1,
	"USR2": syscall.SIGUSR2,

	"BUS":   syscall.SIGBUS,
	"TRAP":  syscall.SIGTRAP,
	"SYS":   syscall.SIGSYS,
	"XCPU":  syscall.SIGXCPU,
	"XFSZ":  syscall.SIGXFSZ,
	"STOP":  syscall.SIGSTOP,
	"TSTP":  syscall.SIGTSTP,
	"CONT":  syscall.SIGCONT,
	"WINCH": syscall.SIGWINCH,
}

// signalName is the inverse of signals; empty for a signal without a name.
func signalName(sig syscall.Signal) string {
	for name, s := range signals {
		if s == sig {
			return name
		}
	}
	return ""
}
