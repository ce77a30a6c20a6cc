package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"bawn.dev/bawn/internal/devcontainer"
	"bawn.dev/bawn/internal/feature"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/share/guard"
)

// Theory of operation. Features are installed in a machine of their own, which boots from the image that the
// devcontainer.json names, describes or leaves out: any that a sandbox can have. Their scripts run there one
// after the other, as root. Then an image is made of the machine's disk, as bawn commit makes one, and the
// machine is removed. It is a builder (builder.go): without secrets, with the rules of builds and those that
// are approved for the build (build.allow). It sees nothing of the project: all of it is hidden.
//
// What is installed is what was approved: the digest of each feature is compared once more. No folder of the
// project that is a feature may have a file that is hidden from the sandbox. Values of options are variables
// of the script's environment, and pass through no shell.

// featureBuild is the image of a sandbox with the features installed.
type featureBuild struct {
	builtImage
	base      string // reference of the image that they are installed in
	noProject bool   // the approved bawn.yaml does not count
	root      bool   // commands in the sandbox run as root
	features  []devcontainer.Installed
	patterns  guard.Options // of the paths that the sandbox does not see
}

// featureImageRef returns the reference of that image.
func featureImageRef(spec *sandbox.Spec) string { return projectImageRef(spec) + featuresSuffix }

const featuresSuffix = "-features"

// ensure implements describedImage.
func (b *featureBuild) ensure(ctx context.Context) error {
	var base *Image
	return b.unlessThere(ctx, func() (digest string, known bool, err error) {
		if base, err = b.e.PullImage(ctx, b.base); err != nil {
			return "", false, err
		}
		return b.inputsOver(base.Digest), true, nil
	}, func(ctx context.Context) (*Image, error) { return b.build(ctx, base) })
}

// featureInputs is what the image follows from. Version changes when the same makes another image.
type featureInputs struct {
	Version  int
	Base     string
	User     string
	Features []featureInput
}

type featureInput struct {
	Digest       string
	Options, Env []string
}

// inputsOver returns the digest of what the image is made from, over a base image of that digest.
func (b *featureBuild) inputsOver(base string) string {
	in := featureInputs{Version: 1, Base: base, User: b.user()}
	for _, f := range b.features {
		in.Features = append(in.Features, featureInput{f.Digest, f.Options, f.Feature.Env})
	}
	text, _ := json.Marshal(in) // of texts, which can be written
	return sha256Of(text)
}

// inputs implements describedImage.
func (b *featureBuild) inputs() (digest string, known bool) {
	list, err := b.e.Images()
	at := slices.IndexFunc(list, func(i Image) bool { return i.Ref == b.base && !i.Superseded })
	if err != nil || at < 0 {
		return "", false
	}
	return b.inputsOver(list[at].Digest), true
}

// user returns the account in the guest that the sandbox's commands run as.
func (b *featureBuild) user() string {
	if b.root {
		return "root"
	}
	return GuestUser().Name
}

// build makes the image over a base image.
func (b *featureBuild) build(ctx context.Context, base *Image) (img *Image, err error) {
	contents, err := b.contents(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	s, err := b.start(ctx, base)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }() // which removes the machine
	env := withPath(s.Spec.Boot.ImageEnv)
	for i, f := range b.features {
		if env, err = devcontainer.ExpandFeatureEnv(env, f.Feature.Env); err == nil {
			err = b.install(ctx, s, f, contents[i], env, i)
		}
		var failed *Error
		if errors.As(err, &failed) && failed.Reason == BuildFailed {
			failed.Fields = b.e.deniedSince(ctx, s.Spec.Name, began)
		}
		if err != nil {
			return nil, err
		}
	}
	return b.save(ctx, s, env, base.Size)
}

// contents returns what is installed, which is what was approved.
func (b *featureBuild) contents(ctx context.Context) (list []*feature.Contents, err error) {
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for _, f := range b.features {
		var c *feature.Contents
		if f.Path == "" {
			c, err = b.e.fetchFeature(ctx, f.Ref)
		} else {
			c, err = b.folder(root, f)
		}
		if err != nil {
			return nil, b.failed(fmt.Errorf("feature %s: %w", f.ID, err))
		}
		list = append(list, c)
	}
	return list, nil
}

