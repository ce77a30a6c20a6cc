package gitobject

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	tree   = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
	parent = "ae912db7ca5e475ee48a247de6b4a599a11b5a92"
	ada    = "Ada Lovelace <ada@example.org> 1796006693 +0100"
)

// commit returns a commit with other headers behind the committer, and a message.
func commit(headers, message string) string {
	return "tree " + tree + "\nparent " + parent + "\nauthor " + ada + "\ncommitter " + ada + "\n" + headers + "\n" + message
}

func tag(headers, message string) string {
	return "object " + parent + "\ntype commit\ntag v1\ntagger " + ada + "\n" + headers + "\n" + message
}

var mergeTag = "mergetag " + strings.ReplaceAll(strings.TrimSuffix(tag("", "x\n-----BEGIN PGP SIGNATURE-----\n\nAA\n-----END PGP SIGNATURE-----\n"), "\n"), "\n", "\n ") + "\n"

// accepted are objects that git writes.
var accepted = map[string]string{
	"a commit":                      commit("", "subject\n\nbody\n"),
	"without a message":             commit("", ""),
	"a first commit":                "tree " + tree + "\nauthor " + ada + "\ncommitter " + ada + "\n\nx\n",
	"a merge":                       strings.Replace(commit("", "x"), "\nauthor", "\nparent "+tree+"\nparent "+tree+"\nauthor", 1),
	"the merge of a signed tag":     commit(mergeTag+mergeTag, "x\n"),
	"in another encoding":           commit("encoding ISO-8859-1\n", "caf\xe9\n"),
	"that and a merged tag":         commit("encoding ISO-8859-1\n"+mergeTag, "caf\xe9\n"),
	"with names of 256 bits":        strings.NewReplacer(tree, strings.Repeat("a", 64), parent, strings.Repeat("0", 64)).Replace(commit("", "x\n")),
	"a message like a header":       commit("", "tree "+tree+"\ncommitter Eve <eve@example.org> 1 +0000\ngpgsig x\n\nx\n"),
	"a message with a signature":    commit("", "x\n-----BEGIN PGP SIGNATURE-----\n"),
	"an author without a name":      strings.Replace(commit("", "x"), "author Ada Lovelace <", "author  <", 1),
	"an author with nothing":        strings.Replace(commit("", "x"), "author Ada Lovelace <ada@example.org>", "author <>", 1),
	"another alphabet":              strings.ReplaceAll(commit("", "é\n"), "Ada Lovelace", "Ада \"Z\" O'Hara"),
	"a tag":                         tag("", "v1\n"),
	"a tag of a tree":               strings.Replace(tag("", "v1\n"), "type commit", "type tree", 1),
	"a tag without a message":       tag("", ""),
	"a tag with a path in its name": strings.Replace(tag("", "v1\n"), "tag v1", "tag release/v1.0-ü", 1),
}

