// Package attrib attributes network connections to processes: the host asks whose a
// connection is when it arrives, for its log.
//
// Two sources are asked. The kernel's trace buffer (trace.go, ring.go) names who
// connected or sent, also when the socket is gone again. Where the kernel cannot do that,
// or its note is old, /proc is searched for the socket (this file). Nothing is read that
// a file system which hangs could hold up: only tables of sockets, names of links and
// names of processes.
package attrib

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"bawn.dev/bawn/internal/wire"
)

// Finder finds the processes that use connections. Its zero value is ready to use.
// All methods may be called concurrently.
type Finder struct{ trace trace }

// Begin starts the kernel's notes of who connects. Without it, and where the kernel
// cannot note it, find reads /proc only.
func (c *Finder) Begin() { c.trace.begin() }

// Find returns the process of each connection of the list, in the same order.
func (c *Finder) Find(list []wire.ProcessRequest) []wire.ProcessReply {
	out := make([]wire.ProcessReply, 0, len(list))
	for _, r := range list {
		if task, name := c.trace.user(r.Proto, r.Src.Port()); task != 0 {
			out = append(out, c.trace.process("/proc", task, name))
			continue
		}
		out = append(out, procfs("/proc").owner(r))
	}
	return out
}

// procfs is the path of a proc file system.
type procfs string

// owner returns the process at the guest's end of a connection; PID 0 if there is none, or
// none that can be found.
func (p procfs) owner(r wire.ProcessRequest) wire.ProcessReply {
	pids := p.pids()
	inode := p.socket("self", r, true)
	if inode == 0 {
		inode = p.otherNamespaces(pids, r)
	}
	if inode == 0 {
		return wire.ProcessReply{}
	}
	link := "socket:[" + strconv.FormatUint(inode, 10) + "]"
	for _, pid := range pids {
		if p.holds(pid, link) {
			return wire.ProcessReply{PID: pid, Name: p.name(pid)}
		}
	}
	return wire.ProcessReply{}
}

// otherNamespaces looks for the connection in the network namespaces of containers, and
// returns its inode or 0. The kernel replaces the address of their connections by the
// guest's own, and keeps the port if it is free.
func (p procfs) otherNamespaces(pids []int, r wire.ProcessRequest) uint64 {
	own, _ := os.Readlink(filepath.Join(string(p), "self", "ns", "net"))
	seen := []string{own}
	for _, pid := range pids {
		dir := strconv.Itoa(pid)
		ns, err := os.Readlink(filepath.Join(string(p), dir, "ns", "net"))
		if err != nil || slices.Contains(seen, ns) {
			continue
		}
		seen = append(seen, ns)
		if inode := p.socket(dir, r, false); inode != 0 {
			return inode
		}
	}
	return 0
}

// pids lists the processes by falling number: a connection is most likely a young process's.
func (p procfs) pids() []int {
	dir, err := os.Open(string(p))
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what was read counts
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	slices.Reverse(pids)
	return pids
}

// holds reports whether a process has the link among its descriptors.
func (p procfs) holds(pid int, link string) bool {
	path := filepath.Join(string(p), strconv.Itoa(pid), "fd")
	dir, err := os.Open(path)
	if err != nil {
		return false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	return slices.ContainsFunc(names, func(n string) bool {
		to, err := os.Readlink(path + "/" + n)
		return err == nil && to == link
	})
}

// name returns the name of a process; "" if it has ended.
func (p procfs) name(pid int) string {
	b, _ := os.ReadFile(filepath.Join(string(p), strconv.Itoa(pid), "comm"))
	return strings.TrimSuffix(string(b), "\n")
}

// socket returns the inode of the connection's socket in a process's network namespace, or
// 0. With exact, the socket must have the guest's address.
func (p procfs) socket(pid string, r wire.ProcessRequest, exact bool) uint64 {
	for _, table := range []string{r.Proto, r.Proto + "6"} {
		if !slices.Contains([]string{"tcp", "udp", "tcp6", "udp6"}, table) {
			return 0
		}
		f, err := os.Open(filepath.Join(string(p), pid, "net", table))
		if err != nil {
			continue // there is no IPv6, or the process has ended
		}
		sc := bufio.NewScanner(f)
		var inode uint64
		for inode == 0 && sc.Scan() {
			if s, ok := parseSocket(sc.Text()); ok && s.serves(r, exact) {
				inode = s.inode
			}
		}
		f.Close()
		if inode != 0 {
			return inode
		}
	}
	return 0
}

// socket is a line of /proc/PID/net/tcp and the like.
type socket struct {
	local, remote netip.AddrPort
	inode         uint64
}

// serves reports whether the connection may be this socket's. A UDP socket need not have a
// remote end, nor an address of its own.
func (s socket) serves(r wire.ProcessRequest, exact bool) bool {
	if s.inode == 0 || s.local.Port() != r.Src.Port() {
		return false
	}
	if exact && s.local.Addr() != r.Src.Addr() && !s.local.Addr().IsUnspecified() {
		return false
	}
	return s.remote == r.Dst || r.Proto == "udp" && s.remote.Port() == 0
}

// parseSocket reads a line: number, local end, remote end, state, queues, timer,
// retransmits, user, timeout, inode (proc_pid_net(5)).
func parseSocket(line string) (socket, bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return socket{}, false
	}
	local, ok1 := parseEnd(f[1])
	remote, ok2 := parseEnd(f[2])
	inode, err := strconv.ParseUint(f[9], 10, 64)
	return socket{local, remote, inode}, ok1 && ok2 && err == nil
}

// parseEnd reads ADDRESS:PORT in hexadecimal; an address is in words of the
// machine's own byte order.
func parseEnd(s string) (netip.AddrPort, bool) {
	a, p, _ := strings.Cut(s, ":")
	b, err1 := hex.DecodeString(a)
	port, err2 := strconv.ParseUint(p, 16, 16)
	if err1 != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), ok
}
