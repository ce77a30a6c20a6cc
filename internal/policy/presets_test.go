package policy

import (
	"slices"
	"testing"
)

// ways are hosts through which data can leave or strangers' text can come in, by what is
// done there. No preset reaches one, unless its Publishes says that and why.
var ways = map[string][]string{
	"gists and snippets":               {"gist.github.com", "gist.githubusercontent.com", "snippets.gitlab.com"},
	"pages that anybody publishes":     {"a.github.io", "a.gitlab.io", "a.pages.dev", "a.netlify.app", "a.vercel.app", "a.web.app", "a.deno.dev", "a.workers.dev", "a.hf.space", "people.debian.org", "people.ubuntu.com", "pages.github.com", "{a,www}.npmjs.com"},
	"playgrounds, which keep code":     {"play.golang.org", "go.dev", "play.go.dev", "tour.golang.org", "go2goplay.golang.org", "play.rust-lang.org", "dash.deno.com", "playground.deno.com", "api.deno.com", "play.crates.io"},
	"pastebins":                        {"paste.ubuntu.com", "pastebin.ubuntu.com", "paste.debian.org", "paste.debian.net", "paste.alpinelinux.org", "pastebin.com", "transfer.sh", "file.io", "0x0.st"},
	"forums, wikis, issue trackers":    {"salsa.debian.org", "wiki.debian.org", "bugs.debian.org", "lists.debian.org", "mentors.debian.org", "discourse.ubuntu.com", "wiki.ubuntu.com", "help.ubuntu.com", "users.rust-lang.org", "internals.rust-lang.org", "discuss.gradle.org", "ge.gradle.org", "issues.apache.org", "gitlab.alpinelinux.org", "wiki.alpinelinux.org", "forum.anaconda.com", "community.anaconda.com", "discuss.python.org", "forums.docker.com", "hub.docker.com", "go-review.googlesource.com", "issues.golang.org"},
	"servers of keys":                  {"keyserver.ubuntu.com", "keyring.debian.org", "keys.openpgp.org"},
	"uploads of packages":              {"{upload,test}.pypi.org", "{crates,staging.crates}.io", "{www.nuget,nuget}.org", "{hex,www.hex}.pm", "{api.anaconda,anaconda}.org", "api.jsr.io", "ftp-master.debian.org", "upload.debian.org", "upload.ubuntu.com", "central.sonatype.com", "oss.sonatype.org", "ppa.launchpadcontent.net", "search.maven.org"},
	"object stores":                    {"a.s3.amazonaws.com", "s3.amazonaws.com", "storage.googleapis.com", "a.blob.core.windows.net", "a.r2.cloudflarestorage.com", "a.r2.dev", "firebasestorage.googleapis.com", "www.googleapis.com", "drive.google.com"},
	"code hosts":                       {"github.com", "api.github.com", "uploads.github.com", "gitlab.com", "bitbucket.org", "codeberg.org", "git.sr.ht", "huggingface.co"},
	"attachments of issues":            {"user-images.githubusercontent.com", "private-user-images.githubusercontent.com", "camo.githubusercontent.com", "raw.githubusercontent.com"},
	"any host of a domain with others": {"anything.github.com", "anything.githubusercontent.com", "anything.debian.org", "anything.ubuntu.com", "anything.golang.org", "anything.docker.com", "anything.rust-lang.org", "anything.alpinelinux.org", "anything.deno.com", "anything.pypi.org", "anything.apache.org", "anything.gradle.org", "anything.googleapis.com"},
}

// reached are the ways that presets with Publishes reach, and no others.
var reached = map[string][]string{
	"copilot":     {"github.com", "api.github.com"},
	"github":      {"github.com", "api.github.com", "uploads.github.com", "raw.githubusercontent.com"}, // raw: files of repositories, which the API gives as well
	"gitlab":      {"gitlab.com"},
	"huggingface": {"huggingface.co"},
}

// TestPresetsReachNoPublisher: presets reach no host on which anybody publishes, but for
// those that say so.
func TestPresetsReachNoPublisher(t *testing.T) {
	sets := presetSets()
	for _, p := range Presets() {
		var found []string
		for kind, names := range ways {
			for _, name := range slices.Concat(mapped(names, braces)...) {
				if !sets[p.Name].Resolves(name) {
					continue
				}
				if found = append(found, name); !slices.Contains(reached[p.Name], name) {
					t.Errorf("%s reaches %s (%s)", p.Name, name, kind)
				}
			}
		}
		if len(found) > 0 && p.Publishes == "" {
			t.Errorf("%s reaches %q and does not say so", p.Name, found)
		}
		if len(found) < len(reached[p.Name]) {
			t.Errorf("%s reaches %q only", p.Name, found)
		}
	}
}

// TestPresetsAreEnough: the hosts that the programs ask for packages.
func TestPresetsAreEnough(t *testing.T) {
	sets := presetSets()
	for preset, names := range map[string][]string{
		"go":     {"dl.google.com"},
		"crates": {"static.rust-lang.org"},
		"github": {"github.com", "codeload.github.com", "objects.githubusercontent.com", "release-assets.githubusercontent.com"},
		"ghcr":   {"pkg-containers.githubusercontent.com"},
	} {
		for _, name := range names {
			if !sets[preset].Decide(Flow{Name: name, Port: 443, Proto: TCP}).Allow {
				t.Errorf("%s does not allow %s", preset, name)
			}
		}
	}
	if !sets["github"].Decide(Flow{Name: "github.com", Port: 22, Proto: TCP}).Allow {
		t.Error("git over SSH")
	}
}

func TestBraces(t *testing.T) {
	got := braces("{a,b}.{x,y}.test:1,2")
	if want := []string{"a.x.test:1,2", "a.y.test:1,2", "b.x.test:1,2", "b.y.test:1,2"}; !slices.Equal(got, want) {
		t.Error(got)
	}
}

// mapped returns what f makes of each text.
func mapped(list []string, f func(string) []string) (out [][]string) {
	for _, text := range list {
		out = append(out, f(text))
	}
	return out
}
