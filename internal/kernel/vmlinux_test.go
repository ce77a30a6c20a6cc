package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"strings"
	"testing"
)

// bzImage makes an image with the payload at the beginning of its protected-mode code.
func bzImage(payload []byte, offset, length uint32) []byte {
	b := make([]byte, 2*512, 2*512+len(payload))
	b[setupSects] = 1
	copy(b[setupMagic:], "HdrS")
	binary.LittleEndian.PutUint32(b[payloadOffset:], offset)
	binary.LittleEndian.PutUint32(b[payloadLength:], length)
	return append(b, payload...)
}

// arm64Image makes the smallest file that passes for an arm64 Image.
func arm64Image() []byte {
	b := make([]byte, 0x40)
	copy(b[0x38:], arm64Magic)
	return b
}

func zipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestUnpackImage(t *testing.T) {
	notELF := zipped(t, []byte("no ELF file"))
	zboot := append([]byte("MZ\x00\x00zimg"), make([]byte, zbootEnd)...)
	binary.LittleEndian.PutUint32(zboot[zbootOffset:], uint32(len(zboot)))
	arm := zipped(t, arm64Image())
	binary.LittleEndian.PutUint32(zboot[zbootSize:], uint32(len(arm)))
	zboot = append(zboot, arm...)
	for _, c := range []struct {
		what string
		in   []byte
		say  string // "" for a kernel that is unpacked
	}{
		{"nothing", nil, "unknown format"},
		{"text", []byte(strings.Repeat("x", 1000)), "unknown format"},
		{"an arm64 Image", arm64Image(), ""},
		{"one by gzip", arm, ""},
		{"one by EFI zboot", zboot, ""},
		{"one cut off", arm[:len(arm)/2], "decompress"},
		{"a bzImage of something else", bzImage(notELF, 0, uint32(len(notELF))), "vmlinux"},
		{"a payload of an unknown kind", bzImage(make([]byte, 100), 0, 100), "unknown method"},
		{"a payload behind the end", bzImage(notELF, 1<<20, 100), "outside"},
		{"a payload of a size beyond 32 bits", bzImage(notELF, 1<<32-1, 1<<32-1), "outside"},
		{"a payload that is too short", bzImage(notELF, 0, 7), "outside"},
	} {
		got, err := unpackImage(c.in)
		if c.say == "" {
			if err != nil || !bytes.Equal(got, arm64Image()) {
				t.Errorf("%s: %d bytes, %v", c.what, len(got), err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, want it to say %q", c.what, err, c.say)
		}
	}
}

// FuzzUnpackImage: a damaged kernel is an error, never a panic.
func FuzzUnpackImage(f *testing.F) {
	arm := zipped(f, arm64Image())
	f.Add([]byte{})
	f.Add(arm64Image())
	f.Add(arm)
	f.Add(bzImage(arm, 0, uint32(len(arm))))
	f.Add(bzImage([]byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 0, 0, 0}, 0, 10))
	f.Add(bzImage([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0}, 0, 8))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := unpackImage(b); err != nil && v != nil && len(v) > maxKernel {
			t.Error("beyond the bound")
		}
	})
}
