### servers of other users in containers
# MariaDB, Redis and nginx (www-data) in containers, each with its own user's directory of the project: they write, are
# killed, and read again what they wrote; the owners are kept, and the host reads what it may.
# apt: mariadb-server redis-server nginx
# edit: test "$(cat site/up/new)" = 'put by www-data'
sudo tar -C / --exclude=./usr/share/doc --exclude=./usr/lib/go* -c bin sbin lib lib64 usr etc | docker import - servers >/dev/null
echo "image: $SECONDS s"
trap 'docker rm -f db kv web >/dev/null 2>&1 || true' EXIT
sudo install -d -o mysql -g mysql -m 700 db
sudo install -d -o redis -g redis -m 750 kv
sudo install -d -o www-data -g www-data -m 755 site site/up
q() { docker exec db mariadb --no-defaults -u root -S /tmp/db.sock -N -e "$1"; }
docker run -d --name db --tmpfs /tmp --tmpfs /run --tmpfs /var/log -v "$PWD/db:/data" servers bash -ec '
[ -e /data/ibdata1 ] || mariadb-install-db --no-defaults --user=mysql --datadir=/data --auth-root-authentication-method=normal --skip-test-db
exec mariadbd --no-defaults --user=mysql --datadir=/data --socket=/tmp/db.sock --pid-file=/tmp/db.pid --skip-networking --innodb-buffer-pool-size=16M' >/dev/null
eventually q 'select 1'
echo "database: $SECONDS s"
q 'create database b; create table b.t (n int primary key); insert into b.t select seq from b.seq_1_to_1000'
docker run -d --name kv --user redis -v "$PWD/kv:/kv" servers redis-server --dir /kv --appendonly yes --appendfsync always --save '' >/dev/null
eventually docker exec kv redis-cli ping
for i in $(seq 100); do echo "set k$i v$i"; done | docker exec -i kv redis-cli >/dev/null
cat >nginx.conf <<'END'
user www-data;
worker_processes 1;
error_log /dev/stderr;
pid /tmp/nginx.pid;
events {}
http {
	access_log off;
	client_body_temp_path /site/up/.body;
	server { listen 80; root /site; location /up/ { dav_methods PUT DELETE; } }
}
END
docker run -d --name web --tmpfs /tmp --tmpfs /var/lib/nginx -v "$PWD/site:/site" -v "$PWD/nginx.conf:/nginx.conf:ro" servers nginx -c /nginx.conf -g 'daemon off;' >/dev/null
address() { docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' web; }
at=$(address)
eventually curl -fsS -o /dev/null -X PUT --data-binary 'put by www-data' "http://$at/up/new"
is 'put by www-data' "$(curl -fsS "http://$at/up/new")"
edited
docker kill db kv web >/dev/null
docker start db kv web >/dev/null
eventually q 'select 1'
is 1000 "$(q 'select count(*) from b.t')"
eventually docker exec kv redis-cli ping
is 100 "$(docker exec kv redis-cli dbsize)"
at=$(address)
eventually curl -fsS "http://$at/up/new"
is 'put by www-data' "$(curl -fsS "http://$at/up/new")"
curl -fsS -X DELETE "http://$at/up/new"
gone site/up/new
is "mysql redis" "$(sudo sh -c "stat -c %U db/ibdata1 kv/appendonlydir/*.incr.aof" | xargs)"

### podman and buildah
# Of an ordinary user where there is one: their layers are overlays on the guest's disk, the project is mounted.
# apt: podman buildah uidmap crun
mkdir root root/bin root/tmp
for p in bash cat; do
	cp "$(command -v $p)" root/bin/
	for l in $(ldd "$(command -v $p)" | grep -o '/[^ ]*'); do mkdir -p "root$(dirname "$l")"; cp -n "$l" "root$l"; done
done
ln -s bash root/bin/sh
is overlay "$(podman info --format '{{.Store.GraphDriverName}}')"
tar -C root -c . | podman import -q - tiny >/dev/null
echo 'of the project' >in
is 'of the project' "$(podman run --rm --network none -v "$PWD:/p" tiny /bin/bash -c 'echo "of a container" >/p/out; cat /p/in')"
is 'of a container' "$(cat out)"
printf 'FROM localhost/tiny\nRUN ["/bin/bash", "-c", "echo built >/built"]\n' >Containerfile
buildah build -q --isolation chroot -t built . >/dev/null
is built "$(podman run --rm --network none built /bin/cat /built)"
podman rmi -a -f >/dev/null
