package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/devcontainer"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
)

// A sandbox can be made from the project's devcontainer.json (Spec.Devcontainer). The file is a proposal
// as bawn.yaml is, with an approval of its own. This file finds it, and maps it onto what bawn.yaml has
// (project.Proposal); setup.go runs its commands. docs/devcontainer.md says what is taken.

const (
	// NoDevcontainer is the reason of an error: there is no devcontainer.json, or none of that name (Path of the project).
	NoDevcontainer Reason = "devcontainer-not-found"
	// DevcontainerThere is the reason of a notice: the project has a devcontainer.json, which is not used (Path).
	DevcontainerThere Reason = "devcontainer-there"
)

// devcontainerFolder is the folder of a project that devcontainer.json is looked for in
// (containers.dev/implementors/spec, devcontainer.json).
const devcontainerFolder = ".devcontainer"

// devcontainerFile is the name of the file in a folder; with a dot before it, at the project's root.
const devcontainerFile = "devcontainer.json"

// maxDevcontainers bounds the folders of devcontainerFolder in which the file is looked for.
const maxDevcontainers = 64

// DevcontainerPath returns the path of a devcontainer.json, which is absolute or relative to the working
// directory, relative to a project directory. The file need not exist: an approval may outlast it. The error
// is NoDevcontainer if the path does not lie in the project.
func DevcontainerPath(dir, named string) (string, error) {
	abs, err := filepath.Abs(named)
	if err != nil {
		return "", err
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(parent, filepath.Base(abs))
	}
	rel, err := filepath.Rel(dir, abs)
	if err != nil || !filepath.IsLocal(rel) {
		return "", &Error{Reason: NoDevcontainer, Path: dir, Err: fmt.Errorf("%s does not lie in the project %s", named, dir)}
	}
	return rel, nil
}

// FindDevcontainer returns the devcontainer.json of a project directory, relative to it: that at the path
// named, or if that is empty the only one in a usual place. The error is NoDevcontainer if there is none.
func FindDevcontainer(dir, named string) (string, error) {
	failed := func(format string, args ...any) error {
		return &Error{Reason: NoDevcontainer, Path: dir, Err: fmt.Errorf(format, args...)}
	}
	if named != "" {
		rel, err := DevcontainerPath(dir, named)
		if err != nil {
			return "", err
		}
		if fi, err := os.Lstat(filepath.Join(dir, rel)); err != nil {
			return "", failed("%s does not exist", named)
		} else if fi.IsDir() {
			return "", failed("%s is a directory: name the file in it", named)
		}
		return rel, nil
	}
	switch list := usualDevcontainers(dir); len(list) {
	case 0:
		return "", failed("%s has no %s", dir, filepath.Join(devcontainerFolder, devcontainerFile))
	case 1:
		return list[0], nil
	default:
		return "", failed("%s has more than one %s: %s", dir, devcontainerFile, strings.Join(list, ", "))
	}
}

// usualDevcontainers returns the files at usual places: one of the two that have precedence, or else all
// of the folders in devcontainerFolder.
func usualDevcontainers(dir string) (list []string) {
	for _, name := range []string{filepath.Join(devcontainerFolder, devcontainerFile), "." + devcontainerFile} {
		if fi, err := os.Lstat(filepath.Join(dir, name)); err == nil && !fi.IsDir() {
			return []string{name}
		}
	}
	for _, folder := range firstNames(filepath.Join(dir, devcontainerFolder), maxDevcontainers) {
		name := filepath.Join(devcontainerFolder, folder, devcontainerFile)
		if fi, err := os.Lstat(filepath.Join(dir, name)); err == nil && !fi.IsDir() {
			list = append(list, name)
		}
	}
	return list
}

// firstNames returns at most that many names in a directory, sorted; none if it cannot be read. It reads
// no more of a directory that the guest has filled.
func firstNames(dir string, limit int) []string {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(limit)
	slices.Sort(names)
	return names
}

