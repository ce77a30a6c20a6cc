package inspect

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"bawn.dev/bawn/internal/secret"
)

// Tokens that a host gives out itself.
//
// Theory of operation. Registries of container images do not take a password with each request: they
// answer 401 and name a token server (the realm of WWW-Authenticate: Bearer), which takes the password
// and gives a token for some minutes. Where that server is the same host, the token would be refused as
// another account's. So the tokens of such an answer are remembered, as their hashes. The request for
// them cannot have used another account: its credentials were judged as those of any request, and it has only
// the fields that such requests have. The guest chooses no token either: the server names the realm and
// writes the answer.

const (
	// maxRealms bounds the token servers of a host, and maxIssued the tokens of one that are known.
	maxRealms = 8
	maxIssued = 256
	// maxRealm bounds the path of a token server, in bytes.
	maxRealm = 1 << 10
	// maxTokenAnswer bounds an answer of a token server that is read, in bytes.
	maxTokenAnswer = 64 << 10
)

// realmFields are those of a request for a token.
var realmFields = []string{"service", "scope", "client_id", "offline_token", "account"}

// issued are the token servers of hosts and the tokens that they gave. Safe for concurrent use.
type issued struct {
	mu     sync.Mutex
	realms map[secret.Host][]string // paths
	tokens map[secret.Host][][sha256.Size]byte
}

// learn notes the token server that an answer of a host with a secret names, if it is the host itself.
func (i *issued) learn(h secret.Host, res *http.Response) {
	if res.StatusCode != http.StatusUnauthorized {
		return
	}
	for _, v := range res.Header.Values("Www-Authenticate") {
		scheme, rest := cutScheme(v)
		if !strings.EqualFold(scheme, "bearer") {
			continue
		}
		// The parameters are those of a media type, but for the comma between them.
		_, params, err := mime.ParseMediaType("x; " + strings.ReplaceAll(rest, `",`, `";`))
		u, uerr := url.Parse(params["realm"])
		if err != nil || uerr != nil || u.Scheme != "https" || u.Hostname() != h.Name || cmp.Or(u.Port(), "443") != portText(h) || len(u.Path) > maxRealm {
			continue
		}
		i.mu.Lock()
		if i.realms == nil {
			i.realms, i.tokens = map[secret.Host][]string{}, map[secret.Host][][sha256.Size]byte{}
		}
		if list := i.realms[h]; len(list) < maxRealms && !slices.Contains(list, u.Path) {
			i.realms[h] = append(list, u.Path)
		}
		i.mu.Unlock()
	}
}

// asks reports whether a request, in which other credentials were looked for, asks a token server of
// the host for a token.
func (i *issued) asks(h secret.Host, r *http.Request) bool {
	i.mu.Lock()
	known := slices.Contains(i.realms[h], r.URL.Path)
	i.mu.Unlock()
	if !known || r.Method != http.MethodGet || r.ContentLength != 0 {
		return false
	}
	for field := range r.URL.Query() {
		if !slices.Contains(realmFields, field) {
			return false
		}
	}
	return true
}

// add notes the tokens in a token server's answer, if b is the whole of it.
func (i *issued) add(h secret.Host, b []byte) {
	var answer struct {
		Token   string `json:"token"`
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if json.Unmarshal(b, &answer) != nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, t := range []string{answer.Token, answer.Access, answer.Refresh} {
		if sum := sha256.Sum256([]byte(t)); t != "" && !slices.Contains(i.tokens[h], sum) {
			i.tokens[h] = append(i.tokens[h], sum)
			if over := len(i.tokens[h]) - maxIssued; over > 0 {
				i.tokens[h] = slices.Clone(i.tokens[h][over:])
			}
		}
	}
}

// has reports whether the host gave out a token.
func (i *issued) has(h secret.Host, token string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.tokens[h]) > 0 && slices.Contains(i.tokens[h], sha256.Sum256([]byte(token)))
}

// tokenBody is the body of a token server's answer: a token is known before its last byte is passed on.
type tokenBody struct {
	io.ReadCloser
	found func(b []byte)
	all   []byte
}

// Read implements io.Reader.
func (t *tokenBody) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if len(t.all)+n <= maxTokenAnswer {
		t.all = append(t.all, p[:n]...)
		if bytes.HasSuffix(bytes.TrimSpace(t.all), []byte("}")) {
			t.found(t.all)
		}
	}
	return n, err
}
