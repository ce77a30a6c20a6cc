package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// project is the project directory that the flags mean, and whether its bawn.yaml
// is left aside.
func (f *specFlags) project(sandboxes *store.Store, throwaway bool) (dir string, aside bool, err error) {
	if dir, err = f.directory(); err != nil {
		return "", false, err
	}
	spec, err := f.existing(sandboxes, dir, throwaway)
	switch {
	case err == nil:
		dir, aside = spec.Dir, spec.NoProject
	case !store.IsNotFound(err):
		return "", false, err
	}
	if f.flags.Changed("no-project-file") {
		aside = f.noProject
	}
	return dir, aside, nil
}

// consent sees to it that the project's bawn.yaml is as it was approved, before
// anything is made or started. It asks on a terminal; elsewhere what nobody has
// approved is an error.
func (f *specFlags) consent(ctx context.Context, sandboxes *store.Store, throwaway bool) error {
	dir, aside, err := f.project(sandboxes, throwaway)
	if err != nil || aside {
		return err
	}
	approvals, err := project.Open()
	if err != nil {
		return err
	}
	c, err := approvals.Look(dir)
	if err != nil || c.Settled() {
		return err
	}
	if c.Err != nil {
		return hint(c.Err, "mend it (bawn trust %s shows it), or --no-project-file to go without", pathArgument(c.Dir))
	}
	if isTerminal(os.Stdin) && isTerminal(os.Stderr) {
		showCheck(os.Stderr, c)
		if askYes(trustQuestion(c)) {
			return approve(ctx, sandboxes, approvals, c)
		}
	}
	return errNotApproved(c)
}

func errNotApproved(c *project.Check) error {
	what := map[project.Status]string{
		project.New:     "asks for settings that you have not approved",
		project.Changed: "has changed since you approved it",
		project.Removed: "is gone since you approved it",
	}[c.Status]
	return hint(fmt.Errorf("%s %s", visibleText(c.File()), what), "bawn trust %s, or --no-project-file to go without", pathArgument(c.Dir))
}

// pathArgument is a path as one types it to a shell.
func pathArgument(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") != "" {
		path = shellQuote(path)
	}
	return visibleText(path)
}

// warnProject tells who uses a sandbox by its name that the project's bawn.yaml
// is not what is in force. Nothing of it takes effect, so the work may go on.
func warnProject(spec *sandbox.Spec) {
	if spec.NoProject {
		return
	}
	approvals, err := project.Open()
	if err != nil {
		return
	}
	c, err := approvals.Look(spec.Dir)
	if err != nil || c.Settled() {
		return // what cannot be read is an error where it is used
	}
	fmt.Fprintf(os.Stderr, "bawn: %s is not approved as it is now and has no effect (bawn trust %s)\n", visibleText(c.File()), pathArgument(c.Dir))
}

// approvedProposal is what a person has approved for the spec's project.
func approvedProposal(spec *sandbox.Spec) (*project.Proposal, error) {
	if spec.NoProject {
		return &project.Proposal{}, nil
	}
	approvals, err := project.Open()
	if err != nil {
		return nil, err
	}
	p, err := approvals.Proposal(spec.Dir)
	return p, hint(err, "bawn trust %s", pathArgument(spec.Dir))
}

// approvedAdditions is what it adds to the spec.
func approvedAdditions(spec *sandbox.Spec) (sandbox.Added, error) {
	p, err := approvedProposal(spec)
	if err != nil {
		return sandbox.Added{}, err
	}
	mounts, err := p.Resolve(spec.Dir)
	if err != nil {
		return sandbox.Added{}, hint(fmt.Errorf("%s: %w", project.Name, err), "mend it, then bawn trust; or --no-project-file to go without")
	}
	return sandbox.Added{Image: p.Image, CPUs: p.CPUs, Memory: p.Memory, Disk: p.Disk, Mounts: mounts, Ports: p.Ports}, nil
}

// withdraw takes out of a spec what bawn.yaml has added.
func withdraw(s *sandbox.Spec) {
	a := s.Project
	s.Project = sandbox.Added{}
	if a.Image != "" {
		s.Image = ""
	}
	if a.CPUs != 0 {
		s.CPUs = hostCPUs()
	}
	if a.Memory != 0 {
		s.Memory = hostMemory()
	}
	if a.Disk != 0 {
		s.Disk = defaultDisk
	}
	s.Mounts = slices.DeleteFunc(slices.Clone(s.Mounts), func(m sandbox.Mount) bool { return slices.Contains(a.Mounts, m) })
	s.Ports = slices.DeleteFunc(slices.Clone(s.Ports), func(p sandbox.Port) bool { return slices.Contains(a.Ports, p) })
}

