package guest

import (
	"errors"
	"fmt"
	"log"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/etc"
	"bawn.dev/bawn/internal/guest/signer"
	"bawn.dev/bawn/internal/wire"
)

// self is the agent's own file.
const self = "/proc/1/exe"

// identify gives a restored machine its identity. Random numbers and time come first:
// everything after may use them.
func (a *agent) identify(r wire.Identity) (any, error) {
	if a.disk == nil {
		return nil, errors.New("the guest is not set up")
	}
	if err := seedRandom(r.Seed); err != nil {
		return nil, err
	}
	if err := setClock(r.Time); err != nil {
		return nil, err
	}
	return nil, a.assume(&r)
}

// assume takes on keys, names, addresses and the authority's certificate. It uses two CPUs where it can, since the user
// waits for it.
func (a *agent) assume(r *wire.Identity) error {
	a.logins.StartIn(r.Workdir)
	if r.Sign {
		if err := signer.Arrange(signer.Folder, self); err != nil {
			log.Printf("commits cannot be signed: %v", err) // and git says so
		}
	}
	if err := a.git.identify(r.Author, r.Sign); err != nil {
		log.Print(err) // commands can do without
	}
	if err := knowHosts(sshKnownHosts, r.SSHAuthority); err != nil {
		log.Print(err) // only git over SSH needs it
	}
	if err := a.ssh.Configure(r.HostKey, r.AuthorizedKeys); err != nil {
		return err
	}
	named := make(chan error, 1)
	go func() { named <- errors.Join(a.assumeNames(r), a.trust(r.CACert)) }()
	var err error
	if a.card != nil && r.MAC != "" {
		err = a.card.Assign(r)
	}
	return errors.Join(<-named, err)
}

// assumeNames sets the host name and the machine ID. A machine that has the ID already is
// left as it is: a user may have edited the files since.
func (a *agent) assumeNames(r *wire.Identity) error {
	if r.MachineID == a.machineID {
		return nil
	}
	name, err := nameHost("", r.Hostname)
	if err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	if err := etc.Overwrite("/etc/machine-id", []byte(r.MachineID+"\n"), 0o644); err != nil {
		return err
	}
	a.machineID = r.MachineID
	return nil
}

// rndAddEntropy and rndReseed are ioctls of random(4).
const (
	rndAddEntropy = 0x40085203
	rndReseed     = 0x5207
)

// seedRandom adds bytes from the host to the kernel's random number generator, and counts
// them as entropy.
func seedRandom(seed []byte) error {
	if len(seed) == 0 || len(seed) > 4096 {
		return errors.New("seed: none, or too long")
	}
	f, err := os.OpenFile("/dev/urandom", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	defer f.Close()
	// struct rand_pool_info: count of bits, count of bytes, the bytes as 32-bit words.
	words := make([]uint32, 2+(len(seed)+3)/4)
	words[0], words[1] = uint32(len(seed)*8), uint32(len(seed))
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&words[2])), len(seed)), seed)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndAddEntropy, uintptr(unsafe.Pointer(&words[0]))); errno != 0 {
		return fmt.Errorf("seed: %w", errno)
	}
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndReseed, 0) // older kernels reseed by themselves, later
	return nil
}