func TestWhatGitWrites(t *testing.T) {
	for name, text := range accepted {
		o, err := Parse([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, of := Commit, tree
		if strings.HasPrefix(text, "object") {
			want, of = Tag, parent
		}
		if len(o.Of) == 64 {
			of = strings.Repeat("a", 64)
		}
		if o.Kind != want || o.Of != of || o.By.Email != "ada@example.org" || !o.By.When.Equal(time.Unix(1796006693, 0)) {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// TestAttackObjects: whatever is not exactly a commit or a tag is refused, by words that say what is wrong.
func TestAttackObjects(t *testing.T) {
	c, g := commit("", "x\n"), tag("", "x\n")
	change := func(text, from, to string) string {
		t.Helper()
		if !strings.Contains(text, from) {
			t.Fatalf("no %q", from)
		}
		return strings.Replace(text, from, to, 1)
	}
	for name, a := range map[string]struct{ text, want string }{
		"nothing":                     {"", "neither a commit nor a tag"},
		"arbitrary text":              {"I owe Eve 1000 EUR.\n", "neither a commit nor a tag"},
		"a challenge of ssh":          {"\x00\x00\x00\x20" + strings.Repeat("a", 32) + "\x32\x00\x00\x00\x04root\x00\x00\x00\x0essh-connection", "byte of the value zero"},
		"a challenge without zeros":   {"SSHSIG challenge ssh-userauth", "neither a commit nor a tag"},
		"a file":                      {"#!/bin/sh\nrm -rf ~\n", "neither a commit nor a tag"},
		"a tree":                      {"100644 a", "neither a commit nor a tag"},
		"a header of git's store":     {"commit 200", "neither a commit nor a tag"},
		"a zero in the message":       {commit("", "x\x00y"), "value zero"},
		"a zero in a name":            {change(c, "Ada L", "Ada\x00L"), "value zero"},
		"a huge object":               {commit("", strings.Repeat("x", MaxObject)), "at most 1048576"},
		"cut off":                     {"tree " + tree + "\nparent", "ends too early"},
		"no line end":                 {"tree " + tree, "ends too early"},
		"no empty line":               {strings.TrimSuffix(commit("", ""), "\n"), "ends too early"},
		"a signature already":         {commit("gpgsig -----BEGIN PGP SIGNATURE-----\n \n AA\n -----END PGP SIGNATURE-----\n", "x"), `"gpgsig"`},
		"a signature of 256 bits":     {commit("gpgsig-sha256 x\n", "x"), `"gpgsig-sha256"`},
		"an unknown header":           {commit("HG:extra x\n", "x"), `"HG:extra"`},
		"a second committer":          {commit("committer "+ada+"\n", "x"), `"committer"`},
		"a second header block":       {"tree " + tree + "\n\nparent " + parent + "\nauthor " + ada + "\ncommitter " + ada + "\n\nx", "where author is expected"},
		"a second tree":               {change(c, "\nauthor", "\ntree "+tree+"\nauthor"), "where author is expected"},
		"the committer first":         {change(c, "author "+ada+"\ncommitter "+ada, "committer "+ada+"\nauthor "+ada), "where author is expected"},
		"no committer":                {change(c, "committer "+ada+"\n", ""), "where committer is expected"},
		"a continued committer":       {change(c, "\ncommitter "+ada+"\n", "\ncommitter "+ada+"\n more\n"), `""`},
		"an encoding twice":           {commit("encoding A\nencoding B\n", "x"), `"encoding"`},
		"an encoding behind":          {commit(mergeTag+"encoding A\n", "x"), `"encoding"`},
		"an odd encoding":             {commit("encoding a/../b\n", "x"), "not the name of an encoding"},
		"a long encoding":             {commit("encoding "+strings.Repeat("a", 46)+"\n", "x"), "not the name of an encoding"},
		"no UTF-8":                    {commit("", "caf\xe9"), "not UTF-8"},
		"a short tree":                {change(c, tree, tree[1:]), "tree is not the name"},
		"a tree in capitals":          {change(c, tree, strings.ToUpper(tree)), "tree is not the name"},
		"a parent of another length":  {change(c, parent, strings.Repeat("a", 64)), "parent is not the name"},
		"a carriage return":           {change(c, tree+"\n", tree+"\r\n"), "control characters"},
		"a terminal's controls":       {change(c, "Ada L", "Ada\x1b[2JL"), "control characters"},
		"two addresses":               {change(c, "committer Ada", "committer Eve <eve@example.org> 1 +0000 Ada"), "committer is not NAME"},
		"an address within another":   {change(c, "committer Ada Lovelace <ada", "committer Ada Lovelace <<ada"), "committer is not NAME"},
		"no address":                  {change(c, "committer "+ada, "committer Ada 1796006693 +0100"), "committer is not NAME"},
		"no time":                     {change(c, "committer "+ada, "committer Ada <ada@example.org>"), "committer is not NAME"},
		"a time before 1970":          {change(c, "committer "+ada, "committer Ada <ada@example.org> -1 +0100"), "committer is not NAME"},
		"a time with a sign":          {change(c, "committer "+ada, "committer Ada <ada@example.org> +1 +0100"), "committer is not NAME"},
		"a time with zeros":           {change(c, "committer "+ada, "committer Ada <ada@example.org> 01 +0100"), "committer is not NAME"},
		"a time that is no number":    {change(c, "committer "+ada, "committer Ada <ada@example.org> 1e9 +0100"), "committer is not NAME"},
		"a time far away":             {change(c, "committer "+ada, "committer Ada <ada@example.org> 99999999999999999999 +0100"), "committer is not NAME"},
		"a zone by name":              {change(c, "committer "+ada, "committer Ada <ada@example.org> 1796006693 CET"), "committer is not NAME"},
		"more behind the zone":        {change(c, "committer "+ada, "committer "+ada+" x"), "committer is not NAME"},
		"a merged tag that is none":   {commit("mergetag "+strings.ReplaceAll("gpgsig x\n\ny", "\n", "\n ")+"\n", "x"), "the tag in its header"},
		"a merged tag with a header":  {commit("mergetag "+strings.TrimSuffix(strings.ReplaceAll(tag("evil x\n", "x\n"), "\n", "\n "), " "), "x"), "another header"},
		"a merged tag that is a line": {commit("mergetag object "+parent+"\n", "x"), "the tag in its header"},
		"a tag with a signature":      {tag("", "x\n-----BEGIN SSH SIGNATURE-----\n"), "a signature already"},
		"a tag with a header":         {tag("gpgsig x\n", "x"), `"gpgsig"`},
		"a tag without a tagger":      {change(g, "tagger "+ada+"\n", ""), "where tagger is expected"},
		"a tag of no type":            {change(g, "type commit", "type secret"), "its type is"},
		"a tag with a space":          {change(g, "tag v1", "tag v 1"), "not the name of a tag"},
		"a tag that leads away":       {change(g, "tag v1", "tag ../v1"), "not the name of a tag"},
		"a tag with a long name":      {change(g, "tag v1", "tag "+strings.Repeat("v", 256)), "not the name of a tag"},
		"a tag in another encoding":   {tag("", "caf\xe9"), "not UTF-8"},
	} {
		if o, err := Parse([]byte(a.text)); err == nil || !strings.Contains(err.Error(), a.want) {
			t.Errorf("%s: %+v, %v; want an error with %q", name, o, err, a.want)
		}
	}
}

// git is a repository whose git signs by a program that keeps what it is to sign.
type git struct {
	*testing.T
	dir, kept string
}

const signature = "-----BEGIN SSH SIGNATURE-----\n\nAAAA\n-----END SSH SIGNATURE-----\n"

func newGit(t *testing.T, args ...string) *git {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip(err)
	}
	g := &git{t, filepath.Join(t.TempDir(), "r"), t.TempDir()}
	program := filepath.Join(g.kept, "program")
	script := "#!/bin/sh\nn=$(ls " + g.kept + " | wc -l); cat > " + g.kept + "/$n\necho '[GNUPG:] SIG_CREATED D' >&2\nprintf -- '" + strings.ReplaceAll(signature, "\n", `\n`) + "'\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("git", append([]string{"init", "-q", "-b", "main", g.dir}, args...)...).CombinedOutput(); err != nil {
		t.Skipf("%s, %v", out, err)
	}
	for _, c := range [][]string{{"user.name", "Ada"}, {"user.email", "ada@example.org"}, {"gpg.program", program}, {"commit.gpgsign", "true"}, {"merge.verifySignatures", "false"}} {
		g.run("config", c[0], c[1])
	}
	return g
}

func (g *git) run(args ...string) string {
	g.Helper()
	c := exec.CommandContext(g.Context(), "git", args...)
	c.Dir, c.Env = g.dir, append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_EDITOR=true")
	out, err := c.CombinedOutput()
	if err != nil {
		g.Fatalf("git %q: %s, %v", args, out, err)
	}
	return strings.TrimSpace(string(out))
}

func (g *git) commit(file string, args ...string) {
	g.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(file), 0o644); err != nil {
		g.Fatal(err)
	}
	g.run("add", ".")
	g.run(append([]string{"commit", "-q", "-m", file}, args...)...)
}

// TestObjectsOfGit: what git hands to a signing program in the work of a day is taken, and the name with the signature
// is the one that git gives the object.
func TestObjectsOfGit(t *testing.T) {
	for name, args := range map[string][]string{"SHA-1": nil, "SHA-256": {"--object-format=sha256"}} {
		t.Run(name, func(t *testing.T) {
			g := newGit(t, args...)
			g.commit("one")
			g.run("tag", "-s", "-m", "first", "v1")
			g.run("checkout", "-q", "-b", "side")
			g.commit("two", "--author", "Grace <grace@example.org>", "--date", "2001-02-03T04:05:06")
			g.run("-c", "i18n.commitEncoding=ISO-8859-1", "commit", "-q", "--amend", "-m", "caf\xe9")
			g.run("tag", "-s", "-m", "second", "v2")
			g.run("checkout", "-q", "main")
			g.commit("three")
			g.run("merge", "-q", "--no-ff", "-m", "merge", "v2") // with a mergetag
			g.run("cherry-pick", "-x", "side", "--allow-empty", "--keep-redundant-commits")
			g.run("revert", "--no-edit", "HEAD~2", "-m", "1")
			g.run("commit", "--allow-empty", "--allow-empty-message", "-q", "-m", "")
			g.run("checkout", "-q", "-b", "moved", "side")
			g.run("rebase", "-q", "--force-rebase", "--empty=keep", "main~3")
			names := strings.Fields(g.run("rev-list", "--all"))
			names = append(names, g.run("rev-parse", "v1"), g.run("rev-parse", "v2"))
			files, err := filepath.Glob(filepath.Join(g.kept, "[0-9]*"))
			if err != nil || len(files) < 10 {
				t.Fatalf("git signed only %d objects, %v", len(files), err)
			}
			var signed []string
			for _, file := range files {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				o, err := Parse(b)
				if err != nil {
					t.Errorf("%v:\n%s", err, b)
					continue
				}
				signed = append(signed, o.SignedName([]byte(signature)))
			}
			for _, n := range names {
				if !slices.Contains(signed, n) {
					t.Errorf("git has %s, which is not among what was signed: %q\n%s", n, signed, g.run("cat-file", "-p", n))
				}
			}
		})
	}
}

// FuzzParse: what is taken is git's form to the byte, so that writing it from its parts makes it again.
func FuzzParse(f *testing.F) {
	for _, text := range accepted {
		f.Add([]byte(text))
	}
	f.Add([]byte(commit("gpgsig x\n", "x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := Parse(slices.Clone(b))
		if err != nil {
			if o != nil {
				t.Error("an object and an error")
			}
			return
		}
		if bytes.IndexByte(b, 0) >= 0 || len(b) > MaxObject {
			t.Error("zeros, or too long")
		}
		head, _, ok := bytes.Cut(b, []byte("\n\n"))
		if !ok || len(head)+1 != o.header {
			t.Fatalf("the header has %d bytes, not %d", len(head), o.header)
		}
		keys := []string{}
		for line := range strings.SplitSeq(string(head), "\n") {
			if line[0] != ' ' {
				key, _, _ := strings.Cut(line, " ")
				keys = append(keys, key)
			}
		}
		once := strings.Join(slices.Compact(keys), " ")
		want := []string{"object type tag tagger"}
		if o.Kind == Commit {
			want = nil
			for _, parents := range []string{"", " parent"} {
				for _, rest := range []string{"", " encoding", " mergetag", " encoding mergetag"} {
					want = append(want, "tree"+parents+" author committer"+rest)
				}
			}
		}
		if !slices.Contains(want, once) {
			t.Errorf("the header has %q", keys)
		}
		for _, key := range []string{"tree", "author", "committer", "encoding", "object", "type", "tag", "tagger"} {
			if n := strings.Count(" "+strings.Join(keys, " ")+" ", " "+key+" "); n > 1 {
				t.Errorf("%d times %s", n, key)
			}
		}
		if n := len(o.SignedName([]byte(signature))); n != len(o.Of) {
			t.Errorf("a name of %d digits", n)
		}
	})
}
