package devcontainer

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestParseFeature has the shapes in which people publish the file.
func TestParseFeature(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want Feature
	}{
		"the least": {`{"id": "go"}`, Feature{ID: "go"}},
		"what is only shown elsewhere": {`{"id": "go", "version": "1.3.0", "name": "Go", "description": "…", "keywords": ["a b"], "documentationURL": "https://x",
			"customizations": {"editor": {"extensions": ["x"]}}, "deprecated": false}`, Feature{ID: "go", Version: "1.3.0"}},
		"options": {`{"id": "go", "options": {"version": {"type": "string", "proposals": ["latest"], "default": "latest"},
			"installTools": {"type": "boolean", "default": true}, "none": {"type": "string"}}}`,
			Feature{ID: "go", Defaults: map[string]string{"version": "latest", "installTools": "true"}}},
		"a language": {`{"id": "go", "init": true, "capAdd": ["SYS_PTRACE"], "securityOpt": ["seccomp=unconfined"], "privileged": false,
			"containerEnv": {"GOROOT": "/usr/local/go", "PATH": "${GOROOT}/bin:${PATH}", "TOKEN": "${localEnv:TOKEN}", "OUT": ""},
			"installsAfter": ["registry.example/Tools/common"]}`,
			Feature{ID: "go", InstallsAfter: []string{"registry.example/tools/common"}, Env: []string{"GOROOT=/usr/local/go", "PATH=${GOROOT}/bin:${PATH}", "OUT="}, NoUse: []string{
				"init: " + noUse["init"], "capAdd: " + noUse["capAdd"], "securityOpt: " + noUse["securityOpt"], "TOKEN, which would have a value of the host's environment"}}},
		"Docker in it": {`{"id": "docker", "privileged": true, "entrypoint": "/usr/local/share/docker-init.sh", "mounts": [
			{"source": "data-${devcontainerId}", "target": "/var/lib/docker", "type": "volume"}, {"source": "/var/run/docker.sock", "target": "/x.sock", "type": "bind"},
			"source=${localEnv:HOME},target=/home,type=bind", "type=tmpfs,target=/t", {"source": "cache-${devcontainerId}", "target": "/cache", "type": "volume"}]}`,
			Feature{ID: "docker", Volumes: []Volume{{"cache-0123", "/cache", false}}, NoUse: []string{
				"privileged: " + noUse["privileged"], "entrypoint: " + noUse["entrypoint"],
				"the volume at /var/lib/docker: the sandbox has it on its own disk",
				"the mount of the host's /var/run/docker.sock: files of the host are not shared by features",
				"the mount of the host's ${localEnv:HOME}: files of the host are not shared by features",
				"a mount at /t that is no named volume"}}},
		"commands and dependencies": {`{"id": "x", "postCreateCommand": "a", "onCreateCommand": {"b": ["c"]}, "initializeCommand": "never",
			"dependsOn": {"registry.example/a:1": {"o": true}, "./b": {}}, "legacyIds": ["y"]}`,
			Feature{ID: "x", LegacyIDs: []string{"y"}, DependsOn: []FeatureRef{{"registry.example/a:1", map[string]string{"o": "true"}}, {"./b", map[string]string{}}},
				Hooks: []Hook{{OnCreate, []Command{{Name: "b", Argv: []string{"c"}}}}, {PostCreate, []Command{sh("a")}}}}},
	} {
		got, err := ParseFeature("f", []byte(c.text), here)
		if err != nil || !sameFeature(got, &c.want) {
			t.Errorf("%s: %+v, %v\nwant %+v", name, got, err, c.want)
		}
	}
}

// sameFeature compares features; the order of what is left out is that of the file.
func sameFeature(a, b *Feature) bool {
	x, y := *a, *b
	x.NoUse, y.NoUse = slices.Sorted(slices.Values(x.NoUse)), slices.Sorted(slices.Values(y.NoUse))
	return reflect.DeepEqual(x, y)
}

