package cacert

import (
	"crypto/x509/pkix"
	"slices"
	"testing"
)

func TestCombineAddsWhatIsMissing(t *testing.T) {
	_, a := newCA(t, pkix.Name{CommonName: "a"})
	_, b := newCA(t, pkix.Name{CommonName: "b"})
	for name, test := range map[string]struct{ got, want string }{
		"nothing":      {string(Combine()), ""},
		"an empty one": {string(Combine(nil, a)), string(a)},
		"a comment":    {string(Combine([]byte("# mine"), a, b, a)), "# mine\n" + string(a) + string(b)},
		"there":        {string(Combine(slices.Concat(a, b), b)), string(a) + string(b)},
		"no PEM":       {string(Combine(a, []byte("x"))), string(a)},
		"a key":        {string(Combine(a, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))), string(a)},
	} {
		if test.got != test.want {
			t.Errorf("%s: %q, want %q", name, test.got, test.want)
		}
	}
}

func TestByHashHasEachCertificate(t *testing.T) {
	cert, a := newCA(t, pkix.Name{CommonName: "a"})
	_, b := newCA(t, pkix.Name{CommonName: "a"}) // another key
	got, err := ByHash(slices.Concat(a, b))
	must(t, err)
	hash, err := subjectHash(cert)
	must(t, err)
	if len(got) != 2 || string(got[hashName(hash, 0)]) != string(a) || string(got[hashName(hash, 1)]) != string(b) {
		t.Errorf("%q", got)
	}
}
