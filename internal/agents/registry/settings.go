package registry

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"bawn.dev/bawn/internal/policy"
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

// Address returns the URL of the registry that the host's npm uses: that of the environment, of
// the person's .npmrc, or the public one (npm-config, registry).
func Address() string {
	for _, name := range []string{"npm_config_registry", "NPM_CONFIG_REGISTRY"} {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	file := os.Getenv("NPM_CONFIG_USERCONFIG")
	if home, err := os.UserHomeDir(); file == "" && err == nil {
		file = filepath.Join(home, ".npmrc")
	}
	if b, err := os.ReadFile(file); err == nil {
		if v := setting(b, "registry"); v != "" {
			return v
		}
	}
	return "https://" + DefaultHost() + "/"
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
