package vm

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/netstack"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/wire"
)

// The addresses of a sandbox's own network segment, which has the guest and the gateway on
// it: shared address space (RFC 6598) and a unique local prefix (RFC 4193).
// Synthetic addresses of names come from the range for benchmarks (RFC 2544) and
// from the same local prefix, so that no rule about real addresses applies to them.
var (
	Gateway4 = policy.Gateway4
	Gateway6 = policy.Gateway6
	Pool4    = policy.Synthetic4
	Pool6    = policy.Synthetic6

	GatewayMAC = net.HardwareAddr{0x02, 0x62, 0x61, 0x77, 0x6e, 0x01}
)

// LinkMTU is large, for speed: the link is a socket on this host.
const LinkMTU = netstack.MaxMTU

// GuestMAC returns the MAC address of the sandbox with that ID: locally administered, and
// different from any other sandbox's.
func GuestMAC(id string) net.HardwareAddr {
	mac := net.HardwareAddr{0x06, 0, 0, 0, 0, 0}
	b, _ := hex.DecodeString(id) // 12 digits; what is missing stays 0
	copy(mac[1:], b)
	return mac
}

// GuestAddrs returns the addresses of the sandbox with that ID. No other machine sees them;
// they differ so that programs inside can tell two sandboxes apart.
func GuestAddrs(id string) (v4, v6 netip.Prefix) {
	sum := sha256.Sum256([]byte("bawn addresses " + id))
	four := [4]byte{100, 127, sum[0] & 0x7f, sum[1]} // 100.127.0.0/17, which does not hold the gateway's
	six := Gateway6.Addr().As16()
	copy(six[8:], sum[2:10])
	six[8] |= 2 // never the gateway's
	return netip.PrefixFrom(netip.AddrFrom4(four), 32), netip.PrefixFrom(netip.AddrFrom16(six), 128)
}

// netSettings returns the network settings that are the same for every guest.
func netSettings() *wire.Net {
	return &wire.Net{
		MTU:      LinkMTU,
		Gateways: []string{Gateway4.Addr().String(), Gateway6.Addr().String()},
		DNS:      []string{Gateway4.Addr().String()},
		CACert:   hostCAs(localCAs),
	}
}

// localCAs matches the certificates that this host trusts beyond Debian's own list
// (update-ca-certificates(8)), such as that of a company's gateway. Without it the
// guest could not use a network that the host can.
const localCAs = "/usr/local/share/ca-certificates/*.crt"

// maxCAs bounds what is passed on, in bytes.
const maxCAs = 256 << 10

// hostCAs returns the certificates in the files of a pattern as one PEM file. Whatever else
// is in the files is left out.
func hostCAs(pattern string) []byte {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return nil
	}
	var out []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
			if _, err := x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
				continue
			}
			c := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})
			if len(out)+len(c) <= maxCAs {
				out = append(out, c...)
			}
		}
	}
	return out
}

// SetupRequest returns the part of the set-up that is the same for all sandboxes of a
// kind: everything but the identity.
func SetupRequest(spec *sandbox.Spec, user wire.User) wire.SetupRequest {
	return wire.SetupRequest{
		Timezone:      HostTimezone(),
		User:          user,
		ImageSerial:   SerialImage,
		DiskSerial:    SerialDisk,
		ModulesSerial: SerialModules,
		ImageEnv:      spec.Boot.ImageEnv,
		Net:           netSettings(),
	}
}

// MachineID derives a machine-id(5) from a sandbox's ID: stable over its life
// and unlike any other's.
func MachineID(id string) string {
	sum := sha256.Sum256([]byte("bawn machine " + id))
	return hex.EncodeToString(sum[:16])
}
