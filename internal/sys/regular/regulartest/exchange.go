// Package regulartest is a guest that changes a directory while it is read, in a test.
package regulartest

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Exchange exchanges what two paths name (renameat2(2), RENAME_EXCHANGE), for each pair in turn, again and again until
// the test ends. The paths must be on one file system.
func Exchange(t *testing.T, pairs ...[2]string) {
	t.Helper()
	stop := make(chan struct{})
	var exchanging sync.WaitGroup
	exchanging.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, p := range pairs {
				_ = unix.Renameat2(unix.AT_FDCWD, p[0], unix.AT_FDCWD, p[1], unix.RENAME_EXCHANGE)
			}
		}
	})
	t.Cleanup(func() { close(stop); exchanging.Wait() })
}
