package tokens

import (
	"net/http"
	"slices"
	"strings"
)

// API is where an API of language models tells the tokens of a request.
type API struct {
	Name   string
	Paths  []string // endings of the paths of its requests
	Roots  []string // paths of the objects with the numbers, in an answer or an event of it
	Fields []Field  // the numbers in each such object
	Source string   // of the above

	tree *node // of Roots and Fields
}

// Field is a number of tokens.
type Field struct {
	Path   string // of the number, in the object
	Counts Kind
	Within bool // the number is a part of those of kind Input
}

// Kind is what tokens are.
type Kind int

// The kinds of tokens, as in Usage.
const (
	Input Kind = iota
	CacheRead
	CacheWrite
	Output
)

// apis are the APIs that are known. The hosts of those that the presets open are in package policy
// (presets.go), and which agent uses which is in package agents (builtin.yaml).
var apis = withTrees([]*API{
	{
		Name:  "Anthropic Messages",
		Paths: []string{"/v1/messages", ":rawPredict", ":streamRawPredict"},
		Roots: []string{"usage", "message.usage"}, // message: of the event message_start
		Fields: []Field{
			{Path: "input_tokens", Counts: Input},
			{Path: "cache_read_input_tokens", Counts: CacheRead},
			{Path: "cache_creation_input_tokens", Counts: CacheWrite},
			{Path: "output_tokens", Counts: Output},
		},
		Source: "platform.claude.com/docs: Messages (usage), Streaming messages, Prompt caching",
	},
	{
		Name:  "OpenAI Chat Completions",
		Paths: []string{"/chat/completions"},
		Roots: []string{"usage"},
		Fields: []Field{
			{Path: "prompt_tokens", Counts: Input},
			{Path: "prompt_tokens_details.cached_tokens", Counts: CacheRead, Within: true},
			{Path: "prompt_tokens_details.cache_write_tokens", Counts: CacheWrite, Within: true},
			{Path: "completion_tokens", Counts: Output},
		},
		Source: "platform.openai.com/docs/api-reference/chat: The chat completion object (usage), stream_options.include_usage",
	},
	{
		Name:  "OpenAI Responses",
		Paths: []string{"/responses", "/responses/compact"},
		Roots: []string{"usage", "response.usage"}, // response: of the event response.completed
		Fields: []Field{
			{Path: "input_tokens", Counts: Input},
			{Path: "input_tokens_details.cached_tokens", Counts: CacheRead, Within: true},
			{Path: "input_tokens_details.cache_write_tokens", Counts: CacheWrite, Within: true},
			{Path: "output_tokens", Counts: Output},
		},
		Source: "platform.openai.com/docs/api-reference/responses: The response object (usage), Streaming events",
	},
	{
		Name:  "Gemini",
		Paths: []string{":generateContent", ":streamGenerateContent"},
		Roots: []string{"usageMetadata", "response.usageMetadata"}, // response: of Code Assist, a login of Gemini CLI
		Fields: []Field{
			{Path: "promptTokenCount", Counts: Input},
			{Path: "toolUsePromptTokenCount", Counts: Input},
			{Path: "cachedContentTokenCount", Counts: CacheRead, Within: true},
			{Path: "candidatesTokenCount", Counts: Output},
			{Path: "thoughtsTokenCount", Counts: Output},
		},
		Source: "ai.google.dev/api/generate-content: UsageMetadata",
	},
})

// Find returns the API that a request is for, by its method and the path of its URL; nil if none.
func Find(method, path string) *API {
	if method != http.MethodPost {
		return nil
	}
	for _, a := range apis {
		if slices.ContainsFunc(a.Paths, func(end string) bool { return strings.HasSuffix(path, end) }) {
			return a
		}
	}
	return nil
}

// usage returns what the numbers of an answer mean. They are in the order of a.Fields; a
// negative one was not there. reported: any was there.
func (a *API) usage(numbers []int64) (u Usage, reported bool) {
	var within int64
	for i, f := range a.Fields {
		n := numbers[i]
		if n < 0 {
			continue
		}
		reported = true
		*u.kind(f.Counts) += n
		if f.Within {
			within += n
		}
	}
	u.Input = max(0, u.Input-within)
	return u, reported
}

// kind returns the place of a kind of tokens.
func (u *Usage) kind(k Kind) *int64 {
	switch k {
	case CacheRead:
		return &u.CacheRead
	case CacheWrite:
		return &u.CacheWrite
	case Output:
		return &u.Output
	default:
		return &u.Input
	}
}

// withTrees adds the places of their numbers to APIs.
func withTrees(list []*API) []*API {
	for _, a := range list {
		a.tree = treeOf(a)
	}
	return list
}
