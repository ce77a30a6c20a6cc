package agents

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/agents/registry"
	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/progress"
)

// entry is a file of an archive.
type entry struct {
	name, text string
	mode       int64
	kind       byte
}

func archive(t *testing.T, list []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, e := range list {
		h := &tar.Header{Name: e.name, Mode: e.mode, Typeflag: e.kind, Size: int64(len(e.text))}
		if e.kind == tar.TypeSymlink {
			h.Linkname, h.Size = e.text, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, e.text); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// standIn is a registry of packages on the loopback.
type standIn struct {
	*httptest.Server
	mux     *http.ServeMux
	fetched atomic.Int64 // archives
}

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	s := &standIn{mux: http.NewServeMux()}
	s.Server = httptest.NewServer(s.mux)
	t.Cleanup(s.Close)
	return s
}

// add serves one version of a package. change alters what the registry says of it.
func (s *standIn) add(t *testing.T, name, version string, files []entry, change func(map[string]any)) {
	t.Helper()
	body := archive(t, files)
	sum := sha512.Sum512(body)
	escaped := strings.Replace(name, "/", "%2f", 1)
	dist := map[string]any{"tarball": s.URL + "/archives/" + escaped + "-" + version, "integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:])}
	p := map[string]any{"name": name, "version": version, "dist": dist}
	if change != nil {
		change(p)
	}
	describe := func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(p) }
	s.mux.HandleFunc("/"+escaped+"/"+version, describe)
	s.mux.HandleFunc("/archives/"+escaped+"-"+version, func(w http.ResponseWriter, _ *http.Request) {
		s.fetched.Add(1)
		_, _ = w.Write(body)
	})
}

func (s *standIn) latest(name, version string) {
	escaped := strings.Replace(name, "/", "%2f", 1)
	s.mux.Handle("/"+escaped+"/latest", http.RedirectHandler("/"+escaped+"/"+version, http.StatusFound))
}

func (s *standIn) store(t *testing.T) *Store {
	t.Helper()
	c, err := registry.New(s.URL, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return &Store{Cache: cache.Open(t.TempDir()), Client: c, Arch: "amd64", GuestPrograms: "/opt/a", GuestHomes: "/opt/h"}
}

var (
	program = []entry{{"package/tool", "#!/bin/sh\necho ran \"$@\" in $TOOL_HOME\n", 0o644, tar.TypeReg}, {"package/package.json", "{}", 0o644, tar.TypeReg}}
	tool    = Agent{
		Name: "tool", Package: "@a/tool", Platform: "tool-linux-{cpu}", Program: "tool",
		Env: map[string]string{"TOOL_HOME": "{home}"}, Links: map[string]string{".config/tool": "config"}, Instructions: "x/AGENTS.md",
	}
)

func needs(name, version string) func(map[string]any) {
	return func(p map[string]any) { p["optionalDependencies"] = map[string]string{name: version} }
}

// TestInstall: the platform's package gives the program, which is started by a script that prepares
// the home; the version is fetched once, also by two that install it at once.
func TestInstall(t *testing.T) {
	s := newStandIn(t)
	s.add(t, "@a/tool", "1.2.3", nil, needs("tool-linux-x64", "npm:tool@1.2.3-linux-x64"))
	s.add(t, "tool", "1.2.3-linux-x64", program, nil)
	s.latest("@a/tool", "1.2.3")
	store := s.store(t)
	guest := t.TempDir()
	store.GuestPrograms, store.GuestHomes = filepath.Join(guest, "programs"), filepath.Join(guest, "home")
	version, err := store.Latest(t.Context(), &tool)
	if err != nil || version != "1.2.3" {
		t.Fatal(version, err)
	}
	var wg sync.WaitGroup
	dirs := make([]string, 4)
	for i := range dirs {
		wg.Go(func() {
			in, err := store.Install(t.Context(), &tool, version, progress.Silent)
			if err != nil {
				t.Error(err)
				return
			}
			dirs[i] = in.Dir
		})
	}
	wg.Wait()
	if n := s.fetched.Load(); n != 1 {
		t.Errorf("%d archives fetched", n)
	}
	if err := errors.Join(os.Mkdir(store.GuestPrograms, 0o700), os.MkdirAll(store.GuestHomes+"/tool", 0o700), os.Symlink(dirs[0], store.GuestPrograms+"/tool")); err != nil {
		t.Fatal(err)
	}
	run := func() string {
		cmd := exec.CommandContext(t.Context(), store.GuestPrograms+"/tool/bin/tool", "a b", "-p")
		cmd.Env = []string{"HOME=" + guest, "PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if out := run(); out != "ran a b -p in "+store.GuestHomes+"/tool\n" {
		t.Errorf("%q", out)
	}
	text := store.GuestHomes + "/tool/x/AGENTS.md"
	if b, err := os.ReadFile(text); err != nil || string(b) != instructions {
		t.Errorf("%q, %v", b, err)
	}
	if to, err := os.Readlink(guest + "/.config/tool"); err != nil || to != store.GuestHomes+"/tool/config" {
		t.Error(to, err)
	}
	for before, after := range map[string]string{Marker + "\nold": instructions, "my own": "my own"} {
		if err := os.WriteFile(text, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		run()
		if b, _ := os.ReadFile(text); string(b) != after {
			t.Errorf("%q became %q", before, b)
		}
	}
}

// TestInstallFaults: a registry that lies, and archives that reach elsewhere, are errors, and nothing
// is left of them.
func TestInstallFaults(t *testing.T) {
	outside := t.TempDir()
	dist := func(key string, value any) func(map[string]any) {
		return func(p map[string]any) { p["dist"].(map[string]any)[key] = value }
	}
	other := sha512.Sum512([]byte("other"))
	for name, c := range map[string]struct {
		files  []entry
		change func(map[string]any)
		want   string
	}{
		"another checksum":      {program, dist("integrity", "sha512-"+base64.StdEncoding.EncodeToString(other[:])), "does not have the checksum"},
		"no checksum":           {program, dist("integrity", ""), "names no SHA-512"},
		"a weak checksum":       {program, dist("integrity", "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="), "names no SHA-512"},
		"no archive":            {program, dist("tarball", "file:///etc/passwd"), "names no archive"},
		"another package":       {program, func(p map[string]any) { p["name"] = "other" }, "answered with"},
		"a version with a path": {program, func(p map[string]any) { p["version"] = "1/../../x" }, "answered with"},
		"no program":            {[]entry{{"package/other", "x", 0o644, tar.TypeReg}}, nil, "has no file tool"},
		"a path outside":        {[]entry{{"package/../../../" + outside + "/x", "x", 0o644, tar.TypeReg}}, nil, "an entry with the name"},
		"an absolute path":      {[]entry{{outside + "/x", "x", 0o644, tar.TypeReg}}, nil, "an entry with the name"},
		"a link":                {[]entry{{"package/l", outside, 0o777, tar.TypeSymlink}, {"package/l/x", "x", 0o644, tar.TypeReg}}, nil, "is no file"},
		"a long name":           {[]entry{{"package/" + strings.Repeat("a/", 1000) + "x", "x", 0o644, tar.TypeReg}}, nil, "an entry with the name"},
		"needs other packages":  {program, func(p map[string]any) { p["dependencies"] = map[string]string{"x": "^1"} }, "needs other packages"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(t)
			s.add(t, "tool", "1.0.0", c.files, c.change)
			store := s.store(t)
			a := Agent{Name: "tool", Package: "tool", Program: "tool"}
			_, err := store.Install(t.Context(), &a, "1.0.0", progress.Silent)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			checkNothingLeft(t, store, &a)
		})
	}
	if list, _ := os.ReadDir(outside); len(list) != 0 {
		t.Errorf("written outside: %v", list)
	}
}

// checkNothingLeft fails if a failed installation left files.
func checkNothingLeft(t *testing.T, s *Store, a *Agent) {
	t.Helper()
	if _, err := s.Installed(a, "1.0.0"); !errors.Is(err, cache.ErrAbsent) {
		t.Errorf("installed: %v", err)
	}
	_ = filepath.WalkDir(s.Cache.Path(), func(path string, de os.DirEntry, err error) error {
		if err == nil && de.Type().IsRegular() && filepath.Base(filepath.Dir(path)) != "locks" {
			t.Errorf("left: %s", path)
		}
		return nil
	})
}

// TestInstallStalls: a registry that stops in the middle of an archive, or lies about its size, fails
// the installation, and so does an interruption.
func TestInstallStalls(t *testing.T) {
	body := archive(t, program)
	for name, c := range map[string]struct {
		stall time.Duration
		serve func(w http.ResponseWriter, r *http.Request, interrupt func())
		want  error
	}{
		"stalled": {50 * time.Millisecond, func(w http.ResponseWriter, r *http.Request, _ func()) {
			_, _ = w.Write(body[:10])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, registry.ErrStalled},
		"no answer": {50 * time.Millisecond, func(_ http.ResponseWriter, r *http.Request, _ func()) { <-r.Context().Done() }, registry.ErrStalled},
		"shorter than named": {time.Minute, func(w http.ResponseWriter, _ *http.Request, _ func()) {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)+1))
			_, _ = w.Write(body)
		}, io.ErrUnexpectedEOF},
		"interrupted": {time.Minute, func(w http.ResponseWriter, r *http.Request, interrupt func()) {
			_, _ = w.Write(body[:10])
			_ = http.NewResponseController(w).Flush()
			interrupt()
			<-r.Context().Done()
		}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := newStandIn(t)
			s.add(t, "tool", "1.0.0", program, func(p map[string]any) { p["dist"].(map[string]any)["tarball"] = s.URL + "/slow" })
			s.mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { c.serve(w, r, cancel) })
			store := s.store(t)
			var err error
			if store.Client, err = registry.New(s.URL, c.stall); err != nil {
				t.Fatal(err)
			}
			a := Agent{Name: "tool", Package: "tool", Program: "tool"}
			if _, err := store.Install(ctx, &a, "1.0.0", progress.Silent); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			checkNothingLeft(t, store, &a)
		})
	}
}

