package share

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// storageTypes are the file systems (statfs(2), f_type) that a share serves where they are
// mounted below its root: those that hold files. All others are interfaces of the kernel,
// which do something when they are written, or unknown. As root, a guest could write
// /proc/sys of a chroot in the share.
var storageTypes = map[uint32]bool{
	unix.EXT4_SUPER_MAGIC: true, // ext2 and ext3 too
	unix.XFS_SUPER_MAGIC:  true, unix.BTRFS_SUPER_MAGIC: true, unix.F2FS_SUPER_MAGIC: true, unix.BCACHEFS_SUPER_MAGIC: true,
	unix.REISERFS_SUPER_MAGIC: true, unix.NILFS_SUPER_MAGIC: true, unix.OCFS2_SUPER_MAGIC: true, unix.ZONEFS_MAGIC: true,
	unix.TMPFS_MAGIC: true, unix.RAMFS_MAGIC: true,
	unix.OVERLAYFS_SUPER_MAGIC: true, unix.ECRYPTFS_SUPER_MAGIC: true, unix.FUSE_SUPER_MAGIC: true,
	unix.NFS_SUPER_MAGIC: true, unix.CIFS_SUPER_MAGIC: true, unix.SMB2_SUPER_MAGIC: true, unix.SMB_SUPER_MAGIC: true,
	unix.V9FS_MAGIC: true, unix.CEPH_SUPER_MAGIC: true, unix.AFS_FS_MAGIC: true, unix.AFS_SUPER_MAGIC: true,
	unix.CODA_SUPER_MAGIC: true, unix.HOSTFS_SUPER_MAGIC: true,
	unix.MSDOS_SUPER_MAGIC: true, unix.EXFAT_SUPER_MAGIC: true, unix.HPFS_SUPER_MAGIC: true,
	unix.ISOFS_SUPER_MAGIC: true, unix.UDF_SUPER_MAGIC: true, unix.SQUASHFS_MAGIC: true, unix.EROFS_SUPER_MAGIC_V1: true,
	unix.CRAMFS_MAGIC: true, unix.JFFS2_SUPER_MAGIC: true, unix.MINIX_SUPER_MAGIC: true, unix.MINIX3_SUPER_MAGIC: true,
	0x2fc12fc1: true, // ZFS, out of the kernel's tree
	0x3153464a: true, // JFS
	0x482b:     true, // HFS+
	0x4244:     true, // HFS
	0x5346544e: true, // NTFS
	0x7366746e: true, // NTFS3
	0x24051905: true, // UBIFS
	0x01161970: true, // GFS2
	0x0bd00bd0: true, // Lustre
	0x61756673: true, // aufs
	0x786f4256: true, // VirtualBox's shared folders
}

// kernelTypes are interfaces of the kernel that cannot be the root of a share either. A
// root of a type that is in neither table is the person's choice.
var kernelTypes = map[uint32]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true,
	unix.DEBUGFS_MAGIC: true, unix.TRACEFS_MAGIC: true, unix.SECURITYFS_MAGIC: true, unix.BPF_FS_MAGIC: true,
	unix.DEVPTS_SUPER_MAGIC: true, unix.BINFMTFS_MAGIC: true, unix.EFIVARFS_MAGIC: true, unix.PSTOREFS_MAGIC: true,
	unix.NSFS_MAGIC: true, unix.PID_FS_MAGIC: true, unix.RDTGROUP_SUPER_MAGIC: true, unix.SELINUX_MAGIC: true,
	unix.SMACK_MAGIC: true, unix.HUGETLBFS_MAGIC: true, unix.XENFS_SUPER_MAGIC: true, unix.BINDERFS_SUPER_MAGIC: true,
	unix.AAFS_MAGIC: true, unix.OPENPROM_SUPER_MAGIC: true, unix.AUTOFS_SUPER_MAGIC: true, unix.BDEVFS_MAGIC: true,
	unix.DEVMEM_MAGIC: true, unix.USBDEVICE_SUPER_MAGIC: true, unix.DMA_BUF_MAGIC: true, unix.SECRETMEM_MAGIC: true,
	0x62656570: true, // configfs
	0x65735543: true, // fusectl
	0x19800202: true, // mqueue
	0x67596969: true, // rpc_pipefs
	0x6e667364: true, // nfsd
}

