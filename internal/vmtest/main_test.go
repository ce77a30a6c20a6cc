//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// base is this run's folder: state, home and projects.
var base string

func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		bareInit() // of a benchmark's guest
	}
	if spec := os.Getenv(netClientEnv); spec != "" { // in a sandbox
		if err := netClient(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(rebindEnv); dir != "" { // in namespaces of its own
		if err := rebindHost(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(tinyCacheEnv); dir != "" { // in namespaces of its own
		if err := tinyCache(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(s) { // by nohup, say: the bawns that are tested shall not ignore it as well
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	code := func() int {
		if os.Getenv("BAWN") == "" || os.Getenv("BAWN_TEST_CACHE") == "" {
			fmt.Fprintln(os.Stderr, "vmtest: run by scripts/test, which sets BAWN and BAWN_TEST_CACHE")
			return 2
		}
		var err error
		if base, err = os.MkdirTemp("", "bawn-vm-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		defer os.RemoveAll(base)
		// As a home directory mostly is: what bawn closes, it must close itself.
		if err := os.Chmod(base, 0o755); err != nil { // others may look in: their attacks are what is tested
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		if err := os.Mkdir(filepath.Join(base, "home"), 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		code := m.Run()
		if err := sweep(); err != nil {
			fmt.Fprintln(os.Stderr, "vmtest:", err)
			code = 1
		}
		return code
	}()
	os.Exit(code)
}

// sweep removes all sandboxes; then no process of this run may be left.
func sweep() error {
	for _, maker := range makersOf(base + "/") { // a template may take another minute
		if err := syscall.Kill(maker, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("the maker of a template: %w", err)
		}
	}
	r := bawnAt(context.Background(), base, nil, nil, "ls", "--json")
	var list []struct{ Name string }
	if err := json.Unmarshal([]byte(r.out), &list); err != nil {
		return fmt.Errorf("bawn ls: %s%s", r.out, r.err)
	}
	for _, s := range list {
		if r := bawnAt(context.Background(), base, nil, nil, "rm", "--force", s.Name); r.code != 0 {
			return fmt.Errorf("bawn rm %s: %s", s.Name, r.err)
		}
	}
	var left map[int]string
	if !poll(10*time.Second, func() bool { left = processes(base); return len(left) == 0 }) {
		return fmt.Errorf("left running: %v", left)
	}
	return nil
}
