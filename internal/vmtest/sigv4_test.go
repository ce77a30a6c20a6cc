//go:build vm

package vmtest

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sigv4/sigv4test"
)

// TestKeysOfAWSStayOnTheHost: curl in the guest signs with the placeholders of a pair of keys, and the server
// gets requests that the pair has signed, with its session token. One that another key has signed is refused.
// The secret part is not in the guest's memory, nor in bawn's files about the sandbox.
func TestKeysOfAWSStayOnTheHost(t *testing.T) {
	server := &sigv4test.Server{ID: "AKIAOFTHISMACHINE234", Secret: "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", Token: "TheSessionTokenThatIsNowhereInTheGuest0123456789"}
	roots := filepath.Join(t.TempDir(), "roots.pem")
	cert, text := certificate(t, "aws.test")
	writeFile(t, roots, string(text))
	l, port := listen(t, serverAddr+":0")
	s := &http.Server{Handler: server, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { s.Close() })

	dir, at := project(t, "aws"), "aws.test:"+strconv.Itoa(port)
	forgetAuthority(t)
	value := server.ID + "\n" + server.Secret + "\n" + server.Token + "\n"
	if r := bawnAt(t.Context(), dir, strings.NewReader(value), nil, "secret", "set", "AWS", "--aws", "--region", "eu-central-1", "--service", "s3", "--for", at); r.code != 0 {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { bawn(t, dir, "secret", "rm", "AWS") })
	r := bawnAt(t.Context(), dir, nil, []string{"SSL_CERT_FILE=" + roots}, "run", "--add-host", "aws.test:"+serverAddr, "--allow", at, "--allow", serverAddr+":"+strconv.Itoa(port), "--", "sh", "-euc", fmt.Sprintf(`
echo "$AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY $AWS_SESSION_TOKEN"
echo an object > /tmp/object
sign() { region=$1 id=$2; shift 2; curl -sS -m 60 --aws-sigv4 "aws:amz:$region:s3" --user "$id:$AWS_SECRET_ACCESS_KEY" -H 'Content-Type: application/octet-stream' "https://%s/bucket/a%%20key" "$@"; }
sign eu-central-1 "$AWS_ACCESS_KEY_ID" -XPUT --data-binary @/tmp/object
sign eu-central-1 "$AWS_ACCESS_KEY_ID" -XGET
sign eu-central-1 AKIATTACKERATTACKER2 -XGET -otheirs '-w%%{http_code}\n'
sign us-east-1 "$AWS_ACCESS_KEY_ID" -XGET -oregion '-w%%{http_code}\n'
`, at))
	if r.code != 0 {
		t.Fatalf("%d\n%s%s%s", r.code, r.out, r.err, logs(dir))
	}
	said := strings.SplitN(r.out, "\n", 2)
	placeholders := strings.Fields(said[0])
	if len(placeholders) != 3 || !strings.HasPrefix(placeholders[0], "AKIA") || len(placeholders[0]) != 20 || len(placeholders[1]) != 40 || said[1] != "an object\n403\n403\n" {
		t.Errorf("%s", r.out)
	}
	if last := server.Last(); server.Count() != 2 || last.Err != nil || last.Request.Method != http.MethodGet {
		t.Errorf("%d requests came, the last one: %v", server.Count(), last.Err)
	}
	if theirs, region := readFile(t, filepath.Join(dir, "theirs")), readFile(t, filepath.Join(dir, "region")); !strings.Contains(theirs, "another credential") || !strings.Contains(region, "region us-east-1") {
		t.Error(theirs, region)
	}
	must(t, dir, "exec", "aws", "sync")
	st := inspect(t, dir)
	if len(placeholders) == 3 && searchMemory(t, st.State.PID, placeholders[1]) == 0 {
		t.Error("the search of the guest's memory does not find the placeholder either")
	}
	for _, part := range []string{server.Secret, server.Token} {
		if n := searchMemory(t, st.State.PID, part); n != 0 {
			t.Errorf("%s is in the guest's memory %d times", part, n)
		}
		searchFiles(t, part, dir, filepath.Join(base, "state"))
	}
}
