package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/compose"
	"bawn.dev/bawn/internal/devcontainer"
	"bawn.dev/bawn/internal/feature"
	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sys/regular"
	"bawn.dev/bawn/internal/sys/xdg"
)

// Theory of operation. The features of a devcontainer.json (package devcontainer) are folders of the
// project, or lie in registries. What they ask for is a part of what a person approves:
//
//	CheckDevcontainer   reads those of the project. Nothing is fetched: the file may come from the guest,
//	                    and a request that it chooses would carry what it likes to whom it likes.
//	FetchFeatures       is called once the person agreed to that. It fetches the features and what they
//	                    depend on, from no other registry than the file names.
//	Approve             keeps, beside the bytes of the file, what was found (featureLock): each feature with
//	                    its digest, options and description, in the order of installation.
//
// From then on that counts, and no registry is asked what a version means. A change of the file, of a
// folder with a feature, or of devcontainer-lock.json asks again. featurebuild.go installs the features.

// FeaturesUnfetched is the reason of an error: features have to be fetched, and looked at, before a file
// is approved.
const FeaturesUnfetched Reason = "features-not-fetched"

// featureLock is what is kept beside the approval of a devcontainer.json with features or compose files.
type featureLock struct {
	Of       string                   `json:"of"`                 // SHA-256 of the file's bytes
	LockFile string                   `json:"lockFile,omitempty"` // SHA-256 of devcontainer-lock.json; empty if there was none
	Features []devcontainer.Installed `json:"features"`
	Compose  []composeFile            `json:"compose,omitempty"` // all that was read for dockerComposeFile
	Values   []compose.FileValues     `json:"values,omitempty"`  // what its files have of hidden files of variables
}

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// lockOf returns the featureLock that was approved with the bytes of a file, or nil.
func lockOf(approvals *project.Approvals, dir string, text []byte) (*featureLock, error) {
	b, err := approvals.Beside(dir)
	if err != nil || b == nil {
		return nil, err
	}
	var l featureLock
	if err := json.Unmarshal(b, &l); err != nil || l.Of != sha256Of(text) {
		return nil, nil //nolint:nilnil,nilerr // it belongs to other bytes
	}
	return &l, nil
}

// hasFeatures reports whether a proposal asks for features, and unresolved whether it is not known which
// ones these are.
func hasFeatures(p *project.Proposal) bool {
	return p != nil && p.Setup != nil && len(p.Setup.Features) > 0
}

func unresolved(p *project.Proposal) bool {
	return hasFeatures(p) && len(p.Setup.Installed) == 0 || hasCompose(p) && p.Setup.Stack == nil
}

// addFeatures adds to the proposal of a devcontainer.json what its features ask for: they are installed in
// the image, their commands run before its own, and volumes of the file take precedence over theirs.
func addFeatures(p *project.Proposal, list []devcontainer.Installed, dir string) error {
	setup := *p.Setup
	setup.Installed, setup.Hooks = list, devcontainer.WithFeatures(setup.Hooks, list)
	p.Setup = &setup
	more := &project.Proposal{Setup: p.Setup}
	for _, f := range list {
		for _, v := range f.Feature.Volumes {
			vol, err := volumeOf(v, dir, setup.Mount)
			if err != nil {
				return fmt.Errorf("feature %s: %w", f.ID, err)
			}
			more.Volumes = append(more.Volumes, vol)
		}
	}
	addVolumes(p, more.Volumes)
	return nil
}

// checkBeside completes the check of a devcontainer.json that has features or compose files.
func (e *Engine) checkBeside(c *project.Check, approvals *project.Approvals) error {
	if c.Err != nil || !hasFeatures(c.Proposal) && !hasCompose(c.Proposal) {
		return nil //nolint:nilerr // what is wrong with the file is in the Check
	}
	if c.Status == project.Approved && !unresolved(c.Proposal) && len(c.EnvFiles) == 0 {
		l, err := lockOf(approvals, c.Dir, c.Text)
		if err != nil {
			return err
		}
		c.Others = append(changedFeatures(c, l), changedCompose(c, l)...)
		if len(c.Others) == 0 {
			return nil
		}
	}
	before, err := approvals.Beside(c.Dir)
	if err == nil {
		err = e.lookBeside(c, nil)
	}
	if c.Status == project.Approved && (len(c.Others) > 0 || c.Err != nil || c.Beside == nil || !bytes.Equal(c.Beside, before)) {
		c.Status = project.Changed
	}
	return err
}

