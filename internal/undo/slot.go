package undo

import (
	"encoding/binary"
	"hash/crc32"
	"io"

	"golang.org/x/sys/unix"
)

// slot is how the guest left the path of a record. It has a fixed place in the file "after",
// so that a file which is written for days takes no more room than one that is written once.
type slot struct {
	present bool // else the path was removed
	ino     uint64
	size    uint64
	mtime   int64 // ns
	mode    uint32
	mixed   bool // the host changed the path between two changes of the guest
}

// slotSize is the length of a slot on disk, in bytes.
const slotSize = 64

// What a slot says of a path. A slot of zeros says nothing.
const (
	slotAbsent  = 1
	slotPresent = 2
	slotMixed   = 3 // for a bawn that does not know it, the slot says nothing, which comes to the same
)

func slotOf(st *unix.Statx_t) slot {
	return slot{present: true, ino: st.Ino, size: st.Size, mtime: nanoseconds(st.Mtime), mode: uint32(st.Mode)}
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// same reports whether two slots are of the same file in the same condition. Of a directory
// only its being one counts: its times change with what lies in it.
func (s slot) same(o slot) bool {
	if s.present && o.present && s.mode&unix.S_IFMT == unix.S_IFDIR {
		return s.mode == o.mode && s.ino == o.ino
	}
	return s == o
}

func (s slot) bytes() []byte {
	b := make([]byte, slotSize)
	b[0] = slotAbsent
	if s.present {
		b[0] = slotPresent
	}
	if s.mixed {
		b[0] = slotMixed
	}
	binary.LittleEndian.PutUint64(b[8:], s.ino)
	binary.LittleEndian.PutUint64(b[16:], s.size)
	binary.LittleEndian.PutUint64(b[24:], uint64(s.mtime))
	binary.LittleEndian.PutUint32(b[32:], s.mode)
	binary.LittleEndian.PutUint32(b[60:], crc32.ChecksumIEEE(b[:60]))
	return b
}

// parseSlot reads a slot. ok is false for one that says nothing or is damaged.
func parseSlot(b []byte) (s slot, ok bool) {
	if len(b) != slotSize || binary.LittleEndian.Uint32(b[60:]) != crc32.ChecksumIEEE(b[:60]) || b[0] < slotAbsent || b[0] > slotMixed {
		return slot{}, false
	}
	s = slot{
		mixed:   b[0] == slotMixed,
		present: b[0] == slotPresent,
		ino:     binary.LittleEndian.Uint64(b[8:]), size: binary.LittleEndian.Uint64(b[16:]),
		mtime: int64(binary.LittleEndian.Uint64(b[24:])), mode: binary.LittleEndian.Uint32(b[32:]),
	}
	return s, true
}

// isOf reports whether a slot is of a path in the state that a later record says.
func (s slot) isOf(w *State) bool {
	if !s.present || w.Kind == Absent {
		return !s.present && w.Kind == Absent
	}
	now := stateOf(&unix.Statx_t{Mode: uint16(s.mode), Size: s.size, Mtime: unix.StatxTimestamp{Sec: s.mtime / 1e9, Nsec: uint32(s.mtime % 1e9)}})
	switch {
	case now.Kind != w.Kind:
		return false
	case w.Kind == File:
		return now.Size == w.Size && now.Mtime == w.Mtime && now.Mode == w.Mode
	case w.Kind == Link:
		return now.Mtime == w.Mtime
	}
	return true
}

// readSlot reads the n-th slot.
func readSlot(r io.ReaderAt, n uint32) (slot, bool) {
	b := make([]byte, slotSize)
	if _, err := r.ReadAt(b, int64(n)*slotSize); err != nil {
		return slot{}, false
	}
	return parseSlot(b)
}
