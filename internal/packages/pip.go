package packages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/html"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/regular"
	"bawn.dev/bawn/internal/sys/settings"
)

// Theory of operation. A requirements.txt names packages with the hashes of all their files: archives of
// the source and wheels, for each system and each Python. Which file has which hash, only the index
// knows. So the host asks the index about each package that is new, and fetches the wheels that the
// guest can install, or the source if there are none.
//
//	sha256/HH/HASH                    a file
//	http-v2/K/K/K/K/K/KEY, KEY.body   pip's cache of HTTP: what the host says of an answer, and a link to the file
//	wheels/NAME                       a link to the file, for pip install --no-index --find-links
//	.chosen/HASH                      the files that were chosen of a package, for the host alone
//
// pip (23.3 and newer) asks the index for the address of a file, takes the file with that address from
// its cache and compares it with the hash in the index and in the requirements.txt. So what a lock file
// brings into the store is not installed in place of anything else, and not even seen by a pip that does
// not look for that address. That is why guests do not have wheels as a place to look for packages
// (PIP_FIND_LINKS): a version that the index has taken back would be there for every project.

// Bounds of what an index says.
const (
	maxPage    = 16 << 20 // bytes of its page about a package; the largest that are known have some MiB
	maxFiles   = 50_000   // files on a page
	maxChosen  = 32       // files of one package that are fetched
	maxHashes  = 2_000    // hashes of one package in a lock file
	maxPipName = 128      // bytes of the name of a package
)

// pythonOfDebian is the minor version of Python 3 in the default image, Debian 13's.
const pythonOfDebian = 13

// pythons returns the minor versions of Python 3 that the guest may have: that of its image, and that of
// the project's .python-version, which pyenv and uv read.
func pythons(r *Request) (minors []int) {
	versions := []string{r.Python}
	if root, err := os.OpenRoot(r.Project); err == nil {
		text, _ := regular.ReadIn(root, ".python-version", maxPythonVersion)
		root.Close()
		versions = append(versions, strings.TrimSpace(string(text)))
	}
	for _, v := range versions {
		if m := python3().FindStringSubmatch(v); m != nil {
			minor, _ := strconv.Atoi(m[1])
			minors = append(minors, minor)
		}
	}
	if len(minors) == 0 {
		minors = []int{pythonOfDebian}
	}
	slices.Sort(minors)
	return slices.Compact(minors)
}

var python3 = pattern(`^3\.([0-9]{1,2})(\.[0-9]+)?$`)

// maxPythonVersion bounds a .python-version, in bytes.
const maxPythonVersion = 256

// pipSource returns the index of Python's packages. minors are the minor versions of Python 3 in the guest.
func pipSource(minors []int) (*source, error) {
	index, err := pipIndex()
	if err != nil {
		return nil, fmt.Errorf("pip's settings: %w", err)
	}
	base, err := baseURL(index)
	if err != nil {
		return nil, fmt.Errorf("pip's setting index-url: %w", err)
	}
	i := &pythonIndex{base: base, minors: minors}
	return &source{base, i.wants}, nil
}

// pipIndex returns the URL of the index that the person's pip uses (pip's documentation, Configuration):
// of the environment, or of the files of the person and of the system. The file of a virtual environment,
// which may lie in a project, is not read.
func pipIndex() (string, error) {
	if v := os.Getenv("PIP_INDEX_URL"); v != "" {
		return v, nil
	}
	for _, file := range pipFiles() {
		text, err := settings.Read(file, maxSettings)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if v := iniSetting(string(text), "index-url"); v != "" {
			return v, nil
		}
	}
	for _, p := range policy.Presets() {
		if p.Name == "pypi" {
			return "https://" + p.Rules[0] + "/simple/", nil
		}
	}
	return "", nil
}

// pipFiles returns pip's files of settings, those first that count more.
func pipFiles() (list []string) {
	own := os.Getenv("PIP_CONFIG_FILE")
	if own == os.DevNull { // then pip reads none
		return nil
	}
	if filepath.IsAbs(own) {
		list = append(list, own)
	}
	if dir, err := os.UserConfigDir(); err == nil {
		list = append(list, filepath.Join(dir, "pip", "pip.conf"))
	}
	if dir, err := os.UserHomeDir(); err == nil && filepath.IsAbs(dir) {
		list = append(list, filepath.Join(dir, ".pip", "pip.conf"))
	}
	return append(list, "/etc/pip.conf", "/etc/xdg/pip/pip.conf")
}

