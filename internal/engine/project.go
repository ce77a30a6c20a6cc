package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// A project's bawn.yaml is a proposal: the guest can write to it. What counts is the
// copy that the user approved (package project). This file compares the two, and
// puts what was approved into specs and rules.

// CheckProject compares a project's bawn.yaml with what was approved.
func (e *Engine) CheckProject(dir string) (*project.Check, error) {
	approvals, err := approvalsOf(e.sandboxes, dir)
	if err != nil {
		return nil, err
	}
	c, err := approvals.Look(dir)
	if err != nil {
		return nil, &Error{Reason: ApprovalUnreadable, Path: dir, Err: err}
	}
	return c, nil
}

// Approve keeps what the Check has read as approved, and puts its rules in force for
// all sandboxes of the directory. The rest takes effect at their next start.
func (e *Engine) Approve(ctx context.Context, c *project.Check) error {
	if c.Err != nil {
		return &Error{Reason: ProjectInvalid, Path: c.Dir, Check: c, Err: c.Err}
	}
	if c.Beside == nil && (hasFeatures(c.Proposal) || hasCompose(c.Proposal)) && !c.Settled() {
		return &Error{Reason: FeaturesUnfetched, Path: c.Dir, Check: c, Err: fmt.Errorf("%s: its features were not fetched yet, to be looked at", c.File())}
	}
	approvals, err := approvalsOfFile(e.sandboxes, c.Dir, c.Name)
	if err != nil {
		return err
	}
	if err := approvals.Approve(c); err != nil {
		return err
	}
	return e.syncProject(ctx, c.Dir)
}

// Forget withdraws the approval of a project's bawn.yaml, and its rules.
func (e *Engine) Forget(ctx context.Context, dir string) error {
	approvals, err := approvalsOf(e.sandboxes, dir)
	if err != nil {
		return err
	}
	return errors.Join(approvals.Forget(dir), e.syncProject(ctx, dir))
}

// CheckConsent returns an Error unless the bawn.yaml of the request's project is approved in
// its present form, or is ignored, and so is the devcontainer.json that the sandbox is made from.
func (e *Engine) CheckConsent(r Request) error {
	spec, err := e.asked(&r)
	if err != nil {
		return err
	}
	if !spec.NoProject {
		if err := consent(e.CheckProject(spec.Dir)); err != nil {
			return err
		}
	}
	if spec.Devcontainer == "" {
		return nil
	}
	c, err := e.CheckDevcontainer(spec.Dir, spec.Devcontainer)
	if err == nil && c.Status == project.None {
		return &Error{Reason: NoDevcontainer, Path: c.Dir, Err: fmt.Errorf("%s does not exist", c.File())}
	}
	return consent(c, err)
}

// consent returns an Error unless the user has nothing to decide about a file that was checked.
func consent(c *project.Check, err error) error {
	switch {
	case err != nil || c.Settled():
		return err
	case c.Err != nil:
		return &Error{Reason: ProjectInvalid, Path: c.Dir, Check: c, Err: c.Err}
	}
	return notApproved(c)
}

// asked returns a copy of the spec of a request's sandbox, with the request's changes of NoProject and
// Devcontainer: they say which files of the project count. If there is no sandbox yet, the spec has these
// two and the project directory only.
func (e *Engine) asked(r *Request) (*sandbox.Spec, error) {
	spec, err := e.existing(r)
	if store.IsNotFound(err) {
		spec = &sandbox.Spec{Dir: r.Dir}
	} else if err != nil {
		return nil, err
	}
	asked := *spec
	put(&asked.NoProject, r.Change.NoProject)
	put(&asked.Devcontainer, r.Change.Devcontainer)
	return &asked, nil
}

func notApproved(c *project.Check) *Error {
	what := map[project.Status]string{
		project.New:     "asks for settings that you have not approved",
		project.Changed: "has changed since you approved it",
		project.Removed: "was removed since you approved it",
	}[c.Status]
	if len(c.Others) > 0 {
		what = "uses other files of the project, and since you approved these, this has changed: " + strings.Join(c.Others, ", ")
	}
	return &Error{Reason: NotApproved, Path: c.Dir, Check: c, Err: fmt.Errorf("%s %s", c.File(), what)}
}

// warnProject reports that a sandbox's bawn.yaml is not approved in its present form. Nothing
// of it takes effect, so the command may continue.
func (e *Engine) warnProject(spec *sandbox.Spec) {
	if !spec.NoProject {
		c, err := e.CheckProject(spec.Dir)
		e.warnCheck(spec, c, err)
	}
	if spec.Devcontainer != "" {
		c, err := e.CheckDevcontainer(spec.Dir, spec.Devcontainer)
		e.warnCheck(spec, c, err)
	}
}

// warnCheck is warnProject for one file that was checked.
func (e *Engine) warnCheck(spec *sandbox.Spec, c *project.Check, err error) {
	if err != nil || c.Settled() {
		return // what cannot be read is an error where it is used
	}
	e.notify(Notice{Reason: NotApproved, Sandbox: spec.Name, Path: c.Dir, Fields: fileField(c.Name), Text: c.File() + " is not approved in its present form and has no effect"})
}

