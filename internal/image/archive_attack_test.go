package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/stall"
)

// archiveOf returns an archive of one layer, which is stored as pack writes it.
func archiveOf(t *testing.T, layer []byte, pack func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	stored := layer
	if pack != nil {
		var b bytes.Buffer
		w := pack(&b)
		if _, err := w.Write(layer); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		stored = b.Bytes()
	}
	config := fmt.Sprintf(`{"os":"linux","architecture":%q,"rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, runtime.GOARCH, sha256.Sum256(layer))
	return entries(t, "l", string(stored), "c", config, manifestFile, `[{"Config":"c","Layers":["l"]}]`)
}

// TestArchivesWithCompressedLayers: as some tools write them.
func TestArchivesWithCompressedLayers(t *testing.T) {
	layer := entries(t, "etc/motd", "hello")
	for name, pack := range map[string]func(io.Writer) io.WriteCloser{
		"plain": nil,
		"gzip":  func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"zstd": func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	} {
		at := filepath.Join(t.TempDir(), "a.tar")
		if err := os.WriteFile(at, archiveOf(t, layer, pack), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.TempDir()).Get(t.Context(), archivePrefix+at, progress.Silent); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAttackAnArchiveThatChanges: a guest writes into an archive in its project, or exchanges it, after bawn has looked at it
// and while it is read. What is read is what was looked at, or the reading fails.
func TestAttackAnArchiveThatChanges(t *testing.T) {
	good := archiveOf(t, entries(t, "etc/motd", "hello"), nil)
	other := archiveOf(t, entries(t, "etc/motd", "other"), nil)
	if len(good) != len(other) {
		t.Fatal("they differ in more than their contents")
	}
	s := Open(t.TempDir())
	read := func(change func(at string) error) (string, error) {
		t.Helper()
		at := filepath.Join(t.TempDir(), "a.tar")
		if err := os.WriteFile(at, good, 0o600); err != nil {
			t.Fatal(err)
		}
		img, err := s.open(t.Context(), archivePrefix+at)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(at); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = s.cleanLayers(context.Background(), img, progress.Silent.Start("", 0, progress.Bytes), &out)
		return out.String(), err
	}
	if got, err := read(func(string) error { return nil }); err != nil || !strings.Contains(got, "hello") {
		t.Errorf("unchanged: %v", err)
	}
	if got, err := read(func(at string) error {
		if err := os.WriteFile(at+".new", other, 0o600); err != nil {
			return err
		}
		return os.Rename(at+".new", at)
	}); err != nil || !strings.Contains(got, "hello") {
		t.Errorf("exchanged: %v", err)
	}
	for name, b := range map[string][]byte{
		"other contents": other, "cut off": good[:600], "empty": nil,
		"endless manifest": entries(t, manifestFile, strings.Repeat(" ", 4*maxManifest)),
	} {
		if _, err := read(func(at string) error { return os.WriteFile(at, b, 0o600) }); err == nil || !strings.Contains(err.Error(), "another digest") && !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "tar header") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAttackLinksInAnArchive: links lead to files of the archive only, and to an end.
func TestAttackLinksInAnArchive(t *testing.T) {
	a := archive{members: map[string]member{"a": {link: "b"}, "b": {link: "a"}, "out": {link: "../etc/passwd"}, "l/x": {link: "file"}, "file": {size: 7}, "dev": {other: true}}}
	for name, want := range map[string]bool{"a": false, "out": false, "dev": false, "none": false, "l/x": true, "./file": true} {
		if m, ok := a.find(name); ok != want || ok && m.size != 7 {
			t.Errorf("%s: %+v, %v", name, m, ok)
		}
	}
}

// TestAttackConfigurationOfTheSmallestEntries: one of the most bytes, in which each costs the most memory.
func TestAttackConfigurationOfTheSmallestEntries(t *testing.T) {
	for _, key := range []string{`{"history":[`, `{"rootfs":{"diff_ids":[],"x":[`} {
		text := key + strings.Repeat("{},", int(DefaultLimits.Config-int64(len(key)))/3)
		text = strings.TrimSuffix(text, ",") + "]}"
		if strings.Contains(key, "rootfs") {
			text += "}"
		}
		if !json.Valid([]byte(text)) {
			t.Fatal("not valid")
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := v1.ParseConfigFile(strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 200<<20 {
			t.Errorf("%s: %d MiB", key, took>>20)
		}
	}
}

// TestRegistriesAreGivenUp: what reaches registries, for images and artifacts, has the limit of package stall.
func TestRegistriesAreGivenUp(t *testing.T) {
	if s, ok := registryTransport().(*stall.Transport); !ok || s.Limit != time.Minute {
		t.Errorf("%T", registryTransport())
	}
}

// TestAttackWindowOfALayer: a layer in zstd names a window of 512 MiB, which the decoder would make.
func TestAttackWindowOfALayer(t *testing.T) {
	for name, c := range map[string]struct {
		window byte // its descriptor: an exponent above 10, and a mantissa (RFC 8878, 3.1.1.1.2)
		say    string
	}{"512 MiB": {19 << 3, "window size"}, "8 MiB": {13 << 3, ""}} {
		stored := append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, c.window}, 0x01, 0x00, 0x00) // and one empty raw block, the last
		l := static.NewLayer(stored, types.OCILayerZStd)
		_, err := pullLayers(t, Open(t.TempDir()), l)
		if (err == nil) != (c.say == "") || err != nil && !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, want %q", name, err, c.say)
		}
	}
}
