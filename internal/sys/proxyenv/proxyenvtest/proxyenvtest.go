// Package proxyenvtest sets the proxies of a test's environment.
package proxyenvtest

import (
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sys/proxyenv"
)

// Set empties the variables that package proxyenv reads, and then sets those that are given as
// NAME=VALUE, until the test ends. The test must not be parallel (testing.T.Setenv).
func Set(t *testing.T, variables ...string) {
	t.Helper()
	for _, v := range proxyenv.Variables {
		t.Setenv(v, "")
	}
	for _, v := range variables {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}
