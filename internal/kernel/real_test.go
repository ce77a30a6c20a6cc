package kernel

import (
	"context"
	"os"
	"testing"
	"time"

	"bawn.dev/bawn/internal/progress"
)

// TestRealKernel fetches Debian's kernel into the cache that BAWN_TEST_CACHE
// names.
func TestRealKernel(t *testing.T) {
	dir := os.Getenv("BAWN_TEST_CACHE")
	if dir == "" {
		t.Skip("BAWN_TEST_CACHE names no cache folder")
	}
	begin := time.Now()
	k, err := Open(dir).Kernel(context.Background(), progress.Silent)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(begin))
	t.Logf("%+v", k)
	begin = time.Now()
	if _, err := Open(dir).Kernel(context.Background(), progress.Silent); err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(begin))
}
