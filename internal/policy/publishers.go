package policy

import (
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Domains below which strangers have names, so that a wildcard there allows a host to
// whoever wants one.

// ownership is who gets names below a domain.
type ownership int

const (
	oneOwner  ownership = iota
	registry            // anybody registers a domain there: com, co.uk
	publisher           // anybody gets a host there by using a service: github.io
)

// publishers adds to the public suffix list, whose private section has the domains below
// which customers of a service get names: domains of which the list has only some parts, or
// which are not in it. A name below one of them counts as the domain itself.
var publishers = []string{
	"amazonaws.com", "amazonaws.com.cn", "amazoncognito.com", "on.aws", "sagemaker.aws",
	"windows.net", "azure.com", "azurefd.net", "trafficmanager.net", "usgovcloudapi.net",
	"sharepoint.com", "firebaseio.com", "fastly.net", "b-cdn.net", "akamaized.net",
	"backblazeb2.com", "linode.com", "linodeusercontent.com", "ovh.net", "scw.cloud",
	"render.com", "railway.app", "platform.sh", "canva.site", "salesforce.com", "jelastic.com",
	"atlassian.net", "atlassian-dev.net", "zendesk.com", "slack.com", "wordpress.com",
	"tumblr.com", "substack.com", "github.dev", "gitpod.io", "codesandbox.io", "webhook.site",
	"requestbin.com", "pipedream.net", "interact.sh", "oast.fun", "oast.pro", "oast.live",
	"oast.site", "oast.online", "oast.me", "loca.lt", "w3s.link", "storacha.link",
}

// accountDomains have a part for each account, so that below that part there is one owner.
var accountDomains = []string{"r2.cloudflarestorage.com"}

// ownerOf returns who gets names below a domain, which is without wildcards.
func ownerOf(domain string) ownership {
	if domain == "" {
		return registry
	}
	suffix, icann := publicsuffix.PublicSuffix(domain)
	switch {
	case suffix == domain && (icann || !strings.Contains(domain, ".")):
		return registry
	case suffix == domain:
		return publisher
	}
	// A rule *.domain of the list makes a suffix of every name below the domain.
	if below, _ := publicsuffix.PublicSuffix("x." + domain); below == "x."+domain {
		return publisher
	}
	for _, p := range publishers {
		if domain == p || strings.HasSuffix(domain, "."+p) && suffix == tail(p) {
			return publisher
		}
	}
	for _, a := range accountDomains {
		if domain == a || strings.HasSuffix(a, "."+domain) {
			return publisher
		}
	}
	return oneOwner
}

// tail returns the public suffix of a domain.
func tail(domain string) string {
	s, _ := publicsuffix.PublicSuffix(domain)
	return s
}
