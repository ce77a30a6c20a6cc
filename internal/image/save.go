package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"time"

	"bawn.dev/bawn/internal/progress"
)

// LocalPrefix begins references to images that Save or SaveArchive made.
const LocalPrefix = "local:"

// NotMadeError means that there is no image LocalPrefix+Name.
type NotMadeError struct{ Name string }

func (e *NotMadeError) Error() string { return "there is no image " + LocalPrefix + e.Name }

var localName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// errNothing means that the tar stream is empty.
var errNothing = errors.New("there are no files to make the image from")

// CheckLocal returns an error when no image can be saved under the name.
func CheckLocal(name string) error {
	if !localName.MatchString(name) {
		return fmt.Errorf("invalid image name %q: use 1 to 63 lower-case letters, digits, dots, hyphens and underscores; begin with a letter or digit", name)
	}
	return nil
}

// Save makes an image of a file tree, given as a tar stream, with env as the environment
// of its programs. From then on the reference "local:NAME" stands for it. The stream may
// come from a hostile guest: it is bounded by Limits and by limit, in bytes. When tree
// ends with an error, nothing is kept.
func (s *Store) Save(ctx context.Context, name string, tree io.Reader, env []string, limit int64, r progress.Reporter) (*Image, error) {
	if err := CheckLocal(name); err != nil {
		return nil, err
	}
	return s.SaveAs(ctx, LocalPrefix+name, tree, env, limit, r)
}

// SaveAs is Save under a reference of TagRef.
func (s *Store) SaveAs(ctx context.Context, ref string, tree io.Reader, env []string, limit int64, r progress.Reporter) (*Image, error) {
	bounded := *s
	bounded.limits.Bytes = min(s.limits.Bytes, limit)
	return s.locked(ctx, ref, r, nil, func(_ context.Context, dir, ref string, r progress.Reporter) (_ *meta, err error) {
		task := r.Start("Packing "+ref, 0, progress.Bytes)
		defer func() { task.Done(err) }()
		in := bufio.NewReader(&counted{tree, task})
		if _, err := in.Peek(1); errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("image %s: %w", ref, errNothing)
		}
		if err := bounded.flatten(filepath.Join(dir, imageFile), func(w io.Writer) error { return bounded.clean(in, w) }); err != nil {
			return nil, fmt.Errorf("image %s: %w", ref, err)
		}
		return &meta{Ref: ref, Created: time.Now().UTC(), Env: env}, nil
	})
}
