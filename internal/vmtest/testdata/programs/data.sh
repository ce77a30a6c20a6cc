### sqlite
# WAL, two writers, and one of them is killed in its transaction: no row that was committed is lost.
python3 - <<'END'
import os, signal, sqlite3
print("sqlite", sqlite3.sqlite_version)
c = sqlite3.connect("x"); print(c.execute("pragma journal_mode=wal").fetchone()); c.execute("create table t(p, n)"); c.commit(); c.close()
r, w = os.pipe()
def work(p, last):
    c = sqlite3.connect("x", timeout=200, isolation_level=None)
    for n in range(last):
        c.execute("begin immediate"); c.execute("insert into t values(?, ?)", (p, n)); c.execute("insert into t values(?, ?)", (-p, n)); c.execute("commit")
    if p == 1:
        c.execute("begin immediate")
        for n in range(20000): c.execute("insert into t values(?, ?)", (9, n))
        os.write(w, b"!"); signal.pause()
    os._exit(0)
pids = []
for p in (1, 2):
    pids.append(os.fork())
    if pids[-1] == 0: work(p, 200)
os.read(r, 1)
os.kill(pids[0], signal.SIGKILL)
for p in pids: print(os.waitpid(p, 0)[1])
c = sqlite3.connect("x", timeout=200)
got = c.execute("select p, count(*) from t group by p order by p").fetchall()
assert got == [(-2, 200), (-1, 200), (1, 200), (2, 200)], got
assert c.execute("pragma integrity_check").fetchone() == ("ok",)
END
is ok "$(sqlite3 x 'pragma wal_checkpoint(truncate)' >/dev/null; sqlite3 x 'pragma integrity_check')"

### sqlite read by the host
# The guest's program has closed the database: the host's finds each row, and the guest's finds the host's.
# edit: python3 -c 'import sqlite3; c = sqlite3.connect("x"); assert c.execute("pragma integrity_check").fetchone() == ("ok",); c.execute("insert into t select count(*) from t"); c.commit()'
for i in 1 2 3; do
	sqlite3 x 'pragma journal_mode=wal' 'create table if not exists t(n)' "insert into t select count(*) from t" >/dev/null
	edited
done
is "$(seq -s, 0 5)" "$(sqlite3 x 'select group_concat(n) from t')"

### lmdb
# A database that is one large mapping, of two processes (MAP_SHARED, a sparse file).
# apt: python3-lmdb
python3 - <<'END'
import lmdb, os
print("lmdb", lmdb.version())
def env(): return lmdb.open("db", map_size=1 << 28, writemap=True)
for p in (1, 2):
    if os.fork() == 0:
        e = env()
        for n in range(300):
            with e.begin(write=True) as t: t.put(b"%d-%d" % (p, n), b"x" * 500)
        e.close(); os._exit(0)
for _ in (1, 2): assert os.wait()[1] == 0
with env().begin() as t: assert t.stat()["entries"] == 600, t.stat()
END

### postgres
# Of its own user, with its data on the share (lima-vm/lima#607): load, kill -9 of all its processes, recovery.
# The tables of pgbench always have the same sums.
# apt: postgresql
export PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
pg() { sudo -u postgres env PATH="$PATH" PGHOST=/tmp PGPORT=5544 LC_ALL=C.UTF-8 "$@"; }
postgres --version
mkdir data
sudo chown postgres: data
sudo chmod 700 data
is "postgres 700" "$(stat -c '%U %a' data)"
pg initdb -D "$PWD/data" --data-checksums >/dev/null
start() { pg pg_ctl -D "$PWD/data" -o '-k /tmp -p 5544' -w -t 240 start -l "$PWD/data/log" >/dev/null; }
stop() { pg pg_ctl -D "$PWD/data" -w -t 240 "$@" stop >/dev/null; }
trap 'stop -m immediate 2>/dev/null || true' EXIT
start
pg createdb b
pg pgbench -q -i -s 2 b 2>/dev/null
pg pgbench -n -c 4 -j 2 -T 600 b >bench 2>&1 &
until [ "$(pg psql -Atc 'select count(*) > 100 from pgbench_history' b)" = t ]; do sleep 0.5; done
sudo kill -9 $(sudo head -n 1 data/postmaster.pid) $(pgrep -u postgres -x postgres)
wait %1 || true
sudo rm -f data/postmaster.pid /tmp/.s.PGSQL.5544.lock
start
sudo grep -q 'redo done\|redo starts' data/log
pg psql -Atc "select (select sum(abalance) from pgbench_accounts) = s and (select sum(bbalance) from pgbench_branches) = s and (select sum(tbalance) from pgbench_tellers) = s and n > 100 from (select sum(delta) s, count(*) n from pgbench_history) x" b | grep -qx t
pg psql -Atc 'vacuum full' b >/dev/null
pg pg_dump b >dump
[ "$(wc -l <dump)" -gt 200000 ]
stop
pg pg_checksums --check -D "$PWD/data" | grep 'Bad checksums:  0'

### redis
# Its log is appended to, and read after a kill -9.
# apt: redis-server
redis-server --version
mkdir rd
start() { redis-server --dir "$PWD/rd" --appendonly yes --appendfsync always --port 6399 --save '' >>log 2>&1 & eventually redis-cli -p 6399 ping; }
start
for i in $(seq 200); do echo "set k$i v$i"; done | redis-cli -p 6399 >/dev/null
kill -9 %1
wait %1 || true
start
is 200 "$(redis-cli -p 6399 dbsize)"
is OK "$(redis-cli -p 6399 bgrewriteaof >/dev/null; redis-cli -p 6399 save)"
redis-cli -p 6399 shutdown nosave
redis-check-rdb rd/dump.rdb | grep -q 'RDB looks OK'

### mariadb
# InnoDB of its own user with direct and asynchronous input and output, load by four clients, kill -9, recovery.
# apt: mariadb-server
export PATH=$PATH:/usr/sbin
mariadbd --version
mkdir data
sudo chown mysql: data
sudo mariadb-install-db --no-defaults --user=mysql --datadir="$PWD/data" --auth-root-authentication-method=normal --skip-test-db >install.log 2>&1 || { cat install.log; exit 1; }
q() { mariadb --no-defaults -u root -S /tmp/maria.sock -N "$@"; }
start() {
	sudo mariadbd --no-defaults --user=mysql --datadir="$PWD/data" --socket=/tmp/maria.sock --pid-file=/tmp/maria.pid --skip-networking --innodb-flush-method=O_DIRECT --innodb-buffer-pool-size=16M >>log 2>&1 &
	eventually q -e 'select 1'
}
trap 'sudo pkill -9 mariadbd || true' EXIT
start
q -e 'create database b; create table b.t (id int auto_increment primary key, a int, filler varchar(200)); create table b.sum (n bigint); insert into b.sum values (0)'
load() {
	for i in $(seq 500); do echo "start transaction; insert into b.t (a, filler) values ($i, repeat('x', 200)); update b.sum set n = n + $i; commit;"; done | q
}
for c in 1 2 3 4; do load >/dev/null 2>&1 & done
until [ "$(q -e 'select count(*) > 200 from b.t')" = 1 ]; do sleep 0.5; done
sudo kill -9 "$(sudo cat /tmp/maria.pid)"
eventually sh -c '! pgrep -x mariadbd'
start
is 1 "$(q -e 'select (select sum(a) from b.t) = (select n from b.sum)')"
q -e 'alter table b.t engine=innodb; check table b.t extended' | grep -q 'status.*OK'
q -e shutdown
eventually sh -c '! pgrep -x mariadbd'
