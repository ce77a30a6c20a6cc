package packages

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/proxyenv/proxyenvtest"
)

// cargoFrom makes the host's cargo use a registry, whose index is below /index/.
func cargoFrom(t *testing.T, registry string) {
	t.Helper()
	home := t.TempDir()
	write(t, filepath.Join(home, "config.toml"), "[source.crates-io]\nreplace-with = 'mirror'\n[source.mirror]\nregistry = 'sparse+"+registry+"/index/'\n")
	t.Setenv("CARGO_HOME", home)
}

// cargoConfig is the config.json of the stand-in registry.
func cargoConfig(url string) []byte { return []byte(`{"dl":"` + url + `/dl","api":"` + url + `"}`) }

func sha256Of[T string | []byte](content T) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// crateArchive returns a crate, whose function word returns a word.
func crateArchive(t *testing.T, name, version, word string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, f := range [][2]string{
		{"Cargo.toml", "[package]\nname = \"" + name + "\"\nversion = \"" + version + "\"\nedition = \"2018\"\n"},
		{"src/lib.rs", "pub fn word() -> &'static str { \"" + word + "\" }\n"},
	} {
		err := w.WriteHeader(&tar.Header{Name: name + "-" + version + "/" + f[0], Mode: 0o644, Size: int64(len(f[1]))})
		if err == nil {
			_, err = io.WriteString(w, f[1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// indexEntry is a line of the index.
func indexEntry(name, version, sum string) string {
	return fmt.Sprintf(`{"name":"%s","vers":"%s","deps":[],"cksum":"%s","features":{},"yanked":false}`+"\n", name, version, sum)
}

// cargoLockOf returns a Cargo.lock with lines NAME VERSION CHECKSUM [SOURCE].
func cargoLockOf(lines ...string) string {
	domain, _ := cargoDomain()
	text := "version = 4\n\n[[package]]\nname = \"p\"\nversion = \"0.1.0\"\ndependencies = [\n \"good\",\n]\n"
	for _, l := range lines {
		f := append(strings.Fields(l), "registry+https://github.com/rust-lang/"+domain+"-index")
		text += fmt.Sprintf("\n[[package]]\nname = %q\nversion = %q\nsource = %q\nchecksum = %q\n", f[0], f[1], f[3], f[2])
	}
	return text
}

// crateFiles are where the store has a crate and what is beside it.
func crateFiles(name, version string) (archive, sum string) {
	return "cache/" + cargoPlace(cargoHash) + "/" + name + "-" + version + ".crate", ".sha256/" + name + "-" + version
}

// entryFile is where the store has the entry of a crate whose name has more than three letters.
func entryFile(name string) string {
	return "index/" + cargoPlace(cargoHash) + "/.cache/" + name[:2] + "/" + name[2:4] + "/" + name
}

// TestCargoUsesTheStore: cargo builds from a store below its CARGO_HOME, without a network and without
// being told so, and only what the lock file names.
func TestCargoUsesTheStore(t *testing.T) {
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		t.Skip("cargo is not installed")
	}
	if _, err := exec.LookPath("rustc"); err != nil {
		t.Skip("rustc is not installed")
	}
	archive := crateArchive(t, "good", "1.0.0", "from the store")
	files := map[string][]byte{
		"/dl/good/1.0.0/download": archive,
		"/index/go/od/good":       []byte(indexEntry("good", "1.0.0", sha256Of(archive)) + indexEntry("good", "1.1.0", sha256Of("another"))),
	}
	r := serve(t, files)
	files["/index/config.json"] = cargoConfig(r.URL)
	project := t.TempDir()
	write(t, filepath.Join(project, "Cargo.toml"), "[package]\nname = \"p\"\nversion = \"0.1.0\"\nedition = \"2018\"\n[dependencies]\ngood = \"1\"\n")
	write(t, filepath.Join(project, "src/main.rs"), `fn main() { print!("{}", good::word()); }`)
	write(t, filepath.Join(project, "Cargo.lock"), cargoLockOf("good 1.0.0 "+sha256Of(archive)))
	s := Open(t.TempDir())
	if res := fill(t, s, project, anything, sandbox.CacheCargo)[0]; res.Named != 2 || res.Added != 2 || res.Left != 0 || res.Locks != 1 {
		t.Fatalf("%+v", res)
	}
	asked := r.requests()
	if res := fill(t, s, project, anything, sandbox.CacheCargo)[0]; res.Added != 0 || res.Left != 0 || !slices.Equal(asked, r.requests()) {
		t.Errorf("the second time: %+v, %q", res, r.requests())
	}
	r.Close()

	home := t.TempDir()
	if out, err := exec.Command("cp", "-a", s.Folder(sandbox.CacheCargo), filepath.Join(home, "registry")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(cargo, args...)
		cmd.Dir = project
		cmd.Env = append(os.Environ(), "CARGO_HOME="+home, "CARGO_TARGET_DIR="+t.TempDir(), "CARGO_NET_RETRY=0", "https_proxy=http://127.0.0.1:1")
		var out, says bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &says
		if err := cmd.Run(); err != nil || out.String() != "from the store" {
			t.Errorf("cargo %q: %v, %q\n%s", args, err, out.String(), says.String())
		}
	}
	run("run")
	run("run", "--locked", "--offline")
}

// TestPoisonedCargoLock: whatever a lock file says, the store gets only crates that the registry serves
// for that name and version, with the checksum of the lock file, and entries of the index that agree.
func TestPoisonedCargoLock(t *testing.T) {
	files := map[string][]byte{}
	r := serve(t, files)
	evil := serve(t, map[string][]byte{"/dl/good/1.0.0/download": []byte("evil"), "/index/config.json": []byte("{}")})
	cargoFrom(t, r.URL)
	add := func(name, version, content string) {
		files["/dl/"+name+"/"+version+"/download"] = []byte(content)
		at := "/index/" + strings.ToLower(cratePrefix(name)+"/"+name)
		files[at] = append(files[at], indexEntry(name, version, sha256Of(content))...)
	}
	files["/index/config.json"] = cargoConfig(r.URL)
	add("good", "1.0.0", "good")
	add("good", "2.0.0-b.1+x", "good 2")
	add("Abc", "1.0.0", "short")
	add("changed", "1.0.0", "what the registry serves now")
	add("victim", "1.0.0", "victim")
	add("disagrees", "1.0.0", "in the index")
	files["/dl/disagrees/1.0.0/download"] = []byte("as crate")
	add("others", "1.0.0", "others")
	files["/index/ot/he/others"] = []byte(indexEntry("another", "1.0.0", sha256Of("others")) + "null\n{\x00}\n[]\n")
	project := t.TempDir()
	write(t, filepath.Join(project, "Cargo.lock"), cargoLockOf(
		"good 1.0.0 "+sha256Of("good"), "good 2.0.0-b.1+x "+sha256Of("good 2"), "Abc 1.0.0 "+sha256Of("short"),
		"changed 1.0.0 "+sha256Of("what it served before"),
		"victim 1.0.0 "+sha256Of("good"), // another's content
		"disagrees 1.0.0 "+sha256Of("as crate"),
		"others 1.0.0 "+sha256Of("others"),
		"twice 1.0.0 "+sha256Of("a"), "twice 1.0.0 "+sha256Of("b"),
		"elsewhere 1.0.0 "+sha256Of("evil")+" registry+"+evil.URL+"/index/", "sparse 1.0.0 "+sha256Of("evil")+" sparse+"+evil.URL+"/index/",
		"git 1.0.0 "+sha256Of("evil")+" git+https://git.example/x#abc",
		"../../x 1.0.0 "+sha256Of("x"), "x?y 1.0.0 "+sha256Of("x"), "x/y 1.0.0 "+sha256Of("x"),
		"path 1.0.0/../../x "+sha256Of("x"), "path ../1 "+sha256Of("x"), "weak 1.0.0 abc", "caps 1.0.0 "+strings.ToUpper(sha256Of("good")),
	))
	// A lie about a crate in one lock file does not keep it out for another one, whichever comes first.
	write(t, filepath.Join(project, "a/Cargo.lock"), cargoLockOf("good 1.0.0 "+sha256Of("a lie")))
	write(t, filepath.Join(project, "z/Cargo.lock"), cargoLockOf("good 1.0.0 "+sha256Of("another lie")))
	s := Open(filepath.Join(t.TempDir(), "packages"))
	res := fill(t, s, project, anything, sandbox.CacheCargo)[0]
	got := stored(t, s, sandbox.CacheCargo)
	want := map[string]string{}
	for _, c := range [][3]string{{"good", "1.0.0", "good"}, {"good", "2.0.0-b.1+x", "good 2"}, {"Abc", "1.0.0", "short"}, {"disagrees", "1.0.0", "as crate"}, {"others", "1.0.0", "others"}} {
		archive, sum := crateFiles(c[0], c[1])
		want[archive], want[sum] = c[2], sha256Of(c[2])
	}
	const begin = "\x03\x02\x00\x00\x00Unknown\x00"
	root := "index/" + cargoPlace(cargoHash)
	line := func(name, version, content string) string {
		return version + "\x00" + strings.TrimSpace(indexEntry(name, version, sha256Of(content))) + "\x00"
	}
	want[entryFile("good")] = begin + line("good", "1.0.0", "good") + line("good", "2.0.0-b.1+x", "good 2")
	want[root+"/.cache/3/a/abc"] = begin + line("Abc", "1.0.0", "short")
	want[root+"/config.json"] = got[root+"/config.json"]
	if !maps.Equal(got, want) {
		t.Errorf("the store has %q\nwant %q", got, want)
	}
	if strings.Contains(got[root+"/config.json"], r.URL) || !strings.Contains(got[root+"/config.json"], `"dl": "https://static.`) {
		t.Errorf("config.json: %s", got[root+"/config.json"])
	}
	if res.Named != 17 || res.Added != 7 || res.Left != 10 {
		t.Errorf("result: %+v", res)
	}
	if n := evil.requests(); len(n) > 0 {
		t.Errorf("the other host was asked for %q", n)
	}
	if n := slices.DeleteFunc(r.requests(), func(p string) bool { return p != "/index/config.json" }); len(n) != 1 {
		t.Errorf("config.json was asked for %d times", len(n))
	}
	for _, part := range []string{"cache", "index"} {
		link := filepath.Join(s.Folder(sandbox.CacheCargo), part, cargoPlace(cargoOldHash))
		if to, err := os.Readlink(link); err != nil || to != cargoPlace(cargoHash) {
			t.Errorf("%s leads to %q, %v", link, to, err)
		}
	}
}

// TestAttackCrateOfAnotherRegistry: a crate that one registry of the host's settings had is not taken for
// that of another lock file, since cargo does not verify it: it is fetched again.
func TestAttackCrateOfAnotherRegistry(t *testing.T) {
	project, s := t.TempDir(), Open(t.TempDir())
	from := func(content string) {
		t.Helper()
		files := map[string][]byte{"/dl/good/1.0.0/download": []byte(content), "/index/go/od/good": []byte(indexEntry("good", "1.0.0", sha256Of(content)))}
		r := serve(t, files)
		files["/index/config.json"] = cargoConfig(r.URL)
		write(t, filepath.Join(project, "Cargo.lock"), cargoLockOf("good 1.0.0 "+sha256Of(content)))
		if res := fill(t, s, project, anything, sandbox.CacheCargo)[0]; res.Added != 2 || res.Left != 0 {
			t.Errorf("%s: %+v", content, res)
		}
		archive, sum := crateFiles("good", "1.0.0")
		got := stored(t, s, sandbox.CacheCargo)
		if got[archive] != content || got[sum] != sha256Of(content) || !strings.Contains(got[entryFile("good")], sha256Of(content)) {
			t.Errorf("the store has %q", got)
		}
	}
	from("evil")
	from("good")
	// A lie neither replaces it nor removes it.
	write(t, filepath.Join(project, "Cargo.lock"), cargoLockOf("good 1.0.0 "+sha256Of("evil")))
	archive, _ := crateFiles("good", "1.0.0")
	if res := fill(t, s, project, anything, sandbox.CacheCargo)[0]; res.Left != 2 || stored(t, s, sandbox.CacheCargo)[archive] != "good" {
		t.Errorf("a lie: %+v", res)
	}
}

// TestHostileCargoRegistry: what a registry says about itself and its crates leads nowhere else and
// leaves nothing in the store.
func TestHostileCargoRegistry(t *testing.T) {
	other := serve(t, map[string][]byte{"/dl/good/1.0.0/download": []byte("good")})
	entry := []byte(indexEntry("good", "1.0.0", sha256Of("good")))
	for name, c := range map[string]struct {
		config  string
		entry   []byte
		crate   string // where it redirects; "" serves it
		allowed string // prefix of what the guest may request, of the registry if it is empty
		why     string
		kept    int
	}{
		"all is well":                {config: `{"dl":"URL/dl"}`, entry: entry, kept: 4},
		"markers":                    {config: `{"dl":"URL/{prefix}/{lowerprefix}/{crate}/{version}?{sha256-checksum}"}`, entry: entry, kept: 4},
		"no config":                  {config: "", entry: entry, why: "config.json: the registry answered 404", kept: 2},
		"no JSON":                    {config: "<html>", entry: entry, why: "config.json: it is not that of a registry", kept: 2},
		"no address":                 {config: `{"dl":"/dl"}`, entry: entry, why: "does not say where the crates are", kept: 2},
		"a file":                     {config: `{"dl":"file:///etc/passwd"}`, entry: entry, why: "does not say where the crates are", kept: 2},
		"a login":                    {config: `{"dl":"http://user@127.0.0.1/"}`, entry: entry, why: "does not say where the crates are", kept: 2},
		"large":                      {config: `{"dl":"` + strings.Repeat("x", maxCargoConfig) + `"}`, entry: entry, why: "larger than 65536 bytes", kept: 2},
		"another host, not allowed":  {config: `{"dl":"OTHER/dl"}`, entry: entry, why: "denied", kept: 2},
		"another host, allowed":      {config: `{"dl":"OTHER/dl"}`, entry: entry, allowed: "http://", kept: 4},
		"redirects elsewhere":        {config: `{"dl":"URL/dl"}`, entry: entry, crate: "OTHER/dl/good/1.0.0/download", allowed: "http://", why: "redirects to another host", kept: 2},
		"nothing is allowed":         {config: `{"dl":"URL/dl"}`, entry: entry, allowed: "https://", why: "denied"},
		"no entry":                   {config: `{"dl":"URL/dl"}`, why: "good: the registry answered 404", kept: 2},
		"another checksum":           {config: `{"dl":"URL/dl"}`, entry: []byte(indexEntry("good", "1.0.0", sha256Of("x"))), why: "checksum of the lock file", kept: 2},
		"a version twice":            {config: `{"dl":"URL/dl"}`, entry: append([]byte(indexEntry("good", "1.0.0", sha256Of("x"))), entry...), why: "has version 1.0.0 twice", kept: 2},
		"lines of other crates, too": {config: `{"dl":"URL/dl"}`, entry: append([]byte(indexEntry("evil", "1.0.0", sha256Of("x"))+"{\n\x00\n"), entry...), kept: 4},
	} {
		srv := httptest.NewUnstartedServer(nil)
		srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			config := strings.NewReplacer("URL", srv.URL, "OTHER", other.URL).Replace(c.config)
			switch {
			case q.URL.Path == "/index/config.json" && config != "":
				_, _ = io.WriteString(w, config)
			case q.URL.Path == "/index/go/od/good" && c.entry != nil:
				w.Header().Set("ETag", `"one"`)
				_, _ = w.Write(c.entry)
			case c.crate != "" && q.URL.Path == "/dl/good/1.0.0/download":
				http.Redirect(w, q, strings.Replace(c.crate, "OTHER", other.URL, 1), http.StatusFound)
			case q.URL.Path == "/dl/good/1.0.0/download", q.URL.Path == "/go/od/go/od/good/1.0.0" && q.URL.RawQuery == sha256Of("good"):
				_, _ = io.WriteString(w, "good")
			default:
				http.NotFound(w, q)
			}
		})
		srv.Start()
		cargoFrom(t, srv.URL)
		project, s := t.TempDir(), Open(t.TempDir())
		write(t, filepath.Join(project, "Cargo.lock"), cargoLockOf("good 1.0.0 "+sha256Of("good")))
		may := func(url string) error {
			if prefix := c.allowed; prefix == "" && strings.HasPrefix(url, srv.URL) || prefix != "" && strings.HasPrefix(url, prefix) {
				return nil
			}
			return errors.New("denied")
		}
		res := fill(t, s, project, may, sandbox.CacheCargo)[0]
		got := stored(t, s, sandbox.CacheCargo)
		if len(got) != c.kept || !strings.Contains(res.Why, c.why) || (c.why == "") != (res.Why == "") {
			t.Errorf("%s: %+v, the store has %q", name, res, slices.Sorted(maps.Keys(got)))
		}
		for file, text := range got {
			if strings.Contains(text, "evil") {
				t.Errorf("%s: %s has %q", name, file, text)
			}
		}
		srv.Close()
	}
	if n := other.requests(); len(n) != 1 {
		t.Errorf("the other host was asked for %q", n)
	}
}

// TestCargoKeepsTheETag: guests can ask the public registry whether there is something newer; the word
// of another registry is no help in that.
func TestCargoKeepsTheETag(t *testing.T) {
	for _, c := range []struct {
		public     bool
		etag, want string
	}{{true, `W/"a"`, `etag: W/"a"`}, {false, `"a"`, "Unknown"}, {true, "", "Unknown"}, {true, strings.Repeat("x", maxETag+1), "Unknown"}} {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err == nil {
			_, err = f.WriteString(indexEntry("good", "1.0.0", sha256Of("good")))
		}
		if err == nil {
			err = (&crates{public: c.public}).cacheEntry(f, "good", c.etag)
		}
		b, rerr := os.ReadFile(f.Name())
		if err := errors.Join(err, rerr, f.Close()); err != nil || !strings.HasPrefix(string(b), "\x03\x02\x00\x00\x00"+c.want+"\x001.0.0\x00{") {
			t.Errorf("%+v: %v, %q", c, err, b)
		}
	}
}

// TestCargoSettings: the registry is that of the person's settings.
func TestCargoSettings(t *testing.T) {
	proxyenvtest.Set(t)
	const public = "https://public.example/"
	for text, want := range map[string]string{
		"":                            public,
		"[net]\nretry = 2\n":          public,
		"[source.crates-io]\nx = 1\n": public,
		"[source]\ncrates-io = { replace-with = \"a\" }\n[source.a]\nreplace-with = \"b\"\n[registries.b]\nindex = \"sparse+https://b.example/x/\"\n": "https://b.example/x/",
		"source.crates-io.replace-with = 'a'\nsource.a.registry = 'https://git.example/index'\n":                                                      `!"a", which is no registry with a sparse index`,
		"source.crates-io.replace-with = 'a'\nsource.a.directory = 'vendor'\n":                                                                        `!"a", which is no registry`,
		"source.crates-io.replace-with = 'a'\n":                                                                                                       `!"a", which is no registry`,
		"source.crates-io.replace-with = 'a'\nsource.a.replace-with = 'crates-io'\n":                                                                  "!again and again",
		"source = ":  "!cargo's settings in ",
		"source = 1": public,
	} {
		home := t.TempDir()
		write(t, filepath.Join(home, "config.toml"), text)
		t.Setenv("CARGO_HOME", home)
		got, err := cargoIndex(public)
		if say, fails := strings.CutPrefix(want, "!"); fails != (err != nil) || fails && !strings.Contains(err.Error(), say) || !fails && got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("CARGO_HOME", "")
	write(t, filepath.Join(home, ".cargo/config"), "source.crates-io.replace-with = 'a'\nsource.a.registry = 'sparse+https://a.example/'\n")
	if got, err := cargoIndex(public); err != nil || got != "https://a.example/" {
		t.Errorf("the person's settings: %s, %v", got, err)
	}
}

// TestAttackCargoSettingsInTheProject: cargo reads .cargo/config.toml in the directories of a project and
// above; the host, which fetches for it, does not, and takes no CARGO_HOME that depends on where it is.
func TestAttackCargoSettingsInTheProject(t *testing.T) {
	project := t.TempDir()
	t.Chdir(project)
	t.Setenv("HOME", t.TempDir())
	for _, home := range []string{"", ".cargo", "here"} {
		t.Setenv("CARGO_HOME", home)
		for _, dir := range []string{".cargo", "here", "."} {
			write(t, filepath.Join(project, dir, "config.toml"), "source.crates-io.replace-with = 'a'\nsource.a.registry = 'sparse+https://evil.example/'\n")
		}
		if got, err := cargoIndex("https://public.example/"); err != nil || got != "https://public.example/" {
			t.Errorf("CARGO_HOME=%s: %s, %v", home, got, err)
		}
	}
}

func TestOtherCargoLocks(t *testing.T) {
	r := &crates{base: "https://index.example/", named: []string{"registry+x"}}
	for text, want := range map[string]string{
		"": "", cargoLockOf(): "", "{}": "it is not a lock file of cargo: line 1", "a = 1\n": "it names no packages",
		"[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry+x\"\n[metadata]\n\"checksum a 1.0.0 (registry+x)\" = \"0\"\n": "before 1.41",
	} {
		if wants, err := r.wants([]byte(text)); len(wants) != 0 || (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v", text, wants, err)
		}
	}
}

// standIn is an asker for what may be at a registry.
func standIn(_ context.Context, url, _ string, _ int64) ([]byte, error) {
	if !strings.HasPrefix(url, "https://registry.example/") {
		return nil, fmt.Errorf("asks for %s", url)
	}
	return []byte(`{"dl":"https://registry.example/dl"}`), nil
}

// FuzzCargoLock is FuzzNPMLock for Cargo.lock.
func FuzzCargoLock(f *testing.F) {
	f.Add([]byte(cargoLockOf("good 1.0.0 " + sha256Of("good"))))
	f.Add([]byte(cargoLockOf("../x 1.0.0 "+sha256Of("good"), "a 1.0.0/.. "+sha256Of("good"))))
	domain, _ := cargoDomain()
	f.Fuzz(func(t *testing.T, text []byte) {
		const base = "https://registry.example/"
		r := &crates{base: base, named: []string{"registry+https://github.com/rust-lang/" + domain + "-index"}}
		wants, _ := r.wants(text)
		checkWants(t, wants, base)
	})
}
