package login

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/secret"
)

// Bounds of a definition.
const (
	// maxEndpoints bounds the token endpoints of an agent, and its API hosts.
	maxEndpoints = 16
	// maxClaims bounds the claims that a placeholder keeps.
	maxClaims = 32
)

// Definition describes the logins of an agent.
type Definition struct {
	Endpoints []string `json:"endpoints"` // token endpoints, HOST[:PORT]/PATH
	// API has the hosts to which the access token goes, as Authorization: Bearer; HOST[:PORT].
	API []string `json:"api"`
	// Refuse has paths of API hosts that turn an access token into another credential, HOST[:PORT]/PATH.
	Refuse  []string `json:"refuse,omitempty"`
	Command []string `json:"command,omitempty"` // arguments with which the agent logs in; none: it does so when it starts
	Claims  []string `json:"claims,omitempty"`  // claims of a JWT that its placeholder keeps, beside those of time and identity
	File    string   `json:"file,omitempty"`    // path in the agent's home of the file in which it keeps its tokens
	// Host is the path below the user's home of the same file of the agent on the host.
	Host string `json:"host,omitempty"`
	// Fields has the places of tokens in that file: the field of the endpoint's answer, and the names of
	// nested fields of the file with dots between them.
	Fields  map[string]string `json:"fields,omitempty"`
	Expires string            `json:"expires,omitempty"` // place of the access token's end, in milliseconds since 1970
}

// The fields of an answer that carry tokens (RFC 6749, 5.1; OpenID Connect Core 1.0, 3.1.3.3).
const (
	accessToken  = "access_token"
	refreshToken = "refresh_token"
	idToken      = "id_token"
)

// TokenFields are the names of the fields that carry tokens.
var TokenFields = []string{accessToken, refreshToken, idToken}

// Endpoint is a token endpoint of an agent.
type Endpoint struct {
	Agent  string
	Host   secret.Host
	Path   string
	Refuse bool // it is none, but a path that is refused
}

// parseEndpoint reads HOST[:PORT]/PATH.
func parseEndpoint(s string) (e Endpoint, err error) {
	host, p, ok := strings.Cut(s, "/")
	if !ok || path.Clean("/"+p) != "/"+p || strings.ContainsAny(p, "?#%;\\") {
		return e, fmt.Errorf("%q is not a token endpoint, such as auth.example.org/oauth/token", s)
	}
	e.Path = "/" + p
	e.Host, err = secret.ParseHost(host)
	return e, err
}

// Check returns what is wrong with a definition.
func (d *Definition) Check() error {
	switch {
	case len(d.Endpoints) == 0 || len(d.API) == 0:
		return errors.New("it needs endpoints and api")
	case len(d.Endpoints) > maxEndpoints || len(d.API) > maxEndpoints || len(d.Refuse) > maxEndpoints:
		return fmt.Errorf("it has more than %d endpoints, hosts or refused paths", maxEndpoints)
	case len(d.Claims) > maxClaims:
		return fmt.Errorf("it has more than %d claims", maxClaims)
	case (d.Host != "") != (len(d.Fields) > 0) || d.Host != "" && d.File == "":
		return errors.New("host needs file and fields, and fields need host")
	}
	for _, p := range []string{d.File, d.Host} {
		if p != "" && !inside(p) {
			return fmt.Errorf("%q is not a path within a home", p)
		}
	}
	for f := range d.Fields {
		if !slices.Contains(TokenFields, f) {
			return fmt.Errorf("fields has no %q; it has %s", f, strings.Join(TokenFields, ", "))
		}
	}
	if d.Host != "" && d.Fields[accessToken] == "" {
		return errors.New("fields needs access_token")
	}
	_, err := d.endpoints("")
	_, herr := d.hosts()
	return errors.Join(err, herr)
}

// inside reports whether p is a clean path that stays within its directory.
func inside(p string) bool {
	return p == path.Clean(p) && !path.IsAbs(p) && p != "." && p != ".." && !strings.HasPrefix(p, "../") && !strings.ContainsAny(p, "\x00\n")
}

// endpoints returns the token endpoints, and the paths that are refused.
func (d *Definition) endpoints(agent string) (list []Endpoint, err error) {
	for i, s := range slices.Concat(d.Endpoints, d.Refuse) {
		e, err := parseEndpoint(s)
		if err != nil {
			return nil, err
		}
		e.Agent, e.Refuse = agent, i >= len(d.Endpoints)
		list = append(list, e)
	}
	return list, nil
}

// hosts returns those to which the access token goes.
func (d *Definition) hosts() (list []secret.Host, err error) {
	for _, s := range d.API {
		h, err := secret.ParseHost(s)
		if err != nil {
			return nil, err
		}
		list = append(list, h)
	}
	return list, nil
}
