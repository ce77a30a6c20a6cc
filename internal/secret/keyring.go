package secret

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/zalando/go-keyring"
)

// service is the name under which the keyring lists bawn's values.
const service = "bawn"

// ringTime bounds a call of the keyring. A locked one asks the person for a password.
const ringTime = time.Minute

// desktop is the keyring of the desktop: the Secret Service on the session's bus.
type desktop struct{}

// Available implements ring: there is a session bus. Without this check the library would
// start one of its own.
func (desktop) Available() bool {
	if os.Getenv("DBUS_SESSION_BUS_ADDRESS") != "" {
		return true
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, "bus"))
	return err == nil
}

// timely calls f and returns its error, or one when the time is over. f goes on then.
func (d desktop) timely(f func() error) error {
	if !d.Available() {
		return errors.New("the session bus of the keyring is not there")
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
