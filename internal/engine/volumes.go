package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/diskuse"
	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/sys/size"
	"bawn.dev/bawn/internal/transfer"
	"bawn.dev/bawn/internal/volume"
)

// Volumes of sandboxes. One sandbox at a time may write to a volume (holder.go); any number may
// read it meanwhile.
//
// What happens to the volumes of a sandbox: they stay with it while it is suspended. A snapshot
// does not hold them, as it does not hold the project: after a restore they are as they are then.
// A fork cannot have a volume that its original writes to, since it begins with the original's
// open files on it, and both would go on writing: Fork refuses that. Templates, pool machines and
// committed images never have any.

// The reasons about volumes, with the fields of Error that each one fills in parentheses.
const (
	// NoVolume: there is no such volume (Volume).
	NoVolume Reason = "volume-not-found"
	// VolumeExists: there is a volume of that name (Volume).
	VolumeExists Reason = "volume-exists"
	// VolumeInUse: another sandbox writes to the volume (Volume, Sandbox).
	VolumeInUse Reason = "volume-in-use"
	// VolumeHeld: the volume belongs to a sandbox and is not removed (Volume, Sandbox).
	VolumeHeld Reason = "volume-of-sandbox"
	// VolumeNotForked: a fork would write to the volume at the same time (Volume, Sandbox).
	VolumeNotForked Reason = "volume-not-forked"
	// VolumeMade is a notice: the volume did not exist, and was made (Sandbox).
	VolumeMade Reason = "volume-made"
)

// Volume describes a named volume.
type Volume struct {
	Name      string    `json:"name"`
	Created   time.Time `json:"created"`
	Size      int64     `json:"size,omitempty"`   // bytes of the host's disk that it may take; 0 is no limit
	Used      int64     `json:"used"`             // bytes of the host's disk that it takes
	Path      string    `json:"path"`             // of its files on the host
	Sandboxes []string  `json:"sandboxes"`        // that have it, in the order of their names
	Writer    string    `json:"writer,omitempty"` // the sandbox that writes to it now
}

// ResolveVolumes returns volumes whose paths are absolute: ~/ is the home directory that a guest's
// user has.
func ResolveVolumes(list []sandbox.Volume) (resolved []sandbox.Volume) {
	home := GuestUser().Home
	for _, v := range list {
		resolved = append(resolved, v.InHome(home))
	}
	return resolved
}

// volumes returns the store of volumes.
func (e *Engine) volumes() *volume.Store {
	return volume.Open(filepath.Join(e.sandboxes.Root(), store.VolumesFolder))
}

// VolumeNames returns the names of all volumes, sorted, also of those that cannot be read. It is
// quick: Volumes adds up the sizes of all their files.
func (e *Engine) VolumeNames() ([]string, error) { return e.volumes().Names() }

// Volumes describes all volumes, in the order of their names. Those that cannot be read are in
// the error, beside the others.
func (e *Engine) Volumes() (list []Volume, err error) {
	names, err := e.volumes().Names()
	if err != nil {
		return nil, err
	}
	users, err := e.volumeUsers()
	for _, n := range names {
		v, verr := e.describeVolume(n, users)
		if err = errors.Join(err, verr); verr == nil {
			list = append(list, *v)
		}
	}
	return list, err
}

// Volume describes one volume.
func (e *Engine) Volume(name string) (*Volume, error) {
	users, err := e.volumeUsers()
	if err != nil {
		return nil, err
	}
	return e.describeVolume(name, users)
}

func (e *Engine) describeVolume(name string, users map[string][]string) (*Volume, error) {
	v, err := e.findVolume(name)
	if err != nil {
		return nil, err
	}
	return &Volume{
		Name: name, Created: v.Created, Size: v.Size, Used: diskuse.Of(v.Data()), Path: v.Data(),
		Sandboxes: append([]string{}, users[name]...), Writer: e.holder(v.Writer(), ""),
	}, nil
}

// findVolume returns the volume of that name on disk.
func (e *Engine) findVolume(name string) (*volume.Volume, error) {
	v, err := e.volumes().Get(name)
	return v, volumeError(name, err)
}

// volumeError returns NoVolume for the error volume.ErrNone about a volume, and any other as it is.
func volumeError(name string, err error) error {
	if errors.Is(err, volume.ErrNone) {
		return &Error{Reason: NoVolume, Volume: name, Err: fmt.Errorf("there is no volume %s", name)}
	}
	return err
}

