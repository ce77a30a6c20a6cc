package kernel

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/progress"
)

// Bounds on the package: Debian's cloud kernel has 1,200 modules and 150 MB
// uncompressed.
const (
	maxModule  = 64 << 20 // bytes
	maxFiles   = 20000
	maxPackage = 2 << 30 // bytes
)

// convert makes the kernel's files in the folder out from a package, working in
// the folder tree, and returns the kernel's version.
func convert(ctx context.Context, deb, tree, out string, task progress.Task) (string, error) {
	if err := os.MkdirAll(filepath.Join(tree, "usr/lib"), 0o700); err != nil {
		return "", err
	}
	// depmod -b looks in lib or usr/lib, as its build has it.
	if err := os.Symlink("usr/lib", filepath.Join(tree, "lib")); err != nil {
		return "", err
	}
	task.Note("unpacking")
	vmlinuz, err := unpack(ctx, deb, tree)
	if err != nil {
		return "", err
	}
	version, err := versionOf(tree)
	if err != nil {
		return "", err
	}
	task.Note("decompressing")
	image, err := unpackImage(vmlinuz)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(out, imageFile), image, 0o600); err != nil {
		return "", err
	}
	task.Note("indexing modules")
	if err := depmod(ctx, tree, version); err != nil {
		return "", err
	}
	lib := filepath.Join(tree, "usr/lib/modules", version)
	if err := copyBootModules(lib, filepath.Join(out, bootFolder)); err != nil {
		return "", err
	}
	task.Note("writing the modules disk")
	return version, modulesDisk(lib, version, filepath.Join(out, modulesFile))
}

// unpack writes the package's modules, uncompressed, below tree/usr/lib/modules
// and returns its vmlinuz.
func unpack(ctx context.Context, deb, tree string) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pr, pw := io.Pipe()
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = pw, &stderr
	done := make(chan error, 1)
	go func() {
		err := debian.Run(cmd)
		pw.CloseWithError(err)
		done <- err
	}()
	vmlinuz, err := unpackTar(pr, tree)
	if err == nil {
		_, err = io.Copy(io.Discard, pr) // the padding after the last member
	}
	pr.CloseWithError(err)
	if cerr := <-done; cerr != nil && (err == nil || errors.Is(err, cerr)) {
		err = fmt.Errorf("dpkg-deb: %w: %s", cerr, bytes.TrimSpace(stderr.Bytes()))
	}
	if err == nil && vmlinuz == nil {
		err = errors.New("the package holds no vmlinuz")
	}
	return vmlinuz, err
}

func unpackTar(r io.Reader, tree string) (vmlinuz []byte, err error) {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	t := tar.NewReader(bufio.NewReaderSize(r, 1<<20))
	left := int64(maxPackage)
	for files := 0; ; files++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return vmlinuz, nil
		}
		if err != nil {
			return nil, err
		}
		if files > maxFiles {
			return nil, errors.New("the package holds too many files")
		}
		name := path.Clean("/" + h.Name)[1:]
		switch dir := modulesPath(name); {
		case h.Typeflag != tar.TypeReg:
		case strings.HasPrefix(name, "boot/vmlinuz-"):
			if vmlinuz, err = readAll(t, maxKernel); err != nil {
				return nil, err
			}
		case dir != "":
			n, err := unpackModule(root, dir, t)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if left -= n; left < 0 {
				return nil, errors.New("the package is too large")
			}
		}
	}
}

// modulesPath is where a member of the package goes below tree, or empty for
// what is no part of the modules.
func modulesPath(name string) string {
	name = strings.TrimPrefix(name, "usr/")
	if !strings.HasPrefix(name, "lib/modules/") {
		return ""
	}
	return "usr/" + name
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errors.New("too large")
	}
	return b, err
}

// unpackModule writes one file, a compressed module under its plain name.
func unpackModule(root *os.Root, name string, r io.Reader) (int64, error) {
	if plain, ok := strings.CutSuffix(name, ".xz"); ok {
		d, err := xz.NewReader(bufio.NewReaderSize(r, 64<<10))
		if err != nil {
			return 0, err
		}
		name, r = plain, d
	} else if plain, ok := strings.CutSuffix(name, ".zst"); ok {
		d, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(maxModule))
		if err != nil {
			return 0, err
		}
		defer d.Close()
		name, r = plain, d
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return 0, err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, io.LimitReader(r, maxModule+1))
	if err == nil && n > maxModule {
		err = errors.New("too large")
	}
	if err == nil {
		err = unsign(f, n)
	}
	return n, errors.Join(err, f.Close())
}