// folder returns the contents of a feature of the project. A file that the sandbox does not see would be in its
// image.
func (b *featureBuild) folder(root *os.Root, f devcontainer.Installed) (*feature.Contents, error) {
	c, err := feature.Read(root, f.Path)
	if err != nil {
		return nil, err
	}
	if c.Digest() != f.Digest {
		return nil, errors.New("it has changed since you approved it")
	}
	o := b.patterns
	_, o.HiddenPaths = guard.Targets(b.dir)
	o.Prefix = strings.Split(strings.Trim(b.dir, "/"), "/")
	rules, err := guard.New(o)
	if err != nil {
		return nil, err
	}
	for _, name := range c.Names() {
		if at := filepath.Join(f.Path, name); rules.HidesAny(b.dir, at) {
			return nil, fmt.Errorf("its folder has %q, which is hidden from the sandbox: move it, or show it (--show)", at)
		}
	}
	return c, nil
}

// start starts the machine.
func (b *featureBuild) start(ctx context.Context, base *Image) (*Session, error) {
	yes, all := true, []string{"*"}
	r := &Request{Dir: b.dir, Throwaway: true, Builder: true, ForProject: true, Change: SpecChange{
		Image: &base.Digest, Allow: BuildRules, Hide: &all, NoProject: &b.noProject, NoGitIdentity: &yes,
	}}
	in, err := b.e.resolve(ctx, r)
	if err != nil {
		return nil, err
	}
	s, err := b.e.begin(ctx, in, &r.Change, "root")
	if err != nil {
		return nil, err
	}
	if err := s.Connect(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// featureFolder is the folder of the guest with the feature of that index. It is no part of an image.
func featureFolder(i int) string { return "/var/tmp/bawn-feature-" + strconv.Itoa(i) }

// unpackScript unpacks the archive on its standard input in the folder $1.
const unpackScript = `rm -rf "$1"; mkdir -m 0755 "$1"; tar -xf - -C "$1"`

// installScript runs the script of the feature in the folder $1 for the account $2. The name of the
// script is a constant of the specification.
const installScript = `
cd "$1"
chmod 0755 install.sh
home=
while IFS=: read -r name _ _ _ _ dir _; do
	if [ "$name" = "$2" ]; then home=$dir; break; fi
done </etc/passwd
export _REMOTE_USER="$2" _CONTAINER_USER="$2" _REMOTE_USER_HOME="$home" _CONTAINER_USER_HOME="$home"
exec ./install.sh`

// install installs one feature, in an environment.
func (b *featureBuild) install(ctx context.Context, s *Session, f devcontainer.Installed, c *feature.Contents, env []string, i int) (err error) {
	folder := featureFolder(i)
	if _, err := b.e.guestCommand(ctx, s, c.Tar(), "/bin/sh", "-euc", unpackScript, "sh", folder); err != nil {
		return b.failed(fmt.Errorf("feature %s: the image needs a shell and tar: %w", f.ID, err))
	}
	t := b.e.progress().Start("Installing the feature "+f.ID, 0, 0)
	defer func() { t.Done(err) }()
	out := newLastLines(t.Note)
	exit, err := s.Run(ctx, session.Command{
		Argv: []string{"/bin/sh", "-euc", installScript, "sh", folder, b.user()},
		Dir:  "/", Env: slices.Concat(env, f.Options), Stdout: out, Stderr: out, WaitOutput: true,
	})
	if ctx.Err() != nil { // which has closed the connection
		return context.Cause(ctx)
	}
	if err == nil && exit.Status != 0 {
		err = b.failed(fmt.Errorf("the feature %s was not installed (exit status %d); it says:\n%s", f.ID, exit.Status, out))
	}
	return err
}

// save makes an image of the machine's disk.
func (b *featureBuild) save(ctx context.Context, s *Session, env []string, base int64) (*Image, error) {
	images, err := b.e.images()
	if err != nil {
		return nil, err
	}
	tree, err := b.e.packGuest(ctx, s.Spec)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tree.Close() }() // it was only read
	return images.SaveAs(ctx, b.ref, tree, env, s.Spec.Disk+base, b.e.progress())
}