func TestWhatIsRefusedOfAFeature(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                               "f:1: a feature without an id",
		`{"id": "a b"}`:                    "f:1: a b: expected a name",
		`{"id": 1}`:                        "f:1: expected text",
		`{"id": "x", "id": "y"}`:           `f:1: the key "id" is given twice`,
		`{"id": "x", "options": {"a": 1}}`: "f:1: expected an object",
		`{"id": "x", "options": {"": {}}}`: "f:1:  is not the name of an option",
		`{"id": "x", "containerEnv": {"A;B": "1"}}`:                                 "f:1: \"A;B\" is not the name of a variable",
		`{"id": "x", "containerEnv": {"A": "\u001b"}}`:                              "f:1: a text that is too long or cannot be shown",
		`{"id": "x", "dependsOn": ["a"]}`:                                           "f:1: expected an object",
		`{"id": "x", "mounts": [{"type": "volume", "source": "a", "target": "x"}]}`: "f:1: \"x\": expected an absolute path",
		`{"id": "x", "postCreateCommand": "${localEnv:TOKEN}"}`:                     "f:1: TOKEN would take a variable of the host's environment",
		`{"id": "x", "options": {` + manyKeys(65) + `}}`:                            "f:1: more than 64 options",
		`{"id": "x", ` + manyKeys(257) + `}`:                                        "f:1: more than 256 keys",
	} {
		got, err := ParseFeature("f", []byte(text), here)
		if got != nil || err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.60q: %+v, %v; want %s", text, got, err, want)
		}
	}
}

