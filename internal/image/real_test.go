package image

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"bawn.dev/bawn/internal/progress"
)

// TestRealDefault builds the default image in the cache that BAWN_TEST_CACHE
// names.
func TestRealDefault(t *testing.T) {
	dir := os.Getenv("BAWN_TEST_CACHE")
	if dir == "" {
		t.Skip("BAWN_TEST_CACHE names no cache folder")
	}
	r := &recorder{}
	begin := time.Now()
	i, err := Open(dir).Default(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v: %+v\n%s", time.Since(begin), i, r)
}

// recorder is a progress.Reporter that keeps what it was told.
type recorder struct {
	mu    sync.Mutex
	tasks []*recorded
}

type recorded struct {
	label       string
	total, done int64
	notes       int
	ended       int
	err         error
	mu          *sync.Mutex
}

func (r *recorder) Start(label string, total int64, _ progress.Unit) progress.Task {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &recorded{label: label, total: total, mu: &r.mu}
	r.tasks = append(r.tasks, t)
	return t
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := ""
	for _, t := range r.tasks {
		s += fmt.Sprintf("%s: %d of %d, %d notes, ended %d, %v\n", t.label, t.done, t.total, t.notes, t.ended, t.err)
	}
	return s
}

func (t *recorded) Add(n int64) { t.mu.Lock(); t.done += n; t.mu.Unlock() }
func (t *recorded) Note(string) { t.mu.Lock(); t.notes++; t.mu.Unlock() }
func (t *recorded) Done(err error) {
	t.mu.Lock()
	t.ended++
	t.err = err
	t.mu.Unlock()
}
