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

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 512 << 20: "512 MiB",
		3 << 29: "1.5 GiB", 1<<40 + 1<<39: "1.5 TiB", 5000 << 40: "5000 TiB",
	} {
		if got := Format(n); got != want {
			t.Errorf("Format(%d) = %q, want %q", n, got, want)
		}
	}
}