// volumeUsers returns which sandboxes have which volumes.
func (e *Engine) volumeUsers() (map[string][]string, error) {
	names, err := e.sandboxes.Names()
	users := map[string][]string{}
	for _, n := range names {
		spec, serr := e.sandboxes.Dir(n).Spec()
		if serr != nil { // its volumes are not known
			err = errors.Join(err, fmt.Errorf("the settings of sandbox %s cannot be read: %w", n, serr))
			continue
		}
		for _, v := range spec.Volumes {
			users[v.Name] = append(users[v.Name], n)
		}
	}
	return users, err
}

// CreateVolume makes an empty volume, whose files may take that many bytes; 0 is no limit.
func (e *Engine) CreateVolume(ctx context.Context, name string, bytes int64) error {
	if !volume.ValidSize(bytes) {
		return &sandbox.FieldError{Field: "size", Problem: fmt.Sprintf("%s: must be %s to %s, or 0 for no limit", size.Format(bytes), size.Format(volume.MinSize), size.Format(volume.MaxSize))}
	}
	s := e.volumes()
	l, err := s.Lock(ctx)
	if err != nil {
		return err
	}
	_, err = s.Create(name, bytes)
	var gone []*volume.Gone
	if err == nil {
		gone, _ = s.Leftovers() // what is not removed now is by a later one, or by bawn volume prune
	}
	l.Close()
	if errors.Is(err, fs.ErrExist) {
		return &Error{Reason: VolumeExists, Volume: name, Err: fmt.Errorf("a volume named %s exists already", name)}
	}
	_ = e.deleteVolumes(ctx, gone)
	return err
}

// deleteVolumes removes the files of volumes that were taken out of the store. It may take long, so
// the caller has given back the store's lock.
func (e *Engine) deleteVolumes(ctx context.Context, list []*volume.Gone) error {
	if len(list) == 0 {
		return nil
	}
	return e.during("Removing files", func() (err error) {
		for _, g := range list {
			if ctx.Err() != nil { // a later one removes the rest
				return errors.Join(err, context.Cause(ctx))
			}
			err = errors.Join(err, g.Remove())
		}
		return err
	})
}

// RemoveVolume removes a volume with all that is in it. It is an error while a sandbox has it,
// also one that is stopped.
func (e *Engine) RemoveVolume(ctx context.Context, name string) error {
	s := e.volumes()
	l, err := s.Lock(ctx)
	if err != nil {
		return err
	}
	gone, err := e.takeOutVolume(s, name)
	l.Close()
	if err != nil {
		return err
	}
	return e.deleteVolumes(ctx, []*volume.Gone{gone})
}

// takeOutVolume takes a volume that no sandbox has out of the store. The caller holds the store's
// lock.
func (e *Engine) takeOutVolume(s *volume.Store, name string) (*volume.Gone, error) {
	users, err := e.volumeUsers()
	if err != nil {
		return nil, err
	}
	if list := users[name]; len(list) > 0 {
		return nil, heldBy(name, list)
	}
	if v, err := s.Get(name); err == nil { // a sandbox that starts with it has not written its spec yet
		if other := e.holder(v.Writer(), ""); other != "" {
			return nil, heldBy(name, []string{other})
		}
	}
	gone, err := s.TakeOut(name)
	return gone, volumeError(name, err)
}

func heldBy(name string, list []string) error {
	what := "sandbox " + list[0]
	if len(list) > 1 {
		what = "sandboxes " + strings.Join(list, ", ")
	}
	return &Error{Reason: VolumeHeld, Volume: name, Sandbox: list[0], Err: fmt.Errorf("volume %s belongs to %s", name, what)}
}

// UnusedVolumes describes the volumes that no sandbox has.
func (e *Engine) UnusedVolumes() ([]Volume, error) {
	all, err := e.Volumes()
	return slices.DeleteFunc(all, func(v Volume) bool { return len(v.Sandboxes) > 0 || v.Writer != "" }), err
}

// PruneVolumes removes those of the volumes that no sandbox has by now, and returns them. It
// removes what killed processes have left, too.
func (e *Engine) PruneVolumes(ctx context.Context, list []Volume) (removed []Volume, err error) {
	s := e.volumes()
	l, err := s.Lock(ctx)
	if err != nil {
		return nil, err
	}
	gone, err := s.Leftovers()
	for _, v := range list {
		g, rerr := e.takeOutVolume(s, v.Name)
		switch {
		case rerr == nil:
			removed, gone = append(removed, v), append(gone, g)
		case ReasonOf(rerr) != VolumeHeld && ReasonOf(rerr) != NoVolume:
			err = errors.Join(err, rerr)
		}
	}
	l.Close()
	return removed, errors.Join(err, e.deleteVolumes(ctx, gone))
}

