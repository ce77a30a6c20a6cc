package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/compose"
	"bawn.dev/bawn/internal/devcontainer"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/sys/regular"
)

// A devcontainer.json may name compose files (package compose). All that is read for them is kept beside the
// approval with its bytes, and a change of one of these files asks again. This file reads them and maps the
// service that is worked in onto what bawn.yaml has; composerun.go starts the services beside it.

// composeFile is a file that was read for the compose files of a devcontainer.json: one of them, or one with
// variables.
type composeFile struct {
	Path string `json:"path"` // relative to the project
	Text []byte `json:"text"` // nil if there was none
}

// maxComposeFiles bounds them, and maxComposeBytes all their bytes.
const (
	maxComposeFiles = 64
	maxComposeBytes = 1 << 20
)

// hasCompose reports whether a proposal names compose files.
func hasCompose(p *project.Proposal) bool {
	return p != nil && p.Setup != nil && len(p.Setup.ComposeFiles) > 0
}

// composeFiles gives package compose what it reads: of the project, or of what was approved.
type composeFiles interface {
	read(name string) ([]byte, error)
	// values returns what the compose files may have of a hidden file.
	values(name string) (vars map[string]string, taken bool, err error)
	// took is told what they have of hidden files.
	took(list []compose.FileValues)
}

// composeReader reads files of a project, and notes them.
type composeReader struct {
	root      *os.Root
	list      []composeFile
	left      int                          // bytes
	permitted func(file, name string) bool // variables of hidden files
	taken     []compose.FileValues
}

func newComposeReader(root *os.Root) *composeReader {
	return &composeReader{root: root, left: maxComposeBytes}
}

func (r *composeReader) read(name string) ([]byte, error) {
	if i := slices.IndexFunc(r.list, func(f composeFile) bool { return f.Path == name }); i >= 0 {
		return r.list[i].contents()
	}
	if len(r.list) == maxComposeFiles {
		return nil, fmt.Errorf("more than %d files are read", maxComposeFiles)
	}
	b, err := regular.ReadBeneath(r.root, name, compose.MaxFile) // a link may lead to a hidden file
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b = nil
	case errors.Is(err, unix.ELOOP):
		return nil, errors.New("it is a symbolic link, or lies behind one: name the file that it leads to")
	case err != nil:
		return nil, err
	case len(b) > r.left:
		return nil, fmt.Errorf("the files that are read have more than %d bytes", maxComposeBytes)
	case b == nil:
		b = []byte{}
	}
	r.left -= len(b)
	r.list = append(r.list, composeFile{name, b})
	return r.list[len(r.list)-1].contents()
}

// values reads a hidden file of variables, if some of these are permitted, and returns them.
func (r *composeReader) values(file string) (map[string]string, bool, error) {
	all, err := r.variables(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	maps.DeleteFunc(all, func(name, _ string) bool { return !r.permitted(file, name) })
	return all, len(all) > 0, nil
}

// variables returns the variables of a file of the project, whether they are permitted or not.
func (r *composeReader) variables(file string) (map[string]string, error) {
	b, err := regular.ReadBeneath(r.root, file, compose.MaxFile)
	if errors.Is(err, unix.ELOOP) {
		return nil, errors.New("it is a symbolic link, or lies behind one: no variable of it is taken")
	}
	if err != nil {
		return nil, err
	}
	return compose.Variables(file, b)
}

func (r *composeReader) took(list []compose.FileValues) { r.taken = list }

// unused returns the first of these files of which the compose files have no variables.
func (r *composeReader) unused(files []string) string {
	for _, name := range files {
		seen := slices.ContainsFunc(r.list, func(f composeFile) bool { return f.Path == name })
		if !seen && !slices.ContainsFunc(r.taken, func(f compose.FileValues) bool { return f.File == name && len(f.Vars) > 0 }) {
			return name
		}
	}
	return ""
}

func (f composeFile) contents() ([]byte, error) {
	if f.Text == nil {
		return nil, &fs.PathError{Op: "open", Path: f.Path, Err: fs.ErrNotExist}
	}
	return f.Text, nil
}

// read returns a file as it was approved.
func (l *featureLock) read(name string) ([]byte, error) {
	for _, f := range l.Compose {
		if f.Path == name {
			return f.contents()
		}
	}
	return nil, fmt.Errorf("%s was not read when it was approved", name)
}

// values returns what was approved of a hidden file.
func (l *featureLock) values(file string) (map[string]string, bool, error) {
	for _, f := range l.Values {
		if f.File == file {
			return f.Vars, true, nil
		}
	}
	return nil, false, nil
}

func (l *featureLock) took([]compose.FileValues) {}

// changedCompose returns the files that are not what was approved.
func changedCompose(c *project.Check, l *featureLock) (changed []string) {
	if l == nil || len(l.Compose) == 0 {
		return nil
	}
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return []string{c.Name}
	}
	defer root.Close()
	now := newComposeReader(root)
	for _, f := range l.Compose {
		b, err := now.read(f.Path)
		if f.Text == nil && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || f.Text == nil || !bytes.Equal(b, f.Text) {
			changed = append(changed, f.Path)
		}
	}
	for _, f := range l.Values {
		have, err := now.variables(f.File)
		maps.DeleteFunc(have, func(name, _ string) bool { _, ok := f.Vars[name]; return !ok })
		if err != nil || !maps.Equal(have, f.Vars) {
			changed = append(changed, f.File)
		}
	}
	return changed
}