// TestOptions: their names become names of variables, their values stay as they are.
func TestOptions(t *testing.T) {
	f := &Feature{Defaults: map[string]string{"version": "latest", "install-Tools": "true"}}
	hostile := "'; touch /tmp/x; $(id) `id` \"\n$HOME \\"
	got := f.OptionVariables(map[string]string{"version": hostile, "1st.name": "ü", "A=B": "c"})
	if want := []string{"A_B=c", "INSTALL_TOOLS=true", "VERSION=" + hostile, "_ST_NAME=ü"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for _, v := range got {
		if name, _, _ := strings.Cut(v, "="); !envName.MatchString(name) {
			t.Errorf("the variable %q", v)
		}
	}
}

// TestExpandFeatureEnv: in the order of installation, and within limits.
func TestExpandFeatureEnv(t *testing.T) {
	got, err := ExpandFeatureEnv([]string{"PATH=/bin", "A=1"}, []string{"ROOT=/r", "PATH=$ROOT/bin:${PATH}", "PATH=/x:${containerEnv:PATH}", "A=$$NONE ${B:-c} 5$"})
	if want := []string{"ROOT=/r", "PATH=/x:/r/bin:/bin", "A=$ ${B:-c} 5$"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	var doubling []string
	for i := range 40 {
		doubling = append(doubling, fmt.Sprintf("V%d=$V%d$V%d", i+1, i, i))
	}
	if _, err := ExpandFeatureEnv([]string{"V0=" + strings.Repeat("x", 100)}, doubling); err == nil {
		t.Error("an environment without limits")
	}
	if _, err := ExpandFeatureEnv([]string{"V=" + strings.Repeat("x", 200<<10)}, []string{"W=" + strings.Repeat("$V", 8000)}); err == nil {
		t.Error("a value without limits")
	}
}

// shelf has features to find: their descriptions, by reference.
type shelf map[string]string

func (s shelf) find(ref FeatureRef) (*Found, error) {
	text, ok := s[ref.ID]
	if !ok {
		return nil, errors.New("it is not there")
	}
	if text == "" {
		return nil, ErrNotFetched
	}
	f, err := ParseFeature("f", []byte(text), here)
	if err != nil {
		return nil, err
	}
	name, version, _ := strings.Cut(ref.ID, ":")
	return &Found{Name: name, Version: version, Digest: "digest of " + text, Feature: f}, nil
}

// resolve returns the IDs of what is installed for features, in this order in the file.
func (s shelf) resolve(order []string, ids ...string) (list []string, err error) {
	setup := &Setup{FeatureOrder: order}
	for _, id := range ids {
		id, version, _ := strings.Cut(id, "?")
		ref := FeatureRef{ID: id}
		if version != "" {
			ref.Options = map[string]string{"version": version}
		}
		setup.Features = append(setup.Features, ref)
	}
	found, pending, err := Resolve(setup, s.find)
	for _, f := range found {
		list = append(list, f.ID)
	}
	for _, id := range pending {
		list = append(list, "?"+id)
	}
	return list, err
}

// feature is a description with more members.
func feature(id string, more ...string) string {
	return `{"id": "` + id + `"` + strings.Join(append([]string{""}, more...), ", ") + "}"
}

func TestOrderOfFeatures(t *testing.T) {
	s := shelf{
		"r/a": feature("a"), "r/b": feature("b", `"installsAfter": ["r/c", "r/none"]`), "r/c": feature("c"),
		"r/d": feature("d", `"dependsOn": {"r/z": {}, "r/c": {}}`), "r/z": feature("z", `"dependsOn": {"r/y:1": {"version": "2"}}`), "r/y:1": feature("y"),
		"r/new": feature("new", `"legacyIds": ["old"]`), "r/e": feature("e", `"installsAfter": ["r/old"]`),
		"r/v:latest": feature("v", `"version": "3"`), "r/v:1.10": feature("v", `"version": "1.10"`), "r/v:1.9": feature("v", `"version": "1.9"`),
		"./own": feature("own"), "r/l": feature("l", `"dependsOn": {"./own": {}}`),
		"r/pending": "", "r/p": feature("p", `"dependsOn": {"r/other": {}}`), "r/other": "",
		"r/self": feature("self", `"dependsOn": {"r/self": null}`), "r/x1": feature("x1", `"dependsOn": {"r/x2": {}}`), "r/x2": feature("x2", `"dependsOn": {"r/x1": {}}`),
		"r/s1": feature("s1", `"installsAfter": ["r/s2"]`), "r/s2": feature("s2", `"installsAfter": ["r/s1"]`),
		"r/gone": feature("gone", `"dependsOn": {"r/absent": {}}`),
	}
	for _, c := range []struct {
		ids, order []string
		want, fail string
	}{
		{ids: []string{"r/c", "r/b", "r/a"}, want: "r/a r/c r/b"},
		{ids: []string{"r/b", "r/a"}, want: "r/a r/b"}, // a soft dependency that is not there
		{ids: []string{"r/d", "r/a"}, want: "r/a r/c r/y:1 r/z r/d"},
		{ids: []string{"r/a", "r/c", "r/d"}, order: []string{"r/d", "r/c"}, want: "r/c r/a r/y:1 r/z r/d"}, // not before what it depends on
		{ids: []string{"r/a", "r/b", "r/c"}, order: []string{"r/b", "r/c"}, want: "r/c r/b r/a"},
		{ids: []string{"r/e", "r/new"}, want: "r/new r/e"},
		{ids: []string{"r/v:latest", "r/v:1.10", "r/v:1.9"}, want: "r/v:1.9 r/v:1.10 r/v:latest"},
		{ids: []string{"r/a?1", "r/a?2", "r/a?1", "r/a"}, want: "r/a r/a r/a"}, // each with its options once
		{ids: []string{"./own", "r/a"}, want: "./own r/a"},
		{ids: []string{"r/pending", "r/p", "r/a"}, want: "?r/other ?r/pending"},
		{ids: []string{"r/l"}, fail: "it depends on ./own, a folder of a project"},
		{ids: []string{"r/self"}, fail: "installed after each other: r/self"},
		{ids: []string{"r/a", "r/x1"}, fail: "installed after each other: r/x1, r/x2"},
		{ids: []string{"r/s1", "r/s2"}, fail: "installed after each other: r/s1, r/s2"},
		{ids: []string{"r/gone"}, fail: "feature r/absent: it is not there"},
	} {
		got, err := s.resolve(c.order, c.ids...)
		if c.fail == "" && (err != nil || strings.Join(got, " ") != c.want) || c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail)) {
			t.Errorf("%q, %q: %q, %v; want %s%s", c.ids, c.order, got, err, c.want, c.fail)
		}
	}
}

