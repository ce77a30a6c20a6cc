package confine

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_AARCH64
	x32Bit    = 0 // none
)

// arm64 has the newer forms only.
var oldAttributes []refusal
