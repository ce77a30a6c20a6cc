package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// Theory of operation. An image is built by the Docker daemon (BuildKit) of a sandbox of its
// own, the builder of the context's directory, and never by a program of the host:
//
//	StartBuild   finds or makes the builder (builder.go), starts it, and puts into its memory
//	             (/run) what does not lie in the context: a Dockerfile of elsewhere, secrets;
//	Run          runs docker buildx build, whose output is the caller's;
//	Save         has the guest send the image in the format of docker save, and makes an image
//	             of it (package image), as hostile as any that a guest made;
//	Close        stops the machine. Its disk stays, with BuildKit's cache.
//
// A builder sees its context read-only, without the hidden paths (package guard), and applies
// .dockerignore to the rest. It has rules of its own and no secrets of the person's. Since each
// directory has a builder of its own, no project's build can poison the cache of another's.
//
// FROM bawn/default is the image that the builder itself boots from, which is the present
// default image: a builder of an older one is removed. The guest imports it from its read-only
// disk once, when a build first names it.

// The reasons about builds.
const (
	// BuildContext: the context of a build cannot be used (Path).
	BuildContext Reason = "build-context"
	// NoDockerfile: there is no Dockerfile (Path of where one was looked for).
	NoDockerfile Reason = "dockerfile-not-found"
	// BuilderRenewed is a notice: the default image changed, so that the cache of earlier
	// builds was removed (Sandbox).
	BuilderRenewed Reason = "builder-renewed"
	// BuilderKeepsImage is a notice: the image is made, and the builder keeps a copy of it (Sandbox).
	BuilderKeepsImage Reason = "builder-keeps-image"
)

// BuildRules are the rules that each builder has: base images come from Docker Hub, and packages
// from the distributions on which most of them are based.
var BuildRules = []string{"preset:dockerhub", "preset:debian", "preset:ubuntu", "preset:alpine"}

// BuildRequest says what to build.
type BuildRequest struct {
	Context string    // directory
	File    string    // Dockerfile; empty is the context's, "-" is Stdin
	Stdin   io.Reader // read if File is "-"

	Tag     string // name of the image; empty is build/ and the context's name
	Target  string // stage; empty is the last
	Args    []string
	Secrets []BuildSecret
	NoCache bool
	// Progress is how Docker shows what it does: auto, plain or tty. Empty is auto.
	Progress string

	Allow []string  // rules that the builder gets, beside BuildRules
	Show  *[]string // patterns of hidden paths that the builder sees
}

// BuildSecret is a file that instructions with RUN --mount=type=secret see.
type BuildSecret struct {
	ID    string
	Value []byte
}

// Build is a build under way. The caller closes it. It is for one goroutine.
type Build struct {
	e      *Engine
	ref    string // of the image
	argv   []string
	s      *Session
	lock   *lockfile.Lock
	began  time.Time // when open was called: earlier denials are not this build's
	most   int64     // bytes that the guest may send
	closed bool
}

// buildFolder is the directory of the guest, in memory, with the files of a build that do not lie in
// its context.
const buildFolder = "/run/bawn-build"

// builtTag is the name of the result in the builder's Docker.
const builtTag = "bawn-build:result"

