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
	// Publishes says who can send data out through these hosts, beyond a service that
	// works with the data that it is given; empty: nobody that is known.
	Publishes string `json:"publishes,omitempty"`
}

// Preset rules name the hosts from which packages come, and no host beside them on which
// people write: playgrounds, forums, wikis, snippets, the upload of packages. Where one
// host does both, Publishes says so. Whole domains stand only where a service moves among
// hosts, and only domains that one owner has: nobody else may get a name below them.
// Braces stand for several names: {a,b}.example.org.
var presets = expandBraces([]Preset{
	{"anthropic", "Claude Code and Anthropic's API", []string{"**.anthropic.com", "**.claude.ai", "**.claude.com"}, anyKey},
	{"openai", "Codex and OpenAI's API", []string{"**.openai.com", "**.chatgpt.com"}, anyKey},
	{"gemini", "Gemini CLI and Google's AI APIs", []string{"generativelanguage.googleapis.com", "aiplatform.googleapis.com", "cloudcode-pa.googleapis.com", "oauth2.googleapis.com", "accounts.google.com"}, anyKey},
	{"copilot", "GitHub Copilot CLI", []string{"**.githubcopilot.com", "github.com", "api.github.com"}, anyRepository},
	{"cursor", "Cursor CLI", []string{"**.cursor.sh", "**.cursor.com"}, anyKey},
	{"mistral", "Mistral's API and Vibe", []string{"**.mistral.ai"}, anyKey},
	{"openrouter", "OpenRouter's API", []string{"**.openrouter.ai"}, anyKey},
	{"opencode", "OpenCode and its list of models", []string{"**.opencode.ai", "models.dev"}, anyKey},
	{"amp", "Amp", []string{"**.ampcode.com"}, anyKey},
	{"deepseek", "DeepSeek's API", []string{"**.deepseek.com"}, anyKey},
	{"groq", "Groq's API", []string{"**.groq.com"}, anyKey},
	{"xai", "xAI's API (Grok)", []string{"**.x.ai"}, anyKey},
	{"npm", "npm and Yarn packages", []string{"*.npmjs.org", "*.yarnpkg.com"}, anyPackage},
	{"pypi", "Python packages", []string{"{pypi,files.pythonhosted}.org"}, ""},
	{"go", "Go modules and toolchains", []string{"{proxy,sum,index}.golang.org", "dl.google.com"}, ""},
	{"nodejs", "Node.js releases", []string{"**.nodejs.org"}, ""},
	{"debian", "Debian packages", []string{"{deb,security,snapshot,archive,ftp}.debian.org"}, ""},
	{"ubuntu", "Ubuntu packages", []string{"{archive,security,ports,old-releases,esm,changelogs}.ubuntu.com", "*.archive.ubuntu.com"}, ""},
	{"alpine", "Alpine packages", []string{"{dl-cdn,dl-4,dl-5}.alpinelinux.org"}, ""},
	{"github", "GitHub: git over HTTPS and SSH, API, releases", []string{
		"github.com:22,80,443", "{api,codeload,uploads}.github.com", "ssh.github.com:22,443",
		"{raw,objects,release-assets,media,avatars,github-cloud,github-releases}.githubusercontent.com", "*.githubassets.com",
	}, anyRepository},
	{"gitlab", "GitLab.com: git over HTTPS and SSH, API", []string{"gitlab.com:22,80,443", "{registry,assets,altssh}.gitlab.com:443"}, anyRepository},
	// Docker Hub's blobs lie in a bucket of its own account, whose number the name has.
	{"dockerhub", "images from Docker Hub", []string{"**.docker.io", "*.cloudflare.docker.com", "*.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com"}, anyPackage},
	{"ghcr", "images from GitHub's registry", []string{"**.ghcr.io", "pkg-containers.githubusercontent.com"}, anyPackage},
	{"quay", "images from Quay.io", []string{"**.quay.io"}, anyPackage},
	{"crates", "Rust crates and toolchains", []string{"{static,index}.crates.io", "static.rust-lang.org", "{sh,static}.rustup.rs"}, ""},
	{"rubygems", "Ruby gems", []string{"**.rubygems.org"}, anyPackage},
	{"maven", "Maven and Gradle artefacts", []string{"{repo,repo1}.maven.org", "*.maven.apache.org", "{plugins,plugins-artifacts,services,downloads,repo}.gradle.org"}, anyPackage},
	{"packagist", "PHP packages", []string{"{packagist,repo.packagist}.org", "getcomposer.org"}, ""},
	{"nuget", ".NET packages", []string{"{api,globalcdn}.nuget.org"}, ""},
	{"hex", "Elixir and Erlang packages", []string{"{repo,builds,cdn}.hex.pm"}, ""},
	{"conda", "Conda packages", []string{"{conda,binstar-cio-packages-prod}.anaconda.org", "{repo,pkgs}.anaconda.com"}, ""},
	{"deno", "Deno and JSR modules", []string{"deno.land", "{dl,cdn}.deno.land", "{jsr,npm.jsr}.io"}, ""},
	{"huggingface", "Hugging Face models and data", []string{"**.huggingface.co", "**.hf.co"}, anyRepository},
})

// Who can publish on the hosts of a preset.
const (
	anyKey        = "takes data under any account's key, not only yours"
	anyPackage    = "takes packages from anybody with an account, on the hosts that they come from"
	anyRepository = "takes repositories, issues and snippets from anybody with an account"
)

// expandBraces replaces each rule with braces by those that it stands for.
func expandBraces(list []Preset) []Preset {
	for i := range list {
		var rules []string
		for _, r := range list[i].Rules {
			rules = append(rules, braces(r)...)
		}
		list[i].Rules = rules
	}
	return list
}

// braces returns the texts that a text with {a,b} stands for.
func braces(text string) (out []string) {
	before, rest, ok := strings.Cut(text, "{")
	if !ok {
		return []string{text}
	}
	choices, after, _ := strings.Cut(rest, "}")
	for choice := range strings.SplitSeq(choices, ",") {
		for _, tail := range braces(after) {
			out = append(out, before+choice+tail)
		}
	}
	return out
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
