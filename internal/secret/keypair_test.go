package secret

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	pairID     = "AKIAREALREALREALREAL"
	pairSecret = "real/SECRET+key0123456789abcdefghijklmno"
	pairToken  = "real-session-token/+==0123456789"
)

// TestKeyPairs are read as clients of AWS print and write them.
func TestKeyPairs(t *testing.T) {
	later := time.Date(2100, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]KeyPair{
		pairID + "\n" + pairSecret + "\n":                                         {ID: pairID, Secret: pairSecret},
		pairID + "\r\n" + pairSecret + "\r\n" + pairToken + "\r\n\r\n":            {ID: pairID, Secret: pairSecret, Token: pairToken},
		"aws_secret_access_key = " + pairSecret + "\naws_access_key_id=" + pairID: {ID: pairID, Secret: pairSecret},
		"export AWS_ACCESS_KEY_ID=" + pairID + "\nexport AWS_SECRET_ACCESS_KEY='" + pairSecret + "'\nexport AWS_SESSION_TOKEN=" + pairToken + "\nexport AWS_CREDENTIAL_EXPIRATION=2100-01-02T03:04:05Z":         {pairID, pairSecret, pairToken, later},
		"{\n \"Version\": 1,\n \"AccessKeyId\": \"" + pairID + "\",\n \"SecretAccessKey\": \"" + pairSecret + "\",\n \"SessionToken\": \"" + pairToken + "\",\n \"Expiration\": \"2100-01-02T03:04:05+00:00\"}": {pairID, pairSecret, pairToken, later},
		`{"Credentials": {"AccessKeyId": "` + pairID + `", "SecretAccessKey": "` + pairSecret + `"}, "AssumedRoleUser": {}}`:                                                                                    {ID: pairID, Secret: pairSecret},
	} {
		p, err := ParseKeyPair(text)
		if err != nil || p.ID != want.ID || p.Secret != want.Secret || p.Token != want.Token || !p.Expires.Equal(want.Expires) {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
		kept, again, err := cleanKeyPair(text)
		if err != nil || strings.Contains(kept, "\n") || again.Secret != want.Secret {
			t.Errorf("%q is kept as %q, %v", text, kept, err)
		}
	}
	for _, text := range []string{
		"", pairID, pairID + "\nshort", "short\n" + pairSecret, "AK IA IA IA IA\n" + pairSecret, "AKIA/20200101/x\n" + pairSecret,
		pairID + "\n" + pairSecret + " with a space", pairID + "\n" + pairSecret + "\n" + pairToken + "\nx\ny", "[default]\naws_access_key_id=" + pairID,
		"aws_access_key_id=" + pairID + "\naws_access_key_id=" + pairID, "{}", "{", `{"AccessKeyId": "` + pairID + `"}`, strings.Repeat("A", 129) + "\n" + pairSecret,
	} {
		if p, err := ParseKeyPair(text); err == nil || p.ID != "" || strings.Contains(err.Error(), pairSecret) {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
	if _, _, err := cleanKeyPair(pairID + "\n" + pairSecret + "\n" + pairToken + "\nAWS_CREDENTIAL_EXPIRATION=2020-01-02T03:04:05Z"); err == nil || !strings.Contains(err.Error(), "ended at 2020-01-02T03:04:05Z") {
		t.Error("one that has ended:", err)
	}
}

// pairEntry is an entry for a pair.
func pairEntry() Secret {
	s := entry("AWS", "")
	s.Place = Place{Where: InSignature, Region: "eu-central-1", Service: "s3"}
	return s
}

// TestKeyPairInASandbox: the guest has variables of the names and the shapes that clients of AWS expect, other
// ones in each sandbox, and none has the pair.
func TestKeyPairInASandbox(t *testing.T) {
	s, _ := testStore(t)
	if _, err := s.Set(t.Context(), pairEntry(), pairID+"\n"+pairSecret+"\n"+pairToken); err != nil {
		t.Fatal(err)
	}
	var before []string
	for _, id := range []string{"one", "two", "two"} {
		list, err := s.Bindings("", id).List()
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		env := list[0].Environ()
		if len(env) != 3 || !regexp.MustCompile(`^AWS_ACCESS_KEY_ID=AKIA[A-Z2-7]{16}$`).MatchString(env[0]) ||
			!regexp.MustCompile(`^AWS_SECRET_ACCESS_KEY=[A-Za-z0-9]{40}$`).MatchString(env[1]) || !regexp.MustCompile(`^AWS_SESSION_TOKEN=[A-Za-z0-9]{32}$`).MatchString(env[2]) {
			t.Error(env)
		}
		if v, err := list[0].Value(t.Context()); err != nil || !strings.Contains(v, pairSecret) {
			t.Error(v, err)
		}
		if all := list[0].Placeholders(); len(all) != 3 || slices.Contains(all, "") {
			t.Error(all)
		}
		before = append(env, before...)
	}
	if slices.Equal(before[:3], before[6:]) || !slices.Equal(before[:3], before[3:6]) {
		t.Error("two sandboxes have the same, or one has two:", before)
	}
	// Another pair of the kind keeps the placeholders, which programs may have that run.
	if _, err := s.Set(t.Context(), pairEntry(), "AKIANEWNEWNEWNEWNEWN\nnewSecretnewSecretnewSecretnewSecretnewS"); err != nil {
		t.Fatal(err)
	}
	list, err := s.Bindings("", "two").List()
	if err != nil || !slices.Equal(list[0].Environ(), before[:2]) {
		t.Error("a new pair:", list[0].Environ(), err)
	}
	for _, bad := range []string{"sk-no-pair-0123456789", pairID + "\n" + pairSecret + "\n" + pairToken + "\naws_credential_expiration=2020-01-02T03:04:05Z"} {
		if _, err := s.Set(t.Context(), pairEntry(), bad); err == nil || strings.Contains(err.Error(), "0123456789") {
			t.Error("set:", err)
		}
	}
	p := pairEntry()
	p.Place.Region = "*"
	if _, err := s.Set(t.Context(), p, pairID+"\n"+pairSecret); err == nil {
		t.Error("all regions")
	}
}

// TestKeyPairOfACommand is asked for anew when it ends, and one that has ended is not used.
func TestKeyPairOfACommand(t *testing.T) {
	s, _ := testStore(t)
	sec := pairEntry()
	dir := t.TempDir()
	print := func(end time.Time) string {
		return `echo x >>` + dir + `/runs; printf '{\n"Version": 1,\n"AccessKeyId": "` + pairID + `", "SecretAccessKey": "` + pairSecret + `", "SessionToken": "` + pairToken + `", "Expiration": "` + end.UTC().Format(time.RFC3339) + `"}\n'`
	}
	sec.Command = print(time.Now().Add(time.Hour))
	sec, err := s.Set(t.Context(), sec, "")
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.Value(t.Context(), &sec)
	if p, perr := ParseKeyPair(v); err != nil || perr != nil || p.Token != pairToken {
		t.Error(v, err)
	}
	if at := time.Now().Add(cacheTime); !expiry(v, at).Equal(at) {
		t.Error("one that counts for an hour is used until", expiry(v, at))
	}
	soon := time.Now().Add(time.Minute).Truncate(time.Second)
	v = `{"AccessKeyId":"` + pairID + `","SecretAccessKey":"` + pairSecret + `","Expiration":"` + soon.UTC().Format(time.RFC3339) + `"}`
	if at := expiry(v, time.Now().Add(cacheTime)); !at.Equal(soon) {
		t.Error("one that ends in a minute is used until", at)
	}
	sec.Command = print(time.Now().Add(-time.Hour))
	if sec, err = s.Set(t.Context(), sec, ""); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Value(t.Context(), &sec); err == nil || v != "" || !strings.Contains(err.Error(), "the access key ended") {
		t.Error(v, err)
	}
	list, err := s.Bindings("", "one").List()
	if err != nil || len(list[0].Environ()) != 2 || list[0].Keys.Token == "" {
		t.Error(list[0].Environ(), err)
	}
}

// FuzzKeyPair: what is read as a pair can be signed with, and is read again as it was.
func FuzzKeyPair(f *testing.F) {
	f.Add(pairID + "\n" + pairSecret)
	f.Add(`{"AccessKeyId":"` + pairID + `","SecretAccessKey":"` + pairSecret + `","Expiration":"2100-01-02T03:04:05Z"}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseKeyPair(text)
		if err != nil {
			return
		}
		kept, _, err := cleanKeyPair(text)
		if err != nil {
			return // too long, or it has ended
		}
		if again, err := ParseKeyPair(kept); err != nil || again.ID != p.ID || again.Secret != p.Secret || again.Token != p.Token || !again.Expires.Equal(p.Expires) {
			t.Fatalf("%q became %q", text, kept)
		}
	})
}
