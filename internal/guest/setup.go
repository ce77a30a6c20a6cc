package guest

import (
	"errors"
	"fmt"
	"log"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/guest/cacert"
	"bawn.dev/bawn/internal/guest/device"
	"bawn.dev/bawn/internal/guest/etc"
	"bawn.dev/bawn/internal/guest/modprobe"
	"bawn.dev/bawn/internal/guest/netif"
	"bawn.dev/bawn/internal/guest/oci"
	"bawn.dev/bawn/internal/wire"
)

// setup makes this machine a sandbox, once. Random numbers and time come first; the last
// step opens Docker's socket.
func (a *agent) setup(r wire.SetupRequest) (any, error) {
	if a.disk != nil {
		return nil, errors.New("the guest is set up already")
	}
	if err := seedRandom(r.Seed); err != nil {
		return nil, err
	}
	if err := setClock(r.Time); err != nil {
		return nil, err
	}
	if err := a.mountRoot(&r); err != nil {
		return nil, err
	}
	if err := a.enterRoot(r.User.Home); err != nil {
		return nil, err
	}
	if err := a.configureSystem(&r); err != nil {
		return nil, err
	}
	a.logins.Configure(r.User, r.ImageEnv)
	a.local.setup(a.disk, a.logins)
	for _, m := range r.Mounts {
		if _, err := a.mount(m); err != nil {
			return nil, err
		}
	}
	if r.Net != nil {
		if err := a.configureNet(r.Net); err != nil {
			return nil, err
		}
	}
	if err := a.assume(&r.Identity); err != nil {
		return nil, err
	}
	if err := finishBoot(modprobe.Dir("")); err != nil {
		return nil, err
	}
	go a.loadOptional(modprobe.Dir(""))
	return nil, a.docker.Listen()
}

// configureNet brings the network card up, without addresses, and writes what depends
// on the network: the resolver's file.
func (a *agent) configureNet(n *wire.Net) error {
	var c *netif.Card
	if err := a.devices.WaitFor(device.Limit, func() bool { c = netif.FindCard(); return c != nil }); err != nil {
		return fmt.Errorf("network card: %w", err)
	}
	if err := c.Configure(n); err != nil {
		return err
	}
	a.card, a.hostCAs = c, n.CACert
	return etc.Replace("/etc/resolv.conf", resolvFile(n.DNS), 0o644)
}

// trust makes the guest's programs trust the host's certificates and that of the authority,
// which comes with the identity, and the containers of Docker that start from now on.
func (a *agent) trust(authority []byte) error {
	certs := slices.Concat(a.hostCAs, authority)
	env, err := cacert.Install(certs)
	a.logins.Trust(env)
	if err != nil || len(certs) == 0 {
		return err
	}
	if err := oci.Arrange(); err != nil {
		log.Printf("certificates for containers: %v", err) // the sandbox can do without
	}
	return nil
}

// resolvFile returns a resolv.conf(5) with the name servers.
func resolvFile(servers []string) []byte {
	var b strings.Builder
	for _, s := range servers {
		b.WriteString("nameserver " + s + "\n")
	}
	return []byte(b.String())
}
