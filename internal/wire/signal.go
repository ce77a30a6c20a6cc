package wire

import "syscall"

// signals are the signals that have a name on an SSH channel: those of RFC 4254,
// section 6.10, and some beyond it, which only bawn's own two sides use. The numbers
// are Linux's (signal(7)).
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

// SignalByName returns the signal that a name stands for on an SSH channel; ok is
// false for a name that is not in the table.
func SignalByName(name string) (sig syscall.Signal, ok bool) {
	sig, ok = signals[name]
	return sig, ok
}

// SignalName is the inverse of SignalByName: "" for a signal without a name.
func SignalName(sig syscall.Signal) string {
	for name, s := range signals {
		if s == sig {
			return name
		}
	}
	return ""
}
