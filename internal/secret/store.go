package secret

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/regular"
	"bawn.dev/bawn/internal/sys/xdg"
)

// Names in the configuration folder.
const (
	indexFile   = "secrets.json"
	valueFolder = "secrets"
)

// maxIndex bounds the index, in bytes.
const maxIndex = 1 << 20

// background is for waits that are short and must come to an end.
var background = context.Background()

// ErrNone means that there is no secret of that name for that directory.
var ErrNone = errors.New("no such secret")

// Store holds all secrets of one user. It is safe for concurrent use, also by several
// processes.
type Store struct {
	config, state string // bawn's folders
	ring          ring

	mu      sync.Mutex
	fetches map[string]*fetch // of commands and of the keyring, by Secret.Stored
}

// Open returns the user's store.
func Open() (*Store, error) {
	config, err := xdg.Config()
	if err != nil {
		return nil, err
	}
	state, err := xdg.State()
	if err != nil {
		return nil, err
	}
	return OpenAt(config, state), nil
}

// OpenAt returns the store in these folders of bawn's, which need not exist.
func OpenAt(config, state string) *Store {
	return &Store{config: config, state: state, ring: desktop{}, fetches: map[string]*fetch{}}
}

// index is the content of indexFile.
type index struct {
	Secrets []Secret `json:"secrets"`
}

func (s *Store) indexPath() string { return filepath.Join(s.config, indexFile) }

// List returns all entries, by name. An index that is damaged, or that other users can
// change, is an error.
func (s *Store) List() ([]Secret, error) {
	list, err := s.read()
	slices.SortFunc(list, func(a, b Secret) int {
		return strings.Compare(a.Name+"\x00"+a.Dir, b.Name+"\x00"+b.Dir)
	})
	return list, err
}

func (s *Store) read() ([]Secret, error) {
	b, err := ReadOwn(s.indexPath(), maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list of secrets: %w", err)
	}
	return parseIndex(b, s.indexPath())
}

// ReadOwn reads a file of at most limit bytes that bawn keeps for secrets and logins. One that a guest could have
// written, in a folder that is shared with it or behind a link to one, is an *UnsafeError, also if there is none yet: such
// files name commands of the host, and values would be written there.
func ReadOwn(path string, limit int64) ([]byte, error) {
	if err := proc.ByGuests(path); err != nil {
		return nil, &UnsafeError{err}
	}
	return regular.ReadOwn(path, limit)
}

// parseIndex reads the text of an index.
func parseIndex(b []byte, path string) ([]Secret, error) {
	var in index
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("list of secrets: %s is damaged: %w", path, err)
	}
	if len(in.Secrets) > MaxSecrets {
		return nil, fmt.Errorf("list of secrets: %s has more than %d", path, MaxSecrets)
	}
	for i := range in.Secrets {
		if err := in.Secrets[i].Check(); err != nil {
			return nil, fmt.Errorf("list of secrets: %s: %w", path, err)
		}
		if !safeID(in.Secrets[i].ID) || !safeID(in.Secrets[i].Stored) {
			return nil, fmt.Errorf("list of secrets: %s: secret %s has a bad ID", path, in.Secrets[i].Name)
		}
		if (in.Secrets[i].KeyPair != nil) != (in.Secrets[i].Place.Where == InSignature) {
			return nil, fmt.Errorf("list of secrets: %s: secret %s is half a pair of keys", path, in.Secrets[i].Name)
		}
	}
	return in.Secrets, nil
}