// iniSetting returns a setting of the sections that are about all of pip, or about installing.
func iniSetting(text, key string) string {
	found := map[string]string{}
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", line[0] == '#', line[0] == ';':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		default:
			i := strings.IndexAny(line, "=:")
			if i > 0 && strings.ReplaceAll(strings.ToLower(strings.TrimSpace(line[:i])), "_", "-") == key {
				found[section] = strings.TrimSpace(line[i+1:])
			}
		}
	}
	for _, s := range []string{"install", "download", "global"} {
		if found[s] != "" {
			return found[s]
		}
	}
	return ""
}

// pythonIndex is an index of Python's packages (PyPA specifications, Simple repository API).
type pythonIndex struct {
	base   string // URL, with a slash at the end
	minors []int
}

// What a line of a requirements.txt has: a name and one version, and hashes.
var (
	pipPinned = pattern(`^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*===?\s*[^\s;,*]+(?:\s|;|$)`)
	pipHash   = pattern(`\s--hash[= ]sha256:([0-9a-f]{64})\b`)
	pipRuns   = pattern(`[-_.]+`)
)

// wants returns the packages of a lock file that have hashes.
func (i *pythonIndex) wants(file string, text []byte) ([]want, error) {
	if read := pythonLock(file); read != nil {
		return i.locked(text, read)
	}
	return i.required(text)
}

// required returns the packages of a requirements.txt that have one version and hashes.
func (i *pythonIndex) required(text []byte) (wants []want, err error) {
	pinned := false
	for line := range pipLines(string(text)) {
		m := pipPinned().FindStringSubmatch(line)
		if m == nil || len(m[1]) > maxPipName {
			continue // an option, a file, an address, a range of versions
		}
		pinned = true
		hashes := map[string]bool{}
		for _, h := range pipHash().FindAllStringSubmatch(line, maxHashes) {
			hashes[h[1]] = true
		}
		if len(hashes) > 0 {
			wants = append(wants, i.want(pipName(m[1]), hashes))
		}
	}
	if len(wants) == 0 && pinned {
		return nil, errors.New("it has no SHA-256 hashes, without which packages cannot be verified: pip-compile --generate-hashes or uv export writes them")
	}
	return wants, nil
}

// pipName returns the name of a package as an index has it.
func pipName(name string) string { return strings.ToLower(pipRuns().ReplaceAllString(name, "-")) }

