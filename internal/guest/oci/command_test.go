package oci

import (
	"strings"
	"testing"
)

// TestParse: the arguments that containerd's shim, BuildKit and dockerd give.
func TestParse(t *testing.T) {
	for args, want := range map[string]command{
		"--root /run/docker/r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p abc": {"create", "/run/docker/r", "/b", "", "abc"},
		"--log=/l run --bundle /b --keep xyz":                                       {"run", "/run/runc", "/b", "", "xyz"},
		"--root=/r --log /l --log-format json exec --process /f --detach -p /g abc": {"exec", "/r", ".", "/g", "abc"},
		"--root create state create":                                                {"state", "create", ".", "", "create"},
		"--root /r delete --force abc":                                              {"delete", "/r", ".", "", "abc"},
		"--version":                                                                 {"", "/run/runc", ".", "", ""},
		"":                                                                          {"", "/run/runc", ".", "", ""},
	} {
		if got := parse(strings.Fields(args)); got != want {
			t.Errorf("%q: %+v", args, got)
		}
	}
}
