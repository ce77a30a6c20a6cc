//go:build vm

package vmtest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// smallFiles unpacks, reads and removes the project's tree.tar, as npm ci and a build do, in the folder
// $1, and prints how long each took, in microseconds. The archive is read from memory.
const smallFiles = `
tree=/dev/shm/tree.tar
[ -e $tree ] || cp tree.tar $tree
now() { date +%s%N; }
mkdir -p "$1"
a=$(now); tar -xf $tree -C "$1"; sync -f "$1"
b=$(now); grep -r y "$1/tree" && exit 1
c=$(now); rm -r "$1/tree"
d=$(now)
echo $(((b - a) / 1000)) $(((c - b) / 1000)) $(((d - c) / 1000))`

// writeTree writes an archive of 10,000 files of 1,500 bytes in 100 folders, tree/N.
func writeTree(b *testing.B, path string) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	text := bytes.Repeat([]byte("x"), 1500)
	w := tar.NewWriter(f)
	for i := range 10_000 {
		err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("tree/%d/%d.js", i/100, i), Mode: 0o644, Size: int64(len(text))})
		_, werr := w.Write(text)
		if err := errors.Join(err, werr); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkSmallFiles measures 10,000 small files in a local directory of the project and on the
// live share, against the guest's own disk, all in one guest in turns.
func BenchmarkSmallFiles(b *testing.B) {
	dir := benchProject(b, "files")
	run(b, dir, "run", "--memory", "1G", "--local-dir", "node_modules", "--", "true")
	writeTree(b, filepath.Join(dir, "tree.tar"))
	times := map[string][]time.Duration{}
	measure := func(where, folder string) {
		out := run(b, dir, "run", "--", "sh", "-euc", smallFiles, "sh", folder)
		var took [3]int64
		if _, err := fmt.Sscan(strings.TrimSpace(out), &took[0], &took[1], &took[2]); err != nil {
			b.Fatalf("%q: %v", out, err)
		}
		for i, what := range []string{"unpack", "read", "remove"} {
			d := time.Duration(took[i]) * time.Microsecond
			times[where+what] = append(times[where+what], d)
		}
	}
	disk := strings.TrimSpace(run(b, dir, "run", "--", "sh", "-c", "echo ~")) + "/files"
	measure("", disk) // copies the archive, and warms up
	clear(times)
	const rounds, shared = 3, 1 // of them, those in which the share takes its turn
	for i := range max(b.N, rounds) {
		measure("disk-", disk)
		measure("local-", "node_modules/files")
		if i < shared {
			measure("share-", "files")
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, what := range []string{"unpack", "read", "remove"} {
		local, share, theirs := times["local-"+what], times["share-"+what], times["disk-"+what]
		b.ReportMetric(median(local), what+"-local-ms")
		b.ReportMetric(median(share), what+"-share-ms")
		b.ReportMetric(ratio(local, theirs), what+"-local/disk")
		b.ReportMetric(ratio(share, theirs), what+"-share/disk")
	}
}
