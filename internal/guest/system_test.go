package guest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// image makes a folder with an image's account files.
func image(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/bin", 0o755))
	must(t, os.Mkdir(root+"/etc", 0o755))
	must(t, os.WriteFile(root+"/bin/bash", nil, 0o755))
	for name, text := range files {
		must(t, os.WriteFile(root+"/etc/"+name, []byte(text), 0o644))
	}
	return root
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func TestUserIsAddedBesideTheImagesOwn(t *testing.T) {
	me := wire.User{Name: "me", UID: 1000, GID: 1000, Group: "me", Home: "/home/me"}
	for _, c := range []struct {
		name, passwd, group   string
		wantPasswd, wantGroup []string
	}{
		{
			name: "empty image",
			wantPasswd: []string{
				"root:x:0:0:root:/root:/bin/bash",
				"me:x:1000:1000::/home/me:/bin/bash",
			},
			wantGroup: []string{"root:x:0:", "me:x:1000:", "docker:x:999:me"},
		},
		{
			name:       "the image has the number",
			passwd:     "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n",
			group:      "root:x:0:\nnode:x:1000:\ndocker:x:103:other\n",
			wantPasswd: []string{"root:x:0:0::/root:/bin/sh", "me:x:1000:1000::/home/me:/bin/bash", "node:x:1000:1000::/home/node:/bin/sh"},
			wantGroup:  []string{"root:x:0:", "node:x:1000:", "docker:x:103:other,me"},
		},
		{
			name:       "the image has the name",
			passwd:     "root:x:0:0::/root:/bin/sh\nme:x:7:7::/x:/bin/sh\n",
			group:      "me:x:7:\n",
			wantPasswd: []string{"root:x:0:0::/root:/bin/sh", "me:x:1000:1000::/home/me:/bin/bash", "me-image:x:7:7::/x:/bin/sh"},
			wantGroup:  []string{"root:x:0:", "me:x:7:", "me-host:x:1000:", "docker:x:999:me"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{}
			if c.passwd != "" {
				files["passwd"] = c.passwd
			}
			if c.group != "" {
				files["group"] = c.group
			}
			root := image(t, files)
			for range 2 { // a second start changes nothing
				must(t, addUser(root, me))
				if got := lines(t, root+"/etc/passwd"); !slices.Equal(got, c.wantPasswd) {
					t.Errorf("passwd:\n%s", strings.Join(got, "\n"))
				}
				if got := lines(t, root+"/etc/group"); !slices.Equal(got, c.wantGroup) {
					t.Errorf("group:\n%s", strings.Join(got, "\n"))
				}
			}
		})
	}
}

func TestRootNeedsNoUser(t *testing.T) {
	root := image(t, map[string]string{"passwd": "root:x:0:0::/root:/bin/sh\n"})
	must(t, addUser(root, wire.User{Name: "root", Home: "/root"}))
	must(t, allowSudo(root, wire.User{Name: "root"}))
	if got := lines(t, root+"/etc/passwd"); len(got) != 1 {
		t.Errorf("got %q", got)
	}
}

func TestSudo(t *testing.T) {
	me := wire.User{Name: "me", UID: 1234}
	root := image(t, nil)
	must(t, allowSudo(root, me))
	if _, err := os.Stat(root + "/etc/sudoers.d"); err == nil {
		t.Error("an image without sudo got its folder")
	}
	must(t, os.Mkdir(root+"/etc/sudoers.d", 0o755))
	must(t, allowSudo(root, me))
	fi, err := os.Stat(root + "/etc/sudoers.d/bawn")
	must(t, err)
	if got := lines(t, root+"/etc/sudoers.d/bawn"); got[0] != "#1234 ALL=(ALL:ALL) NOPASSWD: ALL" || fi.Mode().Perm() != 0o440 {
		t.Errorf("got %q, %v", got, fi.Mode())
	}
}

func TestHomeIsMadeFromTheSkeleton(t *testing.T) {
	root := image(t, nil)
	must(t, os.MkdirAll(root+"/etc/skel/.config", 0o700))
	must(t, os.WriteFile(root+"/etc/skel/.config/rc", []byte("x"), 0o640))
	must(t, os.Symlink("rc", root+"/etc/skel/.config/link"))
	me := wire.User{Name: "me", UID: uint32(os.Getuid()) + 1, GID: uint32(os.Getgid()), Home: "/home/me"}
	if os.Getuid() != 0 {
		me.UID-- // only root gives files away
	}
	must(t, makeHome(root, me))
	home := root + "/home/me"
	if me.UID != 0 {
		fi, err := os.Lstat(home + "/.config/rc")
		must(t, err)
		if uid, _ := owner(fi); uid != int(me.UID) || fi.Mode().Perm() != 0o640 {
			t.Errorf("belongs to %d, mode %v", uid, fi.Mode())
		}
	}
	if target, err := os.Readlink(home + "/.config/link"); err != nil || target != "rc" {
		t.Errorf("link: %q, %v", target, err)
	}
	if fi, err := os.Stat(root + "/root"); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("root has no home: %v, %v", fi, err)
	}
	must(t, os.WriteFile(home+"/mine", nil, 0o600))
	must(t, makeHome(root, me))
	if _, err := os.Stat(home + "/mine"); err != nil {
		t.Error("a second start made the home anew:", err)
	}
}

