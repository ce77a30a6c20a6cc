package kernel

import (
	"context"
	"os"
	"testing"
	"time"

	"bawn.dev/bawn/internal/progress"
)

// TestRealKernel fetches Debian's kernel into the cache that BAWN_TEST_CACHE
// names: that of this host's architecture, or of the one that BAWN_TEST_ARCH names, by
// which scripts/host prepares hosts of another architecture.
func TestRealKernel(t *testing.T) {
	dir := os.Getenv("BAWN_TEST_CACHE")
	if dir == "" {
		t.Skip("BAWN_TEST_CACHE names no cache folder")
	}
	s := Open(dir)
	if arch := os.Getenv("BAWN_TEST_ARCH"); arch != "" {
		s.arch = arch
	}
	begin := time.Now()
	k, err := s.Kernel(context.Background(), progress.Silent)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(begin))
	t.Logf("%+v", k)
	begin = time.Now()
	if _, err := s.Kernel(context.Background(), progress.Silent); err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(begin))
}