// claimVolumes makes the sandbox the writer of its volumes but the read-only ones, and makes
// those that do not exist. If one cannot be had, none is taken. The caller holds the sandbox's
// start lock.
func (e *Engine) claimVolumes(ctx context.Context, spec *sandbox.Spec) error {
	s := e.volumes()
	names, err := s.Names()
	if err != nil || len(names)+len(spec.Volumes) == 0 {
		return err
	}
	l, err := s.Lock(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := releaseVolumes(s, names, spec); err != nil || len(spec.Volumes) == 0 {
		return err
	}
	if err := e.checkVolumeWriters(s, spec); err != nil {
		return err
	}
	for _, v := range spec.Volumes {
		found, err := s.Get(v.Name)
		if errors.Is(err, volume.ErrNone) {
			found, err = s.Create(v.Name, 0)
			e.notify(Notice{Reason: VolumeMade, Sandbox: spec.Name, Text: fmt.Sprintf("made the volume %s", v.Name)})
		}
		if err == nil && !v.ReadOnly() {
			err = hold(found.Writer(), spec.Name)
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	spec.Boot.Volumes = s.Root()
	d := e.sandboxes.Dir(spec.Name)
	kept, err := d.Spec() // where bawn volume rm reads which volumes a sandbox has
	if err != nil {
		return err
	}
	kept.Volumes, kept.Added.Volumes, kept.Boot.Volumes = spec.Volumes, spec.Added.Volumes, spec.Boot.Volumes
	return d.WriteSpec(kept)
}

// releaseVolumes gives up, for the sandbox, the volumes that it does not write to any more.
func releaseVolumes(s *volume.Store, names []string, spec *sandbox.Spec) error {
	for _, n := range names {
		if slices.ContainsFunc(spec.Volumes, func(v sandbox.Volume) bool { return v.Name == n && !v.ReadOnly() }) {
			continue
		}
		if err := release(s.WriterOf(n), spec.Name); err != nil {
			return fmt.Errorf("volume %s: %w", n, err)
		}
	}
	return nil
}

// checkVolumeWriters returns an error if another sandbox holds a volume that this one would
// write to.
func (e *Engine) checkVolumeWriters(s *volume.Store, spec *sandbox.Spec) error {
	for _, v := range spec.Volumes {
		found, err := s.Get(v.Name)
		if err != nil || v.ReadOnly() {
			continue // what is wrong with it is reported when it is claimed
		}
		if other := e.holder(found.Writer(), spec.Name); other != "" {
			return &Error{Reason: VolumeInUse, Volume: v.Name, Sandbox: other,
				Err: fmt.Errorf("sandbox %s writes to volume %s, and only one sandbox at a time can", other, v.Name)}
		}
	}
	return nil
}

// checkVolumesForFork returns an error if a fork of the sandbox would write to a volume.
func checkVolumesForFork(spec *sandbox.Spec) error {
	for _, v := range spec.Volumes {
		if !v.ReadOnly() {
			return &Error{Reason: VolumeNotForked, Volume: v.Name, Sandbox: spec.Name,
				Err: fmt.Errorf("cannot fork %s: the fork would write to its volume %s at the same time, which would damage what is in it", spec.Name, v.Name)}
		}
	}
	return nil
}

// VolumeCopy says what to copy between a volume and the host. Exactly one of the two has a
// volume's name.
type VolumeCopy struct {
	From, To VolumePath
}

// VolumePath is a path in a volume, or on the host.
type VolumePath struct {
	Volume string // empty for the host
	Path   string // in a volume from its root; links and ".." do not lead out of it
}

// CopyVolume copies a file or directory between a volume and the host, with modes, times of
// change and symbolic links. Sandboxes that use the volume may run meanwhile. It returns how many
// entries it left out, each of which is a notice (NotCopied).
func (e *Engine) CopyVolume(ctx context.Context, c VolumeCopy) (left int, err error) {
	writable, err := e.writable()
	if err != nil {
		return 0, err
	}
	var paths [2]string
	for i, p := range []VolumePath{c.From, c.To} {
		if paths[i] = p.Path; p.Volume == "" {
			continue
		}
		v, err := e.findVolume(p.Volume)
		if err != nil {
			return 0, err
		}
		id, err := fileid.Of(v.Data())
		if err != nil {
			return 0, err
		}
		writable = append(writable, id)
		paths[i] = filepath.Join(v.Data(), filepath.Clean("/"+p.Path))
		if strings.HasSuffix(p.Path, "/") {
			paths[i] += "/"
		}
	}
	return e.transfer(transfer.Transfer{Writable: writable}, func(t *transfer.Transfer) error {
		return escapeError("", t.Local(ctx, paths[0], paths[1]))
	})
}