// pipLines returns the lines of a requirements.txt: without comments, and with those that go on in one.
func pipLines(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		var whole strings.Builder
		for line := range strings.Lines(text) {
			line = strings.TrimRight(line, "\r\n")
			goes := strings.HasSuffix(line, `\`)
			line = strings.TrimSuffix(line, `\`)
			if at := strings.IndexByte(line, '#'); at == 0 || at > 0 && (line[at-1] == ' ' || line[at-1] == '\t') {
				line = line[:at]
			}
			whole.WriteString(line)
			whole.WriteByte(' ')
			if goes {
				continue
			}
			if !yield(strings.TrimSpace(whole.String())) {
				return
			}
			whole.Reset()
		}
		yield(strings.TrimSpace(whole.String()))
	}
}

// want is the files of a package that a guest can install.
func (i *pythonIndex) want(name string, hashes map[string]bool) want {
	all := slices.Sorted(maps.Keys(hashes))
	key := sha256.Sum256(fmt.Appendf(nil, "%s %v %s %q", i.base, i.minors, name, all))
	w := want{name: name, file: ".chosen/" + hex.EncodeToString(key[:])}
	w.expand = func(ctx context.Context, ask asker) ([]want, error) {
		page := i.base + name + "/"
		text, err := ask(ctx, page, "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1", maxPage)
		if err != nil {
			return nil, err
		}
		files, err := pipPage(text)
		if err != nil {
			return nil, err
		}
		return i.choose(page, files, hashes)
	}
	return w
}

// pipFile is a file of a package as an index has it.
type pipFile struct{ name, url, sum string }

// pipPage reads the page of an index about a package: JSON (PEP 691) or HTML (PEP 503).
func pipPage(text []byte) (list []pipFile, err error) {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return pipHTML(text)
	}
	if list, err = pipJSON(text); err != nil {
		return nil, fmt.Errorf("the index's page about it: %w", err)
	}
	return list, nil
}

// pipJSON reads a page in JSON. It takes the files one by one: a page may be full of empty ones, each of which
// takes many times its bytes in memory.
func pipJSON(text []byte) (list []pipFile, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if err := expect(d, json.Delim('{')); err != nil {
		return nil, err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		if key != "files" {
			var other json.RawMessage
			if err := d.Decode(&other); err != nil {
				return nil, err
			}
			continue
		}
		if list, err = pipFilesIn(d, list); err != nil {
			return nil, err
		}
	}
	return list, expect(d, json.Delim('}'))
}

// pipFilesIn appends the files of an array that comes next.
func pipFilesIn(d *json.Decoder, list []pipFile) ([]pipFile, error) {
	if err := expect(d, json.Delim('[')); err != nil {
		return nil, err
	}
	for d.More() {
		var f struct {
			Filename string `json:"filename"`
			URL      string `json:"url"`
			Hashes   struct {
				SHA256 string `json:"sha256"`
			} `json:"hashes"`
		}
		if err := d.Decode(&f); err != nil {
			return nil, err
		}
		if list = append(list, pipFile{f.Filename, f.URL, f.Hashes.SHA256}); len(list) > maxFiles {
			return nil, fmt.Errorf("it has more than %d files", maxFiles)
		}
	}
	return list, expect(d, json.Delim(']'))
}

// expect takes a token, which must be this one.
func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err == nil && got != want {
		err = fmt.Errorf("it has %v where %v belongs", got, want)
	}
	return err
}

// pipHTML reads the links of a page. The name of a file is the end of its address.
func pipHTML(text []byte) (list []pipFile, err error) {
	z := html.NewTokenizer(bytes.NewReader(text))
	z.SetMaxBuf(1 << 20)
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			return list, nil // the end, or what is no HTML
		}
		if kind != html.StartTagToken {
			continue
		}
		for tag, more := z.TagName(); more && string(tag) == "a"; {
			var key, value []byte
			key, value, more = z.TagAttr()
			if string(key) != "href" {
				continue
			}
			address, fragment, _ := strings.Cut(string(value), "#")
			sum, _ := strings.CutPrefix(fragment, "sha256=")
			path, _, _ := strings.Cut(address, "?")
			name, uerr := url.PathUnescape(path[strings.LastIndexByte(path, '/')+1:])
			if uerr != nil {
				continue
			}
			if list = append(list, pipFile{name, address, sum}); len(list) > maxFiles {
				return nil, fmt.Errorf("the index's page about it has more than %d files", maxFiles)
			}
		}
	}
}

// pipFileName is a name that a wheel or an archive of a source may have.
var pipFileName = pattern(`^[A-Za-z0-9][A-Za-z0-9._+!-]{0,200}\.(whl|tar\.gz|zip)$`)

// choose returns the files with hashes of the lock file: the wheels that a guest can install, or the
// sources if there are none; nothing for a package of other systems.
func (i *pythonIndex) choose(page string, files []pipFile, hashes map[string]bool) ([]want, error) {
	at, err := url.Parse(page)
	if err != nil {
		return nil, err
	}
	var wheels, sources []want
	seen := map[string]bool{}
	for _, f := range files {
		if !hashes[f.sum] || !isSHA256(f.sum) || !pipFileName().MatchString(f.name) || seen[f.sum] {
			continue
		}
		u, err := at.Parse(f.url)
		if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || at.Scheme == "https") {
			continue
		}
		u.User, u.Fragment, u.RawFragment = nil, "", ""
		seen[f.sum] = true
		switch w := pipWant(f.name, u.String(), f.sum); {
		case !strings.HasSuffix(f.name, ".whl"):
			sources = append(sources, w)
		case i.installs(f.name):
			wheels = append(wheels, w)
		}
	}
	if len(wheels) == 0 {
		wheels = sources
	}
	switch {
	case len(seen) == 0:
		return nil, errors.New("the index has no file with a hash of the lock file")
	case len(wheels) > maxChosen:
		return nil, fmt.Errorf("more than %d files of it fit this guest", maxChosen)
	}
	return wheels, nil
}

// machines are the names that Python gives to architectures.
var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// installs reports whether a guest with glibc can install a wheel of that name (PyPA specifications,
// Platform compatibility tags).
func (i *pythonIndex) installs(wheel string) bool {
	parts := strings.Split(strings.TrimSuffix(wheel, ".whl"), "-")
	if len(parts) < 5 {
		return false
	}
	tags := parts[len(parts)-3:]
	machine := machines[runtime.GOARCH]
	system := func(s string) bool {
		return s == "any" || (strings.HasPrefix(s, "manylinux") || strings.HasPrefix(s, "linux_")) && strings.HasSuffix(s, "_"+machine)
	}
	return slices.ContainsFunc(strings.Split(tags[2], "."), system) &&
		slices.ContainsFunc(strings.Split(tags[0], "."), func(python string) bool {
			return slices.ContainsFunc(strings.Split(tags[1], "."), func(abi string) bool { return i.runs(python, abi) })
		})
}

// runs reports whether one of the guest's Pythons runs what has these tags.
func (i *pythonIndex) runs(python, abi string) bool {
	if python == "py3" {
		return abi == "none"
	}
	kind, version := python[:min(2, len(python))], python[min(2, len(python)):]
	minor, err := strconv.Atoi(strings.TrimPrefix(version, "3"))
	if err != nil || !strings.HasPrefix(version, "3") {
		return false
	}
	return slices.ContainsFunc(i.minors, func(have int) bool {
		switch {
		case kind == "py" && abi == "none", kind == "cp" && abi == "abi3":
			return minor <= have
		case kind == "cp":
			return minor == have && (abi == python || abi == "none")
		}
		return false
	})
}

// pipWant is a file of a package, and how pip's cache has the answer to a request for it.
func pipWant(name, address, sum string) want {
	key := pipKey(address)
	entry := "http-v2/" + strings.Join(strings.Split(key[:5], ""), "/") + "/" + key
	blob := "sha256/" + sum[:2] + "/" + sum
	return want{name: name, url: address, file: blob, sum: sum, limit: maxPackage,
		beside: beside{entry, pipEntry}, links: []string{entry + ".body", "wheels/" + name},
		verify: func(f *os.File) error { return checkHash(f, sha256.New(), sum) }}
}

// pipKey is the key of a URL in pip's cache.
func pipKey(address string) string {
	sum := sha256.Sum224([]byte(address))
	return hex.EncodeToString(sum[:])
}

// pipEntry is an answer without its body as pip's cache has it since pip 23.3 (CacheControl, version 4 of
// its format): a word and a MessagePack map. It is fresh for years: what an address of a file stands for
// does not change, and pip compares the hash in any case.
var pipEntry = "cc=4," + msgMap(
	msgText("response"), msgMap(
		msgText("body"), "\xc4\x00",
		msgText("headers"), msgMap(
			msgText("Date"), msgText("Thu, 01 Jan 2026 00:00:00 GMT"),
			msgText("Content-Type"), msgText("application/octet-stream"),
			msgText("Cache-Control"), msgText("max-age=365000000, immutable, public")),
		msgText("status"), "\xcc\xc8", // 200
		msgText("version"), "\x0b", // HTTP/1.1
		msgText("reason"), msgText("OK"),
		msgText("decode_content"), "\xc2"), // false
	msgText("vary"), msgMap())

// msgText is a text in MessagePack, of less than 256 bytes.
func msgText(s string) string {
	if len(s) < 32 {
		return string([]byte{0xa0 | byte(len(s))}) + s
	}
	return string([]byte{0xd9, byte(len(s))}) + s
}

// msgMap is a map in MessagePack, of less than 16 keys and their values.
func msgMap(items ...string) string {
	return string([]byte{0x80 | byte(len(items)/2)}) + strings.Join(items, "")
}