// TestFeaturesAreBounded: a chain without an end, and features that all depend on all others.
func TestFeaturesAreBounded(t *testing.T) {
	n := 0
	endless := func(FeatureRef) (*Found, error) {
		n++
		return &Found{Name: "r/x", Digest: fmt.Sprint(n), Feature: &Feature{ID: "x", DependsOn: []FeatureRef{{ID: "r/x"}}}}, nil
	}
	if _, _, err := Resolve(&Setup{Features: []FeatureRef{{ID: "r/x"}}}, endless); err == nil || n > maxFeatures+1 {
		t.Errorf("%d: %v", n, err)
	}
	n = 0
	var all []FeatureRef
	for i := range maxItems {
		all = append(all, FeatureRef{ID: fmt.Sprintf("r/%d", i)})
	}
	mesh := func(ref FeatureRef) (*Found, error) {
		n++
		return &Found{Name: ref.ID, Digest: ref.ID, Feature: &Feature{ID: "x", DependsOn: all}}, nil
	}
	if _, _, err := Resolve(&Setup{Features: all}, mesh); err == nil || n > maxAsked {
		t.Errorf("%d: %v", n, err)
	}
}

func TestHooksOfFeatures(t *testing.T) {
	features := []Installed{
		{ID: "a", Feature: Feature{Hooks: []Hook{{PostCreate, []Command{sh("a1")}}, {PostStart, []Command{sh("a2")}}}}},
		{ID: "b", Feature: Feature{Hooks: []Hook{{PostCreate, []Command{sh("b1")}}}}},
	}
	got := WithFeatures([]Hook{{OnCreate, []Command{sh("o")}}, {PostCreate, []Command{sh("p")}}}, features)
	of := func(s, feature string) Command {
		c := sh(s)
		c.Feature = feature
		return c
	}
	want := []Hook{{OnCreate, []Command{sh("o")}}, {PostCreate, []Command{of("a1", "a"), of("b1", "b"), sh("p")}}, {PostStart, []Command{of("a2", "a")}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

func FuzzParseFeature(f *testing.F) {
	f.Add(feature("a", `"options": {"x": {"default": "y"}}`, `"containerEnv": {"PATH": "/x:${PATH}"}`))
	f.Add(feature("a", `"dependsOn": {"./b": {"c": 1e9}}`, `"mounts": ["type=volume,source=a,target=/x"]`, `"privileged": true`))
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseFeature("f", []byte(text), here)
		if (got == nil) == (err == nil) {
			t.Fatalf("%+v, %v", got, err)
		}
		if err != nil {
			if strings.IndexFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }) >= 0 {
				t.Fatalf("an error that cannot be shown: %q", err)
			}
			return
		}
		for _, v := range slices.Concat(got.Env, got.OptionVariables(nil)) {
			if name, _, ok := strings.Cut(v, "="); !ok || !envName.MatchString(name) {
				t.Fatalf("the variable %q", v)
			}
		}
		for option := range maps.Keys(got.Defaults) {
			if OptionVariable(option) == "" {
				t.Fatalf("the option %q", option)
			}
		}
		if _, err := ExpandFeatureEnv([]string{"PATH=/bin"}, got.Env); err != nil && len(text) < 1000 {
			t.Fatal(err)
		}
	})
}