// readCompose reads the compose files of a devcontainer.json in a folder of the project at dir.
func readCompose(c *devcontainer.Config, dir, folder string, files composeFiles) (*compose.Result, error) {
	r := compose.Request{Service: c.Compose.Service, Run: c.Compose.Run, Forward: c.Compose.Forward, Project: dir, Read: files.read, Values: files.values}
	for _, name := range c.Setup.ComposeFiles {
		at := filepath.Join(folder, name)
		if filepath.IsAbs(name) || !filepath.IsLocal(at) {
			return nil, fmt.Errorf("dockerComposeFile: %q does not lie in the project", name)
		}
		r.Files = append(r.Files, at)
	}
	rules, err := hiddenBy(dir)
	if err != nil {
		return nil, err
	}
	r.Hidden = func(name string) bool { return rules.HidesAny(dir, name) }
	out, err := compose.Load(r)
	if err != nil {
		return nil, fmt.Errorf("dockerComposeFile: %w", err)
	}
	files.took(out.Taken)
	out.NotTaken = slices.DeleteFunc(out.NotTaken, func(name string) bool { _, err := os.Lstat(filepath.Join(dir, name)); return err != nil })
	return out, nil
}

// hiddenBy returns what says which files of a project its sandboxes do not see, by themselves or by the approved
// bawn.yaml. What --hide of one of them hides is not in it: an approval is of the project.
func hiddenBy(dir string) (*guard.Rules, error) {
	approvals, err := project.Open()
	if err != nil {
		return nil, err
	}
	p, err := approvals.Proposal(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", project.Name, err)
	}
	_, paths := guard.Targets(dir)
	return guard.New(guard.Options{Hide: p.Hide, HiddenPaths: paths, Prefix: strings.Split(strings.Trim(dir, "/"), "/")})
}

// addService adds to a proposal what the service that is worked in asks for.
func addService(p *project.Proposal, s *compose.Service, dir string) error {
	p.Image = s.Image
	if s.Image != "" {
		if err := project.CheckImage(s.Image); err != nil {
			return err
		}
	}
	if b := s.Build; b != nil {
		p.Build = &project.Build{Context: b.Context, File: b.Dockerfile, Target: b.Target, Args: b.Args}
		if key, err := p.Build.Check(); err != nil {
			return fmt.Errorf("build: %s: %w", key, err)
		}
	}
	var volumes []sandbox.Volume
	for _, v := range s.Volumes {
		vol, err := volumeOf(devcontainer.Volume(v), dir, p.Setup.Mount)
		if err != nil {
			return err
		}
		volumes = append(volumes, vol)
	}
	addVolumes(p, volumes)
	for _, n := range s.Ports {
		port := sandbox.Port{Host: n.Host, Guest: n.Guest}
		if !slices.ContainsFunc(p.Ports, func(o sandbox.Port) bool { return o == port || o.Host == port.Host && port.Host != 0 }) {
			p.Ports = append(p.Ports, port)
		}
	}
	return nil
}
