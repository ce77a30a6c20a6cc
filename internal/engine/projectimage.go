package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/lines"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/xdg"
)

// Theory of operation. The approved bawn.yaml of a project may describe an image (build:). Its name
// follows from the project's path (projectImageRef), so that specs refer to it before it is built.
// Before a sandbox is made, withProjectImage builds it (StartBuild has how), unless the image is
// there and its inputs are what they were (buildinputs.go): the note of the last build has them.
// A sandbox that was started keeps the image that its disk is laid over, whatever is built later.
//
// The builder sees the whole project read-only, without the paths that are hidden from the
// sandbox, and the context is a directory of it. What a link in the project leads to outside of it
// is not there. Its rules are BuildRules and those of build.allow: neither the sandbox's rules nor
// what was allowed to bawn image build apply.

const (
	// BuildFailed is the reason of an error: the image that bawn.yaml describes was not built (Sandbox: the builder; Path: the
	// project; Fields: rules that the build lacked).
	BuildFailed Reason = "project-build-failed"
	// ImageOlder is the reason of a notice: the sandbox has an older image than bawn.yaml describes (Sandbox).
	ImageOlder Reason = "image-older"
)

// projectImageRef returns the reference of the image that is built for a sandbox: one for each project,
// and one for each devcontainer.json of it.
func projectImageRef(spec *sandbox.Spec) string {
	return image.LocalPrefix + "project/" + sandbox.NameFor(spec.Dir) + "-" + imageKey(spec)[:12]
}

// imageKey identifies the image that is built for a sandbox.
func imageKey(spec *sandbox.Spec) string {
	key := spec.Dir
	if spec.Devcontainer != "" {
		key += "\x00" + spec.Devcontainer // which is in no path
	}
	return sha256Of([]byte(key))
}

// forBuilder returns what is approved for the builder of a proposal's image.
func forBuilder(p *project.Proposal) *project.Proposal {
	if p.Build == nil {
		return &project.Proposal{}
	}
	return &project.Proposal{Allow: p.Build.Allow}
}

