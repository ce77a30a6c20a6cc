package devcontainer

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"

	"bawn.dev/bawn/internal/compose"
)

var here = Places{Local: "/home/me/shop", Container: "/home/me/shop", ID: "0123"}

func sh(s string) Command { return Command{Argv: []string{"/bin/sh", "-c", s}} }

// TestParse has the shapes in which people publish the file.
func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want Config
	}{
		"empty":               {`{}`, Config{}},
		"null and empty":      {`{"postCreateCommand": null, "features": {}, "mounts": [], "initializeCommand": ""}`, Config{}},
		"image":               {`{"name": "Go ✨", "image": "registry.example/go:1"}`, Config{Image: "registry.example/go:1"}},
		"comments and commas": {"// made by hand\n{\n\t/* the image */ \"image\": \"a\",\n}\n", Config{Image: "a"}},
		"a byte order mark is not": {`{"image": "a", "customizations": {"editor": {"extensions": ["x"], "settings": {"a": {"b": [1]}}}}, "$schema": "s",
			"hostRequirements": {"cpus": 2}, "portsAttributes": {"3000": {"label": "x"}}}`, Config{Image: "a"}},
		"Dockerfile": {`{"build": {"dockerfile": "Dockerfile", "context": "..", "target": "dev", "args": {"VARIANT": "22", "A": "${localEnv:X:1}", "B": "${localEnv:B}"}, "cacheFrom": "x"}}`,
			Config{Build: &Build{Dockerfile: "Dockerfile", Context: "..", Target: "dev", Args: []string{"A=1", "VARIANT=22"}},
				Setup: Setup{HostEnv: []string{"B"}, Unknown: []string{"build.cacheFrom"}}}},
		"older Dockerfile": {`{"dockerFile": "dev.Dockerfile", "context": "."}`, Config{Build: &Build{Dockerfile: "dev.Dockerfile", Context: "."}}},
		"environment": {`{"containerEnv": {"A": "1", "DIR": "${containerWorkspaceFolder}"}, "remoteEnv": {
			"PATH": "${containerEnv:PATH}:/x", "B": "${containerEnv:A}2", "TOKEN": "${localEnv:TOKEN}", "HOST": "${localEnv:H:}", "OUT": null}}`,
			Config{Setup: Setup{Env: []string{"A=1", "B=12", "DIR=/home/me/shop", "HOST=", "OUT=", "PATH=${containerEnv:PATH}:/x"}, HostEnv: []string{"TOKEN"}}}},
		"users":                 {`{"containerUser": "root", "remoteUser": "node"}`, Config{}},
		"root":                  {`{"remoteUser": "root"}`, Config{Setup: Setup{Root: true}}},
		"as root":               {`{"containerUser": "root"}`, Config{Setup: Setup{Root: true}}},
		"ports":                 {`{"forwardPorts": [3000, "localhost:5432", 3000], "appPort": "8080:8080"}`, Config{Ports: []uint16{3000, 5432, 8080}}},
		"one port":              {`{"appPort": 9000}`, Config{Ports: []uint16{9000}}},
		"workspace":             {`{"workspaceFolder": "/workspace/"}`, Config{Setup: Setup{Mount: "/workspace", Workspace: "/workspace"}}},
		"a part":                {`{"workspaceFolder": "/workspaces/${localWorkspaceFolderBasename}/web"}`, Config{Setup: Setup{Mount: "/workspaces/shop", Workspace: "/workspaces/shop/web"}}},
		"where it is":           {`{"workspaceFolder": "${localWorkspaceFolder}"}`, Config{Setup: Setup{Workspace: "/home/me/shop"}}},
		"a part of where it is": {`{"workspaceFolder": "${localWorkspaceFolder}/web"}`, Config{Setup: Setup{Workspace: "/home/me/shop/web"}}},
		"workspace mount": {`{"workspaceMount": "source=${localWorkspaceFolder},target=/src,type=bind,consistency=cached", "workspaceFolder": "/src/web", "containerEnv": {"A": "${containerWorkspaceFolder}"}}`,
			Config{Setup: Setup{Env: []string{"A=/src/web"}, Mount: "/src", Workspace: "/src/web"}}},
		"volumes": {`{"mounts": ["source=${localWorkspaceFolderBasename}-modules,target=${containerWorkspaceFolder}/node_modules,type=volume",
			{"source": "cache-${devcontainerId}", "target": "/cache", "type": "volume", "readonly": true}, "type=volume,src=a,dst=/a,ro", {"type": "volume", "source": "b", "target": "/b", "readonly": false}]}`,
			Config{Volumes: []Volume{{"shop-modules", "/home/me/shop/node_modules", false}, {"cache-0123", "/cache", true}, {"a", "/a", true}, {"b", "/b", false}}}},
		"commands": {`{"postStartCommand": ["npm", "run", "${containerWorkspaceFolder}"], "onCreateCommand": "npm ci && echo ${HOME} ${X:-y}", "postCreateCommand": {"one": "a", "two": ["b", "c"], "none": ""}}`,
			Config{Setup: Setup{Hooks: []Hook{
				{OnCreate, []Command{sh("npm ci && echo ${HOME} ${X:-y}")}},
				{PostCreate, []Command{{Name: "one", Argv: sh("a").Argv}, {Name: "two", Argv: []string{"b", "c"}}}},
				{PostStart, []Command{{Argv: []string{"npm", "run", "/home/me/shop"}}}},
			}}}},
		"features": {`{"features": {"Registry.example/Tools/Go:1": {"version": "1.2", "lint": false, "jobs": 4, "none": null, "more": ["1.1", 2]}, "registry.example/tools/node:2": "18",
			"./Own": {}, "registry.example/tools/rust": null}, "overrideFeatureInstallOrder": ["registry.example/tools/Node"]}`,
			Config{Setup: Setup{
				Features: []FeatureRef{
					{ID: "registry.example/tools/go:1", Options: map[string]string{"version": "1.2", "lint": "false", "jobs": "4", "none": "", "more": "1.1,2"}},
					{ID: "registry.example/tools/node:2", Options: map[string]string{"version": "18"}},
					{ID: "./Own", Options: map[string]string{}}, {ID: "registry.example/tools/rust"},
				},
				FeatureOrder: []string{"registry.example/tools/node"},
			}}},
		"compose files": {`{"dockerComposeFile": ["../docker-compose.yml", "docker-compose.extend.yml"], "service": "app", "runServices": ["app", "db"], "workspaceFolder": "/workspace",
			"shutdownAction": "stopCompose", "overrideCommand": false, "forwardPorts": [3000, "db:5432", "db:5432"], "remoteUser": "node"}`,
			Config{Compose: &Compose{Service: "app", Run: []string{"app", "db"}, Forward: []compose.Forward{{Service: "db", Port: 5432}}, user: true},
				Ports: []uint16{3000}, Setup: Setup{Workspace: "/workspace", ComposeFiles: []string{"../docker-compose.yml", "docker-compose.extend.yml"}}}},
		"no services beside": {`{"dockerComposeFile": "c.yml", "service": "app", "runServices": []}`, Config{Compose: &Compose{Service: "app", Run: []string{}}, Setup: Setup{ComposeFiles: []string{"c.yml"}}}},
		"a service alone":    {`{"service": "app", "runServices": ["db"], "dockerComposeFile": null}`, Config{}},
		"unknown":            {`{"runArgs": ["--privileged"], "colour": 1, "\u001b[2J": 1}`, Config{Setup: Setup{Unknown: []string{"runArgs", "colour", `"\x1b[2J"`}}}},
	} {
		got, err := Parse("f", []byte(c.text), here)
		if err != nil || !reflect.DeepEqual(got, &c.want) {
			t.Errorf("%s: %+v, %v\nwant %+v", name, got, err, c.want)
		}
	}
}

