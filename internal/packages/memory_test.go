package packages

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"bawn.dev/bawn/internal/sys/toml"
)

// allocated returns how many bytes f takes of memory, all together.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// crowded returns an archive in the format of zip that has a directory of so many bytes, full of files with short
// names, and no files.
func crowded(size int) []byte {
	entry := make([]byte, 47)
	copy(entry, "PK\x01\x02")
	binary.LittleEndian.PutUint16(entry[28:], 1) // bytes of the name
	entry[46] = 'x'
	n := size / len(entry)
	b := bytes.Repeat(entry, n)
	end := make([]byte, 22)
	copy(end, "PK\x05\x06")
	binary.LittleEndian.PutUint16(end[8:], uint16(n)) // the reader compares these bits
	binary.LittleEndian.PutUint16(end[10:], uint16(n))
	binary.LittleEndian.PutUint32(end[12:], uint32(len(b)))
	return append(b, end...)
}

// TestAttackAnArchiveOfManyFiles: a proxy of Go modules sends an archive that is far below the bound in bytes, and
// whose list of files would take ten times as many in memory.
func TestAttackAnArchiveOfManyFiles(t *testing.T) {
	m := module.Version{Path: "a.example/m", Version: "v1.0.0"}
	for _, c := range []struct {
		size int
		want string
	}{{4 * maxDirectory, fmt.Sprintf("more than %d bytes", maxDirectory)}, {1 << 20, "does not have prefix"}} {
		path := filepath.Join(t.TempDir(), "zip")
		if err := os.WriteFile(path, crowded(c.size), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		took := allocated(func() { err = goZip(m, "https://a.example/", "at", "h1:").verify(f) })
		if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 200 {
			t.Errorf("%d bytes: %.200v", c.size, err)
		}
		if took > 10*maxDirectory {
			t.Errorf("a directory of %d bytes takes %d bytes of memory", c.size, took)
		}
	}
}

// TestAttackAPageOfManyFiles: an index's page about a package is full of files that say nothing, or of hashes.
func TestAttackAPageOfManyFiles(t *testing.T) {
	var hashes strings.Builder
	hashes.WriteString(`{"files":[{"hashes":{"sha256":"s"`)
	for i := 0; hashes.Len() < maxPage-100; i++ {
		fmt.Fprintf(&hashes, `,"%x":""`, i)
	}
	hashes.WriteString(`},"filename":"f"}]}`)
	for name, c := range map[string]struct {
		page string
		want int
		err  string
	}{
		"files":  {page: `{"files":[{}` + strings.Repeat(",{}", (maxPage-20)/3) + `]}`, err: "more than 50000 files"},
		"hashes": {page: hashes.String(), want: 1},
		"others": {page: `{"meta":[0` + strings.Repeat(",0", maxPage/2-30) + `],"files":[{}]}`, want: 1},
	} {
		var list []pipFile
		var err error
		took := allocated(func() { list, err = pipPage([]byte(c.page)) })
		if len(list) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %d files, %v", name, len(list), err)
		}
		if took > 8*maxPage {
			t.Errorf("%s: a page takes %d bytes of memory", name, took)
		}
	}
	for _, page := range []string{`{`, `{"files":null}`, `{"files":{}}`, `{"files":[1]}`, `{"files":[{}`, `{"files":[{}]`, `[]`, `{"a"}`, `{"files":[{"filename":3}]}`} {
		if list, err := pipPage([]byte(page)); err == nil && strings.HasPrefix(page, "{") {
			t.Errorf("%s: %v", page, list)
		}
	}
}

// TestAttackALockOfManyModules: a go.sum that is as long as one may be, of the shortest lines.
func TestAttackALockOfManyModules(t *testing.T) {
	var b strings.Builder
	b.WriteString("a.a/first v0.0.0 h1:one\n")
	for i := 0; b.Len() < maxLock-40; i++ {
		fmt.Fprintf(&b, "a.a/%x v0.0.0 h1:x\n", i)
	}
	b.WriteString("a.a/first v0.0.0 h1:two\n")
	var wants []want
	var err error
	took := allocated(func() { wants, err = goWants([]byte(b.String()), "https://a.example/", "") })
	if err != nil || len(wants) <= maxWants || len(wants) > 2*maxWants {
		t.Errorf("%d wants, %v", len(wants), err)
	}
	for _, w := range wants {
		if strings.Contains(w.url, "/first/") {
			t.Errorf("it has two hashes: %s", w.url)
		}
	}
	if took > 20*maxLock {
		t.Errorf("it takes %d bytes of memory", took)
	}
}

// TestAttackFilesOfOnePackageManyTimes: a lock file of an older format names one package many times, and has many files of it
// in a table of their own, which would count for each.
func TestAttackFilesOfOnePackageManyTimes(t *testing.T) {
	const n = 5000
	for file, key := range map[string]string{"poetry.lock": "x", "pdm.lock": `"x 1"`} {
		text := strings.Repeat("[[package]]\nname = \"x\"\nversion = \"1\"\n", n) +
			"[metadata.files]\n" + key + " = [" + strings.Repeat(`{hash = "sha256:`+strings.Repeat("0", 64)+`"},`, n) + "]\n"
		lock, err := toml.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var list []pythonPackage
		if took := allocated(func() { list = pythonLock(file)(lock) }); took > 32<<20 || len(list) != n || len(list[0].hashes) != n {
			t.Errorf("%s: %d MiB for %d packages", file, took>>20, len(list))
		}
	}
}
