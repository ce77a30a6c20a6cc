package tokens

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
)

const (
	sse      = "text/event-stream; charset=utf-8"
	jsonType = "application/json"
)

// read gives an answer to a Reader in pieces of n bytes.
func read(t testing.TB, path, contentType, answer string, n int) (Usage, bool) {
	t.Helper()
	a := Find("POST", path)
	if a == nil {
		t.Fatalf("no API is known by %s", path)
	}
	r := a.Reader(contentType)
	for b := []byte(answer); len(b) > 0; {
		n := min(n, len(b))
		r.Feed(bytes.Clone(b[:n]))
		b = b[n:]
	}
	return r.Usage()
}

// answers are answers as the servers give them, shortened.
var answers = map[string]struct {
	path, contentType, answer string
	want                      Usage
}{
	"anthropic": {
		"/v1/messages", jsonType,
		`{"id":"msg_1","type":"message","content":[{"type":"text","text":"{\"usage\":{\"input_tokens\":9}}"}],"usage":{"input_tokens":25,"cache_creation_input_tokens":463,"cache_read_input_tokens":37709,"cache_creation":{"ephemeral_5m_input_tokens":463,"ephemeral_1h_input_tokens":0},"output_tokens":12,"service_tier":"standard"}}`,
		Usage{Input: 25, CacheRead: 37709, CacheWrite: 463, Output: 12},
	},
	"anthropic, a stream: the last number is not a further one": {
		"/v1/messages", sse,
		`event: message_start
data: {"type":"message_start","message":{"id":"msg_1","content":[],"usage":{"input_tokens":25,"cache_read_input_tokens":100,"output_tokens":1}}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello \"usage\": {"}}

: a comment
event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

`,
		Usage{Input: 25, CacheRead: 100, Output: 15},
	},
	"anthropic, all numbers in message_delta": {
		"/v1/messages", sse,
		"data:{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":0,\"output_tokens\":0}}}\r\n\r\ndata:{\"type\":\"message_delta\",\"usage\":{\"input_tokens\":4522,\"cache_creation_input_tokens\":4511,\"output_tokens\":5}}\r\n\r\n",
		Usage{Input: 4522, CacheWrite: 4511, Output: 5},
	},
	"anthropic, a last event that repeats the input as 0": {
		"/v1/messages", sse,
		"data: {\"message\":{\"usage\":{\"input_tokens\":7}}}\r\rdata: {\"usage\":{\"input_tokens\":0,\"output_tokens\":5}}\r\r",
		Usage{Input: 7, Output: 5},
	},
	"chat: what was cached is a part of the prompt": {
		"/openai/v1/chat/completions", jsonType,
		`{"object":"chat.completion","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,"prompt_tokens_details":{"cached_tokens":1920,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":10}}}`,
		Usage{Input: 86, CacheRead: 1920, Output: 300},
	},
	"chat, a stream with null before the numbers": {
		"/v1/chat/completions", sse,
		"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n",
		Usage{Input: 10, Output: 3},
	},
	"chat, numbers that grow with each event": {
		"/v1/chat/completions", sse,
		"data: {\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":1}}\n\ndata: {\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":2}}\n\ndata: {\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3}}\n\n",
		Usage{Input: 10, Output: 3},
	},
	"responses": {
		"/backend-api/codex/responses", jsonType,
		`{"object":"response","output":[{"type":"message"}],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":30,"cache_write_tokens":4},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":0}}}`,
		Usage{Input: 2, CacheRead: 30, CacheWrite: 4, Output: 87},
	},
	"responses, a stream": {
		"/v1/responses", sse,
		"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null,\"tools\":[{\"usage\":{\"input_tokens\":5}}]}}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[{\"content\":[]}],\"usage\":{\"input_tokens\":37,\"output_tokens\":11}}}\n\n",
		Usage{Input: 37, Output: 11},
	},
	"gemini: thoughts are not in the candidates": {
		"/v1beta/models/gemini-2.5-pro:generateContent", jsonType,
		`{"candidates":[{"content":{}}],"usageMetadata":{"promptTokenCount":25978,"cachedContentTokenCount":24540,"candidatesTokenCount":5,"thoughtsTokenCount":7,"toolUsePromptTokenCount":2,"totalTokenCount":25992}}`,
		Usage{Input: 1440, CacheRead: 24540, Output: 12},
	},
	"gemini, a stream as an array": {
		"/v1beta/models/gemini-2.5-pro:streamGenerateContent", jsonType,
		`[{"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":1}}
,
{"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":20}}]`,
		Usage{Input: 8, Output: 20},
	},
	"gemini of a login, as events": {
		"/v1internal:streamGenerateContent", sse,
		"\ufeffdata: {\"response\":{\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":8,\"candidatesTokenCount\":20}}}\n\n",
		Usage{Input: 8, Output: 20},
	},
	"data in several lines": {
		"/v1/chat/completions", sse,
		"data: {\"usage\":\ndata: {\"prompt_tokens\":10,\ndata: \"completion_tokens\":3\ndata: }}\n\n",
		Usage{Input: 10, Output: 3},
	},
}

