package egress

import (
	"net/netip"
	"testing"
)

func TestFloor(t *testing.T) {
	own := func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("198.51.100.77"), netip.MustParseAddr("2001:db8::77")}
	}
	for _, text := range []string{
		"0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.100.100.200", "100.127.255.255",
		"127.0.0.1", "127.255.0.1", "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255",
		"192.0.0.192", "192.168.1.1", "198.18.0.9", "198.19.255.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "64:ff9b:1:ffff::7f00:1",
		"2001:0:4136:e378::1", "2001:2::1", "100::1", "100:0:0:1::1", "2002:7f00:1::", "2002:c0a8:101::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
		"2001:db8::1%eth0", "fec0::1", "ff02::1", "2001:db8::5efe:7f00:1", "2001:db8::200:5efe:a00:1",
		"198.51.100.77", "2001:db8::77",
	} {
		if _, why := reservedFor(netip.MustParseAddr(text), own); why == "" {
			t.Errorf("%s is not reserved", text)
		}
	}
	for _, text := range []string{
		"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "126.255.255.255", "128.0.0.1", "169.253.1.1", "172.15.0.1", "172.32.0.1",
		"192.0.2.1", "198.51.100.1", "203.0.113.9", "198.17.255.255", "198.20.0.1", "223.255.255.255",
		"2606:4700::1111", "2001:4860:4860::8888", "2001:db8::1", "2a00::1",
	} {
		if _, why := reservedFor(netip.MustParseAddr(text), own); why != "" {
			t.Errorf("%s is reserved: %s", text, why)
		}
	}
	if _, why := reservedFor(netip.Addr{}, own); why == "" {
		t.Error("no address passes")
	}
}

func TestHostAddrs(t *testing.T) {
	own := new(hostAddrs)
	list := append(own.list(), netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback())
	for _, a := range list {
		if _, why := reservedFor(a, own.list); why == "" {
			t.Errorf("own address %s is not reserved", a)
		}
	}
}