// CheckDevcontainer compares a project's devcontainer.json with what was approved. name is its path
// relative to the project directory. envFiles are hidden files of the project whose variables its compose files may
// have from now on; they have to be approved anew with them.
func (e *Engine) CheckDevcontainer(dir, name string, envFiles ...string) (*project.Check, error) {
	approvals, err := approvalsOfFile(e.sandboxes, dir, name)
	if err != nil {
		return nil, err
	}
	c, err := approvals.Look(dir)
	if err == nil {
		c.EnvFiles = envFiles
		err = e.checkBeside(c, approvals)
	}
	if err != nil {
		return nil, &Error{Reason: ApprovalUnreadable, Path: dir, Fields: fileField(name), Err: err}
	}
	return c, nil
}

// ForgetDevcontainer withdraws the approval of a project's devcontainer.json.
func (e *Engine) ForgetDevcontainer(dir, name string) error {
	approvals, err := approvalsOfFile(e.sandboxes, dir, name)
	if err != nil {
		return err
	}
	return approvals.Forget(dir)
}

// devcontainerPlaces returns what stands for the variables of a devcontainer.json.
func devcontainerPlaces(dir, name string) devcontainer.Places {
	id := imageKey(&sandbox.Spec{Dir: dir, Devcontainer: name})[:16]
	return devcontainer.Places{Local: dir, Container: dir, ID: id}
}

