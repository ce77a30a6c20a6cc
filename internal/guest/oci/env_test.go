package oci

import (
	"slices"
	"strings"
	"testing"
)

// TestVariables: what a container sets stays, or is combined; what it does not set is added.
func TestVariables(t *testing.T) {
	has := func(file string) bool { return file == combinedFile("/etc/mine.pem") }
	for name, test := range map[string]struct{ env, want, absent []string }{
		"nothing set": {
			[]string{"PATH=/bin"},
			[]string{
				"PATH=/bin", "SSL_CERT_FILE=/dev/bawn-ca/system.crt", "NODE_EXTRA_CA_CERTS=/dev/bawn-ca/bawn.crt",
				"REQUESTS_CA_BUNDLE=/dev/bawn-ca/all.crt", "GIT_SSL_CAPATH=/dev/bawn-ca/git",
				"JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=/dev/bawn-ca/java.jks",
			},
			[]string{"CURL_CA_BUNDLE=", "SSL_CERT_DIR=", "GIT_SSL_CAINFO="},
		},
		"files of the image": {
			[]string{"SSL_CERT_FILE=/etc/mine.pem", "CURL_CA_BUNDLE=/etc/../etc/mine.pem", "GIT_SSL_CAINFO=/gone", "AWS_CA_BUNDLE="},
			[]string{
				"SSL_CERT_FILE=/dev/bawn-ca/" + combinedFile("/etc/mine.pem"), "CURL_CA_BUNDLE=/dev/bawn-ca/" + combinedFile("/etc/mine.pem"),
				"GIT_SSL_CAINFO=/gone", "AWS_CA_BUNDLE=",
			}, nil,
		},
		"other variables": {
			[]string{"APT_CONFIG=/a", "SYSTEM_WGETRC=", "JAVA_TOOL_OPTIONS=-Xmx1g -Dx=y"},
			[]string{"APT_CONFIG=/a", "SYSTEM_WGETRC=", "JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=/dev/bawn-ca/java.jks -Xmx1g -Dx=y"}, nil,
		},
		"a store for Java": {
			[]string{"JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=/mine"}, []string{"JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=/mine"}, nil,
		},
		"Java without": {[]string{"JAVA_TOOL_OPTIONS="}, []string{"JAVA_TOOL_OPTIONS="}, nil},
	} {
		got := withVariables(test.env, has)
		for _, want := range test.want {
			if !slices.Contains(got, want) {
				t.Errorf("%s: %s is missing in %q", name, want, got)
			}
		}
		for _, not := range test.absent {
			if slices.ContainsFunc(got, func(v string) bool { return strings.HasPrefix(v, not) }) {
				t.Errorf("%s: %s is in %q", name, not, got)
			}
		}
		if again := withVariables(got, has); !slices.Equal(again, got) {
			t.Errorf("%s: a second time %q", name, again)
		}
	}
}
