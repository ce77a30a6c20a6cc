package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
)

const devcontainerName = ".devcontainer/devcontainer.json"

// devcontainer writes the devcontainer.json of the shop.
func (p *place) devcontainer(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(p.shop, devcontainerName)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (p *place) approveDevcontainer(t *testing.T) {
	t.Helper()
	c, err := p.CheckDevcontainer(p.shop, devcontainerName)
	if err == nil {
		err = p.Approve(t.Context(), c)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func asksFor(name string) engine.Request {
	return engine.Request{Change: engine.SpecChange{Devcontainer: &name}}
}

// TestADevcontainerCountsOnceItIsApproved: each of its forms, apart from bawn.yaml.
func TestADevcontainerCountsOnceItIsApproved(t *testing.T) {
	p := newPlace(t)
	p.propose(t, "cpus: 1\n")
	p.approve(t)
	r := asksFor(devcontainerName)
	r.Dir = p.shop
	want := func(what string, reason engine.Reason, status project.Status) {
		t.Helper()
		err := p.CheckConsent(r)
		if engine.ReasonOf(err) != reason || status != "" && (engine.As(err).Check == nil || engine.As(err).Check.Status != status) {
			t.Errorf("%s: %v", what, err)
		}
	}
	want("no file", engine.NoDevcontainer, "")
	p.devcontainer(t, `{"image": "a"}`)
	want("a new file", engine.NotApproved, project.New)
	if err := p.CheckConsent(engine.Request{Dir: p.shop}); err != nil {
		t.Errorf("a sandbox that is not made from it: %v", err)
	}
	p.approveDevcontainer(t)
	want("an approved file", "", "")
	p.devcontainer(t, `{"image": "b"}`)
	want("a changed file", engine.NotApproved, project.Changed)
	p.devcontainer(t, `{"initializeCommand": "x"}`)
	want("a file that is refused", engine.ProjectInvalid, "")
	if err := os.Remove(filepath.Join(p.shop, devcontainerName)); err != nil {
		t.Fatal(err)
	}
	want("a removed file", engine.NotApproved, project.Removed)
	if c, err := p.CheckProject(p.shop); err != nil || c.Status != project.Approved {
		t.Errorf("bawn.yaml: %+v, %v", c, err)
	}
	if err := p.ForgetDevcontainer(p.shop, devcontainerName); err != nil {
		t.Fatal(err)
	}
	want("after it was forgotten", engine.NoDevcontainer, "")

	// What lies outside of the project is not read.
	outside := filepath.Join(filepath.Dir(p.shop), "outside.json")
	if err := errors.Join(os.WriteFile(outside, []byte(`{"image": "secret"}`), 0o600), os.Symlink(outside, filepath.Join(p.shop, devcontainerName))); err != nil {
		t.Fatal(err)
	}
	if c, err := p.CheckDevcontainer(p.shop, devcontainerName); err != nil || c.Err == nil || len(c.Text) > 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

// proposes checks what the devcontainer.json that was written asks for, its set-up aside. text names the case.
func (p *place) proposes(t *testing.T, text string, want project.Proposal) {
	t.Helper()
	c, err := p.CheckDevcontainer(p.shop, devcontainerName)
	if err != nil || c.Err != nil {
		t.Errorf("%s: %v, %v", text, err, c.Err)
		return
	}
	got := *c.Proposal
	got.Setup = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v", text, got)
	}
}

// TestWhatADevcontainerAsksFor: as bawn.yaml would.
func TestWhatADevcontainerAsksFor(t *testing.T) {
	p := newPlace(t)
	for text, want := range map[string]project.Proposal{
		`{"image": "docker.io/library/debian:13"}`: {Image: "docker.io/library/debian:13"},
		`{"build": {"dockerfile": "Dockerfile"}}`:  {Build: &project.Build{Context: ".devcontainer", File: ".devcontainer/Dockerfile"}},
		`{"build": {"dockerfile": "../D", "context": "..", "target": "dev", "args": {"A": "1"}}}`: {
			Build: &project.Build{Context: ".", File: "D", Target: "dev", Args: []string{"A=1"}}},
		`{"forwardPorts": [3000]}`: {Ports: []sandbox.Port{{Host: 3000, Guest: 3000}}},
		`{"mounts": ["source=My_Shop.cache,target=/c,type=volume", "source=m,target=${containerWorkspaceFolder}/node_modules,type=volume,readonly"]}`: {
			Volumes: []sandbox.Volume{{Name: "my-shop-cache", Guest: "/c"}, {Name: "m", Guest: filepath.Join(p.shop, "node_modules"), Mode: sandbox.ReadOnly}}},
	} {
		p.devcontainer(t, text)
		p.proposes(t, text, want)
	}
	p.devcontainer(t, `{"workspaceFolder": "/workspace", "mounts": ["source=m,target=/workspace/node_modules,type=volume"]}`)
	if c, err := p.CheckDevcontainer(p.shop, devcontainerName); err != nil || c.Err != nil || c.Proposal.Volumes[0].Guest != filepath.Join(p.shop, "node_modules") {
		t.Errorf("a volume in the project by its other path: %+v, %v", c, err)
	}
	for text, want := range map[string]string{
		`{"image": "docker-archive:/x"}`:                                      "an image file of the host",
		`{"build": {"dockerfile": "../../D"}}`:                                "does not lie in the project",
		`{"build": {"dockerfile": "/etc/passwd"}}`:                            "relative to the folder",
		`{"build": {"dockerfile": "D", "context": "../.."}}`:                  "does not lie in the project",
		`{"build": {"dockerfile": "D", "target": "--x"}}`:                     "not the name of a stage",
		`{"mounts": ["source=/var/x,target=/x,type=volume"]}`:                 "a volume has a name, not a path",
		`{"mounts": ["source=m,target=${localWorkspaceFolder},type=volume"]}`: "would hide the project",
		`{"workspaceFolder": "/usr"}`:                                         "the guest needs its own /usr",
	} {
		p.devcontainer(t, text)
		if c, err := p.CheckDevcontainer(p.shop, devcontainerName); err != nil || c.Err == nil || c.Proposal != nil || !strings.Contains(c.Err.Error(), want) {
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
}

func TestFindDevcontainer(t *testing.T) {
	p := newPlace(t)
	find := func(named, want, say string) {
		t.Helper()
		got, err := engine.FindDevcontainer(p.shop, named)
		if got != want || say == "" && err != nil || say != "" && (engine.ReasonOf(err) != engine.NoDevcontainer || !strings.Contains(err.Error(), say)) {
			t.Errorf("%q: %q, %v", named, got, err)
		}
	}
	make := func(name string) {
		t.Helper()
		file := filepath.Join(p.shop, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(p.inner)
	find("", "", "has no .devcontainer/devcontainer.json")
	make(".devcontainer/go/devcontainer.json")
	find("", ".devcontainer/go/devcontainer.json", "")
	make(".devcontainer/web/devcontainer.json")
	find("", "", "more than one devcontainer.json: .devcontainer/go/devcontainer.json, .devcontainer/web/devcontainer.json")
	find("../.devcontainer/web/devcontainer.json", ".devcontainer/web/devcontainer.json", "")
	make(".devcontainer.json")
	find("", ".devcontainer.json", "")
	make(devcontainerName)
	find("", devcontainerName, "")
	find("../none.json", "", "does not exist")
	find("../.devcontainer", "", "is a directory")
	find("../../outside.json", "", "does not lie in the project")
}

// TestCommandsOfADevcontainer: what is once for a sandbox, for each start and for each use.
func TestCommandsOfADevcontainer(t *testing.T) {
	p := newPlace(t)
	t.Setenv("PATH", "/usr/bin:/bin") // the guest is this process
	once, start := engine.SetSetupFolders(t, t.TempDir())
	link := filepath.Join(t.TempDir(), "made", "workspace")
	log := filepath.Join(p.shop, "log")
	say := func(event, more string) string {
		return fmt.Sprintf(`"%s": "echo %s $A $(pwd -P) >>log%s"`, event, event, more)
	}
	write := func(more string) {
		t.Helper()
		p.devcontainer(t, "{"+strings.Join([]string{
			fmt.Sprintf(`"workspaceFolder": %q, "containerEnv": {"A": "1"}`, link),
			say("postAttachCommand", ""), say("postStartCommand", ""), say("postCreateCommand", more),
			`"onCreateCommand": {"first": "echo first >>log", "second": ["sh", "-c", "echo second $0 >>log", "x y"]}`,
		}, ",\n")+"}")
		p.approveDevcontainer(t)
	}
	d := p.add(t, "shop", p.shop, func(s *sandbox.Spec) { s.Devcontainer = devcontainerName })
	startGuest(t, d)
	setup := func(want ...string) (string, error) {
		t.Helper()
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		err = attach(t, p).Setup(t.Context(), out)
		said, _ := os.ReadFile(out.Name())
		text, _ := os.ReadFile(log)
		os.Remove(log)
		if got := strings.TrimSuffix(string(text), "\n"); got != strings.Join(want, "\n") {
			t.Errorf("it ran %q, want %q; %v\n%s", got, want, err, said)
		}
		return string(said), err
	}
	ran := func(event string) string { return event + " 1 " + p.shop }

	if _, err := setup(); err != nil { // nothing is approved
		t.Fatal(err)
	}
	write("; echo out of stock; exit 3")
	out, err := setup("first", "second x y", ran("postCreateCommand"))
	if engine.ReasonOf(err) != engine.SetupFailed || !strings.Contains(err.Error(), "postCreateCommand of "+devcontainerName+" failed (exit status 3)") || !strings.Contains(out, "out of stock") {
		t.Errorf("a command that fails: %v, %q", err, out)
	}
	if target, err := os.Readlink(link); err != nil || target != p.shop {
		t.Errorf("the workspace: %q, %v", target, err)
	}
	write("")
	if _, err := setup(ran("postCreateCommand"), ran("postStartCommand"), ran("postAttachCommand")); err != nil {
		t.Errorf("the next try: %v", err)
	}
	if _, err := setup(ran("postAttachCommand")); err != nil {
		t.Errorf("another use: %v", err)
	}
	if err := os.RemoveAll(start); err != nil { // as a stop does
		t.Fatal(err)
	}
	if _, err := setup(ran("postStartCommand"), ran("postAttachCommand")); err != nil {
		t.Errorf("the next start: %v", err)
	}
	p.devcontainer(t, `{"postAttachCommand": "echo changed >>log"}`) // and not approved
	if _, err := setup(ran("postAttachCommand")); err != nil {
		t.Errorf("a change: %v", err)
	}
	if env, err := attach(t, p).SetupEnv(); err != nil || strings.Join(env, " ") != "A=1" {
		t.Errorf("%q, %v", env, err)
	}

	// An image with files where the project would be.
	if err := errors.Join(os.RemoveAll(once), os.Remove(link), os.Mkdir(link, 0o755), os.WriteFile(filepath.Join(link, "x"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := setup("first", "second x y", ran("postCreateCommand"), ran("postAttachCommand")); err != nil {
		t.Error(err)
	}
	if target, err := os.Readlink(link); err != nil || target != p.shop {
		t.Errorf("the workspace: %q, %v", target, err)
	}
	if _, err := os.Stat(filepath.Join(link+".image", "x")); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.Remove(link), os.Mkdir(link, 0o755), os.WriteFile(filepath.Join(link, "x"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := setup(); engine.ReasonOf(err) != engine.SetupFailed || !strings.Contains(err.Error(), "the image has files in "+link) {
		t.Error(err)
	}
}

// TestCommandsOfADevcontainerAreInterrupted: the context ends a command that runs.
func TestCommandsOfADevcontainerAreInterrupted(t *testing.T) {
	p := newPlace(t)
	t.Setenv("PATH", "/usr/bin:/bin")
	engine.SetSetupFolders(t, t.TempDir())
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	p.devcontainer(t, fmt.Sprintf(`{"postCreateCommand": "echo up >%s; exec sleep 1000"}`, pipe))
	p.approveDevcontainer(t)
	startGuest(t, p.add(t, "shop", p.shop, func(s *sandbox.Spec) { s.Devcontainer = devcontainerName }))
	s := attach(t, p)
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	go func() {
		if _, err := os.ReadFile(pipe); err != nil { // which waits for it
			t.Error(err)
		}
		cancel(interrupted)
	}()
	if err := s.Setup(ctx, io.Discard); !errors.Is(err, interrupted) {
		t.Error(err)
	}
}

// TestADevcontainerIsNamedOnce: at the first start of a sandbox that is not made from it.
func TestADevcontainerIsNamedOnce(t *testing.T) {
	p := newPlace(t)
	p.devcontainer(t, "{}")
	for name, want := range map[string]bool{"fresh": true, "used": false, "made-from-it": false} {
		p.add(t, name, p.shop, func(s *sandbox.Spec) {
			s.Fresh = name != "used"
			if name == "made-from-it" {
				s.Devcontainer = devcontainerName
			}
		})
		_ = p.EnsureRunning(t.Context(), name) // there is no QEMU
		if got := len(p.noticed(engine.DevcontainerThere)) == 1; got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
