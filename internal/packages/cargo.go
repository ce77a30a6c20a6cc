package packages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/regular"
	"bawn.dev/bawn/internal/sys/settings"
	"bawn.dev/bawn/internal/sys/toml"
)

// Theory of operation. What guests have is the directory registry of a CARGO_HOME whose cargo has used
// the public registry: crates, and the entries of the index about them. With both, cargo builds from a
// Cargo.lock without a request, and without --offline.
//
//	cache/REGISTRY/NAME-VERSION.crate
//	index/REGISTRY/config.json            where the registry has its crates
//	index/REGISTRY/.cache/NA/ME/NAME      the entry of a crate: all its versions
//	.sha256/NAME-VERSION                  the hash of the crate, for the host alone
//
// cargo does not verify a crate that its cache has: the host has verified it. It does compare the
// checksum in the entry with the lock file's. An entry has no hash anywhere: it is the registry's word,
// as it is for a cargo that fetches it, and it is kept only if it gives to the versions of the lock
// file that file's checksums. config.json is written by the host, and says what the public registry's
// does: that of another registry, from which the host fetches, would send guests there.

// Names of cargo's directories for the public registry, after the host's name: a hash of the registry's
// URL, as cargo 1.85 and newer compute it, and as 1.70 to 1.84 did on 64 bits
// (rust-lang/cargo pull request 14917). Older ones have the index as a git repository.
const (
	cargoHash    = "1949cf8c6b5b557f"
	cargoOldHash = "6f17d22bba15001f"
)

// Bounds of what a registry says.
const (
	maxCargoConfig = 64 << 10 // bytes of its config.json
	maxETag        = 256      // bytes of an ETag
	maxSources     = 8        // sources that replace each other in cargo's settings
)

// cargoDomain is the domain of the public registry, whose host for archives is the first of
// preset:crates, and its host for the index.
func cargoDomain() (domain, index string) {
	for _, p := range policy.Presets() {
		if p.Name == "crates" {
			domain = strings.TrimPrefix(p.Rules[0], "static.")
		}
	}
	return domain, "index." + domain
}

// cargoPlace is the name of cargo's directory for the public registry.
func cargoPlace(hash string) string {
	_, index := cargoDomain()
	return index + "-" + hash
}