// withProjectImage builds the image that the approved bawn.yaml of a request's project describes,
// if the request needs it and it is not there. For a sandbox that has another image by now, it
// sends a notice.
func (e *Engine) withProjectImage(ctx context.Context, r *Request) error {
	spec, err := e.asked(r)
	if err != nil || r.Change.Image != nil || slices.Contains(spec.Given, "image") {
		return err
	}
	p, err := approvedProposal(e.sandboxes, spec)
	if err != nil {
		return err
	}
	own := spec.Patterns
	put(&own.Hide, r.Change.Hide)
	put(&own.Show, r.Change.Show)
	isEmpty := func(s string) bool { return s == "" } // a list of one empty pattern is none
	hide := slices.DeleteFunc(slices.Concat(p.Hide, own.Hide), isEmpty)
	base := cmp.Or(p.Image, DefaultImage)
	var images []describedImage // each is made of the one before
	if p.Build != nil {
		b := &projectBuild{
			builtImage: builtImage{e: e, dir: spec.Dir, key: imageKey(spec), ref: projectImageRef(spec)},
			Build:      p.Build, noProject: spec.NoProject, hide: hide,
		}
		images, base = append(images, b), b.ref
	}
	if hasFeatures(p) {
		images = append(images, &featureBuild{
			builtImage: builtImage{e: e, dir: spec.Dir, key: imageKey(spec) + featuresSuffix, ref: featureImageRef(spec)},
			base:       base, noProject: spec.NoProject, root: p.Setup.Root, features: p.Setup.Installed,
			patterns: guard.Options{Hide: hide, Show: slices.DeleteFunc(slices.Clone(own.Show), isEmpty)},
		})
	}
	if len(images) > 0 && spec.Boot.ImageDigest != "" {
		return e.sayOlderImage(spec, images[len(images)-1])
	}
	for _, i := range images {
		if err := i.ensure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// describedImage is an image that is made for a project.
type describedImage interface {
	image() *builtImage
	// ensure makes the image, unless it is there and its inputs are those of the last time.
	ensure(ctx context.Context) error
	// inputs returns the digest of what it would be made from now. known is false if that cannot be told, or
	// not without fetching something.
	inputs() (digest string, known bool)
}

// sayOlderImage sends a notice if a sandbox that is about to start has another image than would be made
// now.
func (e *Engine) sayOlderImage(spec *sandbox.Spec, described describedImage) error {
	b := described.image()
	st, err := e.sandboxes.Dir(spec.Name).State()
	if err != nil || st.Phase == sandbox.Running || spec.Added.Image != b.ref {
		return err // of an image that is named otherwise, keepDisk tells
	}
	note, err := b.note()
	if err != nil || note.Digest == "" {
		return err
	}
	if note.Digest == spec.Boot.ImageDigest {
		if inputs, known := described.inputs(); !known || inputs == note.Inputs {
			return nil // the same, or it cannot be told
		}
	}
	e.notify(Notice{Reason: ImageOlder, Sandbox: spec.Name, Text: fmt.Sprintf("sandbox %s keeps its image, which is older than the one that the project describes by now", spec.Name)})
	return nil
}

// builtImage is an image that is made for the sandboxes of a project.
type builtImage struct {
	e   *Engine
	dir string // of the project
	key string // of its note
	ref string // of the image
}

func (b *builtImage) image() *builtImage { return b }

// projectBuild is the image of one project that its file describes (build:).
type projectBuild struct {
	builtImage
	*project.Build
	noProject bool     // the approved bawn.yaml does not count
	hide      []string // patterns of paths that the builder does not see
}

// builtNote notes what the present image of a project was built from.
type builtNote struct {
	Inputs string `json:"inputs"` // describedImage.inputs, empty where it was not known
	Digest string `json:"digest"` // of the image
}

// noteFile returns the file of the project's builtNote.
func (b *builtImage) noteFile() (string, error) {
	cache, err := xdg.Cache()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "builds", b.key+".json"), nil
}

// note returns the note of the last build; one that is damaged or not there is empty.
func (b *builtImage) note() (n builtNote, err error) {
	file, err := b.noteFile()
	if err != nil {
		return n, err
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return n, err
	}
	if json.Unmarshal(text, &n) != nil {
		n = builtNote{}
	}
	return n, nil
}

// unlessThere calls build, which makes the image, unless that is there and its inputs are those of the last
// build. Two processes that need the image build it once.
func (b *builtImage) unlessThere(ctx context.Context, inputs func() (digest string, known bool, err error), build func(context.Context) (*Image, error)) error {
	file, err := b.noteFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	var l *lockfile.Lock
	err = b.e.during("Waiting for another build of "+b.dir, func() error {
		l, err = lockfile.Acquire(ctx, file+".lock")
		return err
	})
	if err != nil {
		return err
	}
	defer l.Close()
	now, known, err := inputs() // before the build: what changes meanwhile is built the next time
	if err != nil {
		return err
	}
	note, err := b.note()
	if err != nil {
		return err
	}
	there, err := b.there(note.Digest)
	if err != nil || there && known && now == note.Inputs {
		return err
	}
	img, err := build(ctx)
	if err != nil {
		return err
	}
	return atomicfile.WriteJSON(file, builtNote{Inputs: now, Digest: img.Digest})
}

// ensure implements describedImage.
func (b *projectBuild) ensure(ctx context.Context) error {
	return b.unlessThere(ctx, func() (digest string, known bool, err error) {
		if err := b.checkFiles(); err != nil {
			return "", false, err
		}
		digest, known = b.inputs()
		return digest, known, nil
	}, b.build)
}

// there reports whether the project's image is the one with that digest.
func (b *builtImage) there(digest string) (bool, error) {
	list, err := b.e.Images()
	return slices.ContainsFunc(list, func(i Image) bool { return i.Ref == b.ref && i.Digest == digest }), err
}

// checkFiles returns an error unless the context is a directory and the Dockerfile a regular file: the
// builder would wait for the writer of a FIFO.
func (b *projectBuild) checkFiles() error {
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, c := range []struct {
		path, what string
		fits       func(fs.FileMode) bool
	}{{b.Context, "directory", fs.FileMode.IsDir}, {b.Dockerfile(), "regular file", fs.FileMode.IsRegular}} {
		fi, err := root.Stat(c.path)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s does not exist", filepath.Join(b.dir, c.path))
		} else if err == nil && !c.fits(fi.Mode()) {
			err = fmt.Errorf("%s is not a %s", filepath.Join(b.dir, c.path), c.what)
		}
		if err != nil {
			return b.failed(fmt.Errorf("the image of the project was not built: %w", err))
		}
	}
	return nil
}