// safeID reports whether an ID is one that newID made: it names a file.
func safeID(id string) bool {
	return len(id) >= 20 && len(id) <= 64 && strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// newID returns the ID of a new entry.
func newID() string { return rand.Text() }

// Of returns the entries for the sandboxes of a project directory. One that is set for the
// directory takes the place of one of the same name for all.
func (s *Store) Of(dir string) ([]Secret, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, x := range all {
		if x.Dir == dir && dir != "" {
			own[x.Name] = true
		}
	}
	var list []Secret
	for _, x := range all {
		if x.Dir == dir && dir != "" || x.Dir == "" && !own[x.Name] {
			list = append(list, x)
		}
	}
	return list, nil
}

// lock takes the lock for changes.
func (s *Store) lock(ctx context.Context) (*lockfile.Lock, error) {
	if err := os.MkdirAll(s.config, 0o700); err != nil {
		return nil, err
	}
	return lockfile.Acquire(ctx, s.indexPath()+".lock")
}

// Set adds an entry, or takes the place of the one with the same name and directory; the
// placeholder stays as it is unless the value is of another kind, so that programs that run
// go on with a new value. value is kept in the keyring or a file; it is empty for one with a
// command. Set fills in the IDs, the keeper and the shape, and returns the entry.
func (s *Store) Set(ctx context.Context, sec Secret, value string) (Secret, error) {
	sec.ID, sec.Stored = newID(), newID()
	if err := sec.shape(&value); err != nil {
		return sec, err
	}
	if err := sec.Check(); err != nil {
		return sec, err
	}
	l, err := s.lock(ctx)
	if err != nil {
		return sec, err
	}
	defer l.Close()
	list, err := s.read()
	if err != nil {
		return sec, err
	}
	old := slices.IndexFunc(list, func(o Secret) bool { return o.Name == sec.Name && o.Dir == sec.Dir })
	if old >= 0 {
		sec.ID = list[old].ID
		if list[old].Shape.Prefix == sec.Shape.Prefix {
			sec.Shape = list[old].Shape
		}
		sec.KeyPair.keep(list[old].KeyPair)
	}
	if err := s.keep(&sec, value); err != nil {
		return sec, err
	}
	next := append(slices.Clone(list), sec)
	if old >= 0 {
		next = slices.Delete(next, old, old+1)
	}
	if len(next) > MaxSecrets {
		err = fmt.Errorf("there are %d secrets already: remove one (bawn secret ls)", MaxSecrets)
	} else {
		err = atomicfile.WriteJSON(s.indexPath(), index{next})
	}
	if err != nil {
		return sec, errors.Join(err, s.Forget(&sec))
	}
	if old >= 0 {
		return sec, s.Forget(&list[old])
	}
	return sec, nil
}

// shape fills in the keeper and the shapes of a new entry, and writes its value as it is kept.
func (s *Secret) shape(value *string) error {
	s.Keeper = File
	if s.Command != "" {
		s.Keeper = Command
	}
	if s.Place.Where == InSignature {
		return s.shapeKeyPair(value)
	}
	s.Shape = shapeOf(s.Name, *value)
	if s.Keeper == Command {
		return nil
	}
	if err := CheckValue(*value); err != nil {
		return fmt.Errorf("the value of %s cannot be used: %w", s.Name, err)
	}
	return nil
}

// shapeKeyPair is shape for a pair of keys.
func (s *Secret) shapeKeyPair(value *string) error {
	if s.Keeper == Command {
		s.KeyPair = keyPairShapes(KeyPair{})
		return nil
	}
	text, p, err := cleanKeyPair(*value)
	if err != nil {
		return fmt.Errorf("the value of %s cannot be used: %w", s.Name, err)
	}
	*value, s.KeyPair = text, keyPairShapes(p)
	return nil
}

// Remove removes an entry and its value. ErrNone: there is none.
func (s *Store) Remove(ctx context.Context, name, dir string) error {
	l, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	list, err := s.read()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(o Secret) bool { return o.Name == name && o.Dir == dir })
	if i < 0 {
		return fmt.Errorf("%w: %s", ErrNone, name)
	}
	old := list[i]
	if err := atomicfile.WriteJSON(s.indexPath(), index{slices.Delete(list, i, i+1)}); err != nil {
		return err
	}
	return s.Forget(&old)
}

// Bindings are the secrets of one sandbox, as they are on disk. Safe for concurrent use.
type Bindings struct {
	store   *Store
	dir, id string

	mu   sync.Mutex
	seen fileid.Stamp // of the index
	list []Bound
}

// Bound is a secret with the placeholder that it has in one sandbox.
type Bound struct {
	Secret
	Placeholder string // empty for a pair of keys
	// Keys are the placeholders for a pair of keys; else it is the zero value.
	Keys KeyPair
	// Token: it is a token of a login (package login), which the guest may have as the signature of a JWT.
	Token bool
	// Value returns the value. It may take long, and may run concurrently. Its errors name
	// the secret and never its value.
	Value func(ctx context.Context) (string, error)
}

// Is reports whether a text is the placeholder, or a JWT whose signature it is where it may be one.
func (b *Bound) Is(text string) bool {
	if text == b.Placeholder {
		return true
	}
	head, ok := strings.CutSuffix(text, "."+b.Placeholder)
	return ok && b.Token && strings.Count(head, ".") == 1 && strings.Trim(head, alphabet+"-_.=") == ""
}

// Bindings returns the secrets of the sandbox with that ID, of a project directory.
func (s *Store) Bindings(dir, sandboxID string) *Bindings {
	return &Bindings{store: s, dir: dir, id: sandboxID}
}

// List returns the secrets in force now. The slice is not to be changed. An error means that
// it is not known which hosts have secrets.
func (b *Bindings) List() ([]Bound, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, err := fileid.StampOf(b.store.indexPath())
	if err != nil {
		return nil, fmt.Errorf("list of secrets: %w", err)
	}
	if now == b.seen {
		return b.list, nil
	}
	entries, err := b.store.Of(b.dir)
	if err != nil {
		return nil, err
	}
	var list []Bound
	for _, e := range entries {
		bound := Bound{Secret: e, Value: func(ctx context.Context) (string, error) { return b.store.Value(ctx, &e) }}
		if err := b.store.fill(&bound, b.id); err != nil {
			return nil, err
		}
		list = append(list, bound)
	}
	b.list, b.seen = list, now
	return list, nil
}

// fill fills in the placeholders of a secret in a sandbox.
func (s *Store) fill(b *Bound, sandboxID string) (err error) {
	if b.Place.Where != InSignature {
		b.Placeholder, err = s.Placeholder(&b.Secret, sandboxID)
		return err
	}
	key, err := s.key()
	if err != nil {
		return err
	}
	b.Keys, err = deriveKeyPair(key, &b.Secret, sandboxID)
	return err
}

// Placeholders returns all that the guest may have in place of the secret.
func (b *Bound) Placeholders() []string {
	if b.Place.Where == InSignature {
		return []string{b.Keys.ID, b.Keys.Secret, b.Keys.Token}
	}
	return []string{b.Placeholder}
}

// Environ returns the variables (NAME=PLACEHOLDER) of the guest.
func (b *Bound) Environ() []string {
	if b.Place.Where != InSignature {
		return []string{b.Name + "=" + b.Placeholder}
	}
	env := []string{b.Name + "_ACCESS_KEY_ID=" + b.Keys.ID, b.Name + "_SECRET_ACCESS_KEY=" + b.Keys.Secret}
	if b.KeyPair.HasToken {
		env = append(env, b.Name+"_SESSION_TOKEN="+b.Keys.Token)
	}
	return env
}
