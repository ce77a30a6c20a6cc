package egress

import (
	"testing"

	"bawn.dev/bawn/internal/policy"
)

// TestAttackMetadataThatARuleOpensUnsaid: a rule about an address that the gateway keeps
// closed as cloud metadata says so where it is shown, and is never suggested.
func TestAttackMetadataThatARuleOpensUnsaid(t *testing.T) {
	for _, r := range reservedRanges {
		if r.why != "cloud metadata" {
			continue
		}
		e, err := policy.ExposureOf(r.prefix.String(), policy.Host{})
		if err != nil || e.Kinds&policy.KindMetadata == 0 {
			t.Errorf("%s: %+v, %v", r.prefix, e, err)
		}
		if f := (policy.Flow{Addr: r.prefix.Addr(), Port: 80, Proto: policy.TCP}); r.prefix.IsSingleIP() && policy.Suggest(f) != "" {
			t.Errorf("%s is suggested", r.prefix)
		}
	}
}
