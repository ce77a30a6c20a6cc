package meminfo

import "testing"

func TestParse(t *testing.T) {
	for text, want := range map[string]int64{
		"MemTotal:       16307520 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\nBuffers: 2 kB\n": 8000000 << 10,
		"MemAvailable: 0 kB\n":                     0,
		"MemTotal: 1 kB\n":                         -1, // a kernel before 3.14
		"MemAvailable: many kB\n":                  -1,
		"MemAvailable: 99999999999999999999999 kB": -1,
		"": -1,
	} {
		if got := parse([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestAvailable(t *testing.T) {
	if n := Available(); n <= 0 {
		t.Errorf("this host has %d bytes", n)
	}
}
