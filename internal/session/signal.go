package session

import (
	"os"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// signals are those that SSH can carry (RFC 4254 section 6.10) and their
// numbers on Linux (signal(7)).
var signals = map[ssh.Signal]syscall.Signal{
	ssh.SIGABRT: syscall.SIGABRT,
	ssh.SIGALRM: syscall.SIGALRM,
	ssh.SIGFPE:  syscall.SIGFPE,
	ssh.SIGHUP:  syscall.SIGHUP,
	ssh.SIGILL:  syscall.SIGILL,
	ssh.SIGINT:  syscall.SIGINT,
	ssh.SIGKILL: syscall.SIGKILL,
	ssh.SIGPIPE: syscall.SIGPIPE,
	ssh.SIGQUIT: syscall.SIGQUIT,
	ssh.SIGSEGV: syscall.SIGSEGV,
	ssh.SIGTERM: syscall.SIGTERM,
	ssh.SIGUSR1: syscall.SIGUSR1,
	ssh.SIGUSR2: syscall.SIGUSR2,
	// Beyond the RFC; the agent names them likewise.
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

// Forwarded are the signals that brig passes on to a command.
var Forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
}

func signalNumber(s ssh.Signal) int {
	if n, ok := signals[s]; ok {
		return int(n)
	}
	return int(syscall.SIGKILL) // a signal without a name in SSH: dead all the same
}

// forward passes signals on until the channel is closed.
func forward(s *ssh.Session, from <-chan os.Signal) {
	for sig := range from {
		for name, n := range signals {
			if n == sig {
				_ = s.Signal(name) // the session is over if this fails
			}
		}
	}
}