// fullDiskEnv makes this test binary install an agent where no file may be larger than 64 KiB.
const fullDiskEnv = "BAWN_TEST_FULL_DISK"

// TestInstallOnAFullDisk: a write that fails in the middle of an archive leaves nothing, and the next
// attempt succeeds. A limit of the size of files (setrlimit(2), RLIMIT_FSIZE) stands for the full
// disk, in a process of its own.
func TestInstallOnAFullDisk(t *testing.T) {
	a := Agent{Name: "tool", Package: "tool", Program: "tool"}
	if address := os.Getenv(fullDiskEnv); address != "" {
		installBelowALimit(t, address, &a)
		return
	}
	s := newStandIn(t)
	large := make([]byte, 1<<20)
	_, _ = rand.Read(large) // it never fails
	s.add(t, "tool", "1.0.0", []entry{{"package/first", "x", 0o644, tar.TypeReg}, {"package/tool", string(large), 0o644, tar.TypeReg}}, nil)
	store := s.store(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInstallOnAFullDisk$")
	cmd.Env = append(os.Environ(), fullDiskEnv+"="+s.URL+" "+store.Cache.Path())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	checkNothingLeft(t, store, &a)
	if _, err := store.Install(t.Context(), &a, "1.0.0", progress.Silent); err != nil {
		t.Errorf("the next attempt: %v", err)
	}
}

func installBelowALimit(t *testing.T, address string, a *Agent) {
	t.Helper()
	base, dir, _ := strings.Cut(address, " ")
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	c, err := registry.New(base, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	store := &Store{Cache: cache.Open(dir), Client: c, Arch: "amd64", GuestPrograms: "/opt/a", GuestHomes: "/opt/h"}
	if _, err := store.Install(t.Context(), a, "1.0.0", progress.Silent); !errors.Is(err, unix.EFBIG) || !strings.Contains(err.Error(), "install tool 1.0.0") {
		t.Errorf("%v", err)
	}
}

// TestTwoInstallsOfAFailure: of two that install the same version at once, the second tries on its own
// when the first fails.
func TestTwoInstallsOfAFailure(t *testing.T) {
	s := newStandIn(t)
	s.add(t, "tool", "1.0.0", program, func(p map[string]any) { p["dist"].(map[string]any)["tarball"] = s.URL + "/once" })
	body := archive(t, program)
	began, goOn := make(chan struct{}), make(chan struct{})
	var served atomic.Int64
	s.mux.HandleFunc("/once", func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1) == 1 {
			close(began)
			<-goOn
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = w.Write(body)
	})
	store := s.store(t)
	a := Agent{Name: "tool", Package: "tool", Program: "tool"}
	var first, second error
	var wg sync.WaitGroup
	wg.Go(func() { _, first = store.Install(t.Context(), &a, "1.0.0", progress.Silent) })
	<-began // it has the lock
	wg.Go(func() { _, second = store.Install(t.Context(), &a, "1.0.0", progress.Silent) })
	close(goOn)
	wg.Wait()
	if first == nil || !strings.Contains(first.Error(), "502 Bad Gateway") || second != nil {
		t.Errorf("%v; %v", first, second)
	}
}

// TestPrune: versions that no sandbox has are removed, and no other agent's.
func TestPrune(t *testing.T) {
	s := newStandIn(t)
	store := s.store(t)
	a, b := Agent{Name: "tool", Package: "tool", Program: "tool"}, Agent{Name: "tool-x", Package: "tool", Program: "tool"}
	dirs := map[string]string{}
	for _, v := range []string{"1.0.0", "2.0.0", "3.0.0"} {
		s.add(t, "tool", v, program, nil)
		in, err := store.Install(t.Context(), &a, v, progress.Silent)
		if err != nil {
			t.Fatal(err)
		}
		dirs[v] = in.Dir
	}
	if _, err := store.Install(t.Context(), &b, "1.0.0", progress.Silent); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.MakeCurrent("tool", "3.0.0"), store.Prune("tool", []string{dirs["2.0.0"]})); err != nil {
		t.Fatal(err)
	}
	for v, stays := range map[string]bool{"1.0.0": false, "2.0.0": true, "3.0.0": true} {
		if _, err := store.Installed(&a, v); (err == nil) != stays {
			t.Errorf("%s: %v", v, err)
		}
	}
	if _, err := store.Installed(&b, "1.0.0"); err != nil {
		t.Error(err)
	}
}

func TestNewest(t *testing.T) {
	if v := newest([]string{"20.1.0", "22.9.1", "22.10.0", "22.11.0-rc.1", "220.1.1", "22.10"}, "22"); v != "22.10.0" {
		t.Error(v)
	}
}
