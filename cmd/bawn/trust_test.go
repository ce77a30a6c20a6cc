package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox/store"
)

// projectPlace is a home with a project directory in it, where the test stands.
func projectPlace(t *testing.T) (sandboxes *store.Store, dir string) {
	t.Helper()
	sandboxes, dir = enginetest.Project(t)
	t.Chdir(dir)
	return sandboxes, dir
}

func propose(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, project.Name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// flagsOf parses the flags of bawn run.
func flagsOf(t *testing.T, args ...string) *specFlags {
	t.Helper()
	f := &specFlags{}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.register(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return f
}

// bawnTrust is bawn trust with arguments: what it prints, and its exit status.
func bawnTrust(t *testing.T, args ...string) (string, int) {
	t.Helper()
	root := rootCommand()
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(append([]string{"trust"}, args...))
	status := report(&errs, root.ExecuteContext(t.Context()))
	return out.String() + errs.String(), status
}

// consent is the check of a project's bawn.yaml that bawn run makes.
func consent(t *testing.T, e *engine.Engine, args ...string) error {
	t.Helper()
	r, err := flagsOf(t, args...).request(false, "")
	if err != nil {
		t.Fatal(err)
	}
	return e.CheckConsent(r)
}

func TestUnattendedNothingIsUsedUnapproved(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	e := engine.New(sandboxes, engine.Options{Version: version()})
	ctx := t.Context()
	refused := func(say string) {
		t.Helper()
		err := consent(t, e)
		if err == nil || !strings.Contains(err.Error(), say) || !strings.Contains(nextStep(err), "bawn trust "+dir) {
			t.Errorf("%v; want %q", err, say)
		}
		var none bytes.Buffer
		if code := report(&none, err); code != exitFailed {
			t.Errorf("exit status %d", code)
		}
	}
	agreed := func(args ...string) {
		t.Helper()
		if err := consent(t, e, args...); err != nil {
			t.Error(err)
		}
	}
	agreed()
	propose(t, dir, "cpus: 2\n")
	refused("asks for settings")
	agreed("--no-project-file")
	if err := runIn(ctx, flagsOf(t), false, invocation{argv: []string{"true"}}); err == nil || !strings.Contains(err.Error(), "not approved") {
		t.Errorf("run: %v", err)
	}
	if names, err := sandboxes.Names(); err != nil || len(names) != 0 {
		t.Errorf("made: %v, %v", names, err)
	}

	if out, code := bawnTrust(t); code != exitFailed || !strings.Contains(out, "bawn trust --yes") {
		t.Errorf("%d: %s", code, out)
	}
	refused("asks for settings")
	if out, code := bawnTrust(t, "--yes"); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	agreed()
	propose(t, dir, "cpus: 64\n")
	refused("has changed")
	propose(t, dir, "cpus: [\n")
	refused("bawn.yaml:")
	os.Remove(filepath.Join(dir, project.Name))
	refused("was removed")
	propose(t, dir, "cpus: 2\n")
	agreed()
}

func TestAskedOnATerminal(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	e := engine.New(sandboxes, engine.Options{Version: version()})
	for _, c := range []struct {
		allow, first, second string
		agreed               bool
	}{
		{"a.test", "n", "", false}, {"a.test", "", "", false}, {"a.test", "yikes", "", false}, {"a.test", "y", "", true},
		{"host:5432", "y", "y", false}, {"127.0.0.1:5432", "y", "", false}, {"raw:host:5432", "YES", "5432", false}, {"[::1]:5432", "y", "host", true},
	} {
		propose(t, dir, "allow: ['"+c.allow+"'] # "+c.first+c.second+"\n")
		person, slave := newTerminal(t)
		in, errs := os.Stdin, os.Stderr
		os.Stdin, os.Stderr = slave, slave
		asked := make(chan error, 1)
		go func() {
			err := consent(t, e)
			if engine.ReasonOf(err) == engine.NotApproved {
				err = askApproval(t.Context(), e, err)
			}
			asked <- err
		}()
		person.until("Approve this? [y/N] ")
		person.types(c.first + "\n")
		if strings.HasPrefix(strings.ToLower(c.first), "y") && c.first != "yikes" && c.allow != "a.test" {
			person.until(`SERVICES OF THE HOST to the guest. Type "host" to confirm: `)
			person.types(c.second + "\n")
		}
		err := <-asked
		os.Stdin, os.Stderr = in, errs
		if (err == nil) != c.agreed {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if out, code := bawnTrust(t, "--show"); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
}

func TestTrustShows(t *testing.T) {
	_, dir := projectPlace(t)
	if out, code := bawnTrust(t, "--show"); code != 0 || !strings.Contains(out, "does not exist") {
		t.Errorf("%d: %s", code, out)
	}
	propose(t, dir, "memory: 1g\nmounts: [data, ~/.ssh:ro]\nports: ['8080:80']\nallow: ['host:5432', preset:npm]\ndeny: [evil.test]\n")
	out, code := bawnTrust(t, "--show")
	for _, want := range []string{
		"is not approved. It says:", "  | memory: 1g", "1 GiB of memory",
		"may read and CHANGE " + dir + "/data, which is in the project",
		"may read " + filepath.Dir(dir) + "/.ssh, which is OUTSIDE THE PROJECT",
		"port 8080 of the host (127.0.0.1) leads to the guest's port 80", "SERVICES OF THE HOST on port 5432",
		"the guest may reach preset:npm", "the guest must not reach evil.test",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if code != 1 || t.Failed() {
		t.Errorf("%d:\n%s", code, out)
	}
	if out, code := bawnTrust(t, "--yes"); code != exitFailed || !strings.Contains(out, "bawn trust --yes --allow-host") {
		t.Errorf("services of the host were opened without a question: %d: %s", code, out)
	}
	if _, code := bawnTrust(t, "--yes", "--allow-host"); code != 0 {
		t.Fatal(code)
	}
	propose(t, dir, "memory: 2g\nmounts: [data, ~/.ssh:ro]\nports: ['8080:80']\nallow: ['host:5432', preset:npm]\ndeny: [evil.test]\n")
	out, _ = bawnTrust(t, "--show")
	if !strings.Contains(out, "  - memory: 1g\n  + memory: 2g\n    mounts:") {
		t.Errorf("no difference:\n%s", out)
	}
	out, _ = bawnTrust(t, "--show", "--json")
	var v struct {
		Status, Text, ApprovedText string
		Proposal                   project.Proposal
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.Status != "changed" || v.Proposal.Memory != 2<<30 || !strings.HasPrefix(v.ApprovedText, "memory: 1g") {
		t.Errorf("%v: %s", err, out)
	}
	if _, code := bawnTrust(t, "--forget", dir); code != 0 {
		t.Error(code)
	}
	if out, code := bawnTrust(t, "--show"); code != 1 || !strings.Contains(out, "is not approved") {
		t.Errorf("%d: %s", code, out)
	}
	if out, code := bawnTrust(t, "--schema"); code != 0 || out != string(project.Schema) {
		t.Errorf("%d: %s", code, out)
	}
}

func TestAHostileFileForgesNothing(t *testing.T) {
	_, dir := projectPlace(t)
	hostile := "cpus: 2\r\x1b[2J\x1b]0;x\a \u202e\u2028 \x9b \xff\nApprove this? [y/N] y\n"
	for range 2 {
		propose(t, dir, hostile)
		out, code := bawnTrust(t)
		if i := strings.IndexFunc(out, func(r rune) bool { return r < ' ' && r != '\n' || r >= 0x7f }); i >= 0 || code != exitFailed {
			t.Errorf("%d: %q at %d", code, out, i)
		}
		if !strings.Contains(out, `cpus: 2\r\x1b[2J\x1b]0;x\x07 \u202e\u2028 \x9b \xff`) {
			t.Errorf("%s", out)
		}
		if _, code := bawnTrust(t, "--yes"); code != exitFailed {
			t.Errorf("approved: %d", code)
		}
		propose(t, dir, "cpus: 2\n")
		if _, code := bawnTrust(t, "--yes"); code != 0 {
			t.Error(code)
		}
	}
}

// TestAttackRulesInAProject: each rule that opens more than it seems to is shown in capitals,
// and without a person none opens the host.
func TestAttackRulesInAProject(t *testing.T) {
	_, dir := projectPlace(t)
	for rule, want := range map[string]string{
		"raw:host:2375": "SERVICES OF THE HOST on port 2375, WITHOUT INSPECTION", "127.0.0.0/8:22": "SERVICES OF THE HOST, at its loopback address on port 22",
		"[::ffff:127.0.0.1]:22": "SERVICES OF THE HOST", "[64:ff9b::7f00:1]:22": "SERVICES OF THE HOST",
		"169.254.169.254": "CLOUD METADATA", "[fd00:ec2::254]:80": "CLOUD METADATA", "168.63.129.16": "CLOUD METADATA",
		"raw:**:*": "EVERY NAME", "**": "EVERY NAME", "0.0.0.0/0": "EVERY ADDRESS", "[::]/0:*": "EVERY ADDRESS", "10.0.0.0/8": "A PRIVATE NETWORK",
		"*.com": "EVERY NAME BELOW COM", "**.github.io": "NAMES OF STRANGERS", "*.amazonaws.com": "NAMES OF STRANGERS",
	} {
		propose(t, dir, "allow: ['"+rule+"']\n")
		out, _ := bawnTrust(t, "--show")
		if !strings.Contains(out, "the guest may reach ") || !strings.Contains(out, want) {
			t.Errorf("%s: %q is missing in\n%s", rule, want, out)
		}
		out, code := bawnTrust(t, "--yes")
		if host := strings.HasPrefix(want, "SERVICES"); (code != 0) != host {
			t.Errorf("%s: --yes: %d, %s", rule, code, out)
		}
	}
	propose(t, dir, "allow: ['127.0.0.1:*']\n")
	if out, code := bawnTrust(t, "--yes", "--allow-host"); code != exitFailed || strings.Count(out, "every service of the host") != 1 {
		t.Errorf("%d, and the mistake is not shown once:\n%s", code, out)
	}
}

// TestTrustShowsABuild: with its rules, of which those that open the host's services are asked about
// twice.
func TestTrustShowsABuild(t *testing.T) {
	p, err := project.Parse("f", []byte("build: {context: web, target: dev, args: {A: 1}, allow: [\"host:5432\"]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(plainWords("/shop", p), "\n")
	for _, want := range []string{"built from web/Dockerfile, up to the stage dev", "preset:dockerhub", "what web/Dockerfile and the files that it copies say is NOT part of the approval", "the argument A=1 for the build", "the build may reach "} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	if !opensHost(&project.Check{Proposal: p}) {
		t.Error("it opens services of the host")
	}
}

// TestTrustShowsADevcontainer: all that it asks for, and what is not taken.
func TestTrustShowsADevcontainer(t *testing.T) {
	_, dir := projectPlace(t)
	text := `{"image": "a", "remoteUser": "root", "containerEnv": {"A": "1"}, "remoteEnv": {"TOKEN": "${localEnv:TOKEN}"}, "runArgs": ["--privileged"],
		"workspaceFolder": "/workspace", "postCreateCommand": "npm ci\u001b[2J"}`
	file := filepath.Join(dir, ".devcontainer.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(text)
	trust := func(args ...string) (string, error) {
		t.Helper()
		var out bytes.Buffer
		c := trustCommand()
		c.SetOut(&out)
		c.SetArgs(args)
		c.SilenceErrors, c.SilenceUsage = true, true
		err := c.ExecuteContext(t.Context())
		return out.String(), err
	}
	if got, err := trust("--devcontainer", "--yes"); err == nil || !strings.Contains(got, "cannot be shown") {
		t.Errorf("%v, %s", err, got)
	}
	write(strings.Replace(text, `\u001b[2J`, "", 1))
	got, err := trust("--devcontainer", "--show")
	if err == nil {
		t.Error("it is approved")
	}
	for _, want := range []string{
		"the image a", "commands run as root", "the variable A=1", "NOT taken: TOKEN", "without effect: runArgs",
		"the guest reaches the project at /workspace", "once for each sandbox (postCreateCommand): npm ci",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	write(`{"dockerComposeFile": "c.yml", "service": "app"}`)
	if err := os.WriteFile(filepath.Join(dir, "c.yml"), []byte("services: {app: {image: a, env_file: .env, command: npm start}, db: {image: \"b$PW\", privileged: true}, web: {build: web}}"), 0o644); err != nil {
		t.Fatal(err)
	}
	composed, _ := trust("--devcontainer", "--show")
	for _, want := range []string{
		"the image a", "the sandbox is the service app of c.yml", "runs the service db at each start, from the image b", "  with privileged: of the sandbox, never of the host",
		"from an image that it builds of web", "NOT taken: the variables in .env", "NOT taken: PW, which would", "${NAME:-VALUE} in a compose file", "without effect: the command \"npm start\"",
	} {
		if !strings.Contains(composed, want) {
			t.Errorf("%q is not in %s", want, composed)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".env"), []byte("PW=16\nOTHER=x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if composed, _ := trust("--devcontainer", "--show"); !strings.Contains(composed, "NOT read: .env, which the sandbox does not see; bawn trust --devcontainer --env-file .env") {
		t.Errorf("a hidden .env: %s", composed)
	}
	if out, code := bawnTrust(t, "--devcontainer", "--env-file", filepath.Join(dir, ".env")); code != exitFailed || !strings.Contains(out, "GET the values of these variables, from a file that the sandbox does not see otherwise: .env: PW\n") ||
		!strings.Contains(out, "from the image b16\n") || !strings.Contains(out, "bawn trust --yes --env-file "+filepath.Join(dir, ".env")+" --devcontainer=") {
		t.Errorf("with --env-file: %d, %s", code, out)
	}
	for _, args := range [][]string{{"--env-file", ".env"}, {"--devcontainer", "--env-file", "/etc/passwd"}, {"--devcontainer", "--env-file", filepath.Join(dir, "other.env")}} {
		if out, err := trust(args...); err == nil {
			t.Errorf("%q: %s", args, out)
		}
	}
	write(strings.Replace(text, `\u001b[2J`, "", 1))
	if out, code := bawnTrust(t, "--devcontainer"); code != exitFailed || !strings.Contains(out, "bawn trust --yes --devcontainer="+file+" "+dir+" approves") {
		t.Errorf("without a terminal: %d, %s", code, out)
	}
	if _, err := trust("--devcontainer=.devcontainer.json", "--yes"); err != nil {
		t.Error(err)
	}
	if _, err := trust("--devcontainer", "--show"); err != nil {
		t.Errorf("it is not approved: %v", err)
	}
	if got, err := trust("--show"); err != nil || !strings.Contains(got, "bawn.yaml does not exist") {
		t.Errorf("bawn.yaml: %v, %s", err, got)
	}
	write("{}")
	if _, err := trust("--devcontainer", "--show"); err == nil {
		t.Error("a change is approved")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got, err := trust("--devcontainer="+file, "--show"); err == nil || !strings.Contains(got, "was removed since you approved it") {
		t.Errorf("it was removed: %v, %s", err, got)
	}
	if _, err := trust("--devcontainer="+file, "--forget"); err != nil {
		t.Error(err)
	}
	if got, err := trust("--devcontainer="+file, "--show"); err != nil || !strings.Contains(got, "does not exist, and no earlier one is approved") {
		t.Errorf("it was forgotten: %v, %s", err, got)
	}
}

// TestTrustShowsFeatures: those of a registry are not fetched by --show; those of the project are there.
func TestTrustShowsFeatures(t *testing.T) {
	_, dir := projectPlace(t)
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // no credential helpers of the person
	at := func(name string) string { return filepath.Join(dir, ".devcontainer", name) }
	write := func(name, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(at(name)), 0o755), os.WriteFile(at(name), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	says := func(status int, want []string, args ...string) {
		t.Helper()
		out, code := bawnTrust(t, append([]string{"--devcontainer"}, args...)...)
		if code != status {
			t.Errorf("%q: %d, %s", args, code, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%q: %q is not in %s", args, w, out)
			}
		}
	}
	write("own/devcontainer-feature.json", `{"id": "own", "version": "1.0", "privileged": true, "containerEnv": {"A": "1"}, "options": {"x": {"default": "y"}}, "postCreateCommand": "made"}`)
	write("own/install.sh", "#!/bin/sh\n")
	write("devcontainer.json", `{"features": {"127.0.0.1:1/tools/x:1": {}, "./own": {}}}`)
	says(1, []string{"the feature 127.0.0.1:1/tools/x:1, of which is not known yet"}, "--show")
	says(exitFailed, []string{"It cannot be used", "127.0.0.1:1/tools/x"}, "--yes") // nothing listens there
	says(exitFailed, []string{"127.0.0.1:1/tools/x"})                               // no terminal to ask at
	write("devcontainer.json", `{"features": {"./own": {"x": "\n'z"}}}`)
	says(1, []string{
		"the feature ./own (sha256:", `version 1.0), with ["X=\n'z"]`, "  which sets A=1", "  of which is left out privileged", "as root, in a machine of its own",
		"(postCreateCommand of the feature ./own): made",
	}, "--show")
	says(0, nil, "--yes")
	says(0, []string{"is approved", "the feature ./own (sha256:"}, "--show")
	write("own/install.sh", "#!/bin/sh\nevil\n")
	says(1, []string{"is as you approved it, but since then this has changed: .devcontainer/own"}, "--show")
}