// StartBuild checks the request, starts the builder of its context and prepares the build. Two
// builds of one directory run one after the other.
func (e *Engine) StartBuild(ctx context.Context, r BuildRequest) (*Build, error) {
	dir, err := buildContext(r.Context)
	if err != nil {
		return nil, err
	}
	if err := e.sandboxes.CheckShare(dir, true); err != nil { // before minutes are spent on an image
		return nil, err
	}
	file, err := findDockerfile(dir, r.File, r.Stdin, e.OpenSource)
	if err != nil {
		return nil, err
	}
	tag := r.Tag
	if tag == "" {
		tag = "build/" + sandbox.NameFor(dir) // a project named python must not change what the image python is
	}
	ref, err := image.TagRef(tag)
	if err != nil {
		return nil, err
	}
	for _, c := range (&SpecChange{Allow: r.Allow}).rules() {
		if err := c.Check(); err != nil {
			return nil, err
		}
	}
	b := &Build{e: e, ref: ref, argv: buildCommand(&r, file, dir)}
	yes := true
	if err := b.open(ctx, &Request{Dir: dir, Builder: true, Change: SpecChange{
		Allow: slices.Concat(BuildRules, r.Allow), Show: r.Show, NoProject: &yes, NoGitIdentity: &yes,
	}}); err != nil {
		return nil, err
	}
	if err := b.prepare(ctx, &r, file); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// buildCommand returns Docker's command in the guest.
func buildCommand(r *BuildRequest, file dockerfile, dir string) []string {
	argv := []string{"docker", "buildx", "build", "--tag", builtTag, "--file", file.guest()}
	if r.Progress != "" {
		argv = append(argv, "--progress", r.Progress)
	}
	if r.NoCache {
		argv = append(argv, "--no-cache")
	}
	if r.Target != "" {
		argv = append(argv, "--target", r.Target)
	}
	for _, a := range r.Args {
		argv = append(argv, "--build-arg", a)
	}
	for i, s := range r.Secrets {
		argv = append(argv, "--secret", fmt.Sprintf("id=%s,src=%s", s.ID, secretFile(i)))
	}
	return append(argv, "--", dir)
}

// secretFile returns the path in the guest of the secret with that index.
func secretFile(i int) string { return buildFolder + "/secret-" + strconv.Itoa(i) }

// prepare puts the files of the build into the guest, and imports the default image if the
// build needs it.
func (b *Build) prepare(ctx context.Context, r *BuildRequest, file dockerfile) error {
	if _, err := b.guest(ctx, nil, "sh", "-euc", `rm -rf "$1"; mkdir -m 0700 "$1"`, "sh", buildFolder); err != nil {
		return err
	}
	files := map[string][]byte{}
	if !file.inContext {
		files[file.guest()] = file.text
		if file.ignore != nil {
			files[file.guest()+ignoreSuffix] = file.ignore
		}
	}
	for i, s := range r.Secrets {
		files[secretFile(i)] = s.Value
	}
	for path, content := range files {
		if _, err := b.guest(ctx, content, "sh", "-euc", `umask 077; cat >"$1"`, "sh", path); err != nil {
			return err
		}
	}
	named := slices.ContainsFunc(r.Args, func(a string) bool { return strings.Contains(a, image.BaseTag) })
	if !named {
		status, err := b.guest(ctx, nil, "grep", "-qsF", image.BaseTag, file.guest())
		if err != nil && status != 1 && status != 2 { // 1: it is not named; 2: there is no such file, which Docker reports
			return err
		}
		named = status == 0
	}
	if !named {
		return nil
	}
	return b.e.during("Making "+image.BaseTag+" available to the build", func() error {
		_, err := b.guest(ctx, nil, "bash", "-euo", "pipefail", "-c", importScript, "bash", buildFolder+"/base", image.BaseTag)
		return err
	})
}

// importScript imports the disk image that the guest was booted from, as it was built, under the
// name of its second argument, unless that was done before. The first is a directory to be made.
const importScript = `
if docker image inspect "$2" >/dev/null 2>&1; then exit 0; fi
mkdir "$1"
for d in /sys/block/*; do
	[ "$(tr -d "\\0\\n" <"$d/serial" 2>/dev/null)" = bawn-image ] || continue
	exec unshare -m bash -euo pipefail -c '
		mount -t ext4 -o ro "$1" "$2"
		tar -C "$2" --exclude=./lost+found --numeric-owner --xattrs --xattrs-include="*" -cf - . | docker import --change "CMD [\"bash\"]" - "$3" >/dev/null
	' bash "/dev/${d##*/}" "$1" "$2"
done
echo "the disk of the image is not there" >&2
exit 1`

// guest runs a command in the builder, as guestCommand does.
func (b *Build) guest(ctx context.Context, input []byte, argv ...string) (status int, err error) {
	return b.e.guestCommand(ctx, b.s, input, argv...)
}

// guestCommand runs a command in a builder, with that input. What it prints is reported as
// GuestMessage, and a status other than 0 is an error, too.
func (e *Engine) guestCommand(ctx context.Context, s *Session, input []byte, argv ...string) (status int, err error) {
	messages := e.newLineNotices(s.Spec.Name)
	cmd := session.Command{Argv: argv, Dir: "/", Stdout: io.Discard, Stderr: messages, WaitOutput: true}
	if input != nil {
		if cmd.Stdin, err = inputOf(input); err != nil {
			return 0, err
		}
		defer cmd.Stdin.Close()
	}
	exit, err := s.Run(ctx, cmd)
	messages.flush()
	if err == nil && exit.Status != 0 {
		err = failf(CommandFailed, s.Spec.Name, "the builder could not prepare the build: %s failed (exit status %d)", argv[0], exit.Status)
	}
	return exit.Status, err
}

// inputOf returns the end of a pipe from which these bytes are read. Close it, which ends what writes them.
func inputOf(b []byte) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() {
		_, _ = w.Write(b)
		w.Close()
	}()
	return r, nil
}

