// Package proxyenv reads from the environment by which proxies this host reaches other hosts.
//
// The variables are those of golang.org/x/net/http/httpproxy, the lower case one before the
// upper case one, and ALL_PROXY as in curl(1): HTTP_PROXY is for plain HTTP, HTTPS_PROXY for
// all other connections, ALL_PROXY for what these two leave unset, and NO_PROXY lists the
// hosts that are reached directly.
//
// The URLs may have a user and a password. No error and no text of this package has them,
// except for URL, HTTP and Environ.
package proxyenv

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"bawn.dev/bawn/internal/sys/settings"
)

// Variables are the variables that this package reads, for a process that passes them on.
var Variables = []string{
	"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY",
}

// httpPort is the port of plain HTTP, for which HTTP_PROXY is.
const httpPort = 80

// secureScheme is the scheme of URLs whose servers are verified.
const secureScheme = "https"

// defaultPorts are the ports of the supported kinds of proxies, by the scheme of their URL:
// those of net/http.
var defaultPorts = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

// Proxy is one proxy.
type Proxy struct {
	URL      *url.URL // its scheme, host, port, user and password, and nothing else
	Variable string   // that named it
}

// Address returns the proxy's host and port.
func (p *Proxy) Address() string { return p.URL.Host }

// String returns the URL without user and password, and the name of the variable.
func (p *Proxy) String() string {
	return fmt.Sprintf("%s://%s (%s)", p.URL.Scheme, p.URL.Host, p.Variable)
}

// SOCKS reports whether the proxy speaks SOCKS 5 (RFC 1928). All others speak HTTP.
func (p *Proxy) SOCKS() bool { return strings.HasPrefix(p.URL.Scheme, "socks") }

// Settings are the proxies of an environment. Nil has none. Safe for concurrent use.
type Settings struct {
	plain, other *Proxy // for plain HTTP, and for the rest; nil: none
	noProxy      string
	choose       func(*url.URL) (*url.URL, error)
}

// Read returns the settings of this process's environment. A variable that does not have the
// URL of a proxy is an error: ignoring it would connect directly.
func Read() (*Settings, error) {
	all := firstSet("all_proxy", "ALL_PROXY")
	plain, err := parse(firstSet("http_proxy", "HTTP_PROXY"), all)
	if err != nil {
		return nil, err
	}
	other, err := parse(firstSet("https_proxy", "HTTPS_PROXY"), all)
	if err != nil || plain == nil && other == nil {
		return nil, err
	}
	s := &Settings{plain: plain, other: other, noProxy: firstSet("no_proxy", "NO_PROXY").value}
	conf := httpproxy.Config{NoProxy: s.noProxy}
	if plain != nil {
		conf.HTTPProxy = plain.URL.String()
	}
	if other != nil {
		conf.HTTPSProxy = other.URL.String()
	}
	s.choose = conf.ProxyFunc()
	return s, nil
}

// setting is a variable of the environment and its value.
type setting struct{ name, value string }

// firstSet returns the first of the variables that is set and not empty.
func firstSet(names ...string) setting {
	for _, n := range names {
		if v := strings.TrimSpace(os.Getenv(n)); v != "" {
			return setting{n, v}
		}
	}
	return setting{}
}

// parse returns the proxy of a variable, or of instead if that is not set; nil if neither is.
func parse(v, instead setting) (*Proxy, error) {
	if v = cmp.Or(v, instead); v.name == "" {
		return nil, nil //nolint:nilnil // no proxy is no error
	}
	text := v.value
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	// Errors of net/url have the text, and so the password.
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the variable %s does not have the URL of a proxy: write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, "+
			"with / ? # %% and spaces in the password as %%2F %%3F %%23 %%25 %%20, or unset it", v.name)
	}
	port, known := defaultPorts[u.Scheme]
	if !known {
		return nil, fmt.Errorf("the variable %s has a proxy of an unknown kind: its URL must begin with http://, https://, socks5:// or socks5h://", v.name)
	}
	port = cmp.Or(u.Port(), port)
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, fmt.Errorf("the variable %s has a proxy with a port that is none: ports are 1 to 65535", v.name)
	}
	if err := checkUser(u); err != nil {
		return nil, fmt.Errorf("the variable %s: %w", v.name, err)
	}
	host := net.JoinHostPort(u.Hostname(), port)
	return &Proxy{URL: &url.URL{Scheme: u.Scheme, User: u.User, Host: host}, Variable: v.name}, nil
}

