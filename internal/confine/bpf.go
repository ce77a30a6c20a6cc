package confine

import (
	"errors"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Offsets into struct seccomp_data (seccomp(2)), in bytes. The arguments are
// 64 bits wide and little-endian on both architectures: the low half comes
// first. The kernel takes the arguments that are checked here as 32-bit numbers, so the
// high half means nothing.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// The instructions of a filter (linux/bpf_common.h).

func statement(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

// jump skips yes instructions if the comparison with k holds, else no.
func jump(comparison uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | comparison | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

// load reads 4 bytes of struct seccomp_data.
func load(offset uint32) unix.SockFilter {
	return statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset)
}

// give ends the filter with an action.
func give(action uint32) unix.SockFilter { return statement(unix.BPF_RET|unix.BPF_K, action) }

// errno is the action that fails a call.
func errno(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

// answer is what the filter says to one system call: the check if there is one, else the
// action.
type answer struct {
	action uint32
	check  []unix.SockFilter
}

// oneOf allows a call whose first argument is one of the values.
func oneOf(values ...uint32) []unix.SockFilter {
	return matching(0, values, errno(unix.EPERM), unix.SECCOMP_RET_ALLOW)
}

// noneOf allows a call whose second argument is none of the values.
func noneOf(values ...uint32) []unix.SockFilter {
	return matching(1, values, unix.SECCOMP_RET_ALLOW, errno(unix.EPERM))
}

func matching(arg uint32, values []uint32, without, with uint32) []unix.SockFilter {
	prog := []unix.SockFilter{load(dataArgs + 8*arg)}
	for i, v := range values {
		prog = append(prog, jump(unix.BPF_JEQ, v, uint8(len(values)-i), 0))
	}
	return append(prog, give(without), give(with))
}

// noCode allows a call whose third argument, a protection of memory (mmap(2)), does not let
// it be executed.
func noCode() []unix.SockFilter {
	return []unix.SockFilter{
		load(dataArgs + 8*2),
		jump(unix.BPF_JSET, unix.PROT_EXEC, 0, 1),
		give(errno(unix.EPERM)),
		give(unix.SECCOMP_RET_ALLOW),
	}
}

// span is a range of system calls with one answer; it ends before the next one begins.
type span struct {
	from uint32
	answer
}

// spans turns answers into a gapless, sorted list. What has no answer is refused, and what
// is newer than the lists is absent.
func spans(calls map[uint32]answer) []span {
	refuse := answer{action: errno(unix.EPERM)}
	list := []span{{0, refuse}}
	add := func(from uint32, a answer) {
		last := &list[len(list)-1]
		switch {
		case last.from == from:
			last.answer = a
		case a.check != nil || last.check != nil || a.action != last.action:
			list = append(list, span{from, a})
		}
	}
	next := uint32(0)
	for _, nr := range slices.Sorted(maps.Keys(calls)) {
		if nr > next {
			add(next, refuse)
		}
		add(nr, calls[nr])
		next = nr + 1
	}
	if next <= newest {
		add(next, refuse)
	}
	return append(list, span{max(next, newest+1), answer{action: errno(unix.ENOSYS)}})
}

// program builds the filter: calls of another architecture (32-bit on amd64) have other
// numbers and are absent; then the search. Calls of the x32 ABI have the same architecture
// and very large numbers (seccomp(2), "Caveats"): they count as newer than the lists.
func program(calls map[uint32]answer) ([]unix.SockFilter, error) {
	prog := []unix.SockFilter{
		load(dataArch),
		jump(unix.BPF_JEQ, auditArch, 1, 0),
		give(errno(unix.ENOSYS)),
		load(dataNr),
	}
	if prog = append(prog, search(spans(calls))...); len(prog) > unix.BPF_MAXINSNS {
		return nil, errors.New("confine: the system call filter is too long")
	}
	return prog, nil
}

// search is a binary search for the span of the number that is loaded.
func search(list []span) []unix.SockFilter {
	if len(list) == 1 {
		if list[0].check != nil {
			return list[0].check
		}
		return []unix.SockFilter{give(list[0].action)}
	}
	middle := len(list) / 2
	low, high := search(list[:middle]), search(list[middle:])
	return slices.Concat([]unix.SockFilter{
		jump(unix.BPF_JGE, list[middle].from, 0, 1),
		// A conditional jump reaches only 255 instructions.
		statement(unix.BPF_JMP|unix.BPF_JA, uint32(len(low))),
	}, low, high)
}