// mounts judges the file systems that are mounted below the root.
type mounts struct {
	rootDev  uint64
	rootType uint32
	storeDev uint64   // of the store of private versions, or 0
	table    *os.File // /proc/self/mountinfo, opened before the process was confined; nil if it could not be
}

// newMounts returns the judge for a share with the root, and an error for one that cannot
// be served.
func newMounts(root int, st *unix.Statx_t) (*mounts, error) {
	typ, err := typeOf(root)
	if err != nil {
		return nil, err
	}
	m := &mounts{rootDev: device(st), rootType: typ}
	if m.table, err = os.Open("/proc/self/mountinfo"); err != nil {
		m.table = nil // what needs it is refused
	}
	if kernelTypes[typ] || typ == unix.TMPFS_MAGIC && m.table != nil && m.isDevices(m.rootDev) {
		m.close()
		return nil, fmt.Errorf("it lies in a file system of the kernel, such as proc or sysfs (type %#x), which cannot be shared: share a directory of ordinary files", typ)
	}
	return m, nil
}

func (m *mounts) close() {
	if m.table != nil {
		m.table.Close()
	}
}

func typeOf(fd int) (uint32, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return 0, err
	}
	return uint32(st.Type), nil
}

// check returns EACCES for an open file of a file system that the share does not serve. A
// file on the root's device costs no system call.
func (m *mounts) check(fd int, st *unix.Statx_t) error {
	dev := device(st)
	if dev == m.rootDev || m.storeDev != 0 && dev == m.storeDev {
		return nil
	}
	typ, err := typeOf(fd)
	if err != nil {
		return err
	}
	if !storageTypes[typ] && (typ != m.rootType || kernelTypes[typ]) {
		return unix.EACCES
	}
	if typ == unix.TMPFS_MAGIC && m.isDevices(dev) {
		return unix.EACCES
	}
	return nil
}

// isDevices reports whether a file system of tmpfs's type is devtmpfs, which shares it.
// True also if that cannot be found out.
func (m *mounts) isDevices(dev uint64) bool {
	if m.table == nil {
		return true
	}
	b, err := io.ReadAll(io.NewSectionReader(m.table, 0, maxMountTable))
	if err != nil || len(b) == maxMountTable {
		return true
	}
	number := strconv.FormatUint(uint64(unix.Major(dev)), 10) + ":" + strconv.FormatUint(uint64(unix.Minor(dev)), 10)
	for line := range bytes.Lines(b) { // proc_pid_mountinfo(5)
		before, after, ok := strings.Cut(string(line), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) > 2 && fields[2] == number && strings.HasPrefix(after, "devtmpfs ") {
			return true
		}
	}
	return false
}

// maxMountTable bounds the table of mounts, in bytes.
const maxMountTable = 64 << 20

// checkMount is check for a name in a directory that was found to have these attributes,
// before the guest learns more of it. A name that it knows already was checked.
func (f *fileSystem) checkMount(dir int, name string, st *unix.Statx_t) error {
	if device(st) == f.tree.mounts.rootDev || f.private != nil && device(st) == f.private.dev || f.tree.knows(keyOf(st)) {
		return nil
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return stale(err)
	}
	defer unix.Close(fd)
	now, err := statFD(fd)
	if err == nil && keyOf(now) != keyOf(st) {
		err = unix.ESTALE // the guest looks again
	}
	if err == nil {
		err = f.tree.mounts.check(fd, now)
	}
	return err
}
