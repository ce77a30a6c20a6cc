package gitssh

import (
	"slices"
	"strings"
	"testing"
)

func TestCommands(t *testing.T) {
	for line, want := range map[string]Command{
		"git-upload-pack 'own/app.git'":       {Path: []string{"own", "app.git"}},
		"git-receive-pack '/own/app'":         {Push: true, Path: []string{"own", "app"}, absolute: true},
		"git-upload-pack 'own/app/'":          {Path: []string{"own", "app"}},
		"git-upload-pack '~me/app_1-2+3@x,y'": {Path: []string{"~me", "app_1-2+3@x,y"}},
		"git-upload-pack 'größe/日本'":          {Path: []string{"größe", "日本"}},
	} {
		c, err := ParseCommand(line)
		if err != nil || c.Push != want.Push || c.absolute != want.absolute || !slices.Equal(c.Path, want.Path) {
			t.Errorf("%s: %+v, %v", line, c, err)
		}
		if got := c.String(); got != strings.Replace(line, "/'", "'", 1) {
			t.Errorf("%s is sent on as %s", line, got)
		}
	}
}

// TestCommandsThatAreRefused: what git does not send, and what a shell or a server could read in another
// way.
func TestCommandsThatAreRefused(t *testing.T) {
	for line, why := range map[string]string{
		"":                                                          "takes only",
		"id":                                                        "takes only",
		"git-upload-pack":                                           "takes only",
		"git-upload-pack ":                                          "takes only",
		"git-upload-pack ''":                                        "empty part",
		"git-upload-pack '":                                         "takes only",
		"git-upload-pack own/app":                                   "takes only",
		"git-upload-pack \"own/app\"":                               "takes only",
		"git upload-pack 'own/app'":                                 "takes only",
		" git-upload-pack 'own/app'":                                "takes only",
		"git-upload-pack  'own/app'":                                "takes only",
		"git-upload-pack\t'own/app'":                                "takes only",
		"/usr/bin/git-upload-pack 'own/app'":                        "takes only",
		"git-upload-pack --timeout=1 'own/app'":                     "takes only",
		"git-upload-pack --strict 'own/app'":                        "takes only",
		"LD_PRELOAD=x git-upload-pack 'own/app'":                    "takes only",
		"git-upload-pack 'own/app' ":                                "takes only",
		"git-upload-pack 'own/app';id":                              "takes only",
		"git-upload-pack 'own/app'\n":                               "takes only",
		"git-upload-pack 'own/app\nid'":                             "character",
		"git-upload-pack 'own/app'id'":                              "character",
		"git-upload-pack 'own/app'\\''x'":                           "character",
		"git-upload-pack 'own/app$(id)'":                            "character",
		"git-upload-pack 'own/app`id`'":                             "character",
		"git-upload-pack 'own/app x'":                               "character",
		"git-upload-pack 'own/app%2f..'":                            "character",
		"git-upload-pack 'own/app\\..'":                             "character",
		"git-upload-pack 'own/app\x00'":                             "character",
		"git-upload-pack 'own/app\u202e'":                           "character",
		"git-upload-pack 'own/app!'":                                "character",
		"git-upload-pack 'own/app:x'":                               "character",
		"git-upload-pack 'own/*'":                                   "character",
		"git-upload-pack 'own/\xff'":                                "UTF-8",
		"git-upload-pack 'own/../other'":                            `".."`,
		"git-upload-pack '../app'":                                  `".."`,
		"git-upload-pack 'own/./app'":                               `"."`,
		"git-upload-pack 'own//app'":                                "empty part",
		"git-upload-pack '//own/app'":                               "empty part",
		"git-upload-pack '/'":                                       "empty part",
		"git-upload-pack '--upload-pack=id'":                        "option",
		"git-upload-pack '/-x/app'":                                 "option",
		"git-upload-archive 'own/app'":                              "archive",
		"git-lfs-authenticate own/app download":                     "LFS",
		"git-lfs-transfer own/app download":                         "LFS",
		"git-upload-pack '" + strings.Repeat("x", maxCommand) + "'": "longer",
	} {
		if c, err := ParseCommand(line); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %+v, %v", line, c, err)
		}
	}
}

// FuzzCommand: what is sent on has two quotes, nothing that a shell or a server reads in another way, and reads as the
// same again.
func FuzzCommand(f *testing.F) {
	f.Add("git-upload-pack 'own/app.git'")
	f.Add("git-receive-pack '/~me/app/'")
	f.Add("git-upload-pack 'a'\\''b'")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := ParseCommand(line)
		if err != nil {
			return
		}
		sent := c.String()
		again, err := ParseCommand(sent)
		if err != nil || again.Push != c.Push || again.absolute != c.absolute || !slices.Equal(again.Path, c.Path) {
			t.Fatalf("%q is sent on as %q: %+v, %v", line, sent, again, err)
		}
		program, path, _ := strings.Cut(sent, " ")
		if program != uploadPack && program != receivePack || strings.Count(path, "'") != 2 || strings.ContainsAny(path, "\x00\n\r\t \\\"$`!;&|<>(){}*?[]#%:^") {
			t.Fatalf("%q is sent on", sent)
		}
		for _, s := range c.Path {
			if s == "" || s == "." || s == ".." || strings.Contains(s, "/") {
				t.Fatalf("%q: %q", line, c.Path)
			}
		}
	})
}