// TestAnswers reads each answer in pieces of several sizes.
func TestAnswers(t *testing.T) {
	for name, c := range answers {
		for _, n := range []int{1, 2, 7, 1 << 20} {
			got, reported := read(t, c.path, c.contentType, c.answer, n)
			if got != c.want || !reported {
				t.Errorf("%s, %d bytes at once: %+v %t, not %+v", name, n, got, reported, c.want)
			}
		}
	}
}

// TestHostileAnswers: numbers that cannot be are as if they were not there, and what is around them
// does not matter.
func TestHostileAnswers(t *testing.T) {
	deep := strings.Repeat(`{"usage":[`, 100_000)
	for answer, want := range map[string]struct {
		output   int64
		reported bool
	}{
		`{"usage":{"output_tokens":-5}}`:                                                  {},
		`{"usage":{"output_tokens":1.5}}`:                                                 {},
		`{"usage":{"output_tokens":1e3}}`:                                                 {},
		`{"usage":{"output_tokens":"7"}}`:                                                 {},
		`{"usage":{"output_tokens":null}}`:                                                {},
		`{"usage":{"output_tokens":true}}`:                                                {},
		`{"usage":{"output_tokens":99999999999999999999}}`:                                {},
		`{"usage":{"output_tokens":1073741825}}`:                                          {},
		`{"usage":{"output_tokens":1073741824}}`:                                          {1 << 30, true},
		`{"usage":{"output_tokens":{"output_tokens":7}}}`:                                 {},
		`{"usage":{"output_tokens":[7]}}`:                                                 {},
		`{"usage":[{"output_tokens":7}]}`:                                                 {},
		`{"usage":{"output_tokens":7`:                                                     {}, // it may be 70
		`{"usage":{"output_tokens":7}`:                                                    {7, true},
		`{"usage":{"output_tokens":3,"output_tokens":7,"output_tokens":5}}`:               {7, true},
		`{"usage":{"output_tokens":7},"usage":{"output_tokens":5},"usage":{}}`:            {7, true},
		`{"x":{"usage":{"output_tokens":7}}}`:                                             {},
		`{"usage":{"usage":{"output_tokens":7}}}`:                                         {},
		`{"x":"\"usage\":{\"output_tokens\":7}"}`:                                         {},
		`{"usage":{"output_tokens":0}}`:                                                   {0, true},
		`{"usage" : { "output_tokens" : 7 , "x" : [ { } , "}" ] } }`:                      {7, true},
		`{"a":[{"b":[1,{}]}],"usage":{"output_tokens":7}}`:                                {7, true},
		`{"x":"` + strings.Repeat("a", 1<<20) + `","usage":{"output_tokens":7}}`:          {7, true},
		`{"` + strings.Repeat("output_tokens", 1000) + `":1,"usage":{"output_tokens":7}}`: {7, true},
		deep:                           {},
		"}}}]]],,,::" + deep:           {},
		`{"usage":{"output_tokens"}:7`: {},
		"<html>":                       {},
		"":                             {},
	} {
		got, reported := read(t, "/v1/messages", jsonType, answer, 1<<20)
		if got != (Usage{Output: want.output}) || reported != want.reported {
			t.Errorf("%.80q: %+v %t", answer, got, reported)
		}
	}
	if got, _ := read(t, "/v1/chat/completions", jsonType, `{"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":9}}}`, 9); got != (Usage{CacheRead: 9}) {
		t.Errorf("more cached than there is: %+v", got)
	}
	if _, reported := read(t, "/v1/messages", "text/html", `{"usage":{"output_tokens":7}}`, 9); reported {
		t.Error("HTML was read")
	}
}

