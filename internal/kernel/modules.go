package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/ext4"
	"bawn.dev/bawn/internal/sys/kmod"
	"bawn.dev/bawn/internal/sys/proc"
)

// versionOf returns the name of the one folder below usr/lib/modules.
func versionOf(tree string) (string, error) {
	des, err := os.ReadDir(filepath.Join(tree, "usr/lib/modules"))
	if err != nil || len(des) != 1 {
		return "", fmt.Errorf("the package has modules for %d kernels, instead of one", len(des))
	}
	return des[0].Name(), nil
}

func depmod(ctx context.Context, tree, version string) error {
	cmd := proc.Command(ctx, "depmod", "-b", tree, version)
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := debian.Run(cmd)
	if missing := proc.Missing(err, "kmod"); missing != nil {
		return missing
	}
	if err != nil {
		return fmt.Errorf("depmod: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	if _, err := os.Stat(filepath.Join(tree, "usr/lib/modules", version, "modules.dep")); err != nil {
		return fmt.Errorf("depmod made no index: %w", err)
	}
	return nil
}

// copyBootModules copies the modules that the guest loads first, numbered in load order.
func copyBootModules(lib, out string) error {
	order, err := bootOrder(lib)
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

// bootOrder returns the files of rootModules and of the modules that they need, in load
// order, relative to lib. Modules that are built into the kernel are left out.
func bootOrder(lib string) ([]string, error) {
	dep, err := os.ReadFile(filepath.Join(lib, "modules.dep"))
	if err != nil {
		return nil, err
	}
	list, err := os.ReadFile(filepath.Join(lib, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	deps, err := kmod.ReadDeps(bytes.NewReader(dep))
	if err != nil {
		return nil, err
	}
	builtin, err := kmod.ReadBuiltin(bytes.NewReader(list))
	if err != nil {
		return nil, err
	}
	wanted := slices.DeleteFunc(slices.Clone(rootModules), func(m string) bool { return builtin[m] })
	return deps.LoadOrder(wanted...)
}

// modulesDisk writes an ext4 file system with lib/modules/VERSION. The files belong to
// root and have no times, so that equal packages make equal disks.
func modulesDisk(lib, version, out string) error {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(tarModules(pw, lib, "lib/modules/"+version)) }()
	err := ext4.FromTar(pr, out, maxDisk)
	pr.CloseWithError(err) // ends the writer, whatever it does
	return err
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
			return nil // links to a source tree, which the package does not have
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
