package secret

import (
	"errors"
	"fmt"
	"net/textproto"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"bawn.dev/bawn/internal/policy"
)

// Bounds of a secret.
const (
	// MinValue is the shortest value, in bytes: a shorter one would be found by chance in
	// answers, where each copy of a value is replaced.
	MinValue = 8
	// MaxValue is the longest value, in bytes. Servers accept header lines of 8 KiB.
	MaxValue = 4 << 10
	// MaxHosts is how many hosts a secret may be for.
	MaxHosts = 32
	// MaxSecrets is how many entries the index may have.
	MaxSecrets = 256
)

// Host is a host and a TCP port on which it speaks TLS.
type Host struct {
	Name string `json:"name"` // in the form of policy.CleanName
	Port uint16 `json:"port"`
}

func (h Host) String() string {
	if h.Port == 443 {
		return h.Name
	}
	return h.Name + ":" + strconv.Itoa(int(h.Port))
}

// Where says in which part of a request a secret belongs.
type Where string

// The parts of a request. The zero value is any header for credentials (Authorization in all
// its schemes, X-Api-Key and its like).
const (
	InCredential Where = ""
	InHeader     Where = "header" // the header of that name, alone or after a scheme
	InBearer     Where = "bearer" // Authorization: Bearer
	InBasic      Where = "basic"  // Authorization: Basic, as the password of that user
	InQuery      Where = "query"  // the value of that field of the URL's query
	InBody       Where = "body"   // anywhere in the body
	// InSignature: the value is a key pair (KeyPair), and requests are signed with it by AWS Signature Version 4.
	InSignature Where = "aws"
	InExchange  Where = "tokens" // a request for tokens only, which package login writes; no secret of the index has it
)

// Place is where in a request a secret is put in.
type Place struct {
	Where Where  `json:"where,omitempty"`
	Arg   string `json:"arg,omitempty"` // header name, user or field
	// Region and Service are those that a signature must be for; empty: any.
	Region  string `json:"region,omitempty"`
	Service string `json:"service,omitempty"`
}

func (p Place) String() string {
	switch p.Where {
	case InCredential:
		return "a header for credentials"
	case InHeader:
		return "the header " + p.Arg
	case InBearer:
		return "Authorization: Bearer"
	case InBasic:
		return "Authorization: Basic, user " + p.Arg
	case InQuery:
		return "the query field " + p.Arg
	case InSignature:
		s := "the signature of AWS"
		if p.Region != "" {
			s += ", region " + p.Region
		}
		if p.Service != "" {
			s += ", service " + p.Service
		}
		return s
	case InExchange:
		return "a request for tokens of the login"
	}
	return "the body"
}

// Keeper says where a value is kept.
type Keeper string

// The keepers.
const (
	Keyring Keeper = "keyring"
	File    Keeper = "file"
	Command Keeper = "command"
)

// Secret is an entry of the index. It has no value.
type Secret struct {
	ID   string `json:"id"`   // random; the placeholder is derived from it. It stays when the secret is replaced
	Name string `json:"name"` // of the environment variable with the placeholder
	// Dir is the project directory whose sandboxes have the secret; empty for all sandboxes.
	Dir   string `json:"dir,omitempty"`
	For   []Host `json:"for"`
	Place Place  `json:"place,omitzero"`
	// OtherCredentials lets requests to these hosts carry credentials beside this one.
	OtherCredentials bool   `json:"otherCredentials,omitempty"`
	Keeper           Keeper `json:"keeper"`
	// Stored names the value in its keeper: random, and another one for each value.
	Stored  string `json:"stored"`
	Command string `json:"command,omitempty"` // for sh(1)
	Shape   Shape  `json:"shape"`             // of its placeholder
	// KeyPair is the form of the placeholders for a pair of keys; nil: it is none.
	KeyPair *KeyPairShape `json:"keyPair,omitempty"`
}

// IsFor reports whether the secret is put into requests to a host.
func (s *Secret) IsFor(name string, port uint16) bool {
	return slices.Contains(s.For, Host{name, port})
}

// nameRule matches names of environment variables (POSIX.1-2017, 8.1).
var nameRule = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// reserved are variables that change how every program of the guest runs.
var reserved = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "TERM", "LANG", "IFS", "ENV", "BASH_ENV", "TMPDIR"}

