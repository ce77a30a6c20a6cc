package registry

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/settings"
)

// DefaultHost returns the host of npm's public registry: the one below the domain that
// preset:npm opens.
func DefaultHost() string {
	for _, p := range policy.Presets() {
		if p.Name == "npm" {
			return "registry." + strings.TrimPrefix(p.Rules[0], "*.")
		}
	}
	return ""
}

// maxSettings bounds an .npmrc, in bytes.
const maxSettings = 1 << 20

// Address returns the URL of the registry that the host's npm uses: that of the environment, of
// the person's .npmrc, or the public one (npm-config, registry). An .npmrc that a guest could have written is an error.
func Address() (string, error) {
	for _, name := range []string{"npm_config_registry", "NPM_CONFIG_REGISTRY"} {
		if v := os.Getenv(name); v != "" {
			return v, nil
		}
	}
	file := os.Getenv("NPM_CONFIG_USERCONFIG")
	if home, err := os.UserHomeDir(); file == "" && err == nil {
		file = filepath.Join(home, ".npmrc")
	}
	public := "https://" + DefaultHost() + "/"
	if !filepath.IsAbs(file) { // it would be looked for in a project
		return public, nil
	}
	b, err := settings.Read(file, maxSettings)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if v := setting(b, "registry"); v != "" {
		return v, nil
	}
	return public, nil
}

// setting returns the last value of a key in the text of an .npmrc, without quotes.
func setting(text []byte, key string) (value string) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		k, v, ok := strings.Cut(lines.Text(), "=")
		if ok && strings.TrimSpace(k) == key {
			value = os.ExpandEnv(strings.Trim(strings.TrimSpace(v), `"'`))
		}
	}
	return value
}