// fileField returns the Fields of an error or a notice about a file of the project: none for bawn.yaml.
func fileField(name string) []string {
	if name == project.Name {
		return nil
	}
	return []string{name}
}

// approvalsOf opens the user's approvals. It is an error if a guest can write the one of a
// project directory, or could: it would approve what it likes.
func approvalsOf(sandboxes *store.Store, dir string) (*project.Approvals, error) {
	return approvalsOfFile(sandboxes, dir, project.Name)
}

// approvalsOfFile is approvalsOf for that file of the project: bawn.yaml or a devcontainer.json.
func approvalsOfFile(sandboxes *store.Store, dir, name string) (*project.Approvals, error) {
	approvals, err := project.Open()
	if err != nil {
		return nil, err
	}
	if name != project.Name {
		approvals = approvals.Of(name, devcontainerReader(approvals.Of(name, nil), dir, name))
	}
	if err := sandboxes.CheckPlace(approvals.File(dir)); err != nil {
		return nil, fmt.Errorf("the approval of %s is not believed: %w; or move bawn's configuration out of that directory", dir, err)
	}
	return approvals, nil
}

// approvedProposal returns what the user has approved for the spec's project: of its bawn.yaml and, if
// the sandbox is made from one, of the devcontainer.json.
func approvedProposal(sandboxes *store.Store, spec *sandbox.Spec) (p *project.Proposal, err error) {
	p = &project.Proposal{}
	if !spec.NoProject {
		if p, err = approvedFile(sandboxes, spec.Dir, project.Name); err != nil {
			return nil, err
		}
	}
	if spec.Devcontainer != "" {
		more, err := approvedFile(sandboxes, spec.Dir, spec.Devcontainer)
		if err != nil {
			return nil, err
		}
		withDevcontainer(p, more)
	}
	if spec.ForProject {
		return forBuilder(p), nil
	}
	return p, nil
}

func approvedFile(sandboxes *store.Store, dir, name string) (*project.Proposal, error) {
	approvals, err := approvalsOfFile(sandboxes, dir, name)
	if err != nil {
		return nil, err
	}
	p, err := approvals.Proposal(dir)
	if err == nil && unresolved(p) {
		err = errors.New("as approved: it is not known which features or compose files it meant")
	}
	if err != nil {
		return nil, &Error{Reason: ApprovalInvalid, Path: dir, Fields: fileField(name), Err: err}
	}
	return p, nil
}

// approvedAdditions returns what the approved bawn.yaml adds to the spec.
func approvedAdditions(sandboxes *store.Store, spec *sandbox.Spec) (sandbox.Added, error) {
	p, err := approvedProposal(sandboxes, spec)
	if err != nil {
		return sandbox.Added{}, err
	}
	mounts, err := p.Resolve(spec.Dir)
	if err != nil {
		return sandbox.Added{}, &Error{Reason: ProjectInvalid, Path: spec.Dir, Err: fmt.Errorf("%s: %w", project.Name, err)}
	}
	img := p.Image
	if p.Build != nil {
		img = projectImageRef(spec)
	}
	if hasFeatures(p) {
		img = featureImageRef(spec)
	}
	return sandbox.Added{Image: img, CPUs: p.CPUs, Memory: p.Memory, Disk: p.Disk, Mounts: mounts, Volumes: ResolveVolumes(p.Volumes), LocalDirs: p.LocalDirs, Caches: p.Caches, Ports: p.Ports, Guard: p.Guard, Hide: p.Hide}, nil
}

// removeProjectSettings removes from a spec what bawn.yaml has added.
func removeProjectSettings(s *sandbox.Spec) {
	a := s.Added
	s.Added = sandbox.Added{}
	if a.Image != "" {
		s.Image = ""
	}
	if a.CPUs != 0 {
		s.CPUs = DefaultCPUs()
	}
	if a.Memory != 0 {
		s.Memory = DefaultMemory()
	}
	if a.Disk != 0 {
		s.Disk = DefaultDisk
	}
	s.Mounts = without(s.Mounts, a.Mounts)
	s.Volumes = without(s.Volumes, a.Volumes)
	s.LocalDirs = without(s.LocalDirs, a.LocalDirs)
	s.Caches = without(s.Caches, a.Caches)
	s.Ports = without(s.Ports, a.Ports)
}

// without returns a copy of a list without those that are in drop.
func without[T comparable](list, drop []T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(v T) bool { return slices.Contains(drop, v) })
}

