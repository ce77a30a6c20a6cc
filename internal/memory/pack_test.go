package memory

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"bawn.dev/bawn/internal/sys/sparse"
)

func newTestRAM(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func packed(t testing.TB, ram *os.File) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ram")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Pack(f, ram); err != nil {
		t.Fatal(err)
	}
	return path
}

func unpack(t testing.TB, path string, size int64) (*os.File, error) {
	t.Helper()
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	ram := newTestRAM(t, size)
	return ram, Unpack(ram, from)
}

// unpackStream is unpack from a stream.
func unpackStream(t testing.TB, path string, size int64) (*os.File, error) {
	t.Helper()
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	ram := newTestRAM(t, size)
	return ram, UnpackStream(ram, from)
}

func contents(t testing.TB, f *os.File, size int64) []byte {
	t.Helper()
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPackedMemoryIsTheSame(t *testing.T) {
	const size = 8 << 20
	for name, fill := range map[string]func(*rand.Rand, []byte){
		"nothing": func(*rand.Rand, []byte) {},
		"all":     func(r *rand.Rand, b []byte) { b[0], b[len(b)-1] = 1, 1; randomBytes(r, b) },
		"edges":   func(_ *rand.Rand, b []byte) { b[0], b[len(b)-1] = 1, 2 },
		"scattered": func(r *rand.Rand, b []byte) {
			for range 300 {
				b[r.IntN(len(b))] = byte(1 + r.IntN(255))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := make([]byte, size)
			fill(rand.New(rand.NewPCG(1, 2)), want)
			ram := newTestRAM(t, size)
			if err := writeAll(ram, want); err != nil {
				t.Fatal(err)
			}
			path := packed(t, ram)
			for _, from := range []func(testing.TB, string, int64) (*os.File, error){unpack, unpackStream} {
				got, err := from(t, path, size)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(contents(t, got, size), want) {
					t.Error("what was unpacked is not what was packed")
				}
			}
		})
	}
}

func randomBytes(r *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

// writeAll leaves holes where there is nothing.
func writeAll(f *os.File, b []byte) error {
	for at := 0; at < len(b); at += page {
		if p := b[at : at+page]; !sparse.IsZero(p) {
			if _, err := f.WriteAt(p, int64(at)); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestDamagedPackedMemoryIsRefused(t *testing.T) {
	const size = 1 << 20
	ram := newTestRAM(t, size)
	for at := int64(0); at < size; at += 64 << 10 {
		if _, err := ram.WriteAt([]byte("x"), at); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(packed(t, ram))
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"empty":       func([]byte) []byte { return nil },
		"short":       func(b []byte) []byte { return b[:len(b)-page] },
		"table only":  func(b []byte) []byte { return b[:20] },
		"long":        func(b []byte) []byte { return append(b, make([]byte, page)...) },
		"magic":       func(b []byte) []byte { b[0]++; return b },
		"other size":  func(b []byte) []byte { b[10]++; return b },
		"many runs":   func(b []byte) []byte { b[22] = 0xff; return b },
		"outside":     func(b []byte) []byte { b[24+4] = 1; return b },
		"overlapping": func(b []byte) []byte { copy(b[24+16:], b[24:24+8]); return b },
		"odd":         func(b []byte) []byte { b[24]++; return b },
		"negative":    func(b []byte) []byte { b[24+15] = 0x80; return b },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad")
			if err := os.WriteFile(path, damage(bytes.Clone(good)), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := unpack(t, path, size); !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v", err)
			}
			if _, err := unpackStream(t, path, size); !errors.Is(err, ErrDamaged) {
				t.Errorf("as a stream: got %v", err)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "good")
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := unpack(t, path, 2*size); !errors.Is(err, ErrDamaged) {
		t.Errorf("memory of another size: got %v", err)
	}
}

func BenchmarkUnpack(b *testing.B) {
	const size = 1 << 30
	ram := newTestRAM(b, size)
	buf := make([]byte, 120<<20)
	randomBytes(rand.New(rand.NewPCG(1, 2)), buf)
	if _, err := ram.WriteAt(buf, 16<<20); err != nil {
		b.Fatal(err)
	}
	path := packed(b, ram)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		from, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		to, err := New(size)
		if err != nil {
			b.Fatal(err)
		}
		if err := Unpack(to, from); err != nil {
			b.Fatal(err)
		}
		from.Close()
		to.Close()
	}
}
