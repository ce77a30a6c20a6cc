package gitssh

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// failures are the logins of a Server that failed. Safe for concurrent use.
type failures struct {
	limit *rate.Limiter

	mu    sync.Mutex
	until time.Time // when a login may be tried again
}

// pause returns an error while no login may be tried.
func (f *failures) pause() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Now().Before(f.until) {
		return fmt.Errorf("the last logins failed or were given up, and each may ask the user something on the host: try again in %v", failedPause)
	}
	return nil
}

// add notes that a login failed.
func (f *failures) add() {
	if f.limit.Allow() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = time.Now().Add(failedPause)
}
