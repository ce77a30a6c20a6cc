//go:build vm

package vmtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// stubAgent is an agent whose own start takes no time, as agents.yaml has it.
const stubAgent = "stub:\n  package: stub-agent\n  program: cli\n"

// stubProgram is its program.
const stubProgram = "#!/bin/sh\necho stub 1.0.0\n"

// stubRegistry serves the package of stubAgent, with that program, on the loopback.
func stubRegistry(b testing.TB, program string) *httptest.Server {
	b.Helper()
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	w := tar.NewWriter(z)
	err := w.WriteHeader(&tar.Header{Name: "package/cli", Mode: 0o755, Size: int64(len(program))})
	_, werr := io.WriteString(w, program)
	if err := errors.Join(err, werr, w.Close(), z.Close()); err != nil {
		b.Fatal(err)
	}
	sum := sha512.Sum512(body.Bytes())
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/archive" {
			_, _ = w.Write(body.Bytes())
			return
		}
		_ = json.NewEncoder(w).Encode(object{"name": "stub-agent", "version": "1.0.0", "dist": object{
			"tarball": s.URL + "/archive", "integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:]),
		}})
	}))
	b.Cleanup(s.Close)
	return s
}

// BenchmarkAgent measures an agent's word in a new sandbox, on a host that has the agent already,
// against `bawn run -- true` in a new sandbox. The agent's own start (own-ms), which is what its word takes
// longer than `true` in a sandbox that runs, does not count in the ratio.
func BenchmarkAgent(b *testing.B) {
	config := filepath.Join(base, "home", ".config", "bawn")
	file := filepath.Join(config, "agents.yaml")
	if err := errors.Join(os.MkdirAll(config, 0o700), os.WriteFile(file, []byte(stubAgent), 0o600)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.Remove(file) })
	env := []string{"npm_config_registry=" + stubRegistry(b, stubProgram).URL}
	dir := benchProject(b, "agent")
	timed := func(args ...string) time.Duration {
		began := time.Now()
		r := bawnAt(b.Context(), dir, nil, env, args...)
		took := time.Since(began)
		if r.code != 0 {
			b.Fatalf("bawn %q: %d\n%s%s", args, r.code, r.out, r.err)
		}
		return took
	}
	word, plain := []string{"stub", "--version"}, []string{"run", "--", "true"}
	first := timed(word...)
	timed("rm", "--force")
	var words, owns, plains, rest []time.Duration
	for range max(b.N, 5) {
		took := timed(word...)
		own := max(0, timed(word...)-timed(plain...))
		timed("rm", "--force")
		words, owns, rest = append(words, took), append(owns, own), append(rest, took-own)
		plains = append(plains, timed(plain...))
		timed("rm", "--force")
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(first.Milliseconds()), "first-ms")
	b.ReportMetric(median(words), "word-ms")
	b.ReportMetric(median(owns), "own-ms")
	b.ReportMetric(median(plains), "true-ms")
	b.ReportMetric(ratio(rest, plains), "ratio")
}
