package main

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// maxInit bounds what the initialisation of one of our packages allocates, in bytes: 512 KiB are half a millisecond on
// the machines of CONTRIBUTING.md. Each command of bawn, each supervisor and each share server pays for all of them.
const maxInit = 512 << 10

// TestInitialisationIsSmall reads what the Go runtime tells of the initialisation of packages (GODEBUG=inittrace=1). What
// takes more is made at its first use.
func TestInitialisationIsSmall(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, "-test.run=^$")
	c.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	line := regexp.MustCompile(`^init (bawn\.dev/bawn/\S+) @.* clock, (\d+) bytes, `)
	packages := 0
	for text := range strings.Lines(string(out)) {
		m := line.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		packages++
		if n, err := strconv.Atoi(m[2]); err != nil || n > maxInit {
			t.Errorf("package %s allocates %s bytes, more than %d: %v", m[1], m[2], maxInit, err)
		}
	}
	if packages < 10 {
		t.Errorf("the runtime told of %d packages of bawn: %s", packages, out)
	}
}