func TestReplaceFileKeepsMode(t *testing.T) {
	path := t.TempDir() + "/dir/file"
	must(t, replaceFile(path, []byte("a"), 0o604))
	must(t, os.Chmod(path, 0o640))
	must(t, replaceFile(path, []byte("b"), 0o604))
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o640 || string(readSmall(path)) != "b" {
		t.Errorf("%v, %v", fi, err)
	}
}

func TestReadSmallDoesNotWaitForAPipe(t *testing.T) {
	path := t.TempDir() + "/pipe"
	must(t, unix.Mkfifo(path, 0o600))
	if got := readSmall(path); got != nil {
		t.Errorf("read %q", got)
	}
}

func TestLoginOfADamagedGuest(t *testing.T) {
	ls := &logins{root: t.TempDir()}
	ls.configure(wire.User{Name: "me", UID: 5, GID: 6, Home: "/h"}, nil)
	if l, err := ls.find("me"); err != nil || l.uid != 5 || l.gid != 6 || l.home != "/h" || l.shell != "/bin/sh" {
		t.Errorf("me: %+v, %v", l, err)
	}
	if l, err := ls.find("root"); err != nil || l.uid != 0 {
		t.Errorf("root: %+v, %v", l, err)
	}
	if _, err := ls.find("other"); err == nil {
		t.Error("other was found")
	}
}

func TestEnvironmentOfLaterWins(t *testing.T) {
	var e environment
	e.set("A=1", "B=2", "no assignment", "=x", "A=3", "C=\x00")
	if !slices.Equal(e, []string{"A=3", "B=2"}) || e.get("B") != "2" || e.get("Z") != "" {
		t.Errorf("got %q", e)
	}
}

func TestStatusOfAChildThatIsReapedEarly(t *testing.T) {
	ps := newProcesses()
	ps.ended(7, 0) // nobody starts anything: an orphan
	ps.starting = 1
	ps.ended(8, 256)
	if len(ps.early) != 1 || ps.early[8] != 256 {
		t.Errorf("kept %v", ps.early)
	}
	p := &process{pid: 9, done: make(chan struct{})}
	ps.running[9] = p
	ps.ended(9, 512)
	<-p.done
	if p.status.ExitStatus() != 2 || len(ps.running) != 0 {
		t.Errorf("status %v, %d left", p.status, len(ps.running))
	}
}

func TestProcStatWithAStrangeName(t *testing.T) {
	if sid, state := statSession("12 (a) b) (c) S 1 2 345 6"); sid != 345 || state != "S" {
		t.Errorf("got %d, %q", sid, state)
	}
	if sid, _ := statSession("garbage"); sid != 0 {
		t.Error(sid)
	}
	if !(member{ignores: ignored("Name:\tx\nSigIgn:\t0000000000000001\n")}).ignoresHangup() {
		t.Error("HUP is ignored")
	}
}

