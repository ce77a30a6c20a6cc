package main

import (
	"path/filepath"
	"slices"
	"testing"

	"bawn.dev/bawn/internal/egress"
	"bawn.dev/bawn/internal/policy"
)

// TestLearnOnlyHosts: what is proposed was connected to, or its address was asked
// for; names of services never were.
func TestLearnOnlyHosts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "net.log")
	log, err := egress.OpenLog(file, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []egress.Entry{
		{Proto: "dns", App: "A", Name: "four.example"},
		{Proto: "dns", App: "AAAA", Name: "six.example"},
		{Proto: "dns", App: "SRV", Name: "_http._tcp.deb.example"},
		{Proto: "dns", App: "A", Name: "_http._tcp.deb.example"},
		{Proto: "dns", App: "AAAA", Name: "mail._domainkey.example"},
		{Proto: "dns", App: "TXT", Name: "text.example"},
		{Proto: "dns", App: "HTTPS", Name: "https.example"},
		{Proto: "tcp", Name: "dialled.example", Port: 443},
		{Proto: "tcp", Name: "plain.example", Port: 80},
		{Proto: "tcp", Name: "my_host.example", Port: 443},
	} {
		e.Verdict, e.Suggest = egress.Denied, e.Name
		log.Write(e)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	flows, err := deniedFlows(file)
	if err != nil {
		t.Fatal(err)
	}
	got := policy.Compile(nil).Propose(flows)
	slices.Sort(got)
	if want := []string{"dialled.example:443", "four.example:443", "my_host.example:443", "plain.example:80", "six.example:443"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