// TestAnEventDoesNotSpoilTheNext: what is not JSON ends with its event.
func TestAnEventDoesNotSpoilTheNext(t *testing.T) {
	const good = `{"usage":{"output_tokens":7}}`
	for _, bad := range []string{`{"a":"`, `{"a":[[[`, `{"usage":{"x":`, `"`, `[`, `}`, `\`, "{\"usage\":{\"output_tokens\":5\ndatax: 9"} {
		got, _ := read(t, "/v1/messages", sse, "data: "+bad+"\n\nevent: x\ndata: "+good+"\n\n", 3)
		if got != (Usage{Output: 7}) {
			t.Errorf("after %q: %+v", bad, got)
		}
	}
}

func TestFind(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/messages": "Anthropic Messages", "/api/provider/anthropic/v1/messages": "Anthropic Messages",
		"/v1/messages/count_tokens": "", "/v1/messages/batches": "", "/v1/models": "", "/": "", "": "",
		"/chat/completions": "OpenAI Chat Completions", "/v1/responses": "OpenAI Responses", "/v1/responses/resp_1/cancel": "",
		"/v1beta/models/x:countTokens": "", "/v1beta/models/x:generateContent": "Gemini",
	} {
		got := ""
		if a := Find("POST", path); a != nil {
			got = a.Name
		}
		if got != want {
			t.Errorf("%s: %q, not %q", path, got, want)
		}
	}
	if Find("GET", "/v1/responses") != nil {
		t.Error("GET is no request for a model")
	}
}

// TestAPIs: what apis.go says fits the bounds of the scanner.
func TestAPIs(t *testing.T) {
	for _, a := range apis {
		if a.Name == "" || a.Source == "" || len(a.Paths) == 0 || len(a.Roots) == 0 {
			t.Errorf("%+v lacks something", a)
		}
		for _, root := range a.Roots {
			for _, f := range a.Fields {
				keys := strings.Split(root+"."+f.Path, ".")
				if len(keys) >= maxNesting {
					t.Errorf("%s: %v is too deep", a.Name, keys)
				}
				for _, k := range keys {
					if k == "" || len(k) > maxKey {
						t.Errorf("%s: key %q", a.Name, k)
					}
				}
			}
		}
	}
}

// FuzzReader: however an answer is cut, the same numbers are found, within their bounds; and
// those that encoding/json finds in what it takes are found.
func FuzzReader(f *testing.F) {
	for _, c := range answers {
		f.Add([]byte(c.answer), uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		for _, a := range apis {
			for _, contentType := range []string{jsonType, sse} {
				whole := a.Reader(contentType)
				whole.Feed(b)
				want, wasReported := whole.Usage()
				got, reported := read(t, a.Paths[0], contentType, string(b), int(cut)+1)
				if got != want || reported != wasReported {
					t.Fatalf("%s: %+v %t in pieces, %+v %t at once", a.Name, got, reported, want, wasReported)
				}
				for _, n := range []int64{got.Input, got.CacheRead, got.CacheWrite, got.Output} {
					if n < 0 || n > int64(len(a.Fields))*maxTokens {
						t.Fatalf("%+v", got)
					}
				}
			}
		}
		compareWithLibrary(t, b)
	})
}

// compareWithLibrary compares what is found in a document with what encoding/json finds, which
// has each key once and no escapes after it wrote the document anew.
func compareWithLibrary(t *testing.T, b []byte) {
	t.Helper()
	var doc map[string]any
	if json.Unmarshal(b, &doc) != nil {
		return
	}
	anew, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	message, _ := doc["message"].(map[string]any)
	var want int64
	for _, of := range []map[string]any{doc, message} {
		usage, _ := of["usage"].(map[string]any)
		if n, ok := usage["output_tokens"].(float64); ok && n == math.Trunc(n) && n <= maxTokens {
			want = max(want, int64(n))
		}
	}
	if got, _ := read(t, "/v1/messages", jsonType, string(anew), 1<<20); got.Output != want {
		t.Fatalf("%q: %d, not %d", anew, got.Output, want)
	}
}

func BenchmarkReader(b *testing.B) {
	event := []byte("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"" + strings.Repeat("some words ", 10) + "\"}}\n\n")
	r := Find("POST", "/v1/messages").Reader(sse)
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	for b.Loop() {
		r.Feed(event)
	}
}