// changedFeatures returns the files of the project, beside devcontainer.json, that are not what was
// approved of features.
func changedFeatures(c *project.Check, l *featureLock) (changed []string) {
	if l == nil || len(l.Features) == 0 {
		return nil
	}
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return []string{c.Name}
	}
	defer root.Close()
	if text, err := readFeatureLockFile(root, c.Name); err != nil || sumOrNone(text) != l.LockFile {
		changed = append(changed, lockFileName(c.Name))
	}
	for _, f := range l.Features {
		if f.Path == "" {
			continue
		}
		if now, err := feature.Read(root, f.Path); err != nil || now.Digest() != f.Digest {
			changed = append(changed, f.Path)
		}
	}
	return changed
}

// FetchFeatures fetches the features that the Check has not fetched, and completes it with what they are
// and ask for. What is wrong with them is in the Check.
func (e *Engine) FetchFeatures(ctx context.Context, c *project.Check) error {
	if len(c.Unfetched) == 0 {
		return nil
	}
	return e.during("Fetching features", func() error { return e.lookBeside(c, ctx) })
}

// permitted returns which variables of hidden files the compose files may have: all of those files that the person
// names now, and of others the ones that were approved before. So a compose file that the guest changed does not get
// another one, even if the person approves the change.
func (e *Engine) permitted(c *project.Check) (func(file, name string) bool, error) {
	approvals, err := approvalsOfFile(e.sandboxes, c.Dir, c.Name)
	if err != nil {
		return nil, err
	}
	b, err := approvals.Beside(c.Dir)
	if err != nil {
		return nil, err
	}
	var l featureLock
	if b != nil && json.Unmarshal(b, &l) != nil {
		l.Values = nil
	}
	return func(file, name string) bool {
		return slices.Contains(c.EnvFiles, file) || slices.ContainsFunc(l.Values, func(f compose.FileValues) bool {
			_, ok := f.Vars[name]
			return ok && f.File == file
		})
	}, nil
}

// lookBeside reads the compose files of a Check and finds its features. Without a context none is fetched.
func (e *Engine) lookBeside(c *project.Check, ctx context.Context) error {
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	c.Proposal, c.Unfetched, c.Beside = nil, nil, nil
	l := &featureLock{Of: sha256Of(c.Text)}
	files := newComposeReader(root)
	if files.permitted, err = e.permitted(c); err != nil {
		return err
	}
	if c.Proposal, err = readDevcontainer(c.File(), c.Text, c.Dir, c.Name, files); err == nil {
		l.Compose, l.Values = files.list, files.taken
		if unused := files.unused(c.EnvFiles); unused != "" {
			return fmt.Errorf("the compose files of %s take no variables from %s: they do from the %s beside the first of them, and from what an include names in its place", c.Name, unused, compose.DotEnv)
		}
		if err = e.lookAtFeatures(c, l, root, ctx); err != nil {
			err = fmt.Errorf("%s: %w", c.File(), err)
		}
	}
	if err == nil && len(c.Unfetched) == 0 {
		c.Beside, err = json.Marshal(l)
	}
	if err != nil && (ctx == nil || ctx.Err() == nil) { // of the file: it cannot be used
		c.Err, c.Proposal, err = err, nil, nil
	}
	return err
}

// lookAtFeatures finds the features of a Check, if it has any, and notes them.
func (e *Engine) lookAtFeatures(c *project.Check, l *featureLock, root *os.Root, ctx context.Context) error {
	if !hasFeatures(c.Proposal) {
		return nil
	}
	text, err := readFeatureLockFile(root, c.Name)
	if err != nil {
		return err
	}
	f, err := newFeatureFinder(e, c, root, text)
	if err != nil {
		return err
	}
	f.ctx = ctx
	l.LockFile = f.lockFile
	l.Features, err = f.resolve()
	return err
}

