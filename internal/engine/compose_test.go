package engine_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
)

const composeName = ".devcontainer/compose.yml"

// composed writes a devcontainer.json of the service app, and its compose file.
func (p *place) composed(t *testing.T, more, text string) {
	t.Helper()
	p.devcontainer(t, `{"dockerComposeFile": "compose.yml", "service": "app"`+more+`}`)
	p.write(t, composeName, text)
}

// write writes a file of the shop.
func (p *place) write(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(p.shop, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// TestWhatComposeFilesAskFor: the service asks as bawn.yaml would.
func TestWhatComposeFilesAskFor(t *testing.T) {
	p := newPlace(t)
	p.write(t, ".devcontainer/app.env", "A=1\n")
	for text, want := range map[string]project.Proposal{
		"{services: {app: {image: 'registry.example/node:22', ports: ['3000:3001', '80'], volumes: ['modules:/workspace/node_modules', '..:/workspace', 'Cache_1:/c:ro']}}, volumes: {modules: , Cache_1: }}": {
			Image: "registry.example/node:22", Ports: []sandbox.Port{{Host: 3000, Guest: 3001}, {Host: 0, Guest: 80}},
			Volumes: []sandbox.Volume{{Name: "shop-devcontainer-modules", Guest: filepath.Join(p.shop, "node_modules")}, {Name: "shop-devcontainer-cache-1", Guest: "/c", Mode: sandbox.ReadOnly}},
		},
		"services: {app: {build: {context: .., dockerfile: .devcontainer/D, target: dev, args: {V: 1}}, env_file: app.env}}": {
			Build: &project.Build{Context: ".", File: ".devcontainer/D", Target: "dev", Args: []string{"V=1"}},
		},
	} {
		p.composed(t, "", text)
		p.proposes(t, text, want)
	}
}

// TestAComposeFileCountsOnceItIsApproved: a change of any file that is read for it asks again, and what was
// approved is in force until then.
func TestAComposeFileCountsOnceItIsApproved(t *testing.T) {
	p := newPlace(t)
	p.composed(t, "", "services: {app: {image: a, env_file: [app.env, {path: more.env, required: false}]}, db: {image: b}}")
	p.write(t, ".devcontainer/app.env", "A=1\n")
	r := asksFor(devcontainerName)
	r.Dir = p.shop
	changed := func(want ...string) {
		t.Helper()
		err := p.CheckConsent(r)
		if engine.ReasonOf(err) != engine.NotApproved || !slices.Equal(engine.As(err).Check.Others, want) {
			t.Errorf("%v, want %q", err, want)
		}
		p.approveDevcontainer(t)
		if err := p.CheckConsent(r); err != nil {
			t.Error(err)
		}
	}
	changed()
	spec := func() *sandbox.Spec { return &sandbox.Spec{Dir: p.shop, Devcontainer: devcontainerName} }
	if add, err := p.Additions(spec()); err != nil || add.Image != "a" {
		t.Errorf("%+v, %v", add, err)
	}
	p.write(t, composeName, "services: {app: {image: other, env_file: [app.env, {path: more.env, required: false}]}, db: {image: b, privileged: true}}")
	if add, err := p.Additions(spec()); err != nil || add.Image != "a" {
		t.Errorf("a change is in force: %+v, %v", add, err)
	}
	changed(composeName)
	p.write(t, ".devcontainer/app.env", "A=2\n")
	changed(".devcontainer/app.env")
	p.write(t, ".devcontainer/more.env", "B=1\n")
	changed(".devcontainer/more.env")
	if err := os.Remove(filepath.Join(p.shop, composeName)); err != nil {
		t.Fatal(err)
	}
	if err := p.CheckConsent(r); engine.ReasonOf(err) != engine.ProjectInvalid {
		t.Errorf("a file that is gone: %v", err)
	}
	c, err := p.CheckDevcontainer(p.shop, devcontainerName)
	if err != nil || c.Err == nil || p.Approve(t.Context(), c) == nil {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestAnApprovalThatNeedsAnotherFile: when bawn.yaml no longer hides a file of variables, what was approved without
// it is not in force, and is approved anew with it.
func TestAnApprovalThatNeedsAnotherFile(t *testing.T) {
	p := newPlace(t)
	p.propose(t, "hide: ['seen.*']\n")
	p.approve(t)
	p.composed(t, "", "services: {app: {image: a, env_file: seen.env}}")
	p.write(t, ".devcontainer/seen.env", "A=1\n")
	p.approveDevcontainer(t)
	p.propose(t, "hide: []\n")
	p.approve(t)
	r := asksFor(devcontainerName)
	r.Dir = p.shop
	if err := p.CheckConsent(r); engine.ReasonOf(err) != engine.NotApproved {
		t.Errorf("%v", err)
	}
	spec := &sandbox.Spec{Dir: p.shop, Devcontainer: devcontainerName}
	if add, err := p.Additions(spec); engine.ReasonOf(err) != engine.ApprovalInvalid {
		t.Errorf("%+v, %v", add, err)
	}
	p.approveDevcontainer(t)
	if add, err := p.Additions(spec); err != nil || add.Image != "a" {
		t.Errorf("%+v, %v", add, err)
	}
	c, err := p.CheckDevcontainer(p.shop, devcontainerName)
	if err != nil || c.Err != nil || !slices.Equal(c.Proposal.Setup.Env, []string{"A=1"}) {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestAttackComposeFilesOutsideOfTheProject: nothing there is read, by whatever way.
func TestAttackComposeFilesOutsideOfTheProject(t *testing.T) {
	p := newPlace(t)
	outside := filepath.Join(filepath.Dir(p.shop), "outside")
	if err := os.WriteFile(outside, []byte("services: {app: {image: stolen}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := func(what string) {
		t.Helper()
		c, err := p.CheckDevcontainer(p.shop, devcontainerName)
		if err != nil || c.Err == nil || strings.Contains(c.Err.Error(), "stolen") || p.Approve(t.Context(), c) == nil {
			t.Errorf("%s: %+v, %v", what, c, err)
		}
	}
	for _, name := range []string{"../../outside", outside, "../../../etc/passwd"} {
		p.devcontainer(t, fmt.Sprintf(`{"dockerComposeFile": %q, "service": "app"}`, name))
		refused(name)
	}
	for _, text := range []string{"services: {app: {image: a, env_file: ../../outside}}", "services: {app: {image: a, env_file: " + outside + "}}",
		"services: {app: {extends: {file: ../../outside, service: app}}}", "include: [../../outside]\nservices: {app: {image: a}}",
		"services: {app: {build: ../..}}", "services: {app: {build: {context: .., dockerfile: ../outside}}}", "services: {app: {image: 'docker-archive:/etc/x'}}", "services: {app: {image: a, env_file: link}}"} {
		p.composed(t, "", text)
		if err := os.Symlink(outside, filepath.Join(p.shop, ".devcontainer/link")); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
		refused(text)
	}
	if err := errors.Join(os.Remove(filepath.Join(p.shop, composeName)), os.Symlink(outside, filepath.Join(p.shop, composeName))); err != nil {
		t.Fatal(err)
	}
	refused("a link")
	p.write(t, ".devcontainer/large.yml", "services: {app: {image: a}}\n#"+strings.Repeat("x", 256<<10))
	p.devcontainer(t, `{"dockerComposeFile": "large.yml", "service": "app"}`)
	refused("a large file")

	// A link in the project may lead to what the sandbox does not see.
	for link, to := range map[string]string{"to.env": ".env", "to.yml": composeName, "folder": "."} {
		if err := os.Symlink(to, filepath.Join(p.shop, ".devcontainer", link)); err != nil {
			t.Fatal(err)
		}
	}
	p.write(t, ".devcontainer/.env", "SECRET=1\n")
	p.write(t, ".devcontainer/seen.env", "A=1\n")
	p.devcontainer(t, `{"dockerComposeFile": "to.yml", "service": "app"}`)
	refused("a link to a compose file")
	if err := os.Remove(filepath.Join(p.shop, composeName)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"to.env", "folder/seen.env"} {
		p.composed(t, "", "services: {app: {image: a, env_file: "+name+"}}")
		refused("a link to a file of variables: " + name)
	}
	p.composed(t, "", "services: {app: {image: a, env_file: seen.env}}")
	if c, err := p.CheckDevcontainer(p.shop, devcontainerName); err != nil || c.Err != nil {
		t.Errorf("no link: %+v, %v", c, err)
	}

	p.propose(t, "hide: ['seen.*']\n")
	p.approve(t)
	if c, err := p.CheckDevcontainer(p.shop, devcontainerName); err != nil || c.Err != nil || c.Proposal.Setup.Env != nil {
		t.Errorf("a file that bawn.yaml hides: %+v, %v", c, err)
	}

	// What the sandbox does not see becomes no part of it.
	p.composed(t, "", "services: {app: {image: a, env_file: .env, environment: {B: '${SECRET}'}}}")
	c, err := p.CheckDevcontainer(p.shop, devcontainerName)
	if err != nil || c.Err != nil || !slices.Equal(c.Proposal.Setup.Env, []string{"B="}) || !slices.Equal(c.Proposal.Setup.Hidden, []string{".devcontainer/.env"}) || strings.Contains(string(c.Beside), "SECRET=1") {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestFilesThatComposeFilesName: what a compose file includes or extends is approved as it is, and a change asks again.
func TestFilesThatComposeFilesName(t *testing.T) {
	p := newPlace(t)
	p.composed(t, "", "include: [{path: ../infra/db.yml, env_file: ../infra/db.vars}]\nservices: {app: {extends: {file: ../infra/app.yml, service: base}}}")
	p.write(t, "infra/db.yml", "services: {db: {image: 'postgres:${TAG}'}}\n")
	p.write(t, "infra/db.vars", "TAG=16\n")
	p.write(t, "infra/app.yml", "services: {base: {image: a, volumes: ['..:/src']}}\n")
	r := asksFor(devcontainerName)
	r.Dir = p.shop
	p.approveDevcontainer(t)
	c, err := p.CheckDevcontainer(p.shop, devcontainerName)
	if err != nil || c.Err != nil || c.Proposal.Image != "a" || c.Proposal.Setup.Mount != "/src" || !strings.Contains(c.Proposal.Setup.Stack.Model, "postgres:16") {
		t.Fatalf("%+v, %v", c, err)
	}
	image := "a" // the one that is approved
	for _, f := range []struct{ name, text, image string }{
		{"infra/db.yml", "services: {db: {image: evil, privileged: true}}\n", "a"},
		{"infra/db.vars", "TAG=17\n", "a"},
		{"infra/app.yml", "services: {base: {image: evil, volumes: ['..:/src']}}\n", "evil"},
	} {
		p.write(t, f.name, f.text)
		err := p.CheckConsent(r)
		if engine.ReasonOf(err) != engine.NotApproved || !slices.Equal(engine.As(err).Check.Others, []string{f.name}) {
			t.Errorf("%s: %v", f.name, err)
		}
		if add, err := p.Additions(&sandbox.Spec{Dir: p.shop, Devcontainer: devcontainerName}); err != nil || add.Image != image {
			t.Errorf("%s is in force: %+v, %v", f.name, add, err)
		}
		p.approveDevcontainer(t)
		if err := p.CheckConsent(r); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		image = f.image
	}
}

// TestAttackVariablesOfAHiddenFile: the compose files get those values of .env that the person lets them have, each
// named; a compose file that the guest changes gets no other one, though the change is approved.
func TestAttackVariablesOfAHiddenFile(t *testing.T) {
	p := newPlace(t)
	const env = ".devcontainer/.env"
	p.write(t, env, "TAG=16\nTOKEN=secret\nLATER=secret\n")
	p.composed(t, "", "services: {app: {image: 'a:${TAG}'}, db: {image: 'b:${TAG}'}}")
	look := func(files ...string) *project.Check {
		t.Helper()
		c, err := p.CheckDevcontainer(p.shop, devcontainerName, files...)
		if err != nil || c.Err != nil {
			t.Fatalf("%+v, %v", c, err)
		}
		return c
	}
	kept := func(c *project.Check) string {
		return fmt.Sprintf("%s %+v %+v", c.Beside, c.Proposal, c.Proposal.Setup)
	}
	if c := look(); c.Proposal.Image != "a:" || !slices.Equal(c.Proposal.Setup.EnvFilesNotTaken, []string{env}) || strings.Contains(kept(c), "secret") || c.Proposal.Setup.EnvFiles != nil {
		t.Errorf("nothing was said: %+v", c.Proposal.Setup)
	}
	c := look(env)
	if c.Proposal.Image != "a:16" || !slices.Equal(c.Proposal.Setup.EnvFiles, []string{env + ": TAG"}) || strings.Contains(kept(c), "secret") {
		t.Errorf("%+v", c.Proposal.Setup)
	}
	if err := p.Approve(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if c := look(); c.Status != project.Approved || c.Proposal.Image != "a:16" {
		t.Errorf("%+v", c)
	}
	if c := look(env); c.Status != project.Approved {
		t.Errorf("the same again: %+v", c)
	}

	p.write(t, composeName, "services: {app: {image: 'a:${TAG}', environment: [TOKEN, 'X=${LATER}']}, db: {image: 'b:${TOKEN}${LATER}'}}")
	c = look()
	if c.Status != project.Changed || c.Proposal.Image != "a:16" || strings.Contains(kept(c), "secret") || !slices.Equal(c.Proposal.Setup.HostEnv, []string{"LATER", "TOKEN"}) {
		t.Errorf("%s", kept(c))
	}
	if err := p.Approve(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if c := look(); c.Status != project.Approved || strings.Contains(kept(c), "secret") {
		t.Errorf("%s", kept(c))
	}
	if c := look(env); c.Status != project.Changed || !slices.Equal(c.Proposal.Setup.EnvFiles, []string{env + ": LATER, TAG, TOKEN"}) || !slices.Equal(c.Proposal.Setup.Env, []string{"TOKEN=secret", "X=secret"}) {
		t.Errorf("%+v", c.Proposal.Setup)
	}

	p.write(t, env, "TAG=17\nTOKEN=other\n")
	if c := look(); c.Status != project.Changed || !slices.Equal(c.Others, []string{env}) || c.Proposal.Image != "a:17" || strings.Contains(kept(c), "other") {
		t.Errorf("%s", kept(c))
	}
	if err := errors.Join(os.Remove(filepath.Join(p.shop, env)), os.Symlink("elsewhere", filepath.Join(p.shop, env)), os.WriteFile(filepath.Join(p.shop, ".devcontainer/elsewhere"), []byte("TAG=18\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if c, err := p.CheckDevcontainer(p.shop, devcontainerName, env); err != nil || c.Err == nil || !strings.Contains(c.Err.Error(), "symbolic link") {
		t.Errorf("a link: %+v, %v", c, err)
	}
	if err := os.Remove(filepath.Join(p.shop, env)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{env, ".env", "other.env"} {
		if _, err := p.CheckDevcontainer(p.shop, devcontainerName, name); err == nil || !strings.Contains(err.Error(), "take no variables from "+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fakeDocker is a docker that writes its arguments and the compose file to a log. It fails for the command in
// the file fail.
const fakeDocker = `#!/bin/sh
dir=${0%/*}
[ "$*" != "compose version" ] || exit 0
echo "docker $*" | sed "s|$dir|DIR|g" >>"$dir/log"
case $* in *" ps -a -q "*) echo 0123 ;; "wait "*) cat "$dir/status" ;; *" up "*) [ -s "$dir/once/compose.json" ] && grep -q 203.0.113 "$dir/hosts" || exit 9 ;; esac
! grep -qxF "$3$8" "$dir/fail" 2>/dev/null || { echo "no such image" >&2; exit 18; }
`

// TestServicesOfADevcontainer: they start before the commands, once for each start.
func TestServicesOfADevcontainer(t *testing.T) {
	p := newPlace(t)
	dir := t.TempDir()
	_, start := engine.SetSetupFolders(t, dir)
	keep := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	keep("hosts", "127.0.0.1\tlocalhost\n127.0.1.1\tshop # written by bawn", 0o644)
	keep("status", "0\n", 0o644)
	p.composed(t, `, "postStartCommand": "echo start >>log"`, `services:
  app: {image: a, network_mode: 'service:db', depends_on: {db: {condition: service_healthy}, migrate: {condition: service_completed_successfully}}}
  db: {image: b}
  migrate: {image: c, command: "echo $$HOME"}
`)
	p.approveDevcontainer(t)
	startGuest(t, p.add(t, "shop", p.shop, func(s *sandbox.Spec) {
		s.Devcontainer, s.Boot.ImageEnv = devcontainerName, []string{"PATH=" + dir + ":/usr/bin:/bin", "COMPOSE_FILE=other"}
	}))
	log := filepath.Join(p.shop, "log")
	setup := func() (string, error) {
		t.Helper()
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		os.Remove(filepath.Join(dir, "log"))
		err = attach(t, p).Setup(t.Context(), out)
		did, _ := os.ReadFile(filepath.Join(dir, "log"))
		said, _ := os.ReadFile(out.Name())
		return string(did), errors.Join(err, func() error {
			if err == nil {
				return nil
			}
			return errors.New(string(said))
		}())
	}
	if did, err := setup(); engine.ReasonOf(err) != engine.NoDocker || !strings.Contains(err.Error(), "(db, migrate)") || did != "" {
		t.Fatalf("an image without Docker: %q, %v", did, err)
	}
	keep("docker", fakeDocker, 0o755)
	socket := filepath.Join(dir, "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	engine.SetDockerSocket(t, socket)

	up := "docker compose -f DIR/once/compose.json --project-directory " + p.shop + "/.devcontainer up --detach"
	all := up + " --quiet-pull\n" + up + " --no-deps --no-recreate --wait db\ndocker compose -f DIR/once/compose.json --project-directory " + p.shop + "/.devcontainer ps -a -q migrate\ndocker wait 0123\n"
	keep("fail", "DIR/once/compose.json--quiet-pull\n", 0o644)
	keep("fail", strings.ReplaceAll("DIR/once/compose.json--quiet-pull\n", "DIR", dir), 0o644)
	if did, err := setup(); engine.ReasonOf(err) != engine.ServicesFailed || !strings.Contains(err.Error(), "exit status 18") || !strings.Contains(err.Error(), "no such image") || did != up+" --quiet-pull\n" {
		t.Errorf("an image that cannot be pulled: %q, %v", did, err)
	}
	keep("fail", "", 0o644)
	keep("status", "3\n", 0o644)
	if did, err := setup(); engine.ReasonOf(err) != engine.ServicesFailed || !strings.Contains(err.Error(), "the service migrate") || !strings.Contains(err.Error(), "exit status 3") || !strings.HasPrefix(did, all) {
		t.Errorf("a service that ends with an error: %q, %v", did, err)
	}
	if text, err := os.ReadFile(log); err == nil {
		t.Errorf("a command ran before the services: %q", text)
	}
	keep("status", "0\n", 0o644)
	if did, err := setup(); err != nil || did != all {
		t.Errorf("%q, %v", did, err)
	}
	if did, err := setup(); err != nil || did != "" {
		t.Errorf("another use: %q, %v", did, err)
	}
	if err := os.RemoveAll(start); err != nil { // as a stop does
		t.Fatal(err)
	}
	if did, err := setup(); err != nil || did != all {
		t.Errorf("the next start: %q, %v", did, err)
	}
	if text, err := os.ReadFile(log); err != nil || string(text) != "start\nstart\n" {
		t.Errorf("%q, %v", text, err)
	}
	hosts, err := os.ReadFile(filepath.Join(dir, "hosts"))
	if want := "203.0.113.2\tmigrate\t# service of devcontainer.json\n127.0.0.1\tlocalhost\n127.0.1.1\tshop # written by bawn\n127.0.0.1\tapp db\t# service of devcontainer.json\n"; err != nil || string(hosts) != want {
		t.Errorf("%q, %v", hosts, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "once", "compose.json")); err != nil || !strings.Contains(string(text), `"$$HOME"`) {
		t.Errorf("%s, %v", text, err)
	}
}
