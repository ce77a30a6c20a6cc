package image

import (
	"archive/tar"
	"errors"
	"io"
	"path/filepath"
	"strings"

	"bawn.dev/bawn/internal/ext4"
)

// flatten makes an ext4 file of the layers' tar stream.
func (s *Store) flatten(layers io.Reader, out string) error {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(s.clean(layers, pw)) }()
	err := ext4.FromTar(pr, out, s.limits.Bytes)
	pr.CloseWithError(err) // ends the writer, whatever it does
	return err
}

// errTooLarge means that an image is beyond Limits.
var errTooLarge = errors.New("larger than bawn takes")

// clean copies a tar stream and checks it against the limits. It leaves out devices, and
// writes each path in one form, below the root. Hard links are written last: layers are
// read from the top one down, so the file that a link names may come after it.
func (s *Store) clean(in io.Reader, out io.Writer) error {
	r, w := tar.NewReader(in), tar.NewWriter(out)
	var links []*tar.Header
	seen := map[string]bool{}
	var bytes int64
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if bytes += h.Size; n >= s.limits.Entries || bytes > s.limits.Bytes || h.Size < 0 {
			return errTooLarge
		}
		var ok bool
		if h.Name, ok = inside(h.Name); !ok {
			continue
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeFifo:
			seen[h.Name] = true
		case tar.TypeLink:
			if h.Linkname, ok = inside(h.Linkname); ok {
				links = append(links, h)
			}
			continue
		default:
			continue // devices: the guest's kernel makes its own
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil { //nolint:gosec // what is written is bounded by the caller
			return err
		}
	}
	for _, h := range links {
		if !seen[h.Linkname] {
			continue // to a file that a higher layer removed
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
	}
	return w.Close()
}

// inside returns the path in one form, relative to the root, and false for the root
// itself and for what is no path.
func inside(path string) (string, bool) {
	clean := strings.TrimPrefix(filepath.Clean("/"+path), "/")
	return clean, clean != "" && !strings.ContainsRune(clean, 0)
}