// CheckName returns an error unless a secret can have the name.
func CheckName(name string) error {
	switch {
	case !nameRule.MatchString(name):
		return fmt.Errorf("%q cannot be the name of a secret: it becomes an environment variable, so use letters, digits and _, such as EXAMPLE_TOKEN", name)
	case slices.Contains(reserved, name) || strings.HasPrefix(name, "LD_") || strings.HasPrefix(name, "BAWN_"):
		return fmt.Errorf("%s cannot be the name of a secret: the variable has another meaning", name)
	}
	return nil
}

// Check returns what is wrong with an entry that a person wrote or that was read from disk.
func (s *Secret) Check() error {
	if err := CheckName(s.Name); err != nil {
		return err
	}
	switch {
	case len(s.For) == 0:
		return fmt.Errorf("secret %s is for no host: name them with --for HOST", s.Name)
	case len(s.For) > MaxHosts:
		return fmt.Errorf("secret %s is for %d hosts, more than %d", s.Name, len(s.For), MaxHosts)
	case s.Keeper == Command && strings.TrimSpace(s.Command) == "":
		return fmt.Errorf("secret %s has an empty command", s.Name)
	case s.Keeper != Command && s.Keeper != File && s.Keeper != Keyring:
		return fmt.Errorf("secret %s: bawn does not know where %q keeps its value: this bawn may be older than the one that set it", s.Name, s.Keeper)
	}
	for _, h := range s.For {
		if clean, ok := policy.CleanName(h.Name); !ok || clean != h.Name || h.Port == 0 || h.Port == 80 {
			return fmt.Errorf("secret %s: %s:%d is not a host with a TLS port", s.Name, h.Name, h.Port)
		}
	}
	return s.Place.check()
}

// scopePart matches a region and a service.
var scopePart = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,63}$`)

// check returns what is wrong with a place.
func (p Place) check() error {
	switch p.Where {
	case InCredential, InBearer, InBody:
		return nil
	case InHeader:
		if !httpguts.ValidHeaderFieldName(p.Arg) {
			return fmt.Errorf("%q is not the name of a header", p.Arg)
		}
		switch textproto.CanonicalMIMEHeaderKey(p.Arg) {
		case "Host", "Connection", "Upgrade", "Transfer-Encoding", "Content-Length", "Te", "Trailer", "Cookie", "Expect":
			return fmt.Errorf("a secret cannot be put into the header %s", p.Arg)
		}
		return nil
	case InBasic:
		if p.Arg == "" || strings.ContainsFunc(p.Arg, func(r rune) bool { return r == ':' || r < ' ' || r == 0x7f }) {
			return fmt.Errorf("%q cannot be the user of Basic authentication (RFC 7617)", p.Arg)
		}
		return nil
	case InQuery:
		if p.Arg == "" {
			return errors.New("the query field has no name")
		}
		return nil
	case InSignature:
		for _, part := range []string{p.Region, p.Service} {
			if part != "" && !scopePart.MatchString(part) {
				return fmt.Errorf("%q is not a region or a service of AWS, such as eu-central-1 and s3", part)
			}
		}
		return nil
	}
	return fmt.Errorf("bawn does not know the place %q of a secret: this bawn may be older than the one that set it", p.Where)
}

// ParseHost reads HOST[:PORT]; without a port it is 443. Wildcards and addresses are
// refused: a secret goes to hosts that the person named.
func ParseHost(s string) (Host, error) {
	host, port := s, uint64(443)
	if name, digits, ok := strings.Cut(s, ":"); ok {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || n == 0 {
			return Host{}, fmt.Errorf("%q: %q is not a port", s, digits)
		}
		host, port = name, n
	}
	clean, ok := policy.CleanName(host)
	switch {
	case !ok || strings.Contains(clean, "*"):
		return Host{}, fmt.Errorf("%q is not a host: write a whole name, such as api.example.org, without wildcards and not as an address", s)
	case port == 80:
		return Host{}, fmt.Errorf("%q: a secret is never put into plain HTTP: name a port on which the host speaks TLS", s)
	case clean == policy.HostName || !strings.Contains(clean, "."):
		return Host{}, fmt.Errorf("%q is not the full name of a host, such as api.example.org", s)
	}
	return Host{clean, uint16(port)}, nil
}

// CheckValue returns an error unless a secret can have the value. The error does not have it.
func CheckValue(v string) error {
	switch {
	case len(v) < MinValue:
		return fmt.Errorf("it has %d bytes, and must have at least %d", len(v), MinValue)
	case len(v) > MaxValue:
		return fmt.Errorf("it has more than %d bytes", MaxValue)
	case !httpguts.ValidHeaderFieldValue(v) || strings.TrimSpace(v) != v:
		return errors.New("it has several lines, control characters, or spaces at its ends")
	}
	return nil
}
