# The network from inside containers, a build and a namespace of one's own.
set -eu
port=$1
root=$(mktemp -d)
mkdir -p "$root/bin" "$root/tmp" "$root/etc" "$root/usr/lib"
for p in bash python3 /lib/x86_64-linux-gnu/libnss_dns.so.2 /lib/aarch64-linux-gnu/libnss_dns.so.2; do
	f=$(command -v $p) || continue
	case $p in /*) mkdir -p "$root$(dirname $p)"; cp "$f" "$root$p" ;; *) cp "$f" "$root/bin/" ;; esac
	for l in $(ldd "$f" | grep -o '/[^ ]*'); do
		mkdir -p "$root$(dirname "$l")"
		cp -n "$l" "$root$l"
	done
done
ln -s bash "$root/bin/sh"
cp -r /usr/lib/python3.* "$root/usr/lib/"
cat >"$root/probe.py" <<'PY'
import socket, sys, urllib.request
def attempt(name, f):
    try: print(name + ":", f(), flush=True)
    except Exception as e: print(name + ":", type(getattr(e, "reason", e)).__name__, flush=True)
port = sys.argv[1]
attempt("name", lambda: urllib.request.urlopen("http://good.test:%s/" % port, timeout=60).read().decode())
attempt("refused", lambda: socket.create_connection(("192.0.2.1", 443), timeout=60))
attempt("unknown", lambda: socket.getaddrinfo("unknown.test", 80))
PY
tar -C "$root" -c . | docker import - probe >/dev/null
sudo rm -rf "$root"
docker run --rm probe /bin/python3 /probe.py "$port"
printf 'FROM probe\nRUN ["/bin/python3", "/probe.py", "%s"]\n' "$port" >/tmp/Dockerfile
mkdir -p /tmp/empty; docker build --progress=plain --no-cache -f /tmp/Dockerfile /tmp/empty 2>&1 | grep -q 'refused: ConnectionRefusedError' && echo "build: refused"
# A namespace behind our own address translation.
sudo sh -eu <<SH
ip netns add n
ip link add v0 type veth peer name v1 netns n
ip addr add 10.99.0.1/24 dev v0
ip link set v0 up
ip -n n addr add 10.99.0.2/24 dev v1
ip -n n link set v1 up
ip -n n route add default via 10.99.0.1
sysctl -qw net.ipv4.ip_forward=1
iptables -t nat -A POSTROUTING -s 10.99.0.0/24 -j MASQUERADE
iptables -I FORWARD -j ACCEPT
ip netns exec n curl -sS -m 60 "http://good.test:$port/" | sed 's/^/namespace: /'
ip netns exec n curl -sS -m 60 https://192.0.2.1/ || echo "namespace: refused"
SH