// Run builds the image, with the streams, the terminal and the signals of cmd, and returns
// how Docker's command ended. It returns the errors of Session.Run.
func (b *Build) Run(ctx context.Context, cmd session.Command) (session.Exit, error) {
	cmd.Argv, cmd.Dir, cmd.Env = b.argv, "/", append(cmd.Env, "BUILDX_NO_DEFAULT_ATTESTATIONS=1")
	return b.s.Run(ctx, cmd)
}

// Save makes an image of what Run has built. If that fails, no image is made.
func (b *Build) Save(ctx context.Context) (*Image, error) {
	s, err := b.e.images()
	if err != nil {
		return nil, err
	}
	if err := b.s.Connect(ctx); err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		messages := b.e.newLineNotices(b.s.Spec.Name)
		exit, err := b.s.conn.Run(ctx, session.Command{Argv: []string{"docker", "save", builtTag}, Dir: "/", Stdout: w, Stderr: messages, WaitOutput: true})
		messages.flush()
		if err == nil && exit.Status != 0 {
			err = fmt.Errorf("the builder did not send the image (exit status %d)", exit.Status)
		}
		w.CloseWithError(err) // nil becomes io.EOF
	}()
	i, err := s.SaveArchive(ctx, b.ref, r, b.most, b.e.progress())
	r.Close() // ends the sending, if it goes on
	<-sent
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	// The layers stay in BuildKit's cache. The image is made, whatever becomes of the builder's copy.
	if _, err := b.guest(ctx, nil, "docker", "image", "rm", builtTag); err != nil {
		b.e.notify(Notice{Reason: BuilderKeepsImage, Sandbox: b.s.Spec.Name, Text: "the builder keeps a copy of the image, which the next build replaces: " + err.Error()})
	}
	return i, nil
}

// maxDenied bounds the rules that Denied returns.
const maxDenied = 8

// Denied returns the rules that the build lacked so far, in the order of their denials. What
// cannot be read counts as nothing.
func (b *Build) Denied(ctx context.Context) (rules []string) {
	return b.e.deniedSince(ctx, b.s.Spec.Name, b.began)
}

// deniedSince is Denied for a builder and a time.
func (e *Engine) deniedSince(ctx context.Context, builder string, began time.Time) (rules []string) {
	_ = e.ReadNetLog(ctx, builder, func(entry LogEntry) error {
		if !entry.Time.Before(began) && lacksRule(entry) && !slices.Contains(rules, entry.Suggest) && len(rules) < maxDenied {
			rules = append(rules, entry.Suggest)
		}
		return nil
	})
	return rules
}

// Builder returns the name of the sandbox that the image is built in.
func (b *Build) Builder() string { return b.s.Spec.Name }

// Close ends the connection and stops the builder, and returns when its supervisor is gone. What
// a build had in memory, such as its secrets, is gone with it. It has no context, so that nothing
// interrupts it.
func (b *Build) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	defer b.lock.Close()
	_ = b.s.Close() // the machine is stopped
	err := b.e.Stop(context.Background(), b.s.Spec.Name, false)
	if store.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) || ReasonOf(err) == NotFound {
		return nil // removed meanwhile
	}
	return err
}

// open starts the builder of a request and connects to it.
func (b *Build) open(ctx context.Context, r *Request) error {
	b.began = time.Now()
	base, err := b.e.PullImage(ctx, DefaultImage)
	if err != nil {
		return err
	}
	b.s, b.lock, err = b.e.startBuilder(ctx, r, base)
	if err != nil {
		return err
	}
	b.most = b.s.Spec.Disk + base.Size
	if err := b.s.Connect(ctx); err != nil {
		return errors.Join(err, b.Close())
	}
	return nil
}
