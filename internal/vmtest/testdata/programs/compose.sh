### postgres in docker compose
# A database of an image that is built here from Debian's packages: initialised by scripts of the project, its data in a
# named volume and, with an owner of its own, in the project (docker/for-mac#6270); a client that waits for its health.
# Rows outlast `down`, a container that is killed, and, in the project, the volume. The host reads the data meanwhile.
# apt: mmdebstrap
# edit: rm -rf backup && cp -r data backup && cmp data/PG_VERSION backup/base/1/PG_VERSION && case $N in 2) echo "insert into started values ('of the host');" >init/30-host.sql ;; esac
mkdir init client
cat >init/10-table.sql <<'END'
create table rows (n serial primary key, written timestamptz default now(), filler text);
create table started (container text);
END
echo "psql -v ON_ERROR_STOP=1 -c \"insert into started values ('\$(cat /etc/hostname)')\"" >init/20-mark.sh
cat >Dockerfile <<'END'
FROM packages
RUN apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends postgresql && rm -rf /var/lib/postgresql/*/main
COPY entry.sh /
ENV PGDATA=/data PGUSER=postgres
STOPSIGNAL SIGINT
ENTRYPOINT ["/entry.sh"]
CMD ["postgres"]
END
cat >entry.sh <<'END'
#!/bin/bash
set -eu
PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
if [ "$(id -u)" = 0 ]; then
	install -d -o postgres -g postgres /run/postgresql
	mkdir -p "$PGDATA"
	chown postgres: "$PGDATA"
	chmod 700 "$PGDATA"
	exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	initdb --data-checksums --auth-host=scram-sha-256 --pwfile=<(echo "$PGPASSWORD") >/dev/null
	echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
	pg_ctl -o '-c listen_addresses=' -w -t 600 start >/dev/null
	for f in /init/*; do
		case $f in *.sql) psql -q -v ON_ERROR_STOP=1 -f "$f" ;; *) . "$f" ;; esac
	done
	pg_ctl -w -t 600 -m fast stop >/dev/null
fi
[ "$1" != postgres ] || set -- "$@" -c listen_addresses='*'
exec "$@"
END
chmod +x entry.sh
printf '*\n!entry.sh\n' >.dockerignore
cat >client/client.sh <<'END'
set -eu
for db in volume project; do
	psql -q -h $db -v ON_ERROR_STOP=1 -c "insert into rows (filler) select repeat('x', 100) from generate_series(1, 1000)"
	psql -h $db -Atc "select '$db', count(*), sum(length(filler)), (select count(*) from started) from rows" >/client/$db
done
END
cat >compose.yaml <<'END'
x-database: &database
  image: database
  environment: &environment {PGPASSWORD: not-a-secret}
  healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1], interval: 5s, timeout: 60s, retries: 300}
services:
  volume:
    <<: *database
    volumes: ["./init:/init:ro", "data:/data"]
  project:
    <<: *database
    volumes: ["./init:/init:ro", "./data:/data"]
  client:
    image: database
    build: .
    entrypoint: [bash, /client/client.sh]
    environment: *environment
    user: "${OWNER}"
    volumes: ["./client:/client"]
    depends_on:
      volume: {condition: service_healthy}
      project: {condition: service_healthy}
volumes:
  data: {}
END
export OWNER=$(id -u):$(id -g)
quiet() { "$@" >log 2>&1 || { tail -n 50 log; docker compose logs --tail 20; exit 1; }; }
trap 'docker compose down -t 100 -v >/dev/null 2>&1 || true' EXIT
sudo mmdebstrap --quiet --variant=apt '' - /etc/apt/sources.list.d/* | docker import - packages >/dev/null
echo "packages: $SECONDS s"
quiet docker compose build
echo "image: $SECONDS s"
# rows starts all, lets the client write and read, and looks at what it read.
rows() {
	quiet docker compose run --rm client
	is "volume $1 ${1}00 $2" "$(tr '|' ' ' <client/volume)"
	is "project $3 ${3}00 $4" "$(tr '|' ' ' <client/project)"
	echo "rows: $SECONDS s"
}
rows 1000 1 1000 1
is "$OWNER" "$(stat -c %u:%g client/project)"
is "postgres 700" "$(docker compose exec -T project stat -c '%U %a' /data)"
quiet docker compose down -t 100
edited
rows 2000 1 2000 1
quiet docker compose kill -s KILL
rows 3000 1 3000 1
docker compose logs project | grep -q 'redo done\|redo starts'
quiet docker compose down -t 100 -v
edited
rows 1000 2 4000 1
quiet docker compose stop -t 100
docker compose run --rm --no-deps project bash -c 'pg_checksums --check' | grep 'Bad checksums:  0'
