//go:build vm

package vmtest

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// identity is a script that prints all that must differ between machines, one a line.
const identity = `hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id /sys/class/net/e*/address
ip -o addr show scope global | awk '{print $4}'; ip -o addr show scope link | awk '{print "link", $4}'
head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid; python3 -c 'import random, secrets; print(random.random(), secrets.token_hex())'`

// identities collects these lines, and finds those that two machines have in common.
type identities map[string]string

func (seen identities) add(t *testing.T, name, lines string) {
	t.Helper()
	own := map[string]bool{}
	key, err := os.ReadFile(filepath.Join(sandboxDir(name), "host_ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(lines + strings.ReplaceAll(string(key), "\n", " ") + "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.Contains(line, " 127.") || strings.HasPrefix(line, "127.") || strings.HasPrefix(line, "::1") {
			continue
		}
		if who := seen[line]; who != "" && who != name {
			t.Errorf("%s and %s have both %q", who, name, line)
		}
		own[line] = true
	}
	if len(own) < 9 {
		t.Errorf("%s says only %q", name, lines)
	}
	for line := range own {
		seen[line] = name
	}
}

// TestSiblings is attack 21: two sandboxes from one template, and a fork, have no part of
// their identities in common.
func TestSiblings(t *testing.T) {
	dir := project(t, "siblings")
	flags := []string{"--memory", "1G"}
	awaitTemplate(t, dir, flags...)
	seen := identities{}
	for _, name := range []string{"sibling-a", "sibling-b"} {
		out, template := newSandbox(t, dir, name, identity, flags...)
		if !template {
			t.Errorf("%s booted", name)
		}
		seen.add(t, name, out)
		now, err := strconv.ParseFloat(strings.TrimSpace(must(t, dir, "exec", name, "--", "date", "+%s.%N")), 64)
		if off := float64(time.Now().UnixNano())/1e9 - now; err != nil || off < -5 || off > 60 {
			t.Errorf("%s is %v s behind the time", name, off)
		}
	}
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "-f", "sibling-c") })
	must(t, dir, "fork", "sibling-a", "sibling-c")
	seen.add(t, "sibling-c", must(t, dir, "exec", "sibling-c", "--", "sh", "-ec", identity))
	// The original is who it was.
	if out := must(t, dir, "exec", "sibling-a", "--", "hostname"); out != "sibling-a\n" {
		t.Errorf("the original is %q", out)
	}
	// A covered boot ID must not keep sandboxes in the sandbox from having a proc.
	must(t, dir, "exec", "sibling-c", "--", "unshare", "-Urpf", "--mount-proc", "true")
}
