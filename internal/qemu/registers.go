package qemu

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"bawn.dev/bawn/internal/sys/lines"
)

// registers reads and writes the machine's I/O ports and memory-mapped registers
// from outside, as its processor would (QEMU's qtest protocol, softmmu/qtest.c:
// a command a line, an answer a line). It is used only while the guest is paused,
// so that the two never meet.
type registers struct {
	mu   sync.Mutex
	conn net.Conn
	in   *bufio.Reader
	err  error // the first; later calls do nothing
}

// registerTime bounds one answer. A QEMU that hangs with a share server gives
// none.
const registerTime = 10 * time.Second

func newRegisters(conn net.Conn) *registers {
	return &registers{conn: conn, in: bufio.NewReaderSize(conn, 4096)}
}

func (r *registers) close() {
	if r != nil {
		r.conn.Close()
	}
}

// ask sends one command and returns the answer's value, 0 where it has none or after an
// error (failed).
func (r *registers) ask(format string, args ...any) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0
	}
	var v uint64
	v, r.err = r.exchange(fmt.Sprintf(format, args...))
	return v
}

func (r *registers) exchange(command string) (uint64, error) {
	if err := r.conn.SetDeadline(time.Now().Add(registerTime)); err != nil {
		return 0, err
	}
	if _, err := r.conn.Write([]byte(command + "\n")); err != nil {
		return 0, fmt.Errorf("registers: %w", err)
	}
	line, err := lines.Read(r.in, 4096)
	if err != nil {
		return 0, fmt.Errorf("registers: %w", err)
	}
	answer, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "OK")
	if !ok {
		return 0, fmt.Errorf("registers: %s: QEMU refused: %s", command, clean(string(line)))
	}
	if answer = strings.TrimSpace(answer); answer == "" {
		return 0, nil
	}
	v, err := strconv.ParseUint(answer, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("registers: %s: an unexpected answer: %s", command, clean(answer))
	}
	return v, nil
}

// failed returns the first error since the connection was made.
func (r *registers) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Memory-mapped registers, by physical address.
func (r *registers) read8(at uint64) uint8 { return uint8(r.ask("readb %#x", at)) }
func (r *registers) read16(at uint64) uint16 {
	return uint16(r.ask("readw %#x", at))
}
func (r *registers) read32(at uint64) uint32 {
	return uint32(r.ask("readl %#x", at))
}
func (r *registers) write8(at uint64, v uint8)   { r.ask("writeb %#x %#x", at, v) }
func (r *registers) write16(at uint64, v uint16) { r.ask("writew %#x %#x", at, v) }
func (r *registers) write32(at uint64, v uint32) { r.ask("writel %#x %#x", at, v) }

// I/O ports.
func (r *registers) in32(port uint16) uint32     { return uint32(r.ask("inl %#x", port)) }
func (r *registers) out32(port uint16, v uint32) { r.ask("outl %#x %#x", port, v) }
func (r *registers) out8(port uint16, v uint8)   { r.ask("outb %#x %#x", port, v) }

// PCI configuration space by its two ports (PCI Local Bus 3.0, 3.2.2.3.2).
const (
	pciAddress = 0xcf8
	pciData    = 0xcfc
)

// function is a PCI device as its configuration space sees it.
type function struct {
	r        *registers
	bus, dev uint8
	fn       uint8
}

func (f function) address(offset uint8) uint32 {
	return 1<<31 | uint32(f.bus)<<16 | uint32(f.dev)<<11 | uint32(f.fn)<<8 | uint32(offset&^3)
}

func (f function) get(offset uint8) uint32 {
	f.r.out32(pciAddress, f.address(offset))
	return f.r.in32(pciData)
}

func (f function) set(offset uint8, v uint32) {
	f.r.out32(pciAddress, f.address(offset))
	f.r.out32(pciData, v)
}

func (f function) byte(offset uint8) uint8 { return uint8(f.get(offset) >> (offset & 3 * 8)) }
