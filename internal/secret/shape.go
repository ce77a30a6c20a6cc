package secret

import "strings"

// Shape is the form of a placeholder.
type Shape struct {
	Prefix string `json:"prefix,omitempty"`
	Length int    `json:"length"` // with the prefix, in bytes
}

// Placeholders are at least minRandom random characters after the prefix (119 bits), so that
// none is found by chance, and at most maxShape bytes.
const (
	minRandom = 20
	maxShape  = 256
	// plainLength is that of a secret of no known kind whose value is not known.
	plainLength = 40
)

// kind is a service's kind of secret: how its values begin, and how long they are.
type kind struct {
	prefix string
	length int
}

// kinds are the formats that the services document, longer prefixes first where one begins
// with another.
var kinds = []kind{
	{"sk-ant-api03-", 108}, {"sk-ant-oat01-", 108}, {"sk-ant-admin01-", 110}, // Anthropic
	{"sk-or-v1-", 73}, {"sk-proj-", 164}, {"sk-svcacct-", 167}, // OpenRouter, OpenAI
	{"sk_live_", 107}, {"sk_test_", 107}, {"rk_live_", 107}, {"rk_test_", 107}, // Stripe
	{"sk-", 51},                                                                               // OpenAI
	{"github_pat_", 93}, {"ghp_", 40}, {"gho_", 40}, {"ghu_", 40}, {"ghs_", 40}, {"ghr_", 76}, // GitHub
	{"glpat-", 26}, {"AIza", 39}, {"hf_", 37}, {"gsk_", 56}, {"xai-", 84}, {"r8_", 40}, // GitLab, Google, Hugging Face, Groq, xAI, Replicate
	{"xoxb-", 57}, {"xoxp-", 74}, {"npm_", 40}, {"pypi-", 179}, {"dckr_pat_", 36}, {"lin_api_", 48}, // Slack, npm, PyPI, Docker, Linear
}

// HasIssued reports whether a word of a text looks like a value of one of these kinds: it has the
// prefix and the length of the kind. Kinds with a prefix shorter than minPrefix are left out,
// because words of prose may begin with it.
func HasIssued(text string) bool {
	for word := range strings.FieldsFuncSeq(text, func(c rune) bool { return c != '-' && c != '_' && !isLetterOrDigit(c) }) {
		for _, k := range kinds {
			if len(word) == k.length && len(k.prefix) >= minPrefix && strings.HasPrefix(word, k.prefix) {
				return true
			}
		}
	}
	return false
}

// minPrefix is the length of the shortest prefix that is a sign of a kind, in bytes.
const minPrefix = 4

func isLetterOrDigit(c rune) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// variable is a name under which clients expect a kind of secret.
type variable struct {
	prefix string // of the kind
	hosts  string // that take it, separated by commas; empty if they differ
}

// variables are the well-known names.
var variables = map[string]variable{
	"ANTHROPIC_API_KEY":       {"sk-ant-api03-", "api.anthropic.com"},
	"CLAUDE_CODE_OAUTH_TOKEN": {"sk-ant-oat01-", "api.anthropic.com"},
	"OPENAI_API_KEY":          {"sk-proj-", "api.openai.com"},
	"OPENROUTER_API_KEY":      {"sk-or-v1-", "openrouter.ai"},
	"GEMINI_API_KEY":          {"AIza", "generativelanguage.googleapis.com"},
	"GROQ_API_KEY":            {"gsk_", "api.groq.com"},
	"XAI_API_KEY":             {"xai-", "api.x.ai"},
	"GITHUB_TOKEN":            {"ghp_", "api.github.com,github.com,uploads.github.com"},
	"GH_TOKEN":                {"ghp_", "api.github.com,github.com,uploads.github.com"},
	"HF_TOKEN":                {"hf_", ""},
	"REPLICATE_API_TOKEN":     {"r8_", "api.replicate.com"},
	"SLACK_BOT_TOKEN":         {"xoxb-", "slack.com"},
	"GITLAB_TOKEN":            {"glpat-", ""},
	"GOOGLE_API_KEY":          {"AIza", ""},
	"NPM_TOKEN":               {"npm_", ""},
}

// KnownHosts returns the hosts that the service of a well-known variable has, in the syntax of
// ParseHost; none if the name is not one.
func KnownHosts(name string) []string {
	if h := variables[name].hosts; h != "" {
		return strings.Split(h, ",")
	}
	return nil
}

// shapeOf returns the shape of the placeholder for a secret of that name. value is empty if
// it is not known. Where it is known the placeholder is as long, if that is long enough:
// an answer in which the value is replaced then keeps its length.
func shapeOf(name, value string) Shape {
	s := Shape{Length: plainLength}
	begins := value
	if value == "" {
		begins = variables[name].prefix
	}
	for _, k := range kinds {
		if begins != "" && strings.HasPrefix(begins, k.prefix) {
			s = Shape{k.prefix, k.length}
			break
		}
	}
	if value != "" {
		s.Length = len(value)
	}
	return s.Bounded()
}

// Bounded returns the shape with a length within the bounds.
func (s Shape) Bounded() Shape {
	s.Prefix = s.Prefix[:min(len(s.Prefix), maxShape-minRandom)]
	s.Length = min(max(s.Length, len(s.Prefix)+minRandom), maxShape)
	return s
}