// featureFinder finds the features of one devcontainer.json.
type featureFinder struct {
	e          *Engine
	ctx        context.Context //nolint:containedctx // for one call of resolve; nil fetches nothing
	c          *project.Check
	root       *os.Root
	folder     string // of the file, relative to the project
	places     devcontainer.Places
	registries []string          // that the file names
	locked     map[string]string // digests by the references of devcontainer-lock.json
	lockFile   string            // its SHA-256

	// What was found, so that each is read once however many depend on it, and means the same for all.
	digests map[string]string             // by reference
	seen    map[string]devcontainer.Found // by REGISTRY/REPOSITORY@DIGEST, or by the path of a folder
}

func newFeatureFinder(e *Engine, c *project.Check, root *os.Root, lockText []byte) (*featureFinder, error) {
	f := &featureFinder{e: e, c: c, root: root, folder: filepath.Dir(c.Name), places: devcontainerPlaces(c.Dir, c.Name), lockFile: sumOrNone(lockText), digests: map[string]string{}, seen: map[string]devcontainer.Found{}}
	var err error
	if f.locked, err = parseFeatureLockFile(lockText); err != nil {
		return nil, fmt.Errorf("%s: %w", lockFileName(c.Name), err)
	}
	for _, ref := range c.Proposal.Setup.Features {
		if ref.Local() {
			continue
		}
		a, err := image.ParseArtifact(ref.ID)
		if err != nil {
			return nil, fmt.Errorf("feature %w", err)
		}
		f.registries = append(f.registries, a.Registry())
	}
	return f, nil
}

// resolve completes the proposal of the Check by its features, and returns them.
func (f *featureFinder) resolve() ([]devcontainer.Installed, error) {
	list, pending, err := devcontainer.Resolve(f.c.Proposal.Setup, f.find)
	if err != nil || len(pending) > 0 {
		f.c.Unfetched = pending
		return nil, err
	}
	return list, addFeatures(f.c.Proposal, list, f.c.Dir)
}

// find finds one feature, for devcontainer.Resolve.
func (f *featureFinder) find(ref devcontainer.FeatureRef) (*devcontainer.Found, error) {
	if ref.Local() {
		return f.local(ref.ID)
	}
	a, err := image.ParseArtifact(ref.ID)
	switch {
	case err != nil:
		return nil, err
	case !slices.Contains(f.registries, a.Registry()):
		return nil, fmt.Errorf("it would be fetched from %s, which %s does not name: name the feature there, too, if you want it", a.Registry(), f.c.Name)
	case f.ctx == nil:
		return nil, devcontainer.ErrNotFetched
	}
	digest, err := f.digest(a, ref.ID)
	if err != nil {
		return nil, err
	}
	found, err := f.once(a.At(digest), func() (*feature.Contents, error) { return f.e.fetchFeature(f.ctx, a.At(digest)) })
	found.Name, found.Version, found.Ref, found.Digest = a.Name(), a.Version(), a.At(digest), digest
	return &found, err
}

// once reads and describes what is at a key, unless that was done before.
func (f *featureFinder) once(key string, read func() (*feature.Contents, error)) (found devcontainer.Found, err error) {
	if found, ok := f.seen[key]; ok {
		return found, nil
	}
	contents, err := read()
	if err != nil {
		return found, err
	}
	found.Digest = contents.Digest()
	if found.Feature, err = f.describe(contents); err == nil {
		f.seen[key] = found
	}
	return found, err
}

// digest returns the digest of the feature at a reference: that of devcontainer-lock.json, else the
// registry's.
func (f *featureFinder) digest(a image.ArtifactRef, id string) (digest string, err error) {
	resolved, ok := f.locked[id]
	if digest = f.digests[id]; digest != "" {
		return digest, nil
	}
	if !ok {
		digest, err = image.ArtifactDigest(f.ctx, a)
		f.digests[id] = digest
		return digest, err
	}
	l, err := image.ParseArtifact(resolved)
	if err != nil || l.Name() != a.Name() {
		return "", fmt.Errorf("%s names %.200q for it, which is another one", lockFileName(f.c.Name), resolved)
	}
	return l.Version(), nil
}