// devcontainerReader returns what makes a proposal of the text of a devcontainer.json. What was approved of
// its features and compose files, if anything, is in the approvals. Without that, it is left out.
func devcontainerReader(approvals *project.Approvals, dir, name string) func(file string, text []byte) (*project.Proposal, error) {
	return func(file string, text []byte) (*project.Proposal, error) {
		l, err := lockOf(approvals, dir, text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if l == nil {
			return readDevcontainer(file, text, dir, name, nil)
		}
		p, err := readDevcontainer(file, text, dir, name, l)
		if err != nil && len(l.Compose) > 0 { // it needs another file now, or is no longer taken: to be approved anew
			return readDevcontainer(file, text, dir, name, nil)
		}
		if err == nil && hasFeatures(p) {
			if err = addFeatures(p, l.Features, dir); err != nil {
				err = fmt.Errorf("%s: %w", file, err)
			}
		}
		return p, err
	}
}

// readDevcontainer makes a proposal of the text of a devcontainer.json, with its compose files if they are
// given, and without its features.
func readDevcontainer(file string, text []byte, dir, name string, files composeFiles) (*project.Proposal, error) {
	c, err := devcontainer.Parse(file, text, devcontainerPlaces(dir, name))
	if err != nil {
		return nil, err
	}
	p, err := proposalWith(c, dir, name, files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

// proposalWith makes a proposal of a devcontainer.json that was parsed.
func proposalWith(c *devcontainer.Config, dir, name string, files composeFiles) (*project.Proposal, error) {
	folder := filepath.Dir(name)
	if c.Compose == nil || files == nil {
		return proposalOf(c, dir, folder)
	}
	r, err := readCompose(c, dir, folder, files)
	if err == nil {
		err = c.UseService(r, devcontainerPlaces(dir, name))
	}
	if err != nil {
		return nil, err
	}
	p, err := proposalOf(c, dir, folder)
	if err == nil {
		err = addService(p, &r.Service, dir)
	}
	return p, err
}

// proposalOf maps a devcontainer.json of the project at dir, in that folder of it, onto what bawn.yaml
// has.
func proposalOf(c *devcontainer.Config, dir, folder string) (*project.Proposal, error) {
	p := &project.Proposal{Image: c.Image, Setup: &c.Setup}
	if c.Image != "" {
		if err := project.CheckImage(c.Image); err != nil {
			return nil, err
		}
	}
	if b := c.Build; b != nil {
		p.Build = &project.Build{Context: filepath.Join(folder, b.Context), File: filepath.Join(folder, b.Dockerfile), Target: b.Target, Args: b.Args}
		if filepath.IsAbs(b.Context) || filepath.IsAbs(b.Dockerfile) {
			return nil, errors.New("build: paths are relative to the folder of the file")
		}
		if key, err := p.Build.Check(); err != nil {
			return nil, fmt.Errorf("build: %s: %w", key, err)
		}
	}
	for _, v := range c.Volumes {
		vol, err := volumeOf(v, dir, c.Setup.Mount)
		if err != nil {
			return nil, err
		}
		p.Volumes = append(p.Volumes, vol)
	}
	for _, n := range c.Ports {
		p.Ports = append(p.Ports, sandbox.Port{Host: n, Guest: n})
	}
	for _, place := range []string{c.Setup.Mount, c.Setup.Workspace} {
		if place != "" && !sandbox.Beneath(dir, place) && slices.Contains(sandbox.SystemDirs, place) {
			return nil, fmt.Errorf("workspaceFolder: the guest needs its own %s", place)
		}
	}
	return p, nil
}

// volumeOf returns a volume with a name that bawn's volumes can have. One in the project is where the
// guest has that, mount being the other path by which the project is reached.
func volumeOf(v devcontainer.Volume, dir, mount string) (sandbox.Volume, error) {
	name := strings.Trim(strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(v.Name)), "-")
	target := v.Target
	if mount != "" && sandbox.Beneath(mount, target) {
		target = filepath.Join(dir, strings.TrimPrefix(target, mount))
	}
	if target == dir {
		return sandbox.Volume{}, fmt.Errorf("mounts: the volume %s would hide the project", v.Name)
	}
	mode := "rw"
	if v.ReadOnly {
		mode = "ro"
	}
	return sandbox.ParseVolume(name + ":" + target + ":" + mode)
}

// withDevcontainer adds the proposal of a devcontainer.json to that of bawn.yaml: its image takes the
// place of the other, the rest is added to it.
func withDevcontainer(p, more *project.Proposal) {
	if more.Image != "" || more.Build != nil {
		p.Image, p.Build = more.Image, more.Build
	}
	addVolumes(p, more.Volumes)
	p.Ports = append(p.Ports, slices.DeleteFunc(slices.Clone(more.Ports), func(n sandbox.Port) bool {
		return slices.ContainsFunc(p.Ports, func(o sandbox.Port) bool { return o.Guest == n.Guest || o.Host == n.Host })
	})...)
	p.Setup = more.Setup
}

// addVolumes adds volumes to a proposal, but for those of which it has the name or the place.
func addVolumes(p *project.Proposal, more []sandbox.Volume) {
	for _, v := range more {
		if !slices.ContainsFunc(p.Volumes, func(o sandbox.Volume) bool { return o.Name == v.Name || o.Guest == v.Guest }) {
			p.Volumes = append(p.Volumes, v)
		}
	}
}

// sayDevcontainer says at the first start of a sandbox that the project has a devcontainer.json.
func (e *Engine) sayDevcontainer(spec *sandbox.Spec) {
	if !spec.Fresh || spec.Throwaway || spec.Builder || spec.Devcontainer != "" {
		return
	}
	list := usualDevcontainers(spec.Project.Host)
	if len(list) == 0 {
		return
	}
	e.notify(Notice{Reason: DevcontainerThere, Sandbox: spec.Name, Path: list[0], Text: fmt.Sprintf("the project has a %s, which is not used", list[0])})
}

// loginOf returns the user to log in as if user is not given: root if the approved devcontainer.json
// says so.
func (e *Engine) loginOf(spec *sandbox.Spec, user string) (string, error) {
	if user != "" || spec.Devcontainer == "" {
		return user, nil
	}
	setup, err := e.setupOf(spec)
	if err == nil && setup.Root {
		user = "root"
	}
	return user, err
}

// setupOf returns the approved setup of a sandbox, which is empty where there is none.
func (e *Engine) setupOf(spec *sandbox.Spec) (*devcontainer.Setup, error) {
	if spec.Devcontainer == "" {
		return &devcontainer.Setup{}, nil
	}
	p, err := approvedProposal(e.sandboxes, spec)
	if err == nil && p.Setup == nil { // nothing is approved
		return &devcontainer.Setup{}, nil
	}
	if err != nil {
		return nil, err
	}
	return p.Setup, nil
}