func TestModulesInOrder(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/modules.dep", []byte("k/a-b.ko: k/c.ko k/d.ko\nk/c.ko: k/d.ko\nk/d.ko:\nk/e.ko.xz:\n"), 0o644))
	must(t, os.WriteFile(dir+"/modules.alias", []byte("# comment\nalias net-pf-10 c\nalias pci:v00001AF4d*sv* e\nalias char-major-10-[0-9] d\n"), 0o644))
	for name, want := range map[string]string{
		"a_b":                   "k/d.ko k/c.ko k/a-b.ko",
		"a-b":                   "k/d.ko k/c.ko k/a-b.ko",
		"net-pf-10":             "k/d.ko k/c.ko",
		"pci:v00001AF4d1000sv1": "k/e.ko.xz",
		"char-major-10-7":       "k/d.ko",
	} {
		got, err := needed(dir, name)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := needed(dir, "unknown"); err == nil {
		t.Error("an unknown name was found")
	}
}

func TestDeviceNodes(t *testing.T) {
	for line, want := range map[string]deviceNode{
		"tun net/tun c10:200":    {"net/tun", unix.S_IFCHR | 0o666, 10, 200},
		"loop loop-control b7:1": {"loop-control", unix.S_IFBLK | 0o600, 7, 1},
	} {
		if got, ok := parseNode(line); !ok || got != want {
			t.Errorf("%s: %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "# Device nodes to trigger on-demand module loading.", "x ../x c1:2", "x y c1", "x y p1:2", "x y c1:z", "x /abs c1:2"} {
		if got, ok := parseNode(line); ok {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

func TestTerminalModes(t *testing.T) {
	var tio unix.Termios
	tio.Lflag = unix.ECHO | unix.ISIG
	applyModes(&tio, []byte{53, 0, 0, 0, 0, 3, 0, 0, 0, 8, 36, 0, 0, 0, 1, 4, 0, 0, 0, 255, 0, 50, 0, 0, 0, 0})
	if tio.Lflag != unix.ISIG || tio.Iflag != unix.ICRNL || tio.Cc[unix.VERASE] != 8 || tio.Cc[unix.VKILL] != 0 {
		t.Errorf("got %+v", tio)
	}
}

func FuzzTerminalModes(f *testing.F) {
	f.Add([]byte{53, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 2})
	f.Fuzz(func(_ *testing.T, b []byte) {
		var tio unix.Termios
		applyModes(&tio, b) // does not panic
	})
}

func newCA(t *testing.T, subject pkix.Name) (*x509.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestSubjectHashIsOpenSSLs(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl")
	}
	for _, subject := range []pkix.Name{
		{CommonName: "bawn sandbox CA"},
		{Organization: []string{"  Bawn   Dev "}, CommonName: "Ünïcode  CA", Country: []string{"DE"}},
	} {
		cert, text := newCA(t, subject)
		cmd := exec.Command("openssl", "x509", "-noout", "-subject_hash")
		cmd.Stdin = strings.NewReader(string(text))
		want, err := cmd.Output()
		must(t, err)
		got, err := subjectHash(cert)
		if err != nil || fmt.Sprintf("%08x\n", got) != string(want) {
			t.Errorf("%v: got %08x, %v; openssl says %s", subject, got, err, want)
		}
	}
}

func TestBundleHoldsOurCertificateOnce(t *testing.T) {
	_, old := newCA(t, pkix.Name{CommonName: "old"})
	_, cert := newCA(t, pkix.Name{CommonName: "new"})
	b := withCert([]byte("theirs"), nil, old)
	b = withCert(b, old, cert)
	b = withCert(b, cert, cert)
	if string(b) != "theirs\n"+string(cert) {
		t.Errorf("got %s", b)
	}
}

// TestNetworkCard configures a card in a network namespace of its own.
func TestNetworkCard(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("needs network namespaces:", err)
	}
	mac, err := net.ParseMAC("52:54:00:12:34:56")
	must(t, err)
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "card0"}, Mode: netlink.TUNTAP_MODE_TAP}
	if err := netlink.LinkAdd(tap); err != nil {
		t.Skip("needs /dev/net/tun:", err)
	}
	must(t, netlink.LinkSetHardwareAddr(tap, mac))
	link, err := netlink.LinkByName("card0")
	must(t, err)
	must(t, configureLink(link, &wire.Net{MTU: 1400}))
	a := &agent{net: &wire.Net{Gateways: []string{"10.1.2.1", "fd00::1"}}, link: link}
	address := func(addrs ...string) error {
		return a.address(&wire.Identity{MAC: mac.String(), Addresses: addrs})
	}
	for _, addrs := range [][]string{{"10.9.2.9/32", "fd09::9/128"}, {"10.9.2.3/32", "fd09::3/128"}, {"10.9.2.3/32", "fd09::3/128"}} {
		must(t, address(addrs...)) // others after a restore
	}
	all, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	must(t, err)
	for _, a := range all {
		if s := a.IPNet.String(); a.Scope == unix.RT_SCOPE_UNIVERSE && s != "10.9.2.3/32" && s != "fd09::3/128" {
			t.Errorf("the card still has %s", s)
		}
	}
	link, err = netlink.LinkByName("card0")
	must(t, err)
	if link.Attrs().MTU != 1400 || link.Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("got %+v", link.Attrs())
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: link.Attrs().Index}, netlink.RT_FILTER_OIF)
	must(t, err)
	var gateways []string
	for _, r := range routes {
		if r.Gw != nil {
			gateways = append(gateways, r.Gw.String())
		}
	}
	slices.Sort(gateways)
	if !slices.Equal(gateways, []string{"10.1.2.1", "fd00::1"}) {
		t.Errorf("gateways %q", gateways)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
	must(t, err)
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 && a.IP.Equal(net.ParseIP("fd09::3")) {
			t.Error("the address is tentative: duplicate detection runs")
		}
	}
	if address("10.1.2.3") == nil {
		t.Error("a malformed address was taken")
	}
	a.net.Gateways = []string{"x"}
	if address("10.9.2.4/32") == nil {
		t.Error("a malformed gateway was taken")
	}
}

func TestOwner(t *testing.T) {
	fi, err := os.Stat(t.TempDir())
	must(t, err)
	if uid, gid := owner(fi); uid != os.Getuid() || gid < 0 {
		t.Errorf("got %d, %d", uid, gid)
	}
	if uid, _ := owner(noStat{fi}); uid != -1 {
		t.Error(uid)
	}
}

type noStat struct{ fs.FileInfo }

func (noStat) Sys() any { return nil }

func TestSignalNames(t *testing.T) {
	if signalName(syscall.SIGTERM) != "TERM" || signalName(syscall.Signal(40)) != "" {
		t.Error("names of signals")
	}
}
