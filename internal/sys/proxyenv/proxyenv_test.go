package proxyenv

import (
	"strings"
	"testing"
)

// TestPass: another process learns which variables are set, and no password.
func TestPass(t *testing.T) {
	for _, n := range append(names, variable) {
		t.Setenv(n, "")
	}
	if Pass() != "" || Hint(Names()) != "" {
		t.Errorf("without a proxy: %q, %q", Pass(), Hint(Names()))
	}
	t.Setenv("https_proxy", "http://user:secret@proxy.test:3128")
	t.Setenv("ALL_PROXY", "socks5://proxy.test")
	setting := Pass()
	if strings.Contains(setting, "secret") || strings.Contains(setting, "proxy.test") {
		t.Error(setting)
	}
	t.Setenv("https_proxy", "")
	t.Setenv("ALL_PROXY", "")
	t.Setenv(variable, strings.TrimPrefix(setting, variable+"="))
	if got := Hint(Names()); !strings.Contains(got, "directly") || !strings.Contains(got, "https_proxy, ALL_PROXY") {
		t.Error(got)
	}
}
