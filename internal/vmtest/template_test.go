//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// started returns the kind of a sandbox's machine, and whether it was restored from a
// template, as its supervisor logged it at the last start.
func started(t testing.TB, name string) (kind string, template bool) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(sandboxDir(name), "supervisor.log"))
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`msg=running.* kind=(\S+).* template=(\S+)`).FindAllStringSubmatch(string(log), -1)
	if len(all) == 0 {
		t.Fatalf("%s never ran:\n%s", name, log)
	}
	last := all[len(all)-1]
	return last[1], last[2] == "true"
}

// newSandbox makes a sandbox and runs a script there. The sandbox is removed at the end of
// the test.
func newSandbox(t *testing.T, dir, name, script string, flags ...string) (out string, template bool) {
	t.Helper()
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "-f", name) })
	args := slices.Concat([]string{"run", "--name", name}, flags, []string{"--", "sh", "-ec", script})
	r := bawnAt(t.Context(), dir, nil, nil, args...)
	if r.code != 0 {
		t.Fatalf("bawn %q: %d\n%s%s", args, r.code, r.out, r.err)
	}
	_, template = started(t, name)
	return r.out, template
}

// awaitTemplate waits until new sandboxes with these flags start from a template.
func awaitTemplate(t *testing.T, dir string, flags ...string) {
	t.Helper()
	i := 0
	waitWithin(t, templateLimit, "a template", func() bool {
		name := fmt.Sprintf("%s-first-%d", filepath.Base(dir), i)
		i++
		_, template := newSandbox(t, dir, name, "true", flags...)
		must(t, dir, "rm", "-f", name)
		if !template { // it is made in the background
			waitWithin(t, templateLimit, "the end of the making", func() bool { return makerOf(sandboxDir(name)) == 0 })
		}
		return template
	})
}

// templateLimit bounds the making of a template, also while another is made, and in an emulated host.
const templateLimit = 30 * time.Minute

// TestRestores: a hundred restores (30 with -short), two at a time, all succeed, and no two have the
// same random numbers.
func TestRestores(t *testing.T) {
	dir := project(t, "restores")
	flags := []string{"--memory", "1G"}
	awaitTemplate(t, dir, flags...)
	const workers = 2
	restores := rounds(100, 30)
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range next {
				name := fmt.Sprintf("restore-%d", i)
				args := slices.Concat([]string{"run", "--name", name}, flags, []string{"--", "sh", "-c", "cat /proc/sys/kernel/random/uuid; pwd"})
				r := bawnAt(t.Context(), dir, nil, nil, args...)
				id, pwd, _ := strings.Cut(r.out, "\n")
				if r.code != 0 || pwd != dir+"\n" {
					t.Errorf("restore %d: %+v", i, r)
				} else if _, template := started(t, name); !template {
					t.Errorf("restore %d booted instead", i)
				}
				mu.Lock()
				if was, ok := seen[id]; ok {
					t.Errorf("restores %d and %d both made %q", was, i, id)
				}
				seen[id] = i
				mu.Unlock()
				if r := bawnAt(context.Background(), dir, nil, nil, "rm", "-f", name); r.code != 0 {
					t.Errorf("rm %s: %+v", name, r)
				}
			}
		})
	}
	for i := range restores {
		next <- i
	}
	close(next)
	wg.Wait()
}

// TestTemplate: the process that makes a template is killed, and a template is damaged. Both
// times the next sandbox boots, and a template is made again.
func TestTemplate(t *testing.T) {
	dir := project(t, "template")
	flags := []string{"--memory", "1100M", "--cpus", "1"} // a kind that no other test wants
	kind := killMaker(t, dir, flags)
	folder := filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn", "template", kind)
	awaitTemplate(t, dir, flags...)
	if err := flip(filepath.Join(folder, "ready.ram"), 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, template := newSandbox(t, dir, "template-b", "true", flags...); template {
		t.Error("a damaged template was used")
	}
	awaitTemplate(t, dir, flags...)
}

// killMaker kills the process that makes the template of new sandboxes with these
// flags, unless there is one from an earlier run, and returns their kind.
func killMaker(t *testing.T, dir string, flags []string) (kind string) {
	t.Helper()
	waitWithin(t, templateLimit, "the making of a template", func() bool {
		_, template := newSandbox(t, dir, "template-a", "true", flags...)
		if kind, _ = started(t, "template-a"); template {
			return true
		}
		var maker int
		var machines []int
		begun := poll(10*time.Second, func() bool { // no machine is started while another template is made
			maker = makerOf(sandboxDir("template-a"))
			if maker != 0 {
				machines = children(maker)
			}
			return len(machines) > 0
		})
		if !begun {
			must(t, dir, "rm", "-f", "template-a")
			return false
		}
		kill9(t, maker)
		wait(t, "the end of its machine", func() bool { return !slices.ContainsFunc(machines, lives) })
		if _, err := os.Stat(filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn", "template", kind)); err == nil {
			t.Error("half a template is in place")
		}
		return true
	})
	return kind
}

// makerOf returns the number of the process that makes a template of a sandbox, 0 if there is none.
func makerOf(sandbox string) int {
	for _, pid := range makersOf(sandbox + "\x00") {
		return pid
	}
	return 0
}

// makersOf returns the numbers of the processes that make templates of sandboxes whose folder begins so.
func makersOf(folder string) (pids []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		b, err := os.ReadFile(l)
		if err == nil && strings.Contains(string(b), "\x00__template\x00"+folder) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(l)))
			pids = append(pids, pid)
		}
	}
	return pids
}
