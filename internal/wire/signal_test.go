package wire

import (
	"syscall"
	"testing"
)

func TestSignalNames(t *testing.T) {
	for name, sig := range signals {
		got, ok := SignalByName(name)
		if !ok || got != sig || SignalName(sig) != name {
			t.Errorf("%s: %v, %v, and back %q", name, got, ok, SignalName(sig))
		}
	}
	if sig, ok := SignalByName("SIGTERM"); ok {
		t.Errorf("a name with SIG is %v", sig)
	}
	if SignalName(syscall.SIGTERM) != "TERM" || SignalName(syscall.Signal(40)) != "" {
		t.Error("names of signals")
	}
}
