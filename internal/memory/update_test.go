package memory

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/sparse"
)

// TestUpdate: whatever the guest did after the copy, it is right again: pages
// written, emptied, given back, and new ones, at the ends and in the middle.
func TestUpdate(t *testing.T) {
	const pages = 4096
	r := rand.New(rand.NewPCG(1, 2)) // the same each time
	some := func() []byte {
		b := make([]byte, page)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	src, dst := newTestRAM(t, pages*page), newTestRAM(t, pages*page)
	change := func(n int) {
		for range n {
			at := int64(r.IntN(pages)) * page
			switch r.IntN(4) {
			case 0, 1:
				_, _ = src.WriteAt(some(), at)
			case 2:
				_, _ = src.WriteAt(make([]byte, page), at)
			default:
				n := min(int64(1+r.IntN(100))*page, pages*page-at)
				if err := unix.Fallocate(int(src.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	change(3000)
	if _, err := sparse.CopyData(t.Context(), dst, src); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		change(500)
		if _, err := Update(dst, src); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(contents(t, src, pages*page), contents(t, dst, pages*page)) {
			t.Fatal("the copy is another")
		}
		if n, err := Update(dst, src); n != 0 || err != nil {
			t.Fatalf("%d bytes differ again, %v", n, err)
		}
	}
	for _, f := range []*os.File{src, dst} { // all of it gone, but the ends
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, pages*page); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = src.WriteAt([]byte{1}, 0)
	_, _ = src.WriteAt([]byte{1}, pages*page-1)
	if n, err := Update(dst, src); n != 2*page || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := Update(newTestRAM(t, page), src); err == nil {
		t.Error("memories of two sizes were taken")
	}
}

// BenchmarkUpdate: how long a guest stands still that has changed little since it
// was copied, against the copy.
func BenchmarkUpdate(b *testing.B) {
	const size = 512 << 20
	src, dst := newTestRAM(b, size), newTestRAM(b, size)
	for at := int64(0); at < size; at += 1 << 20 {
		_, _ = src.WriteAt(bytes.Repeat([]byte{byte(at >> 20), 1}, 1<<19), at)
	}
	if _, err := sparse.CopyData(b.Context(), dst, src); err != nil {
		b.Fatal(err)
	}
	b.Run("update", func(b *testing.B) {
		b.SetBytes(size)
		for range b.N {
			if _, err := Update(dst, src); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("copy", func(b *testing.B) {
		b.SetBytes(size)
		for range b.N {
			if _, err := sparse.CopyData(b.Context(), newTestRAM(b, size), src); err != nil {
				b.Fatal(err)
			}
		}
	})
}