// versionOf is the one folder below usr/lib/modules.
func versionOf(tree string) (string, error) {
	des, err := os.ReadDir(filepath.Join(tree, "usr/lib/modules"))
	if err != nil || len(des) != 1 {
		return "", fmt.Errorf("the package holds the modules of %d kernels, not of one", len(des))
	}
	return des[0].Name(), nil
}

func depmod(ctx context.Context, tree, version string) error {
	cmd := exec.CommandContext(ctx, lookup("depmod"), "-b", tree, version)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := debian.Run(cmd)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return errors.New("depmod is missing: install the package kmod")
	}
	if err != nil {
		return fmt.Errorf("depmod: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	if _, err := os.Stat(filepath.Join(tree, "usr/lib/modules", version, "modules.dep")); err != nil {
		return fmt.Errorf("depmod made no index: %w", err)
	}
	return nil
}

// lookup finds a program of the system administrator's, whose folder is not on
// an ordinary user's PATH.
func lookup(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if p := filepath.Join(dir, name); isFile(p) {
			return p
		}
	}
	return name
}

func isFile(p string) bool {
	fi, err := os.Stat(p)
	return err == nil && fi.Mode().IsRegular()
}

// copyBootModules copies the modules that the guest loads first, numbered in
// load order.
func copyBootModules(lib, out string) error {
	dep, err := os.ReadFile(filepath.Join(lib, "modules.dep"))
	if err != nil {
		return err
	}
	builtin, err := os.ReadFile(filepath.Join(lib, "modules.builtin"))
	if err != nil {
		return err
	}
	order, err := loadOrder(parseDep(dep), parseBuiltin(builtin), rootModules)
	if err != nil {
		return err
	}
	for i, m := range order {
		b, err := os.ReadFile(filepath.Join(lib, filepath.FromSlash(m)))
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%02d-%s", i, path.Base(m))
		if err := os.WriteFile(filepath.Join(out, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// parseDep reads modules.dep(5): "kernel/a.ko: kernel/b.ko kernel/c.ko", where a
// needs b and c.
func parseDep(b []byte) map[string][]string {
	deps := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		file, needs, ok := strings.Cut(line, ":")
		if ok {
			deps[file] = strings.Fields(needs)
		}
	}
	return deps
}

func parseBuiltin(b []byte) map[string]bool {
	names := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		names[moduleName(strings.TrimSpace(line))] = true
	}
	return names
}

// moduleName is the name of the module in a file: "-" and "_" are the same
// (modprobe(8)).
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// loadOrder lists the files of the wanted modules and of what they need, each
// after what it needs.
func loadOrder(deps map[string][]string, builtin map[string]bool, wanted []string) ([]string, error) {
	files := map[string]string{}
	for f := range deps {
		files[moduleName(f)] = f
	}
	var order []string
	var add func(file string, depth int) error
	add = func(file string, depth int) error {
		if slices.Contains(order, file) {
			return nil
		}
		if depth > 32 {
			return fmt.Errorf("module %s needs itself", file)
		}
		for _, need := range deps[file] {
			if err := add(need, depth+1); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	for _, w := range wanted {
		if builtin[w] {
			continue
		}
		f, ok := files[w]
		if !ok {
			return nil, fmt.Errorf("the kernel has no module %s", w)
		}
		if err := add(f, 0); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// modulesDisk writes an ext4 file system with lib/modules/VERSION. The files
// belong to root and have no times, so that equal packages make equal disks.
func modulesDisk(lib, version, out string) error {
	f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(tarModules(pw, lib, "lib/modules/"+version)) }()
	err = tar2ext4.ConvertTarToExt4(pr, f)
	pr.CloseWithError(err)
	return errors.Join(err, f.Close())
}

func tarModules(w io.Writer, lib, prefix string) error {
	t := tar.NewWriter(w)
	err := filepath.WalkDir(lib, func(p string, de fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(lib, p)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: path.Join(prefix, filepath.ToSlash(rel)), Mode: 0o644, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if de.IsDir() {
			h.Name, h.Mode, h.Typeflag = h.Name+"/", 0o755, tar.TypeDir
			return t.WriteHeader(h)
		}
		if !de.Type().IsRegular() {
			return nil // the package's links to a source tree that is not there
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		h.Size = int64(len(b))
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err = t.Write(b)
		return err
	})
	return errors.Join(err, t.Close())
}

func fileNames(e *cache.Entry) []string {
	names := make([]string, 0, len(e.Files))
	for n := range e.Files {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
