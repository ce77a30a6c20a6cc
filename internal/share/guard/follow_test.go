package guard

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sys/rotate"
)

// TestFollowEvents: events that are there and those that come are seen once and in order, over a
// rotation, with half lines, lines that are none, and lines without an end.
func TestFollowEvents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "files.log")
	line := func(name string) string {
		b, err := json.Marshal(Event{Time: time.Now(), Share: "/p", Path: name, Action: Kept})
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	log, err := rotate.Open(path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	write := func(s string) {
		t.Helper()
		if _, err := log.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	write(line("a") + "nonsense\n" + strings.Repeat("x", 3*maxEvent) + "\n")
	half := line("b")
	write(half[:7])

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := make(chan string)
	ended := make(chan error, 1)
	go func() {
		ended <- FollowEvents(ctx, path, func(e Event) error { seen <- e.Path; return nil })
	}()
	var got []string
	next := func() { got = append(got, <-seen) }
	next()
	write(half[7:])
	next()
	if err := os.Rename(path, rotate.Old(path)); err != nil { // as a full one
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(line("c")), 0o600); err != nil {
		t.Fatal(err)
	}
	next()
	cancel()
	if err := <-ended; err != nil || !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("%v, %v", got, err)
	}

	stop := errors.New("stop")
	if err := FollowEvents(t.Context(), path, func(Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the caller: %v", err)
	}
}