// contribute puts into a spec what bawn.yaml adds. What a person has given
// stays: single values, ports of the host and places in the guest.
func contribute(s *sandbox.Spec, a sandbox.Added) {
	given := func(key string) bool { return slices.Contains(s.Given, key) }
	if a.Image != "" && !given("image") {
		s.Image, s.Project.Image = a.Image, a.Image
	}
	if a.CPUs != 0 && !given("cpus") {
		s.CPUs, s.Project.CPUs = a.CPUs, a.CPUs
	}
	if a.Memory != 0 && !given("memory") {
		s.Memory, s.Project.Memory = a.Memory, a.Memory
	}
	if a.Disk != 0 && !given("disk") {
		s.Disk, s.Project.Disk = a.Disk, a.Disk
	}
	for _, m := range a.Mounts {
		if !slices.ContainsFunc(s.Mounts, func(o sandbox.Mount) bool { return o.Target == m.Target }) {
			s.Mounts = append(s.Mounts, m)
			s.Project.Mounts = append(s.Project.Mounts, m)
		}
	}
	for _, p := range a.Ports {
		if !slices.ContainsFunc(s.Ports, func(o sandbox.Port) bool { return o == p || o.Host == p.Host && p.Host != 0 }) {
			s.Ports = append(s.Ports, p)
			s.Project.Ports = append(s.Project.Ports, p)
		}
	}
}

// keepDisk leaves a sandbox that was started before its image and what its disk
// has grown to, whatever bawn.yaml says now.
func keepDisk(s, was *sandbox.Spec) {
	if s.Boot.ImageDigest == "" {
		return
	}
	if s.Image != was.Image {
		fmt.Fprintf(os.Stderr, "bawn: sandbox %s keeps the image that it was made from (bawn rm %s, then again, for what %s says now)\n", s.Name, s.Name, project.Name)
		s.Image, s.Project.Image = was.Image, was.Project.Image
	}
	if s.Disk < was.Disk {
		s.Disk, s.Project.Disk = was.Disk, was.Project.Disk
	}
}

// stayRunning is what a running sandbox takes of the approved bawn.yaml: rules at
// once. It says what waits for the next start.
func stayRunning(ctx context.Context, d store.Dir, spec *sandbox.Spec) error {
	if err := syncRules(ctx, d, spec); err != nil {
		return err
	}
	add, err := approvedAdditions(spec)
	if err != nil { // about the next start, which it will keep from happening
		fmt.Fprintf(os.Stderr, "bawn: %s\n", visibleText(err.Error()))
		return nil
	}
	next := *spec
	withdraw(&next)
	contribute(&next, add)
	if spec.Boot.ImageDigest != "" {
		next.Project.Image = spec.Project.Image // it waits for a new sandbox
	}
	var keys []string
	was, now := reflect.ValueOf(spec.Project), reflect.ValueOf(next.Project)
	for i := range was.NumField() {
		if fmt.Sprint(was.Field(i)) != fmt.Sprint(now.Field(i)) {
			keys = append(keys, strings.ToLower(was.Type().Field(i).Name))
		}
	}
	if len(keys) > 0 {
		fmt.Fprintf(os.Stderr, "bawn: %s: what it says of %s is in effect from the next start (bawn stop %s)\n", project.Name, strings.Join(keys, ", "), spec.Name)
	}
	return nil
}

// syncRules puts the rules of the approved bawn.yaml in force for one sandbox, in
// a file of their own, so that what is taken out of bawn.yaml is gone.
func syncRules(ctx context.Context, d store.Dir, spec *sandbox.Spec) error {
	file := d.File(store.ProjectPolicyFile)
	l, err := lockfile.Acquire(ctx, file+".lock")
	if err != nil {
		return err
	}
	defer l.Close()
	p, err := approvedProposal(spec)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	text := p.Policy()
	switch {
	case string(old) == string(text):
		return nil
	case len(text) == 0:
		err = os.Remove(file)
	default:
		err = atomicfile.Write(file, text)
	}
	return errors.Join(err, engine.ReloadRules(ctx, d))
}

// syncProject is syncRules for all sandboxes of a project directory.
func syncProject(ctx context.Context, sandboxes *store.Store, dir string) error {
	names, err := sandboxes.Names()
	if err != nil {
		return err
	}
	var failed error
	for _, n := range names {
		d := sandboxes.Dir(n)
		spec, err := d.Spec()
		if err == nil && spec.Dir == dir {
			err = syncRules(ctx, d, spec)
		}
		if !store.IsNotFound(err) { // removed meanwhile
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
