// Package initramfs makes the archive that the guest's kernel starts from: the
// agent as /init and the modules it needs before it can mount anything else.
//
// The agent is embedded in bawn, so that the two always fit together. The
// archive is not compressed: under software emulation the guest would spend
// longer on unpacking it than QEMU spends on reading it.
package initramfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"sort"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/u-root/u-root/pkg/cpio"

	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/progress"
)

// Paths in the archive.
const (
	Init = "init"
	// ModulesFolder holds NN-NAME.ko files, to be loaded in the order of their names.
	ModulesFolder = "lib/modules-boot"
)

// Names in the cache.
const (
	kind       = "initramfs"
	initrdFile = "initrd"
)

// recipe changes when Build lays the archive out differently.
const recipe = "1"

//go:embed all:agent
var agents embed.FS

// ErrNoAgent means that bawn was built without its guest agent.
var ErrNoAgent = errors.New("this bawn was built without its guest agent: build bawn with make build")

// Agent returns the guest agent for this architecture, a static executable. The error is
// ErrNoAgent when it was not built in.
func Agent() ([]byte, error) {
	b, err := agents.ReadFile("agent/bawn-guest-linux-" + runtime.GOARCH)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return nil, ErrNoAgent
	}
	return b, err
}

// Build writes a newc archive (Documentation/driver-api/early-userspace/
// buffer-format.rst) to w. The modules are files on this host, in load order;
// extra maps further paths in the guest to their content, mode 0644. Equal
// arguments make equal archives.
func Build(w io.Writer, bootModules []string, agent []byte, extra map[string][]byte) error {
	records := []cpio.Record{
		cpio.Directory("dev", 0o755),
		// The kernel opens it for PID 1 before anyone can mount devtmpfs.
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.StaticRecord(agent, cpio.Info{Name: Init, Mode: cpio.S_IFREG | 0o755}),
		cpio.Directory("lib", 0o755),
		cpio.Directory(ModulesFolder, 0o755),
	}
	if len(bootModules) > 100 {
		return errors.New("there are more than 100 boot modules")
	}
	for i, m := range bootModules {
		b, err := os.ReadFile(m)
		if err != nil {
			return fmt.Errorf("boot module: %w", err)
		}
		records = append(records, file(fmt.Sprintf("%s/%02d-%s", ModulesFolder, i, plainName(m)), b))
	}
	made := map[string]bool{"dev": true, "lib": true, ModulesFolder: true}
	for _, name := range sorted(extra) {
		if !fs.ValidPath(name) || name == "." {
			return fmt.Errorf("%q is not a valid path for a file in the archive", name)
		}
		records = append(records, parents(path.Dir(name), made)...)
		records = append(records, file(name, extra[name]))
	}
	out := cpio.Newc.Writer(w)
	for i, r := range records {
		r.Ino, r.NLink = uint64(i)+1, 1
		if err := out.WriteRecord(r); err != nil {
			return fmt.Errorf("write the initramfs: %w", err)
		}
	}
	return cpio.WriteTrailer(out)
}

func file(name string, b []byte) cpio.Record {
	return cpio.StaticRecord(b, cpio.Info{Name: name, Mode: cpio.S_IFREG | 0o644})
}

// parents returns records for dir and the folders above it that are not made yet.
func parents(dir string, made map[string]bool) []cpio.Record {
	if dir == "." || made[dir] {
		return nil
	}
	made[dir] = true
	return append(parents(path.Dir(dir), made), cpio.Directory(dir, 0o755))
}

// plainName returns the file's name without the number that package kernel gave it.
func plainName(p string) string {
	name := filepath.Base(p)
	if len(name) > 3 && name[2] == '-' && isDigit(name[0]) && isDigit(name[1]) {
		return name[3:]
	}
	return name
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func sorted(m map[string][]byte) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Digest returns the digest of an archive: sha256:HEX.
func Digest(archive []byte) string {
	sum := sha256.Sum256(archive)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// agentSum returns a quick hash of the agent: it only has to tell builds of bawn apart, and
// is computed at each start.
var agentSum = sync.OnceValues(func() (string, error) {
	a, err := Agent()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x-%016x", len(a), xxhash.Sum64(a)), nil
})

// keep is how many archives stay in the cache: those of two versions of bawn and two
// kernels.
const keep = 4

// Cached returns the path of the archive with this bawn's agent and those modules, which it
// makes if the cache in that folder does not have it. The path stays valid until keep
// other archives were used. The error is ErrNoAgent when no agent was built in.
func Cached(ctx context.Context, folder string, bootModules []string) (string, error) {
	key, err := cacheKey(bootModules)
	if err != nil {
		return "", err
	}
	c := cache.Open(folder)
	made := false
	e, err := c.Ensure(ctx, kind, key, progress.Silent, func(_ context.Context, dir string) (any, error) {
		made = true
		agent, err := Agent()
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		if err := Build(&b, bootModules, agent, nil); err != nil {
			return nil, err
		}
		return nil, os.WriteFile(filepath.Join(dir, initrdFile), b.Bytes(), 0o600)
	})
	if err != nil {
		return "", fmt.Errorf("initramfs: %w", err)
	}
	e.Used()
	if made {
		err = c.Trim(kind, keep) // each version of bawn has another
	}
	return e.File(initrdFile), err
}

// cacheKey returns a key that differs with the agent and the modules' contents.
func cacheKey(bootModules []string) (string, error) {
	agent, err := agentSum()
	if err != nil {
		return "", err
	}
	h := xxhash.New()
	for _, m := range bootModules {
		b, err := os.ReadFile(m)
		if err != nil {
			return "", fmt.Errorf("boot module: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n", plainName(m), len(b))
		_, _ = h.Write(b)
	}
	return fmt.Sprintf("%s-%016x-r%s", agent, h.Sum64(), recipe), nil
}
