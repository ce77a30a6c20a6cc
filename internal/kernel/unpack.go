package kernel

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/proc"
)

// Bounds on the package: Debian's cloud kernel has 1,200 modules and 150 MB
// uncompressed.
const (
	maxModule  = 64 << 20 // bytes
	maxFiles   = 20000
	maxPackage = 2 << 30 // bytes
	maxDisk    = 16 << 30
)

// convert makes the kernel's files in the folder out from the package deb, and returns
// the kernel's version. It unpacks the package in the folder tree, which it makes.
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
	cmd := proc.Command(ctx, "dpkg-deb", "--fsys-tarfile", deb)
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
		err = errors.New("the package has no vmlinuz")
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
			return nil, errors.New("the package has too many files")
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

// modulesPath returns the path below tree of a member of the package, or "" for one that
// does not belong to the modules.
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

// unpackModule writes one file, uncompressed and without its signature, and returns its
// size before that.
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
