package packages

import (
	archivezip "archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/settings"
)

// goSource returns the proxy of Go modules.
func goSource() (*source, error) {
	file, err := goSettings()
	if err != nil {
		return nil, fmt.Errorf("go's settings: %w", err)
	}
	base, err := baseURL(goProxy(goSetting(file, "GOPROXY")))
	if err != nil {
		return nil, fmt.Errorf("go env GOPROXY names no proxy that is asked first: %w", err)
	}
	private := goSetting(file, "GONOPROXY")
	if private == "" {
		private = goSetting(file, "GOPRIVATE")
	}
	return &source{base, func(_ string, text []byte) ([]want, error) { return goWants(text, base, private) }}, nil
}

// goProxy returns the first proxy of a GOPROXY; without one the public one, whose host is the first
// of preset:go.
func goProxy(list string) string {
	if list != "" {
		first, _, _ := strings.Cut(strings.ReplaceAll(list, "|", ","), ",")
		return strings.TrimSpace(first)
	}
	for _, p := range policy.Presets() {
		if p.Name == "go" {
			return "https://" + p.Rules[0] + "/"
		}
	}
	return ""
}

// maxSettings bounds the file of Go's settings, in bytes.
const maxSettings = 1 << 20

// goSettings returns the file of the settings of the host's Go, as go env -w writes it; nil if there is none (go help
// environment).
func goSettings() ([]byte, error) {
	file := os.Getenv("GOENV")
	if dir, err := os.UserConfigDir(); file == "" && err == nil {
		file = filepath.Join(dir, "go", "env")
	}
	if !filepath.IsAbs(file) {
		return nil, nil // GOENV=off, or a file that would be looked for in a project
	}
	text, err := settings.Read(file, maxSettings)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// goSetting returns a setting of the environment, or else of the file of settings.
func goSetting(file []byte, name string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	for line := range strings.Lines(string(file)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && k == name {
			return v
		}
	}
	return ""
}

// goWants returns the modules of a go.sum that are at the proxy: all but those that match the
// patterns of private. A module that its go.sum has two hashes of is left out.
func goWants(text []byte, base, private string) ([]want, error) {
	hashes := map[module.Version]string{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 || !strings.HasPrefix(f[2], "h1:") {
			continue
		}
		m := module.Version{Path: f[0], Version: f[1]}
		had, ok := hashes[m]
		if !ok && len(hashes) > maxWants {
			continue // of which no more are fetched
		}
		if ok && had != f[2] {
			f[2] = "" // matches nothing
		}
		hashes[m] = f[2]
	}
	if len(hashes) == 0 && len(bytes.TrimSpace(text)) > 0 {
		return nil, errors.New("it is not a go.sum")
	}
	var wants []want
	for m, sum := range hashes {
		version, isMod := strings.CutSuffix(m.Version, "/go.mod")
		m.Version = version
		if sum == "" || module.Check(m.Path, m.Version) != nil || module.MatchPrefixPatterns(private, m.Path) {
			continue
		}
		path, perr := module.EscapePath(m.Path)
		v, verr := module.EscapeVersion(m.Version)
		if perr != nil || verr != nil {
			continue
		}
		at := path + "/@v/" + v
		if isMod {
			wants = append(wants, goMod(m, base, at, sum))
		} else {
			wants = append(wants, goZip(m, base, at, sum), goInfo(m, base, at))
		}
	}
	slices.SortFunc(wants, func(a, b want) int { return strings.Compare(a.file, b.file) })
	return wants, nil
}

// goMod is the go.mod of a module.
func goMod(m module.Version, base, at, sum string) want {
	return want{name: m.String(), url: base + at + ".mod", file: at + ".mod", sum: sum, limit: maxSmall,
		verify: func(f *os.File) error {
			got, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(f), nil })
			if err == nil && got != sum {
				err = errHash
			}
			return err
		}}
}

// goZip is the archive of a module. Go takes the hash of an archive from the file beside it.
func goZip(m module.Version, base, at, sum string) want {
	return want{name: m.String(), url: base + at + ".zip", file: at + ".zip", sum: sum, limit: maxPackage,
		beside: beside{at + ".ziphash", sum},
		verify: func(f *os.File) error {
			oneArchive.Lock()
			defer oneArchive.Unlock()
			if err := checkDirectory(f); err != nil {
				return err
			}
			if _, err := zip.CheckZip(m, f.Name()); err != nil { // bounds what HashZip unpacks, too
				var all zip.FileErrorList
				if errors.As(err, &all) && len(all) > 0 {
					err = all[0] // one for each file would be a text without end
				}
				return err
			}
			got, err := dirhash.HashZip(f.Name(), dirhash.Hash1)
			if err == nil && got != sum {
				err = errHash
			}
			return err
		}}
}

// maxDirectory bounds the directory of an archive, in bytes: what lists its files. The readers keep each entry in
// memory, where a short one takes ten times its bytes. Archives of 50,000 files, more than is known of any module,
// have some 8 MiB.
const maxDirectory = 16 << 20

// oneArchive is held while an archive is verified, so that the directory of one only is in memory.
var oneArchive sync.Mutex

// checkDirectory returns an error if an archive has a larger directory than maxDirectory. The reader of those that use
// the archive later finds it, so that both mean the same.
func checkDirectory(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	_, err = archivezip.NewReader(&directoryReader{f, maxDirectory + directorySlack}, fi.Size())
	return err
}

// directorySlack is what is read of an archive beside its directory: its end, which is looked for in 1 KiB and then in
// 65 KiB (archive/zip), and what is read ahead.
const directorySlack = 128 << 10

// directoryReader reads from a file, and fails when it has read too much.
type directoryReader struct {
	file *os.File
	left int64
}

// ReadAt implements io.ReaderAt. It is for one goroutine.
func (r *directoryReader) ReadAt(b []byte, at int64) (int, error) {
	if r.left -= int64(len(b)); r.left < 0 {
		return 0, fmt.Errorf("its list of files has more than %d bytes", maxDirectory)
	}
	return r.file.ReadAt(b, at)
}

// maxInfo bounds the description of a version, in bytes.
const maxInfo = 64 << 10

// goInfo is the description of a module's version, which has no hash anywhere: its time and where
// it comes from. Go builds nothing by it.
func goInfo(m module.Version, base, at string) want {
	return want{name: m.String(), url: base + at + ".info", file: at + ".info", limit: maxInfo,
		verify: func(f *os.File) error {
			text, err := io.ReadAll(f)
			if err != nil {
				return err
			}
			var info struct{ Version string }
			if err := json.Unmarshal(text, &info); err != nil || info.Version != m.Version {
				return errors.New("the proxy's answer does not describe this version")
			}
			return nil
		}}
}
