// Package size reads and writes numbers of bytes as people do.
package size

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Parse reads a size as docker writes it: a number and b, k, m, g or t
// (powers of 1024), with or without a following "b" or "ib". A bare number is
// bytes.
func Parse(s string) (int64, error) {
	low := strings.ToLower(strings.TrimSpace(s))
	num := strings.TrimRight(low, "bikmgt")
	unit := strings.TrimSuffix(strings.TrimSuffix(low[len(num):], "b"), "i")
	shift, ok := map[string]uint{"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[unit]
	v, err := strconv.ParseFloat(num, 64)
	if !ok || err != nil || math.IsNaN(v) || v < 0 || v*float64(int64(1)<<shift) > math.MaxInt64/2 {
		return 0, fmt.Errorf("invalid size %q: write a number and a unit, such as 512m or 4g", s)
	}
	return int64(v * float64(int64(1)<<shift)), nil
}

// Format writes a size for people: "512 MiB", "1.5 GiB".
func Format(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0") + " " + units[i] //nolint:gosec // i stays below the number of units
}