// addProjectSettings adds the settings of bawn.yaml to a spec. It keeps what the user has set:
// single values, ports of the host and places in the guest.
func addProjectSettings(s *sandbox.Spec, a sandbox.Added) {
	given := func(key string) bool { return slices.Contains(s.Given, key) }
	if a.Image != "" && !given("image") {
		s.Image, s.Added.Image = a.Image, a.Image
	}
	if a.CPUs != 0 && !given("cpus") {
		s.CPUs, s.Added.CPUs = a.CPUs, a.CPUs
	}
	if a.Memory != 0 && !given("memory") {
		s.Memory, s.Added.Memory = a.Memory, a.Memory
	}
	if a.Disk != 0 && !given("disk") {
		s.Disk, s.Added.Disk = a.Disk, a.Disk
	}
	s.Added.Guard, s.Added.Hide = a.Guard, a.Hide
	addNew(&s.Mounts, &s.Added.Mounts, a.Mounts, func(o, m sandbox.Source) bool { return o.Guest == m.Guest })
	addNew(&s.Volumes, &s.Added.Volumes, a.Volumes, func(o, v sandbox.Volume) bool { return o.Guest == v.Guest || o.Name == v.Name })
	sandbox.SortVolumes(s.Volumes)
	addNew(&s.LocalDirs, &s.Added.LocalDirs, a.LocalDirs, sandbox.OverlappingDirs)
	addNew(&s.Caches, &s.Added.Caches, a.Caches, func(o, c sandbox.Cache) bool { return o == c })
	addNew(&s.Ports, &s.Added.Ports, a.Ports, func(o, p sandbox.Port) bool { return o == p || o.Host == p.Host && p.Host != 0 })
}

// addNew appends to list, and to added, each element of more. It leaves out an element n for which
// taken(o, n) is true of an element o of the list.
func addNew[T any](list, added *[]T, more []T, taken func(o, n T) bool) {
	for _, n := range more {
		if !slices.ContainsFunc(*list, func(o T) bool { return taken(o, n) }) {
			*list, *added = append(*list, n), append(*added, n)
		}
	}
}

// syncRunning applies the rules of the approved bawn.yaml to a running sandbox, and reports
// which other changes take effect at the next start.
func (e *Engine) syncRunning(ctx context.Context, d store.Dir, spec *sandbox.Spec) error {
	if err := e.syncRules(ctx, d, spec); err != nil {
		return err
	}
	add, err := approvedAdditions(e.sandboxes, spec)
	if err != nil { // the next start will fail with it; this one has happened
		e.notify(Notice{Reason: ReasonOf(err), Sandbox: spec.Name, Path: spec.Dir, Text: err.Error(), Err: err})
		return nil
	}
	if keys := awaitingStart(spec, add); len(keys) > 0 {
		files := project.Name
		if spec.Devcontainer != "" {
			files += " or " + spec.Devcontainer
		}
		e.notify(Notice{Reason: NeedsRestart, Sandbox: spec.Name, Fields: keys,
			Text: fmt.Sprintf("%s: its changes to %s take effect at the next start", files, strings.Join(keys, ", "))})
	}
	return nil
}

// awaitingStart returns the keys of the approved bawn.yaml that a start would change.
func awaitingStart(spec *sandbox.Spec, add sandbox.Added) (keys []string) {
	next := *spec
	removeProjectSettings(&next)
	addProjectSettings(&next, add)
	was, now := spec.Added, next.Added
	if spec.Boot.ImageDigest != "" {
		now.Image = was.Image // it waits for a new sandbox
	}
	for _, k := range []struct {
		name    string
		differs bool
	}{
		{"image", was.Image != now.Image},
		{"cpus", was.CPUs != now.CPUs},
		{"memory", was.Memory != now.Memory},
		{"disk", was.Disk != now.Disk},
		{"mounts", !slices.Equal(was.Mounts, now.Mounts)},
		{"volumes", !slices.Equal(was.Volumes, now.Volumes)},
		{"local_dirs", !slices.Equal(was.LocalDirs, now.LocalDirs)},
		{"caches", !slices.Equal(was.Caches, now.Caches)},
		{"ports", !slices.Equal(was.Ports, now.Ports)},
		{"guard", !slices.Equal(was.Guard, now.Guard)},
		{"hide", !slices.Equal(was.Hide, now.Hide)},
	} {
		if k.differs {
			keys = append(keys, k.name)
		}
	}
	return keys
}

// syncRules puts the rules of the approved bawn.yaml in force for one sandbox. They
// are in a file of their own, so that a rule that is taken out of bawn.yaml is gone.
func (e *Engine) syncRules(ctx context.Context, d store.Dir, spec *sandbox.Spec) error {
	file := d.File(store.ProjectPolicyFile)
	l, err := lockfile.Acquire(ctx, file+".lock")
	if err != nil {
		return err
	}
	defer l.Close()
	p, err := approvedProposal(e.sandboxes, spec)
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
	return errors.Join(err, reloadRules(ctx, d))
}

// syncProject is syncRules for all sandboxes of a project directory.
func (e *Engine) syncProject(ctx context.Context, dir string) error {
	names, err := e.sandboxes.Names()
	if err != nil {
		return err
	}
	var failed error
	for _, n := range names {
		d := e.sandboxes.Dir(n)
		spec, err := d.Spec()
		if err == nil && spec.Dir == dir {
			err = e.syncRules(ctx, d, spec)
		}
		if !store.IsNotFound(err) { // removed meanwhile
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