// makeCargo makes the folders that a guest's cargo sees. Older versions find them by a link, which the
// guest's kernel follows in what it sees: its own directories, too.
func makeCargo(folder string) error {
	for _, part := range []string{"cache", "index"} {
		if err := os.MkdirAll(filepath.Join(folder, part, cargoPlace(cargoHash)), 0o700); err != nil {
			return err
		}
		err := os.Symlink(cargoPlace(cargoHash), filepath.Join(folder, part, cargoPlace(cargoOldHash)))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// cargoSource returns the registry of crates.
func cargoSource() (*source, error) {
	domain, index := cargoDomain()
	public := "https://" + index + "/"
	address, err := cargoIndex(public)
	if err != nil {
		return nil, err
	}
	base, err := baseURL(address)
	if err != nil {
		return nil, fmt.Errorf("cargo's settings replace the source crates-io: %w", err)
	}
	r := &crates{base: base, public: base == public,
		config: fmt.Sprintf("{\n  \"dl\": \"https://static.%s/crates\",\n  \"api\": \"https://%s\"\n}\n", domain, domain),
		named:  []string{"registry+https://github.com/rust-lang/" + domain + "-index", "sparse+" + public}}
	return &source{base, func(_ string, text []byte) ([]want, error) { return r.wants(text) }}, nil
}

// cargoIndex returns the URL of the index that the person's settings of cargo put in place of the public
// one (the Cargo Book, Source Replacement). A file of a project, which cargo reads too, is not asked.
func cargoIndex(public string) (string, error) {
	settings, err := cargoSettings()
	if err != nil {
		return "", err
	}
	name := "crates-io"
	for range maxSources {
		at := settings.Table("source").Table(name)
		if next := at.Text("replace-with"); next != "" {
			name = next
			continue
		}
		index := at.Text("registry")
		switch {
		case name == "crates-io":
			return public, nil
		case index == "":
			index = settings.Table("registries").Table(name).Text("index")
		}
		address, ok := strings.CutPrefix(index, "sparse+")
		if !ok {
			return "", fmt.Errorf("cargo's settings replace the source crates-io by %q, which is no registry with a sparse index: crates are not shared", name)
		}
		return address, nil
	}
	return "", errors.New("cargo's settings replace the source crates-io by one that is replaced again and again")
}

// cargoSettings reads the person's settings of cargo; none if there is no file.
func cargoSettings() (toml.Table, error) {
	home := os.Getenv("CARGO_HOME")
	if dir, err := os.UserHomeDir(); !filepath.IsAbs(home) && err == nil {
		home = filepath.Join(dir, ".cargo")
	}
	if !filepath.IsAbs(home) {
		return nil, nil
	}
	for _, name := range []string{"config", "config.toml"} { // cargo prefers the first one
		text, err := settings.Read(filepath.Join(home, name), maxSettings)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		var t toml.Table
		if err == nil {
			t, err = toml.Parse(text)
		}
		if err != nil {
			return nil, fmt.Errorf("cargo's settings in %s: %w", filepath.Join(home, name), err)
		}
		return t, nil
	}
	return nil, nil
}

// crates is a registry of crates with a sparse index (the Cargo Book, Registry Index).
type crates struct {
	base   string   // URL of the index, with a slash at the end
	public bool     // it is the index that guests use
	config string   // config.json of guests
	named  []string // the sources of a Cargo.lock that are this registry

	mu    sync.Mutex // held while config.json is fetched
	asked bool       // dl and err are set
	dl    string     // where the crates are: a template of a URL
	err   error
}

// The names and versions that can be part of an address: those that the public registry accepts.
var (
	crateName    = pattern(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)
	crateVersion = pattern(`^[0-9]{1,16}\.[0-9]{1,16}\.[0-9]{1,16}(-[A-Za-z0-9.-]{1,128})?(\+[A-Za-z0-9.-]{1,128})?$`)
)

// wants returns the crates of a Cargo.lock that are at the public registry, and the entries of the
// index about them. A crate that the lock file has two checksums of is left out.
func (r *crates) wants(text []byte) (wants []want, err error) {
	lock, err := toml.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("it is not a lock file of cargo: %w", err)
	}
	sums := map[string]map[string]string{} // by name and version
	for _, p := range lock.Tables("package") {
		name, version, sum := p.Text("name"), p.Text("version"), p.Text("checksum")
		if !slices.Contains(r.named, p.Text("source")) || !crateName().MatchString(name) || !crateVersion().MatchString(version) || !isSHA256(sum) {
			continue // of the project itself, of git, of another registry
		}
		if sums[name] == nil {
			sums[name] = map[string]string{}
		}
		if had, ok := sums[name][version]; ok && had != sum {
			sum = "" // matches nothing
		}
		sums[name][version] = sum
	}
	switch {
	case len(sums) > 0:
	case lock["package"] == nil && len(bytes.TrimSpace(text)) > 0:
		return nil, errors.New("it names no packages: it is not a lock file of cargo")
	case lock["metadata"] != nil: // where the checksums of version 1 of the format are
		return nil, errors.New("it has the format of cargo before 1.41: a newer cargo writes another one")
	}
	for name, versions := range sums {
		for version, sum := range versions {
			if sum == "" {
				delete(versions, version)
				continue
			}
			wants = append(wants, r.crate(name, version, sum))
		}
		if len(versions) > 0 {
			wants = append(wants, r.entry(name, versions))
		}
	}
	slices.SortFunc(wants, func(a, b want) int { return strings.Compare(a.file+a.sum, b.file+b.sum) })
	return wants, nil
}

// isSHA256 reports whether a text is a SHA-256 as lock files have it.
func isSHA256(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}

// checkHash verifies that a file has the hash sum, in hexadecimal.
func checkHash(f *os.File, h hash.Hash, sum string) error {
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != sum {
		return errHash
	}
	return nil
}

// crate is the archive of a crate.
func (r *crates) crate(name, version, sum string) want {
	whole := name + "-" + version
	return want{name: name + " " + version, file: "cache/" + cargoPlace(cargoHash) + "/" + whole + ".crate", sum: sum, limit: maxPackage,
		beside: beside{".sha256/" + whole, sum},
		locate: func(ctx context.Context, ask asker) (string, error) { return r.download(ctx, ask, name, version, sum) },
		verify: func(f *os.File) error { return checkHash(f, sha256.New(), sum) }}
}

// download returns the URL of a crate.
func (r *crates) download(ctx context.Context, ask asker, name, version, sum string) (string, error) {
	r.mu.Lock()
	if !r.asked {
		r.dl, r.err = r.downloads(ctx, ask)
		r.asked = ctx.Err() == nil
	}
	dl, err := r.dl, r.err
	r.mu.Unlock()
	if err != nil {
		return "", fmt.Errorf("the registry's config.json: %w", err)
	}
	prefix := cratePrefix(name)
	address := strings.NewReplacer("{crate}", name, "{version}", version, "{prefix}", prefix,
		"{lowerprefix}", strings.ToLower(prefix), "{sha256-checksum}", sum).Replace(dl)
	if address == dl { // without any of these
		address += "/" + name + "/" + version + "/download"
	}
	return address, nil
}

// downloads asks the registry where it has its crates.
func (r *crates) downloads(ctx context.Context, ask asker) (string, error) {
	text, err := ask(ctx, r.base+"config.json", "", maxCargoConfig)
	if err != nil {
		return "", err
	}
	var config struct {
		DL string `json:"dl"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return "", fmt.Errorf("it is not that of a registry: %w", err)
	}
	u, err := url.Parse(strings.NewReplacer("{", "", "}", "").Replace(config.DL))
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || strings.HasPrefix(r.base, "https:")) {
		return "", errors.New("it does not say where the crates are, or not by HTTPS")
	}
	return config.DL, nil
}

// cratePrefix is the directories of the index in which the entry of a crate is.
func cratePrefix(name string) string {
	switch len(name) {
	case 1, 2:
		return fmt.Sprint(len(name))
	case 3:
		return "3/" + name[:1]
	}
	return name[:2] + "/" + name[2:4]
}

// entry is the entry of the index about a crate. versions has the checksums that the lock file has.
func (r *crates) entry(name string, versions map[string]string) want {
	file := strings.ToLower(cratePrefix(name) + "/" + name)
	var sums []string
	for version, sum := range versions {
		sums = append(sums, version+"="+sum)
	}
	slices.Sort(sums)
	root := "index/" + cargoPlace(cargoHash)
	return want{name: name, url: r.base + file, file: root + "/.cache/" + file, sum: strings.Join(sums, " "), limit: maxSmall,
		beside: beside{root + "/config.json", r.config},
		verify: func(f *os.File) error {
			text, err := io.ReadAll(f)
			if err == nil {
				err = checkEntry(bytes.SplitSeq(text, []byte("\n")), name, versions)
			}
			return err
		},
		serves: func(path string) bool {
			text, err := regular.Read(path, 2*maxSmall, 0)
			return err == nil && checkEntry(bytes.SplitSeq(text, []byte{0}), name, versions) == nil
		},
		rewrite: func(f *os.File, etag string) error { return r.cacheEntry(f, name, etag) }}
}

// indexLine is a version of a crate in the index.
type indexLine struct {
	Name string `json:"name"`
	Vers string `json:"vers"`
	Sum  string `json:"cksum"`
}

// lineOf reads a line of the entry of a crate; ok is false for what is none.
func lineOf(text []byte, crate string) (line indexLine, ok bool) {
	if len(text) == 0 || text[0] != '{' || json.Unmarshal(text, &line) != nil {
		return line, false
	}
	return line, line.Name == crate && crateVersion().MatchString(line.Vers) && bytes.IndexByte(text, 0) < 0
}

// checkEntry verifies that an entry gives to the versions of a lock file its checksums.
func checkEntry(lines func(yield func([]byte) bool), crate string, versions map[string]string) error {
	found := map[string]string{}
	for text := range lines {
		line, ok := lineOf(text, crate)
		if !ok || versions[line.Vers] == "" {
			continue
		}
		if _, twice := found[line.Vers]; twice {
			return fmt.Errorf("the registry's index has version %s twice", line.Vers)
		}
		found[line.Vers] = line.Sum
	}
	for version, sum := range versions {
		if found[version] != sum {
			return fmt.Errorf("the registry's index does not have version %s with the checksum of the lock file", version)
		}
	}
	return nil
}

// cacheEntry writes an entry as cargo's cache has it, since cargo 1.53: two versions of the format, a word
// about the registry's answer, by which cargo asks whether there is a newer one, and each version with
// its line. A cargo with another format fetches the entry. The answer of a registry that is not the one
// that guests ask says nothing about theirs.
func (r *crates) cacheEntry(f *os.File, crate, etag string) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	const formatOfCache, formatOfIndex = 3, 2
	word := "Unknown"
	if r.public && etag != "" && len(etag) <= maxETag {
		word = "etag: " + etag
	}
	out := binary.LittleEndian.AppendUint32([]byte{formatOfCache}, formatOfIndex)
	out = append(append(out, word...), 0)
	for part := range bytes.SplitSeq(text, []byte("\n")) {
		part = bytes.TrimSuffix(part, []byte("\r"))
		if line, ok := lineOf(part, crate); ok {
			out = append(append(append(append(out, line.Vers...), 0), part...), 0)
		}
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(out, 0)
	return err
}
