package secret

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/zalando/go-keyring"

	"bawn.dev/bawn/internal/sys/proc"
)

// service is the name under which the keyring lists bawn's values.
const service = "bawn"

// ringTime bounds a call of the keyring. A locked one asks the person for a password.
const ringTime = time.Minute

// desktop is the keyring of the desktop: the Secret Service on the session's bus.
type desktop struct{}

// Available implements ring: there is a session bus.
func (desktop) Available() bool {
	_, err := sessionBus()
	return err == nil
}

const (
	// busVariable has the address of the session bus, runtimeVariable the folder with the usual one
	// (D-Bus specification, "Well-known message bus instances"; XDG base directories).
	busVariable     = "DBUS_SESSION_BUS_ADDRESS"
	runtimeVariable = "XDG_RUNTIME_DIR"
)

// errNoBus means that there is no session bus that can be used.
var errNoBus = errors.New("the session bus of the keyring is not there")

// sessionBus returns the address of the session bus. With autolaunch: or none at all the
// library would run dbus-launch, from wherever the PATH leads. A socket in a place that a guest or another user can
// write to is not asked either: whoever answers there gets the values.
func sessionBus() (address string, err error) {
	address = os.Getenv(busVariable)
	if address == "" {
		dir := os.Getenv(runtimeVariable)
		if !filepath.IsAbs(dir) || strings.ContainsAny(dir, ",;%") {
			return "", errNoBus
		}
		address = "unix:path=" + filepath.Join(dir, "bus")
	}
	for one := range strings.SplitSeq(address, ";") {
		if err := checkBus(one); err != nil {
			return "", err
		}
	}
	return address, nil
}

// checkBus judges one address.
func checkBus(address string) error {
	rest, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return fmt.Errorf("the session bus of the keyring is no socket of this host (%s)", busVariable)
	}
	for pair := range strings.SplitSeq(rest, ",") {
		switch key, value, _ := strings.Cut(pair, "="); key {
		case "abstract", "guid":
		case "path":
			path, err := url.PathUnescape(value) // as the specification escapes values
			if err != nil || !filepath.IsAbs(path) {
				return fmt.Errorf("the path of the session bus (%s) cannot be read", busVariable)
			}
			if fi, err := os.Stat(path); err != nil || fi.Mode()&fs.ModeSocket == 0 {
				return errNoBus
			}
			if err := trustSocket(path); err != nil {
				return &UnsafeError{err}
			}
		default:
			return fmt.Errorf("the address of the session bus (%s) has a part %.20q that is not known", busVariable, key)
		}
	}
	return nil
}

// trustSocket judges the folder of a socket, and the links to it. A socket's own mode may let everybody connect.
func trustSocket(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if err := proc.ByGuests(path); err != nil {
		return err
	}
	return proc.Trusted(filepath.Dir(real))
}

// sessionLock orders changes of the variable, from which the library reads the address.
var sessionLock sync.Mutex

// useSessionBus makes the library ask the bus that sessionBus returns.
func useSessionBus() error {
	sessionLock.Lock()
	defer sessionLock.Unlock()
	address, err := sessionBus()
	if err != nil {
		return err
	}
	return os.Setenv(busVariable, address)
}

// timely calls f and returns its error, or one when the time is over. f goes on then.
func (desktop) timely(f func() error) error {
	if err := useSessionBus(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- f() }()
	timer := time.NewTimer(ringTime)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errors.New("the keyring does not answer: unlock it")
	}
}

// Set implements ring.
func (d desktop) Set(id, value string) error {
	return d.timely(func() error { return keyring.Set(service, id, value) })
}

// Get implements ring.
func (d desktop) Get(id string) (string, error) {
	got := make(chan string, 1)
	err := d.timely(func() error {
		v, err := keyring.Get(service, id)
		got <- v
		return err
	})
	if err != nil {
		return "", err
	}
	return <-got, nil
}

// Delete implements ring.
func (d desktop) Delete(id string) error {
	err := d.timely(func() error { return keyring.Delete(service, id) })
	if errors.Is(err, keyring.ErrNotFound) {
		return nil
	}
	return err
}