// TestUseService: the file itself takes precedence over what the service says.
func TestUseService(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		service compose.Service
		want    Setup
	}{
		"variables": {`"containerEnv": {"A": "file", "C": "${containerEnv:B}-${containerEnv:PATH}"}, "remoteEnv": {"D": "${localEnv:D}"}`,
			compose.Service{Env: []string{"A=service", "B=b"}, HostEnv: []string{"D", "E"}, NotRead: []string{".env"}, NoUse: []string{"privileged"}},
			Setup{Env: []string{"A=file", "B=b", "C=b-${containerEnv:PATH}"}, HostEnv: []string{"D", "E"}, Hidden: []string{".env"}, Unknown: []string{"privileged (of the service app)"}}},
		"root":                 {``, compose.Service{User: "root"}, Setup{Root: true}},
		"a user":               {``, compose.Service{User: "node"}, Setup{}},
		"the file's user":      {`"remoteUser": "node"`, compose.Service{User: "0:0"}, Setup{}},
		"where the project is": {`"workspaceFolder": "/workspaces/${localWorkspaceFolderBasename}/web"`, compose.Service{Project: []string{"/app", "/workspaces/shop"}, Dir: "/app"}, Setup{Mount: "/workspaces/shop", Workspace: "/workspaces/shop/web"}},
		"no folder":            {``, compose.Service{Project: []string{"/app"}}, Setup{Mount: "/app", Workspace: "/app"}},
		"a working directory":  {``, compose.Service{Project: []string{"/app"}, Dir: "/app/web"}, Setup{Mount: "/app", Workspace: "/app/web"}},
		"elsewhere":            {``, compose.Service{Project: []string{"/app"}, Dir: "/srv"}, Setup{Mount: "/app", Workspace: "/app"}},
		"not mounted":          {`"workspaceFolder": "/src"`, compose.Service{Project: []string{"/app"}}, Setup{Mount: "/src", Workspace: "/src"}},
		"nothing":              {``, compose.Service{}, Setup{}},
	} {
		text := `{"dockerComposeFile": "c.yml", "service": "app", ` + c.text + `}`
		got, err := Parse("f", []byte(text), here)
		if err == nil {
			err = got.UseService(&compose.Result{Service: c.service, Stack: &compose.Stack{Service: "app"}}, here)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got.Setup.Stack, got.Setup.ComposeFiles = nil, nil
		if !reflect.DeepEqual(got.Setup, c.want) {
			t.Errorf("%s: %+v\nwant %+v", name, got.Setup, c.want)
		}
	}
	c, err := Parse("f", []byte(`{"dockerComposeFile": "c.yml", "service": "app"}`), here)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.UseService(&compose.Result{Service: compose.Service{Project: []string{"/home"}}, Stack: &compose.Stack{}}, here); err == nil {
		t.Error("a mount around the project")
	}
}

