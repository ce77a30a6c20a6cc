// Package project reads what a project asks of its sandbox: the file bawn.yaml at
// the root of its directory. The file is a proposal and hostile input, for the
// guest may write there. Nothing in it counts until the user has approved those
// very bytes; Approvals keeps what was approved, outside every shared directory.
//
// A Check reads the file once, and those same bytes are checked, shown, approved
// and used. What a sandbox is made from is always the approved copy.
package project

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/devcontainer"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/regular"
)

// Name is the file's name in the project directory.
const Name = "bawn.yaml"

// maxFile is the largest file that is read, in bytes.
const maxFile = 64 << 10

// Schema is the JSON Schema of the file. Parse is stricter: it also knows what a
// rule, a size and a port are.
//
//go:embed bawn.schema.json
var Schema []byte

// Proposal has the settings that a file asks for. A zero field asks for nothing.
type Proposal struct {
	Image     string           `json:"image,omitempty"`
	Build     *Build           `json:"build,omitempty"` // in place of Image
	CPUs      int              `json:"cpus,omitempty"`
	Memory    int64            `json:"memory,omitempty"`     // bytes
	Disk      int64            `json:"disk,omitempty"`       // bytes
	Mounts    []sandbox.Source `json:"mounts,omitempty"`     // as written; Resolve makes them absolute
	LocalDirs []string         `json:"local_dirs,omitempty"` // relative to the project
	Volumes   []sandbox.Volume `json:"volumes,omitempty"`
	Caches    []sandbox.Cache  `json:"caches,omitempty"`
	Ports     []sandbox.Port   `json:"ports,omitempty"`
	Allow     []string         `json:"allow,omitempty"` // rules in canonical form
	Deny      []string         `json:"deny,omitempty"`
	Guard     []string         `json:"guard,omitempty"` // patterns of paths that the guest may not change on the host
	Hide      []string         `json:"hide,omitempty"`  // patterns of paths that the guest does not see
	// Secrets are names of the secrets that the project's programs use. A name binds nothing: the
	// person sets the secret and its hosts.
	Secrets []string `json:"secrets,omitempty"`
	// Setup is what a devcontainer.json asks for beside that; bawn.yaml has none.
	Setup *Setup `json:"setup,omitempty"`
}

// Setup is what a devcontainer.json asks for beside a machine.
type Setup = devcontainer.Setup

// Policy returns the proposal's rules as a policy file. It is empty when there are
// none.
func (p *Proposal) Policy() []byte {
	var b strings.Builder
	for _, r := range p.Allow {
		fmt.Fprintf(&b, "%s %s\n", policy.Allow, r)
	}
	for _, r := range p.Deny {
		fmt.Fprintf(&b, "%s %s\n", policy.Deny, r)
	}
	return []byte(b.String())
}

// Resolve returns the mounts with absolute paths. A path with a symbolic link in it
// is refused: who may write to the link would choose what is shared, after the
// approval.
func (p *Proposal) Resolve(dir string) ([]sandbox.Source, error) {
	var list []sandbox.Source
	targets := map[string]bool{dir: true}
	for _, m := range p.Mounts {
		src, err := absolute(dir, m.Host)
		if err != nil {
			return nil, err
		}
		real, err := filepath.EvalSymlinks(src)
		if err != nil {
			return nil, fmt.Errorf("mount %q: %w", m.Host, err)
		}
		if real != src {
			return nil, fmt.Errorf("mount %q: %s contains a symbolic link and leads to %s: write that path instead", m.Host, src, real)
		}
		m.Host = src
		if m.Guest == "" {
			m.Guest = src
		}
		if targets[m.Guest] {
			return nil, fmt.Errorf("mount %q: %s is mounted already", m.Host, m.Guest)
		}
		targets[m.Guest] = true
		list = append(list, m)
	}
	return list, nil
}

// absolute returns where a mount's source lies. Only a home directory may be reached
// by a link: no guest can change it.
func absolute(dir, src string) (string, error) {
	rest, ok := strings.CutPrefix(src+"/", "~/")
	switch {
	case ok:
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("mount %q: %w", src, err)
		}
		if home, err = filepath.EvalSymlinks(home); err != nil {
			return "", fmt.Errorf("mount %q: %w", src, err)
		}
		return filepath.Join(home, rest), nil
	case filepath.IsAbs(src):
		return filepath.Clean(src), nil
	}
	return filepath.Join(dir, src), nil
}

// Status is the relation between a project's file and its approval.
type Status string

// The statuses. In all but None and Approved, the user has to decide.
const (
	None     Status = "none"     // no file, no approval
	Approved Status = "approved" // the file is what was approved
	New      Status = "new"      // never approved
	Changed  Status = "changed"  // since it was approved
	Removed  Status = "removed"  // since it was approved
)

// Check is a project's file as it was when it was read, and what was approved.
type Check struct {
	Dir      string
	Name     string // of the file, relative to Dir
	Status   Status
	Text     []byte    // of the file
	Proposal *Proposal // what the file asks for; nil when there is none, or Err
	Err      error     // why the file cannot be used
	Approved []byte    // what was approved, if anything

	// Beside is kept beside the approval: what the features and the compose files of a devcontainer.json are.
	Beside []byte
	// EnvFiles are hidden files of variables, relative to Dir, of which a compose file may have the values.
	EnvFiles []string
	// Others are other files of the project that changed since the approval.
	Others []string
	// Unfetched are the features that have to be fetched before the file can be approved.
	Unfetched []string
}

// File returns the path of the project's file.
func (c *Check) File() string { return filepath.Join(c.Dir, c.Name) }

// Settled reports whether the user has nothing to decide.
func (c *Check) Settled() bool { return c.Status == None || c.Status == Approved }

// Look reads the file of the project directory dir, which is absolute and
// without symbolic links, and compares it with what was approved. An error means
// that the approvals cannot be read; what is wrong with the file is in the Check.
func (a *Approvals) Look(dir string) (*Check, error) {
	approved, known, err := a.text(dir)
	if err != nil {
		return nil, err
	}
	c := &Check{Dir: dir, Name: a.name, Approved: approved}
	text, err := readIn(dir, a.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.Status = None
		if known {
			c.Status = Removed
		}
		return c, nil
	case !known:
		c.Status = New
	case err != nil || string(text) != string(approved):
		c.Status = Changed
	default:
		c.Status = Approved
	}
	c.Text, c.Err = text, err
	if err == nil {
		c.Proposal, c.Err = a.parse(c.File(), text)
	}
	return c, nil
}

// readIn reads a file of the project. It does not block on a pipe, and follows no symbolic link out of
// the project; bawn.yaml must not be one.
func readIn(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	if name == Name {
		return read(path)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	b, err := regular.ReadIn(root, name, maxFile)
	return b, readError(path, err)
}

// read reads a file. It follows no symbolic link and does not block on a pipe.
func read(path string) ([]byte, error) {
	b, err := regular.Read(path, maxFile, regular.NoFollow)
	return b, readError(path, err)
}

// readError says in plain words what is wrong with a file.
func readError(path string, err error) error {
	switch {
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s is a symbolic link: must be a regular file", path)
	case errors.Is(err, regular.ErrNotRegular):
		return fmt.Errorf("%s is not a regular file", path)
	case errors.Is(err, regular.ErrTooLarge):
		return fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return err
}
