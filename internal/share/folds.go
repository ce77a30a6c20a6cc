package share

import "golang.org/x/sys/unix"

// foldingTypes are file systems (statfs(2), f_type) on which names that differ in case may be
// the same.
var foldingTypes = map[uint32]bool{
	unix.MSDOS_SUPER_MAGIC: true, unix.EXFAT_SUPER_MAGIC: true, unix.CIFS_SUPER_MAGIC: true, unix.SMB2_SUPER_MAGIC: true,
	unix.SMB_SUPER_MAGIC: true, unix.V9FS_MAGIC: true, unix.HPFS_SUPER_MAGIC: true, unix.FUSE_SUPER_MAGIC: true,
	0x482b: true, 0x4244: true, // HFS+ and HFS
	0x5346544e: true, 0x7366746e: true, // NTFS and NTFS3
	0x786f4256: true, // VirtualBox's shared folders
}

// casefold is FS_CASEFOLD_FL (linux/fs.h): ext4, f2fs, tmpfs and bcachefs fold names in
// directories with the flag. A directory gets it from its parent.
const casefold = 0x40000000

// folds reports whether names in a directory that differ in case may be the same. It is called
// before the process is confined.
func folds(dir int) bool {
	typ, err := typeOf(dir)
	if err != nil || foldingTypes[typ] {
		return true
	}
	fd, err := unix.Open(magic(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	return err == nil && flags&casefold != 0
}
