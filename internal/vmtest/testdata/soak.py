# Floods every channel to the host for some seconds: soak.py SECONDS DIRECTORY CHANNEL...
# As root in the guest. Says "flooded" at the end.
import os, random, socket, struct, sys, threading, time

lasts, where, channels = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
until = time.time() + lasts
GW = os.popen("ip -4 route show default").read().split()[2]


def name():
    return "x%d." % random.getrandbits(60) + "y." * 80 + "test"


def dns():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    query = struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0)
    query += b"".join(bytes([len(l)]) + l.encode() for l in name().split(".")) + b"\0\0\1\0\1"
    s.sendto(query, (GW, 53))


def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for size in (0, 1, 1400, 9000, 60000):
        s.sendto(b"x" * size, ("192.0.2.%d" % random.randrange(1, 250), random.randrange(1, 65000)))


kept = []


def tcp():
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(("192.0.2.%d" % random.randrange(1, 250), random.randrange(1, 65000)))
    kept.append(s)
    if len(kept) > 500:
        kept.pop(0).close()


heads_kept = []


def heads():
    s = socket.create_connection((GW, 80), 5)
    s.sendall(b"GET / HTTP/1.1\r\nHost: bawn.internal\r\n" + b"x: " + b"y" * 7000)
    heads_kept.append(s)
    if len(heads_kept) > 200:
        heads_kept.pop(0).close()


raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
own = bytes.fromhex(open("/sys/class/net/eth0/address").read().strip().replace(":", ""))
me = os.popen("ip -4 -o addr show dev eth0").read().split()[3].split("/")[0]
neighbour = os.popen("ip neigh show " + GW).read().split()
gateway = bytes.fromhex(neighbour[neighbour.index("lladdr") + 1].replace(":", "")) if "lladdr" in neighbour else b"\xff" * 6


def frames():
    body = b"x" * 60000
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), random.getrandbits(16), 0x2000 | random.randrange(1, 600), 64, 17, 0, socket.inet_aton(me), socket.inet_aton("192.0.2.1"))
    raw.send(gateway + own + b"\x08\x00" + ip + body)
    raw.send(gateway + own + struct.pack(">H", random.randrange(0x600, 0xffff)) + b"z" * 60)


count = 0


def share():
    global count
    count += 1
    p = os.path.join(where, "f%d" % (count % 2000))
    open(p, "w").close()
    os.listdir(where)
    os.stat(p)
    if count % 3 == 0:
        os.unlink(p)


def console():
    with open("/dev/console", "w") as c:
        c.write("flood " * 2000 + "\n")


server, clients = None, []


def port():
    "Open and close a port that is published, and send more on it than its clients read."
    global server
    if server is None or random.random() < 0.002:
        if server is not None:
            server.close()
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 45999))
        server.listen(50)
        server.settimeout(0.01)
    for c in clients:
        try:
            c.send(b"x" * 65536)
        except OSError:
            pass
    try:
        c, _ = server.accept()
    except TimeoutError:
        return
    c.setblocking(False)
    clients.append(c)
    if len(clients) > 50:
        clients.pop(0).close()


def work(f):
    while time.time() < until:
        try:
            f()
        except OSError:
            time.sleep(0.001)


threads = [threading.Thread(target=work, args=(globals()[c],)) for c in channels]
for t in threads:
    t.start()
for t in threads:
    t.join()
print("flooded", count)