// maxUser is the longest user name or password of SOCKS (RFC 1929, section 2), in bytes.
const maxUser = 255

// checkUser returns an error for a user or password that the proxy's protocol cannot carry.
func checkUser(u *url.URL) error {
	if u.User == nil {
		return nil
	}
	password, _ := u.User.Password()
	name := u.User.Username()
	switch {
	case strings.HasPrefix(u.Scheme, "socks") && (name == "" || len(name) > maxUser || len(password) > maxUser):
		return fmt.Errorf("SOCKS takes a user and a password of at most %d bytes each", maxUser)
	case strings.Contains(name, ":"): // RFC 7617, section 2
		return errors.New("the user of an HTTP proxy cannot have a colon")
	}
	return nil
}

// For returns the proxy by which a TCP connection to a host, a name or a literal address,
// leaves; nil for directly. The loopback is reached directly, as in httpproxy.
func (s *Settings) For(host string, port uint16) *Proxy {
	if s == nil || host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761, section 6.3
		return nil
	}
	scheme, p := "https", s.other
	if port == httpPort {
		scheme, p = "http", s.plain
	}
	if p == nil {
		return nil
	}
	chosen, err := s.choose(&url.URL{Scheme: scheme, Host: net.JoinHostPort(host, strconv.Itoa(int(port)))})
	if err == nil && chosen == nil {
		return nil
	}
	return p
}

// HTTP returns the URL of the proxy for a request, with its user and password, as
// http.Transport wants it.
func (s *Settings) HTTP(r *http.Request) (*url.URL, error) {
	if s == nil {
		return nil, nil //nolint:nilnil // as http.Transport.Proxy: no proxy
	}
	return s.choose(r.URL)
}

// Proxies returns the proxies that are set, without doubles.
func (s *Settings) Proxies() (list []*Proxy) {
	if s == nil {
		return nil
	}
	if s.other != nil {
		list = append(list, s.other)
	}
	if s.plain != nil && (s.other == nil || s.plain.URL.String() != s.other.URL.String()) {
		list = append(list, s.plain)
	}
	return list
}

// Environ returns the settings as variables of the environment of a program that reads
// http_proxy, https_proxy and no_proxy only, such as apt. They have user and password.
func (s *Settings) Environ() (env []string) {
	if s == nil {
		return nil
	}
	set := func(name string, p *Proxy) {
		if p == nil {
			return
		}
		u := *p.URL
		if u.Scheme == "socks5" { // apt knows only the form in which the proxy resolves names
			u.Scheme = "socks5h"
		}
		env = append(env, name+"="+u.String())
	}
	set("http_proxy", s.plain)
	set("https_proxy", s.other)
	return append(env, "no_proxy="+s.noProxy)
}

// Transport returns a copy of a transport that goes through the proxies of this process's
// environment. Its requests fail while a variable does not have the URL of a proxy, and those by TLS while the
// authorities that servers are believed by are not to be used (settings.UseCertificates), unless base has its own.
func Transport(base *http.Transport) *http.Transport {
	t := base.Clone()
	s, err := Read()
	var ownRoots *x509.CertPool
	if t.TLSClientConfig != nil {
		ownRoots = t.TLSClientConfig.RootCAs
	}
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		if err != nil {
			return nil, err
		}
		through, err := s.HTTP(r)
		if err == nil && ownRoots == nil && (r.URL.Scheme == secureScheme || through != nil && through.Scheme == secureScheme) {
			err = settings.UseCertificates()
		}
		if err != nil {
			return nil, err
		}
		return through, nil
	}
	return t
}
