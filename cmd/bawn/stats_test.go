package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/tokens"
)

// stats runs bawn stats and returns what it prints.
func stats(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	root := rootCommand()
	root.SetOut(&out)
	root.SetArgs(append([]string{"stats"}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// TestStatsOnce: one measurement of a sandbox that runs and of one that does not, as a table and
// as JSON.
func TestStatsOnce(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	pretend(t, sandboxes, dir)
	if _, err := sandboxes.Create(&sandbox.Spec{Name: "idle", Dir: t.TempDir(), Memory: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--once"}, {"--no-stream"}, {"--once", "shop"}} {
		out, err := stats(t, args...)
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if err != nil || len(lines) != 2 || !strings.HasPrefix(lines[0], "NAME ") {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		row := strings.Join(strings.Fields(lines[1]), " ")
		if !strings.HasPrefix(row, "shop 50.0% 512 MiB of 0 B ") || !strings.HasSuffix(row, " 1 MiB / 2 MiB 3 KiB / 4 KiB") {
			t.Errorf("%q: %q", args, lines[1])
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("%q: escapes without a terminal: %q", args, out)
		}
	}
	out, err := stats(t, "--all", "--once", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var list []engine.Stat
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var s engine.Stat
		if err := d.Decode(&s); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	if len(list) != 2 || list[0].Name != "idle" || list[0].Usage != nil || list[0].CPUPercent != nil || list[0].MemoryLimit != 1<<30 ||
		list[1].Name != "shop" || list[1].Usage == nil || list[1].Usage.Memory != 512<<20 || list[1].CPUPercent == nil || *list[1].CPUPercent != 50 {
		t.Errorf("%s", out)
	}
	if _, err := stats(t, "--once", "none"); engine.ReasonOf(err) != engine.NotFound {
		t.Errorf("%v", err)
	}
}

// TestStatsTokens: the column is there if there are any, with the sums over all hosts; JSON has
// each host.
func TestStatsTokens(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	_, p := pretend(t, sandboxes, dir)
	if out, err := stats(t, "--once"); err != nil || strings.Contains(out, "TOKENS") {
		t.Errorf("%v\n%s", err, out)
	}
	p.tokens = []tokens.Total{
		{Host: "api.anthropic.test", Requests: 3, Usage: tokens.Usage{Input: 1000, CacheRead: 4_000_000, CacheWrite: 11_345, Output: 900}},
		{Host: "api.openai.test", Requests: 2, Unreported: 1, Usage: tokens.Usage{Output: 50}},
	}
	out, err := stats(t, "--once")
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if err != nil || len(lines) != 2 || !strings.HasSuffix(lines[0], "   TOKENS IN / CACHED / OUT") || !strings.HasSuffix(lines[1], "   12.3k / 4.0M / 950") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := sandboxes.Create(&sandbox.Spec{Name: "idle", Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	if out, err = stats(t, "--once", "--all"); err != nil || !strings.Contains(out, "   -\n") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = stats(t, "--once", "--json"); err != nil || !strings.Contains(out, `"tokens":[{"host":"api.anthropic.test","requests":3,"input":1000,"cacheRead":4000000,"cacheWrite":11345,"output":900},{"host":"api.openai.test","requests":2,"unreported":1,"input":0,`) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestShort(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1.0k", 12_345: "12.3k", 999_949: "999.9k", 999_950: "1.0M", 4_000_000: "4.0M", 1<<53 - 1: "9007199254.7M"} {
		if got := short(n); got != want {
			t.Errorf("%d: %q, not %q", n, got, want)
		}
	}
}

// TestStatsOnATerminal: each table takes the place of the one before, until Ctrl-C.
func TestStatsOnATerminal(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	pretend(t, sandboxes, dir)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	person, ended := onTerminal(t, ctx, "stats")
	for range 2 {
		person.until(clearScreen + "NAME ")
		person.until("shop   50.0%")
		person.until("3 KiB / 4 KiB\r\n")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestStatsViews: --all says in which state a sandbox is; a live table that has no rows says what to do.
func TestStatsViews(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	pretend(t, sandboxes, dir)
	if _, err := sandboxes.Create(&sandbox.Spec{Name: "idle", Dir: t.TempDir(), Memory: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	out, err := stats(t, "--once", "--all")
	var states []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 {
			states = append(states, f[0]+" "+f[1])
		}
	}
	if want := "NAME STATE, idle stopped, shop running"; err != nil || strings.Join(states, ", ") != want {
		t.Errorf("%v, %q\n%s", err, states, out)
	}
	for v, want := range map[statsView]string{{screen: true}: "no sandbox runs: bawn stats --all", {screen: true, all: true}: "there is no sandbox: bawn run", {}: "RECEIVED\n", {json: true}: ""} {
		out, err := v.format(nil)
		if err != nil || !strings.Contains(string(out), want) || !v.screen && strings.Contains(string(out), "bawn") {
			t.Errorf("%+v: %q, %v", v, out, err)
		}
	}
}
