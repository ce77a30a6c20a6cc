package control

import (
	"time"

	"bawn.dev/bawn/internal/tokens"
)

// Usage is what a sandbox takes of the host: its supervisor, its machine and the servers of its
// shares together. The counters begin when the sandbox is started or resumed, and may fall when a
// share's server is replaced.
type Usage struct {
	Time        time.Time     `json:"time"`  // of the measurement
	CPU         time.Duration `json:"cpuNs"` // processor time so far, of all processors
	Memory      int64         `json:"memory"`
	DiskRead    int64         `json:"diskRead"` // bytes that were read from the host's disks, not from its cache
	DiskWritten int64         `json:"diskWritten"`
	NetSent     int64         `json:"netSent"` // bytes from the guest to hosts that it may reach
	NetReceived int64         `json:"netReceived"`
	// Tokens is what the answers of language models said that their requests took, by host, where
	// bawn inspects the requests. It is no bill.
	Tokens []tokens.Total `json:"tokens,omitempty"`
}
