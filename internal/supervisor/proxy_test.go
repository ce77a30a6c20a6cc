package supervisor

import (
	"os"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/proxyenv/proxyenvtest"
)

// TestAStartWithABrokenProxyFails: it does not go on directly, and says which variable is
// wrong, but not its value.
func TestAStartWithABrokenProxyFails(t *testing.T) {
	proxyenvtest.Set(t, "HTTPS_PROXY=socks4://staff:hunter2@proxy.test:1080")
	l := begin(t)
	<-l.ended
	if l.why == nil || !strings.Contains(l.why.Error(), "HTTPS_PROXY") || strings.Contains(l.why.Error(), "hunter2") {
		t.Error(l.why)
	}
	select {
	case <-l.ready:
		t.Error("it was ready")
	default:
	}
}

// TestNoFileHasThePasswordOfTheProxy: the sandbox's folder names the proxy alone.
func TestNoFileHasThePasswordOfTheProxy(t *testing.T) {
	proxyenvtest.Set(t, "HTTPS_PROXY=http://staff:hunter2@proxy.test:3128")
	l := begin(t)
	<-l.ready
	files, err := os.ReadDir(l.s.dir.Path)
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, f := range files {
		if f.Type().IsRegular() {
			b, err := os.ReadFile(l.s.dir.File(f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			all += string(b)
		}
	}
	if strings.Contains(all, "hunter2") {
		t.Error("the password is in a file")
	}
	if b, err := os.ReadFile(l.s.dir.File(store.SupervisorLogFile)); err != nil || !strings.Contains(string(b), "http://proxy.test:3128 (HTTPS_PROXY)") {
		t.Errorf("%s %v", b, err)
	}
}
