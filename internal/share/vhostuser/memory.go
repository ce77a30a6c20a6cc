package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// region is a part of the guest's memory, mapped here.
type region struct {
	guest uint64 // its address in the guest
	user  uint64 // its address in QEMU
	data  []byte
	raw   []byte // the whole mapping, from the file's beginning
}

// memory is the guest's memory. It stays mapped until its last user has released it.
type memory struct {
	regions []region
	users   atomic.Int64
}

var errOutside = errors.New("an address outside the guest's memory")

// mapMemory maps the regions of a SET_MEM_TABLE message: their number, 4 bytes
// of padding, then for each guest address, size, QEMU's address and offset in
// its file, 64 bits each.
func mapMemory(m *message) (_ *memory, err error) {
	if len(m.payload) < 8 {
		return nil, errShort
	}
	n := int(binary.NativeEndian.Uint32(m.payload))
	if n > maxFiles || n != len(m.files) || len(m.payload) < 8+32*n {
		return nil, fmt.Errorf("%d regions of memory with %d files", n, len(m.files))
	}
	mem := &memory{}
	mem.users.Store(1)
	defer func() {
		if err != nil {
			mem.unmap()
		}
	}()
	for i := range n {
		p := m.payload[8+32*i:]
		r := region{guest: binary.NativeEndian.Uint64(p), user: binary.NativeEndian.Uint64(p[16:])}
		size, off := binary.NativeEndian.Uint64(p[8:]), binary.NativeEndian.Uint64(p[24:])
		if size == 0 || size > math.MaxInt64/2 || off > math.MaxInt64/2 ||
			r.guest > math.MaxUint64-size || r.user > math.MaxUint64-size {
			return nil, fmt.Errorf("region of memory: %d bytes at %#x", size, r.guest)
		}
		var st unix.Stat_t
		fd := int(m.files[i].Fd())
		if err := unix.Fstat(fd, &st); err != nil {
			return nil, err
		}
		if uint64(st.Size) < off+size {
			return nil, errors.New("region of memory: beyond its file's end")
		}
		r.raw, err = unix.Mmap(fd, 0, int(off+size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
		if err != nil {
			return nil, fmt.Errorf("map the guest's memory: %w", err)
		}
		r.data = r.raw[off:]
		mem.regions = append(mem.regions, r)
	}
	return mem, nil
}

func (m *memory) acquire() { m.users.Add(1) }

func (m *memory) release() {
	if m.users.Add(-1) == 0 {
		m.unmap()
	}
}

func (m *memory) unmap() {
	for _, r := range m.regions {
		_ = unix.Munmap(r.raw) // it was mapped
	}
}

// atUser returns n bytes at QEMU's address, all in one region.
func (m *memory) atUser(addr, n uint64) ([]byte, error) {
	for i := range m.regions {
		r := &m.regions[i]
		if off := addr - r.user; addr >= r.user && off < uint64(len(r.data)) && n <= uint64(len(r.data))-off {
			return r.data[off : off+n : off+n], nil
		}
	}
	return nil, errOutside
}

// atGuest appends the n bytes at a guest address to list, in several parts where they span
// regions.
func (m *memory) atGuest(list [][]byte, addr, n uint64) ([][]byte, error) {
	for n > 0 {
		part := m.from(addr)
		if part == nil {
			return list, errOutside
		}
		if uint64(len(part)) > n {
			part = part[:n:n]
		}
		list = append(list, part)
		addr += uint64(len(part))
		n -= uint64(len(part))
	}
	return list, nil
}

// from returns the memory from a guest address to the end of its region, nil if there is
// none.
func (m *memory) from(addr uint64) []byte {
	for i := range m.regions {
		r := &m.regions[i]
		if off := addr - r.guest; addr >= r.guest && off < uint64(len(r.data)) {
			return r.data[off:]
		}
	}
	return nil
}
