package kernel

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxKernel bounds an uncompressed kernel, in bytes. Debian's is under 64 MiB.
const maxKernel = 512 << 20

// Offsets in the setup header of a bzImage (Documentation/arch/x86/boot.rst).
const (
	setupSects     = 0x1f1 // number of 512-byte sectors of setup code, 0 means 4
	setupMagic     = 0x202 // "HdrS"
	payloadOffset  = 0x248 // from the start of the protected-mode code
	payloadLength  = 0x24c
	setupHeaderEnd = 0x250
)

// Offsets in an EFI zboot image (drivers/firmware/efi/libstub/zboot-header.S).
const (
	zbootMagic  = 0x04 // "zimg"
	zbootOffset = 0x08
	zbootSize   = 0x0c
	zbootEnd    = 0x38
)

// arm64Magic is at offset 0x38 of an arm64 Image (Documentation/arch/arm64/booting.rst).
const arm64Magic = "ARM\x64"

// unpackImage turns Debian's vmlinuz into what QEMU boots soonest: the vmlinux of
// a bzImage, or an arm64 Image.
func unpackImage(b []byte) ([]byte, error) {
	switch {
	case len(b) > setupHeaderEnd && string(b[setupMagic:setupMagic+4]) == "HdrS":
		return unpackBzImage(b)
	case len(b) > zbootEnd && string(b[:2]) == "MZ" && string(b[zbootMagic:zbootMagic+4]) == "zimg":
		off, n := binary.LittleEndian.Uint32(b[zbootOffset:]), binary.LittleEndian.Uint32(b[zbootSize:])
		p, err := slice(b, int64(off), int64(n))
		if err != nil {
			return nil, err
		}
		return checkArm64(decompress(p))
	case len(b) > 2 && b[0] == 0x1f && b[1] == 0x8b:
		return checkArm64(decompress(b))
	default:
		return checkArm64(b, nil)
	}
}

func checkArm64(b []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	if len(b) < 0x40 || string(b[0x38:0x3c]) != arm64Magic {
		return nil, errors.New("the kernel has an unknown format")
	}
	return b, nil
}

func unpackBzImage(b []byte) ([]byte, error) {
	sects := int64(b[setupSects])
	if sects == 0 {
		sects = 4
	}
	off := (sects+1)*512 + int64(binary.LittleEndian.Uint32(b[payloadOffset:]))
	p, err := slice(b, off, int64(binary.LittleEndian.Uint32(b[payloadLength:])))
	if err != nil {
		return nil, err
	}
	v, err := decompress(p)
	if err != nil {
		return nil, err
	}
	return v, checkPVH(v)
}

func slice(b []byte, off, n int64) ([]byte, error) {
	if off < 0 || n < 8 || off+n > int64(len(b)) {
		return nil, errors.New("the kernel's payload lies outside its file")
	}
	return b[off : off+n], nil
}

// decompress knows the formats that Debian has used. The kernel's build appends
// the uncompressed size (4 bytes) to those that do not end with it themselves,
// which is why what follows a whole frame is left alone.
func decompress(p []byte) ([]byte, error) {
	var r io.Reader
	switch {
	case bytes.HasPrefix(p, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(bytes.NewReader(p[:len(p)-4]), zstd.WithDecoderMaxMemory(maxKernel))
		if err != nil {
			return nil, err
		}
		defer d.Close()
		r = d
	case bytes.HasPrefix(p, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		d, err := xz.ReaderConfig{SingleStream: true}.NewReader(bytes.NewReader(p))
		if err != nil {
			return nil, err
		}
		r = d
	case bytes.HasPrefix(p, []byte{0x1f, 0x8b}):
		d, err := gzip.NewReader(bytes.NewReader(p))
		if err != nil {
			return nil, err
		}
		d.Multistream(false)
		r = d
	default:
		return nil, fmt.Errorf("the kernel is compressed with an unknown method (% x)", p[:4])
	}
	v, err := io.ReadAll(io.LimitReader(r, maxKernel+1))
	if err != nil {
		return nil, fmt.Errorf("decompress the kernel: %w", err)
	}
	if len(v) > maxKernel {
		return nil, errors.New("the kernel is too large")
	}
	return v, nil
}

// physEntry is the ELF note type by which QEMU finds the PVH entry point
// (XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h).
const physEntry = 18

// checkPVH makes sure that QEMU can enter this vmlinux.
func checkPVH(v []byte) error {
	f, err := elf.NewFile(bytes.NewReader(v))
	if err != nil {
		return fmt.Errorf("vmlinux: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > 1<<20 {
			continue
		}
		b, err := io.ReadAll(p.Open())
		if err != nil {
			return fmt.Errorf("vmlinux: %w", err)
		}
		if hasNote(b, "Xen\x00", physEntry) {
			return nil
		}
	}
	return errors.New("the kernel has no PVH entry point")
}

// hasNote walks ELF notes: sizes of name and descriptor, type, then both, each
// padded to 4 bytes (elf(5)).
func hasNote(b []byte, name string, typ uint32) bool {
	pad := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
	for len(b) >= 12 {
		nameSize, descSize, t := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
		b = b[12:]
		if pad(nameSize)+pad(descSize) > uint64(len(b)) {
			return false
		}
		if t == typ && string(b[:nameSize]) == name {
			return true
		}
		b = b[pad(nameSize)+pad(descSize):]
	}
	return false
}
