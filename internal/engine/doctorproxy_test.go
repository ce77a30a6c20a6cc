package engine

import (
	"strings"
	"testing"

	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
	"bawn.dev/bawn/internal/sys/proxyenv/proxyenvtest"
)

// TestDoctorAsksTheProxies: the findings say whether each answers, and have no password.
func TestDoctorAsksTheProxies(t *testing.T) {
	web, socks := tunneltest.New(t, false, true), tunneltest.New(t, true, false)
	for _, c := range []struct {
		env       []string
		ok, fatal bool
		want      []string
	}{
		{nil, true, false, nil},
		{[]string{"HTTPS_PROXY=" + web.URL(), "http_proxy=" + socks.URL()}, true, false, []string{
			"http://" + web.Addr + " (HTTPS_PROXY) answers", "socks5h://" + socks.Addr + " (http_proxy) answers",
		}},
		{[]string{"ALL_PROXY=http://staff:hunter2@" + web.Addr}, false, false, []string{"does not take the user and password"}},
		{[]string{"ALL_PROXY=http://staff:hunter2@" + socks.Addr}, false, false, []string{"the proxy http://" + socks.Addr}},
		{[]string{"ALL_PROXY=socks4://staff:hunter2@" + socks.Addr}, false, true, []string{"the variable ALL_PROXY"}},
	} {
		proxyenvtest.Set(t, c.env...)
		found := checkProxies(t.Context())
		if len(found) != len(c.want) {
			t.Fatalf("%v: %+v", c.env, found)
		}
		for i, f := range found {
			if f.OK != c.ok || f.Fatal != c.fatal || !strings.Contains(f.Detail, c.want[i]) || strings.Contains(f.Detail, "hunter2") || strings.Contains(f.Detail, "w0rd") {
				t.Errorf("%v: %+v", c.env, f)
			}
			if f.OK == (f.Remedy.Kind != "") {
				t.Errorf("remedy: %+v", f)
			}
		}
	}
}
