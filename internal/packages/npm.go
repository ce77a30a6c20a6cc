package packages

import (
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/agents/registry"
)

// npmSource returns npm's registry.
func npmSource() (*source, error) {
	address, err := registry.Address()
	if err != nil {
		return nil, fmt.Errorf("npm's settings: %w", err)
	}
	base, err := baseURL(address)
	if err != nil {
		return nil, fmt.Errorf("npm's setting registry: %w", err)
	}
	// npm takes an address at the public registry for one at the registry of its settings
	// (npm-config(7), replace-registry-host).
	bases := []string{base, "https://" + registry.DefaultHost() + "/"}
	return &source{base, func(_ string, text []byte) ([]want, error) { return npmWants(text, bases) }}, nil
}

// baseURL checks the URL of a registry, which the person has set, and puts a slash at its end.
func baseURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("it is not the URL of a registry: write https://HOST/")
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + "/"
	return u.String(), nil
}

// npmLock is the part of a package-lock.json that is used (npm's documentation,
// package-lock-json). The format of version 1, of npm 6, has no packages.
type npmLock struct {
	Packages map[string]struct {
		Name      string `json:"name"`
		Version   string `json:"version"`
		Resolved  string `json:"resolved"`
		Integrity string `json:"integrity"`
	} `json:"packages"`
}

// The names and versions that can be part of an address. Old packages have capitals.
var (
	npmName    = pattern(`^(@[A-Za-z0-9~-][A-Za-z0-9._~-]{0,212}/)?[A-Za-z0-9~-][A-Za-z0-9._~-]{0,212}$`)
	npmVersion = pattern(`^[0-9]{1,16}\.[0-9]{1,16}\.[0-9]{1,16}(-[A-Za-z0-9.-]{1,128})?$`)
)

// npmWants returns the packages of a package-lock.json that are at the registry, whose URL is the
// first of bases; the lock file may name it by any of them. A package whose address is not the one
// that the registry gives to its name and version is left out: git, other hosts, files.
func npmWants(text []byte, bases []string) (wants []want, err error) {
	var l npmLock
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, fmt.Errorf("it is not a lock file of npm: %w", err)
	}
	if len(l.Packages) == 0 {
		return nil, errors.New("it names no packages, or has the format of npm 6: npm install writes the newer one")
	}
	for at, p := range l.Packages {
		name := p.Name // an alias has the name of another package
		if name == "" {
			i := strings.LastIndex(at, "node_modules/")
			if i < 0 {
				continue // the project itself, or a workspace
			}
			name = at[i+len("node_modules/"):]
		}
		sum, ok := sha512Of(p.Integrity)
		if !ok || !npmName().MatchString(name) || !npmVersion().MatchString(p.Version) {
			continue
		}
		tail := name + "/-/" + name[strings.LastIndexByte(name, '/')+1:] + "-" + p.Version + ".tgz"
		if !slices.ContainsFunc(bases, func(base string) bool { return p.Resolved == base+tail }) {
			continue
		}
		wants = append(wants, npmWant(name+"@"+p.Version, bases[0]+tail, sum))
	}
	slices.SortFunc(wants, func(a, b want) int { return strings.Compare(a.name+a.file, b.name+b.file) })
	return wants, nil
}

// sha512Of returns the SHA-512 of a Subresource Integrity string, which may have several hashes.
func sha512Of(integrity string) (sum []byte, ok bool) {
	for word := range strings.FieldsSeq(integrity) {
		if text, is := strings.CutPrefix(word, "sha512-"); is {
			b, err := base64.StdEncoding.Strict().DecodeString(text)
			return b, err == nil && len(b) == sha512.Size
		}
	}
	return nil, false
}

// npmWant is a package with that hash, in the place that cacache gives to its contents.
func npmWant(name, address string, sum []byte) want {
	h := hex.EncodeToString(sum)
	return want{name: name, url: address, file: "_cacache/content-v2/sha512/" + h[:2] + "/" + h[2:4] + "/" + h[4:], limit: maxPackage,
		verify: func(f *os.File) error { return checkHash(f, sha512.New(), h) }}
}