// manyKeys are so many members of an object.
func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"k%d": 1,`, i)
	}
	return b.String()
}

func TestWhatIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "f:1: this is not JSON",
		"{\n\t\"image\": a}":                    "f:2: this is not JSON, in column 11: ",
		"[]":                                    "f:1: expected an object",
		"{\n\"image\": 1}":                      "f:2: expected text",
		"{\"image\": \"a\",\n\"image\": \"b\"}": "f:2: the key \"image\" is given twice",
		`{"image": "a\u001b[2J"}`:               "f:1: a text that is too long or cannot be shown",
		`{"image": "a", "build": {"dockerfile": "D"}}`:                                                    "f:1: image and build are both given",
		`{"build": {"context": "."}}`:                                                                     "f:1: a build without the name of a Dockerfile",
		`{"initializeCommand": "curl x | sh"}`:                                                            "f:1: initializeCommand: it would run on the host",
		`{"initializeCommand": ["x"]}`:                                                                    "f:1: initializeCommand: ",
		`{"dockerComposeFile": "c.yml"}`:                                                                  "f:1: dockerComposeFile without service",
		`{"dockerComposeFile": "c.yml", "service": "app", "image": "a"}`:                                  "f:1: dockerComposeFile beside an image",
		`{"dockerComposeFile": 1, "service": "app"}`:                                                      "f:1: expected text",
		`{"dockerComposeFile": ["${localEnv:X}"], "service": "app"}`:                                      "f:1: X would take a variable of the host",
		`{"dockerComposeFile": "c.yml", "service": "app", "forwardPorts": ["db:0"]}`:                      "f:1: a port is a number",
		`{"dockerComposeFile": [` + strings.Repeat(`"a",`, 17) + `], "service": "app"}`:                   "f:1: more than 16 compose files",
		`{"features": ["x/y:1"]}`:                                                                         "f:1: expected an object",
		`{"features": {"x y": {}}}`:                                                                       "f:1: x y is not the name of a feature",
		`{"features": {"x\u001b[2J": {}}}`:                                                                "f:1: \"x\\x1b[2J\" is not the name of a feature",
		`{"features": {"x": {"a": {"b": 1}}}}`:                                                            "f:1: expected text, a number, true or false",
		`{"features": {"x": {"": "b"}}}`:                                                                  "f:1:  is not the name of an option",
		`{"features": {"x": {"a": "\u0007"}}}`:                                                            "f:1: a text that is too long or cannot be shown",
		`{"overrideFeatureInstallOrder": "x"}`:                                                            "f:1: expected a list",
		"{" + manyKeys(257) + "}":                                                                         "f:1: more than 256 keys",
		`{"build": {` + manyKeys(257) + "}}":                                                              "f:1: more than 256 keys",
		`{"mounts": ["source=${localEnv:HOME}/.ssh,target=/root/.ssh,type=bind"]}`:                        "f:1: a mount of the host's ${localEnv:HOME}/.ssh",
		`{"mounts": [{"source": "/var/run/docker.sock", "target": "/x", "type": "bind"}]}`:                "f:1: a mount of the host's /var/run/docker.sock",
		`{"mounts": ["type=tmpfs,target=/x"]}`:                                                            "f:1: a mount of the type \"tmpfs\"",
		`{"mounts": ["type=volume,target=/x"]}`:                                                           "f:1: a volume needs a name",
		`{"mounts": ["type=volume,source=a,target=x"]}`:                                                   "f:1: \"x\": expected an absolute path",
		`{"mounts": "x"}`:                                                                                 "f:1: expected a list",
		`{"workspaceMount": "source=/etc,target=/src,type=bind"}`:                                         "f:1: workspaceMount: only the project itself",
		`{"workspaceMount": "source=${localWorkspaceFolder},target=${localWorkspaceFolder}/a,type=bind"}`: "f:1: /home/me/shop/a: the guest has the project at /home/me/shop",
		"{\n\"workspaceFolder\": \"/home\"}":                                                              "f:2: /home: the guest has the project at /home/me/shop",
		`{"mounts": [{"type": "volume", "source": null, "target": "/x"}]}`:                                "f:1: expected text",
		`{"workspaceFolder": "/"}`:                                                                        "f:1: \"/\": expected an absolute path",
		`{"postCreateCommand": "echo ${localEnv:TOKEN}"}`:                                                 "f:1: TOKEN would take a variable of the host's environment",
		`{"image": "${localEnv:IMAGE}"}`:                                                                  "f:1: IMAGE would take a variable of the host's environment",
		`{"image": "${env:IMAGE}"}`:                                                                       "f:1: IMAGE would take",
		`{"postCreateCommand": "${containerEnv:X}"}`:                                                      "f:1: ${containerEnv:...} is known in",
		`{"postCreateCommand": "${command:x}"}`:                                                           "f:1: the variable ${command:x} is not known",
		`{"postCreateCommand": ["a", 1]}`:                                                                 "f:1: expected text",
		`{"containerEnv": {"A=B": "1"}}`:                                                                  "f:1: \"A=B\" is not the name of a variable",
		`{"containerEnv": {"A": 1}}`:                                                                      "f:1: expected text",
		`{"build": {"dockerfile": "D", "args": {"A": "${containerEnv:X}"}}}`:                              "f:1: A: a build has no ${containerEnv:...}",
		`{"forwardPorts": ["db:5432"]}`:                                                                   "f:1: the port \"db:5432\"",
		`{"forwardPorts": [0]}`:                                                                           "f:1: a port is a number",
		`{"forwardPorts": [1e3]}`:                                                                         "f:1: a port is a number",
		`{"forwardPorts": [70000]}`:                                                                       "f:1: a port is a number",
		"{\"a\": \"\xff\"}":                                                                               "f:1: the file is not valid UTF-8",
		strings.Repeat("[", 60000):                                                                        "f:1: more than 32 values in one another",
		"//" + strings.Repeat("]", 60) + "\n" + strings.Repeat("[", 60):                                   "f:1: more than 32 values in one another",
		"/*" + strings.Repeat("]", 60) + "/*/" + strings.Repeat("[", 60):                                  "f:1: more than 32 values in one another",
		strings.Repeat(`["\"]]]]",`, 60):                                                                  "f:1: more than 32 values in one another",
		`{"mounts": [` + strings.Repeat(`"a",`, 65) + `]}`:                                                "f:1: more than 64 items",
	} {
		got, err := Parse("f", []byte(text), here)
		var e *Error
		if got != nil || !errors.As(err, &e) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.60q: %+v, %v; want %s", text, got, err, want)
		}
	}
	_, err := Parse("f", []byte(`{"forwardPorts": [`+strings.Repeat("0,", 60)+`]}`), here)
	if n := strings.Count(err.Error(), "\n"); n > maxMistakes {
		t.Errorf("%d mistakes told", n)
	}
}

// TestBracketsInTextsAndCommentsAreNoDepth: a command of a shell may have many.
func TestBracketsInTextsAndCommentsAreNoDepth(t *testing.T) {
	many := strings.Repeat("[", 60)
	if _, err := Parse("f", []byte("{ // "+many+"\n/* "+many+" */ \"postCreateCommand\": \""+many+"\"}"), here); err != nil {
		t.Error(err)
	}
}

func TestExpandEnv(t *testing.T) {
	s := Setup{Env: []string{"PATH=${containerEnv:PATH}:/x", "A=${containerEnv:NONE:d}${containerEnv:NONE}", "B=${HOME} ${containerEnv:N}"}}
	got := s.ExpandEnv([]string{"PATH=/bin", "N=${containerEnv:PATH}"})
	if want := []string{"PATH=/bin:/x", "A=d", "B=${HOME} ${containerEnv:PATH}"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"image": "a", /* b */ "mounts": ["type=volume,source=a,target=/x"],}`)
	f.Add(`{"build": {"dockerfile": "D", "args": {"A": "${localEnv:X:1}"}}, "remoteEnv": {"P": "${containerEnv:P}"}}`)
	f.Add(`{"postCreateCommand": {"a": ["b"], "c": "d"}, "forwardPorts": ["1:1", 2]}`)
	f.Add(`{"workspaceFolder": "/workspaces/${localWorkspaceFolderBasename}/x", "x\u0000": [[{}]]}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f", []byte(text), here)
		if (c == nil) == (err == nil) {
			t.Fatalf("%+v, %v", c, err)
		}
		if err != nil {
			if strings.IndexFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }) >= 0 {
				t.Fatalf("an error that cannot be shown: %q", err)
			}
			return
		}
		for _, v := range c.Setup.Env {
			if name, _, ok := strings.Cut(v, "="); !ok || !envName.MatchString(name) {
				t.Fatalf("the variable %q", v)
			}
		}
		for _, v := range c.Volumes {
			if !strings.HasPrefix(v.Target, "/") || v.Name == "" {
				t.Fatalf("the volume %+v", v)
			}
		}
	})
}
