# The network from inside a build (Docker's own bridge), a compose network and a
# namespace of one's own, with nothing configured.
set -eu
port=$1
root=$(mktemp -d)
mkdir -p "$root/bin" "$root/tmp" "$root/etc"
for p in bash curl /lib/x86_64-linux-gnu/libnss_dns.so.2 /lib/aarch64-linux-gnu/libnss_dns.so.2; do
	f=$(command -v $p) || continue
	case $p in /*) mkdir -p "$root$(dirname $p)"; cp "$f" "$root$p" ;; *) cp "$f" "$root/bin/" ;; esac
	for l in $(ldd "$f" | grep -o '/[^ ]*'); do
		mkdir -p "$root$(dirname "$l")"
		cp -n "$l" "$root$l"
	done
done
ln -s bash "$root/bin/sh"
cat >"$root/probe" <<SH
echo "\$1 name: \$(curl -sS -m 60 http://good.test:$port/)"
curl -s -m 60 https://192.0.2.1/; echo "\$1 address: \$?"
curl -s -m 60 http://unknown.test/; echo "\$1 unknown: \$?"
curl -s -m 60 -o /dev/null -w "\$1 header: %{http_code}\n" -H 'Host: other.test' http://good.test:$port/
SH
tar -C "$root" -c . | docker import - probe >/dev/null
sudo rm -rf "$root"
mkdir -p /tmp/c
cd /tmp/c
printf 'FROM probe\nRUN ["/bin/sh", "/probe", "build"]\n' >Dockerfile
docker build --progress=plain --no-cache . 2>&1 | grep -o 'build [a-z]*: .*'
cat >compose.yaml <<'YAML'
services:
  one:
    image: probe
    command: [/bin/sh, /probe, compose]
    networks: [inner]
networks:
  inner: {}
YAML
docker compose run --rm one 2>/dev/null
docker compose down >/dev/null 2>&1
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
ip netns exec n curl -sS -m 60 "http://good.test:$port/" | sed 's/^/namespace name: /'
ip netns exec n curl -s -m 60 https://192.0.2.1/ || echo "namespace address: \$?"
SH