// local finds a feature in a folder of the project.
func (f *featureFinder) local(id string) (*devcontainer.Found, error) {
	path := filepath.Join(f.folder, id)
	if !filepath.IsLocal(path) {
		return nil, errors.New("its folder does not lie in the project")
	}
	found, err := f.once(path, func() (*feature.Contents, error) { return feature.Read(f.root, path) })
	found.Name, found.Path = id, path
	return &found, err
}

// describe returns what the file of a feature says.
func (f *featureFinder) describe(contents *feature.Contents) (*devcontainer.Feature, error) {
	text, ok := contents.File(devcontainer.FeatureFile)
	if _, script := contents.File(devcontainer.FeatureScript); !ok || !script {
		return nil, fmt.Errorf("it has no %s or no %s", devcontainer.FeatureFile, devcontainer.FeatureScript)
	}
	if len(text) > maxFeatureFile {
		return nil, fmt.Errorf("its %s has more than %d bytes", devcontainer.FeatureFile, maxFeatureFile)
	}
	return devcontainer.ParseFeature(devcontainer.FeatureFile, text, f.places)
}

// maxFeatureFile bounds the description of a feature, in bytes.
const maxFeatureFile = 64 << 10

// The cache of features.
const (
	featureKind  = "feature"
	featureTar   = "feature.tar"
	keptFeatures = 128
)

// fetchFeature returns the contents of a feature, REGISTRY/REPOSITORY@DIGEST, from the cache if it is there.
func (e *Engine) fetchFeature(ctx context.Context, ref string) (*feature.Contents, error) {
	a, err := image.ParseArtifact(ref)
	if err != nil {
		return nil, err
	}
	dir, err := xdg.Cache()
	if err != nil {
		return nil, err
	}
	_, key, _ := strings.Cut(a.Version(), ":")
	store := cache.Open(dir)
	entry, err := store.Ensure(ctx, featureKind, key, e.progress(), func(ctx context.Context, dir string) (any, error) {
		archive, err := image.FetchArtifact(ctx, a, feature.MaxArchive)
		if err != nil {
			return nil, err
		}
		contents, err := feature.Unpack(archive)
		if err != nil {
			return nil, err
		}
		return nil, os.WriteFile(filepath.Join(dir, featureTar), contents.Tar(), 0o600)
	})
	if err != nil {
		return nil, err
	}
	entry.Used()
	archive, err := os.ReadFile(entry.File(featureTar)) // made here, within limits
	if err != nil {
		return nil, err
	}
	contents, err := feature.Unpack(archive)
	return contents, errors.Join(err, store.Trim(featureKind, keptFeatures))
}

// lockFileName returns the name of the lock file of a devcontainer.json: hidden if that is.
func lockFileName(name string) string {
	base := "devcontainer-lock.json"
	if strings.HasPrefix(filepath.Base(name), ".") {
		base = "." + base
	}
	return filepath.Join(filepath.Dir(name), base)
}

// maxLockFile bounds a devcontainer-lock.json, in bytes.
const maxLockFile = 256 << 10

// readFeatureLockFile returns the lock file of a devcontainer.json; nil if there is none.
func readFeatureLockFile(root *os.Root, name string) ([]byte, error) {
	text, err := regular.ReadIn(root, lockFileName(name), maxLockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", lockFileName(name), err)
	}
	return text, nil
}

func sumOrNone(text []byte) string {
	if text == nil {
		return ""
	}
	return sha256Of(text)
}

// parseFeatureLockFile returns what a lock file says that references mean.
func parseFeatureLockFile(text []byte) (map[string]string, error) {
	if text == nil {
		return nil, nil
	}
	var l struct {
		Features map[string]struct {
			Resolved  string `json:"resolved"`
			Integrity string `json:"integrity"`
		} `json:"features"`
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, fmt.Errorf("this is not a lock file: %w", err)
	}
	locked := map[string]string{}
	for _, id := range slices.Sorted(maps.Keys(l.Features)) {
		f := l.Features[id]
		_, digest, found := strings.Cut(f.Resolved, "@")
		if !found || f.Integrity != "" && f.Integrity != digest {
			return nil, fmt.Errorf("%.200q has no digest, or two", id)
		}
		locked[strings.ToLower(id)] = f.Resolved
	}
	return locked, nil
}
