package policy

import (
	"fmt"
	"strings"
)

// Preset is a named set of rules.
type Preset struct {
	Name    string   `json:"name"`
	Summary string   `json:"summary"`
	Rules   []string `json:"rules"` // as for `bawn policy allow`
}

// presets name whole domains where a service moves among hosts, and only domains
// that one owner has: nobody else may get a name below them.
var presets = []Preset{
	{"anthropic", "Claude Code and Anthropic's API", []string{"**.anthropic.com", "**.claude.ai", "**.claude.com"}},
	{"openai", "Codex and OpenAI's API", []string{"**.openai.com", "**.chatgpt.com"}},
	{"gemini", "Gemini CLI and Google's AI APIs", []string{"generativelanguage.googleapis.com", "aiplatform.googleapis.com", "cloudcode-pa.googleapis.com", "oauth2.googleapis.com", "accounts.google.com"}},
	{"copilot", "GitHub Copilot CLI", []string{"**.githubcopilot.com", "github.com", "api.github.com"}},
	{"cursor", "Cursor CLI", []string{"**.cursor.sh", "**.cursor.com"}},
	{"mistral", "Mistral's API and Vibe", []string{"**.mistral.ai"}},
	{"openrouter", "OpenRouter's API", []string{"**.openrouter.ai"}},
	{"opencode", "OpenCode and its list of models", []string{"**.opencode.ai", "models.dev"}},
	{"amp", "Amp", []string{"**.ampcode.com"}},
	{"deepseek", "DeepSeek's API", []string{"**.deepseek.com"}},
	{"groq", "Groq's API", []string{"**.groq.com"}},
	{"xai", "xAI's API (Grok)", []string{"**.x.ai"}},
	{"npm", "npm and Yarn packages", []string{"*.npmjs.org", "*.npmjs.com", "*.yarnpkg.com"}},
	{"pypi", "Python packages", []string{"**.pypi.org", "*.pythonhosted.org"}},
	{"go", "Go modules and toolchains", []string{"**.golang.org", "**.go.dev", "dl.google.com"}},
	{"nodejs", "Node.js releases", []string{"**.nodejs.org"}},
	{"debian", "Debian packages", []string{"**.debian.org"}},
	{"ubuntu", "Ubuntu packages", []string{"**.ubuntu.com"}},
	{"alpine", "Alpine packages", []string{"*.alpinelinux.org"}},
	{"github", "GitHub: git over HTTPS and SSH, API, releases", []string{"**.github.com:22,80,443", "*.githubusercontent.com", "*.githubassets.com"}},
	{"gitlab", "GitLab.com: git over HTTPS and SSH, API", []string{"**.gitlab.com:22,80,443"}},
	// Docker Hub's blobs lie in a bucket of its own account, whose number the name has.
	{"dockerhub", "images from Docker Hub", []string{"**.docker.io", "**.docker.com", "*.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com"}},
	{"ghcr", "images from GitHub's registry", []string{"**.ghcr.io", "*.githubusercontent.com"}},
	{"quay", "images from Quay.io", []string{"**.quay.io"}},
	{"crates", "Rust crates and toolchains", []string{"**.crates.io", "**.rust-lang.org", "**.rustup.rs"}},
	{"rubygems", "Ruby gems", []string{"**.rubygems.org"}},
	{"maven", "Maven and Gradle artefacts", []string{"**.maven.org", "*.maven.apache.org", "**.gradle.org"}},
	{"packagist", "PHP packages", []string{"**.packagist.org", "**.getcomposer.org"}},
	{"nuget", ".NET packages", []string{"**.nuget.org"}},
	{"hex", "Elixir and Erlang packages", []string{"**.hex.pm"}},
	{"conda", "Conda packages", []string{"**.anaconda.org", "**.anaconda.com"}},
	{"deno", "Deno and JSR modules", []string{"**.deno.land", "**.deno.com", "**.jsr.io"}},
	{"huggingface", "Hugging Face models and data", []string{"**.huggingface.co", "**.hf.co"}},
}

// Presets lists the presets.
func Presets() []Preset { return append([]Preset{}, presets...) }

// expand makes a preset's rules.
func expand(action Action, name string, at Source) ([]Rule, error) {
	var known []string
	for _, p := range presets {
		known = append(known, p.Name)
		if p.Name != name {
			continue
		}
		var rules []Rule
		for _, text := range p.Rules {
			r, err := parseRule(action, text, at)
			if err != nil {
				return nil, err // a mistake in the table, which a test finds
			}
			for i := range r {
				r[i].Preset = name
			}
			rules = append(rules, r...)
		}
		return rules, nil
	}
	return nil, fmt.Errorf("there is no preset %q: choose one of %s", name, strings.Join(known, ", "))
}