func (b *builtImage) failed(err error) *Error {
	return &Error{Reason: BuildFailed, Path: b.dir, Err: err}
}

// build builds the image in the project's builder.
func (b *projectBuild) build(ctx context.Context) (img *Image, err error) {
	build, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, build.Close()) }()
	t := b.e.progress().Start("Building the image of "+b.dir, 0, 0)
	out := newLastLines(t.Note)
	exit, err := build.Run(ctx, session.Command{Stdout: out, Stderr: out, WaitOutput: true})
	if ctx.Err() != nil { // which has closed the connection
		err = context.Cause(ctx)
	}
	if err == nil && exit.Status != 0 {
		failed := b.failed(fmt.Errorf("the image of %s was not built (exit status %d); docker says:\n%s", b.dir, exit.Status, out))
		failed.Sandbox, failed.Fields = build.Builder(), build.Denied(ctx)
		err = failed
	}
	t.Done(err)
	if err != nil {
		return nil, err
	}
	return build.Save(ctx)
}

// start starts the project's builder and prepares the build.
func (b *projectBuild) start(ctx context.Context) (*Build, error) {
	file := dockerfile{inContext: true, path: filepath.Join(b.dir, b.Dockerfile())}
	r := &BuildRequest{Target: b.Target, Args: b.Args, Progress: "plain"}
	build := &Build{e: b.e, ref: b.ref, argv: buildCommand(r, file, filepath.Join(b.dir, b.Context))}
	yes, hide := true, b.hide
	if len(hide) == 0 {
		hide = []string{""} // none
	}
	// The approved rules come from the project's policy (forBuilder), so that they go with the approval.
	err := build.open(ctx, &Request{Dir: b.dir, Builder: true, ForProject: true, Change: SpecChange{
		Allow: BuildRules, Hide: &hide, NoProject: &b.noProject, NoGitIdentity: &yes,
	}})
	if err != nil {
		return nil, err
	}
	if err := build.prepare(ctx, r, file); err != nil {
		return nil, errors.Join(err, build.Close())
	}
	return build, nil
}

const (
	maxLastLines = 40
	maxLastLine  = 500 // bytes
)

// lastLines is a writer that keeps the last lines of a text, within limits. It never fails, and may
// be the standard output and error of a command at once.
type lastLines struct {
	each func(line string) // called with each line; may be nil

	mu    sync.Mutex
	split lines.Splitter
	kept  []string
}

func newLastLines(each func(line string)) *lastLines {
	l := &lastLines{each: each}
	l.split = lines.Splitter{Limit: maxLastLine, Cut: true, Each: func(line []byte) error {
		l.keep(line)
		return nil
	}}
	return l
}

// Write implements io.Writer.
func (l *lastLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.split.Write(b)
}

func (l *lastLines) keep(text []byte) {
	line := string(bytes.TrimRight(text, "\r \t"))
	if line == "" {
		return
	}
	if l.each != nil {
		l.each(line)
	}
	if l.kept = append(l.kept, line); len(l.kept) > maxLastLines {
		l.kept = slices.Clone(l.kept[1:])
	}
}

// String returns the lines, with what is left of an unfinished one.
func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(l.split.Rest())
	l.split.Reset()
	return strings.Join(l.kept, "\n")
}
