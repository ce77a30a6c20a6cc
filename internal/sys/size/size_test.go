package size

import "testing"

func TestParse(t *testing.T) {
	for s, want := range map[string]int64{"1": 1, "512m": 512 << 20, "4G": 4 << 30, "1.5g": 3 << 29, "2GiB": 2 << 30, "10kb": 10 << 10} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v", s, got, err)
		}
	}
	for _, bad := range []string{"", "g", "-1g", "1x", "nan", "1e30t", "4 gigs", "0x10"} {
		if got, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) = %d", bad, got)
		}
	}
}
