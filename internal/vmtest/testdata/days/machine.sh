### lock files
# Pengwin#763: /run/lock and /var/lock are there and writable.
exec 3>/run/lock/days.$$ && flock -n 3 && echo locked; rm -f /run/lock/days.$$; test -d /var/lock && test -w /var/lock && echo var

### temporary directories
# Sticky, writable by everyone.
stat -c '%n %a' /tmp /var/tmp /dev/shm; f=$(mktemp) && rm "$f" && echo made; echo ${TMPDIR:-/tmp}

### standard devices
# null, zero, full, random and the names of descriptors.
echo x >/dev/null; head -c 3 /dev/zero | od -An -tx1; echo x 2>/dev/null >/dev/full || echo full; head -c 8 /dev/urandom | wc -c; readlink /dev/fd; for n in stdin stdout stderr; do test -e /dev/$n && echo $n; done; stat -c %a /dev/null /dev/tty

### shared memory
# POSIX shared memory and semaphores.
python3 - <<'END'
from multiprocessing import shared_memory, Pool
s = shared_memory.SharedMemory(create=True, size=100000); s.buf[:3] = b"abc"
o = shared_memory.SharedMemory(name=s.name); print(bytes(o.buf[:3])); o.close(); s.close(); s.unlink()
if __name__ == "__main__":
    with Pool(2) as p: print(p.map(abs, [-1, -2, -3]))
END

### localhost in both families
# lima#1330: the name, and a server on ::1.
python3 - <<'END'
import socket, threading
for family, addr in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    l = socket.socket(family); l.bind((addr, 0)); l.listen()
    c = socket.create_connection((addr, l.getsockname()[1])); a, _ = l.accept(); a.sendall(b"hello"); print(c.recv(5))
l = socket.create_server(("127.0.0.1", 0)); socket.create_connection(("localhost", l.getsockname()[1])); print("named")
END

### name of the host
# It can be looked up, as sudo and mail do.
python3 -c 'import socket; n = socket.gethostname(); print(bool(n), bool(socket.getaddrinfo(n, 80)))'; test "$(hostname)" = "$(cat /proc/sys/kernel/hostname)" && echo same; test "$(uname -n)" = "$(hostname)" && echo uname

### users and services
# getent passwd, group, services, protocols.
getent passwd root | cut -d: -f1,3,4,6; getent group daemon | cut -d: -f1,3; getent services ssh/tcp | tr -s ' '; getent protocols tcp | tr -s ' '

### flock between processes
# One waits for the other.
exec 3>l; flock 3; (flock -n 3; exec 4>l; flock -n 4 || echo held) ; flock -u 3; flock -n l echo free

### record locks
# fcntl locks of two processes, by ranges.
python3 - <<'END'
import fcntl, os
f = open("l", "w+"); f.write("x" * 100); f.flush()
fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
if os.fork() == 0:
    g = open("l", "r+")
    try: fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5); print("wrong", flush=True)
    except OSError: print("held", flush=True)
    fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 50); print("other range", flush=True); os._exit(0)
os.wait()
END

### open file description locks
# As sqlite and qemu use them.
python3 - <<'END'
import fcntl, struct
a, b = open("l", "w+"), open("l", "w+")
lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
fcntl.fcntl(a, 37, lock)
try: fcntl.fcntl(b, 37, lock); print("wrong")
except OSError as e: print(e.strerror)
a.close(); fcntl.fcntl(b, 37, lock); print("free")
END

### named pipe
# mkfifo in the project, two processes.
mkfifo p; echo through >p & cat p; stat -c '%F' p

### unix socket
# A server in the project; a path of 100 bytes is the system's affair.
python3 - <<'END'
import os, socket, stat
l = socket.socket(socket.AF_UNIX); l.bind("s"); l.listen(); print(stat.S_ISSOCK(os.stat("s").st_mode))
c = socket.socket(socket.AF_UNIX); c.connect("s"); a, _ = l.accept(); a.sendall(b"hello"); print(c.recv(5))
d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); d.bind("d"); e = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); e.sendto(b"gram", "d"); print(d.recv(10))
l.close(); os.unlink("s")
try: socket.socket(socket.AF_UNIX).connect("s")
except OSError as x: print(x.strerror)
END

### mapped memory
# Shared mappings of two processes, and a file that is read after.
python3 - <<'END'
import mmap, os
open("f", "wb").write(bytes(10000))
f = open("f", "r+b"); m = mmap.mmap(f.fileno(), 0)
if os.fork() == 0: m[5000:5003] = b"abc"; os._exit(0)
os.wait(); print(m[5000:5003]); m.flush(); print(open("f", "rb").read()[4999:5004]); m.close()
p = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE); p[0:1] = b"z"; print(open("f", "rb").read(1))
END

### direct input and output
# O_DIRECT, as databases and dd use it.
dd if=/dev/zero of=f bs=4096 count=8 oflag=direct status=none && stat -c %s f; dd if=f of=/dev/null bs=4096 iflag=direct status=none && echo read

### file without a name
# O_TMPFILE, then linked.
python3 - <<'END'
import os
fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600); os.write(fd, b"hidden"); print(os.listdir("."))
import ctypes; print(ctypes.CDLL(None).linkat(-100, f"/proc/self/fd/{fd}".encode(), -100, b"f", 0x400)); print(open("f").read(), oct(os.stat("f").st_mode))
END

### sparse file
# Holes stay holes, and are found.
truncate -s 100M f; printf x | dd of=f bs=1 seek=50000000 conv=notrunc status=none; test "$(du -k f | cut -f1)" -lt 1000 && echo sparse; stat -c %s f; cp --sparse=always f g; cmp f g && echo equal; python3 -c 'import os; fd = os.open("f", os.O_RDONLY); n = os.lseek(fd, 0, os.SEEK_DATA); print(0 < n <= 50000000, os.lseek(fd, 0, os.SEEK_HOLE))'

### space set aside
# fallocate, and holes punched.
fallocate -l 1M f && stat -c %s f; fallocate -n -l 2M f && stat -c %s f; yes | head -c 1048576 >g; fallocate -p -o 0 -l 524288 g && head -c 4 g | od -An -tx1; stat -c %s g

### attributes that were synced
# fsync, fdatasync, syncfs, and of a directory.
python3 -c '
import os
fd = os.open("f", os.O_CREAT | os.O_WRONLY); os.write(fd, b"x"); os.fsync(fd); os.fdatasync(fd)
d = os.open(".", os.O_RDONLY); os.fsync(d); print("synced")'; sync f && sync . && echo too

### append of many
# Four processes append lines to one log; none is lost.
for i in 1 2 3 4; do (for j in $(seq 20); do echo "line $i $j of the log"; done >>log) & done; wait; wc -l <log; sort -u log | wc -l; grep -vc '^line [1-4] [0-9]* of the log$' log || true

### counters
# Twelve updates under flock by four processes.
echo 0 >n; for i in 1 2 3 4; do (for j in 1 2 3; do flock n.lock sh -c 'echo $(($(cat n) + 1)) >n'; done) & done; wait; cat n

### only one makes it
# O_EXCL, mkdir and ln as locks: one of eight wins.
for i in 1 2 3 4 5 6 7 8; do (mkdir lock 2>/dev/null && echo won) & done; wait; for i in 1 2 3 4; do (set -C; echo $i 2>/dev/null >excl && echo first) 2>/dev/null & done; wait; touch t; for i in 1 2 3 4; do (ln t hard 2>/dev/null && echo linked) & done; wait

### rename in its ways
# renameat2: not over another, and exchanged.
python3 - <<'END'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def rename(a, b, flags): return os.strerror(ctypes.get_errno()) if libc.renameat2(-100, a, -100, b, flags) else "done"
open("a", "w").write("1"); open("b", "w").write("2")
print(rename(b"a", b"b", 1)); print(rename(b"a", b"b", 2), open("a").read(), open("b").read()); print(rename(b"a", b"c", 1), sorted(os.listdir(".")))
END

### rename over
# A directory over an empty one, not over a full one, not over a file.
mkdir -p a/x b c/y; python3 - <<'END'
import os
def to(a, b):
    try: os.rename(a, b); return "done"
    except OSError as e: return e.strerror
open("f", "w").close()
print(to("a", "b")); print(to("b", "c")); print(to("b", "f")); print(to("f", "c")); print(to("c", "c/y/z")); print(to("none", "x"))
END

### errors
# The words of the system for common mistakes.
mkdir d; touch d/f f; ln -s l l; python3 - <<'END'
import os
def err(f, *a):
    try: f(*a); return "done"
    except OSError as e: return e.strerror
print(err(os.rmdir, "d")); print(err(os.unlink, "d")); print(err(os.mkdir, "d")); print(err(os.open, "l", os.O_RDONLY)); print(err(os.listdir, "f"))
print(err(os.open, "f/x", os.O_RDONLY)); print(err(os.open, "d", os.O_WRONLY)); print(err(os.link, "d", "e")); print(err(os.open, "x" * 256, os.O_CREAT)); print(err(os.symlink, "", "e"))
print(err(os.open, "f", os.O_CREAT | os.O_EXCL)); print(err(os.open, "l", os.O_RDONLY | os.O_NOFOLLOW)); print(err(os.truncate, "d", 0)); print(err(os.readlink, "f"))
END

### open and removed
# A file lives as long as a descriptor.
exec 3<>f; echo x >&3; rm f; python3 -c 'import os; s = os.fstat(3); print(s.st_nlink, s.st_size); os.write(3, b"more"); os.lseek(3, 0, 0); print(os.read(3, 100)); os.ftruncate(3, 1); print(os.fstat(3).st_size)'; ls | wc -l

### directory read while it changes
# Names that stay are seen once each.
python3 - <<'END'
import os
os.mkdir("d")
for i in range(300): open(f"d/keep{i}", "w").close()
for i in range(100): open(f"d/drop{i}", "w").close()
seen, n = [], 0
for e in os.scandir("d"):
    if e.name.startswith("keep"): seen.append(e.name)
    n += 1
    if n % 3 == 0 and n // 3 < 100:
        try: os.unlink(f"d/drop{n // 3}")
        except FileNotFoundError: pass
print(len(seen), len(set(seen)))
END

### many files
# Made, listed, counted and removed.
mkdir d; (cd d; seq 500 | xargs touch; ls | wc -l; find . -type f | wc -l; ls -U | sort -n | tail -n 1); rm -r d; test -e d || echo gone

### positions
# pread, pwrite, seek, holes and vectors.
python3 - <<'END'
import os
fd = os.open("f", os.O_CREAT | os.O_RDWR); os.pwrite(fd, b"end", 100000); os.pwritev(fd, [b"a", b"bc"], 5)
print(os.pread(fd, 3, 100000), os.preadv(fd, [bytearray(2), bytearray(2)], 4), os.lseek(fd, 0, os.SEEK_END), os.pread(fd, 10, 0))
a = os.open("f", os.O_WRONLY | os.O_APPEND); os.lseek(a, 0, 0); os.write(a, b"!"); print(os.fstat(fd).st_size)
END

### copies in the kernel
# copy_file_range and sendfile, which cp and cat use.
python3 - <<'END'
import os
open("a", "wb").write(os.urandom(300000)); s, d = os.open("a", 0), os.open("b", os.O_CREAT | os.O_WRONLY)
n = 0
while n < 300000: n += os.copy_file_range(s, d, 300000 - n)
d = os.open("c", os.O_CREAT | os.O_WRONLY); n = 0
while n < 300000: n += os.sendfile(d, s, n, 300000 - n)
print(open("a", "rb").read() == open("b", "rb").read() == open("c", "rb").read())
END
cp --reflink=auto a e; cmp a e && echo cp

### inotify inside
# A watcher sees what another process of the guest does.
python3 - <<'END'
import ctypes, os, struct
libc = ctypes.CDLL(None); os.mkdir("d"); fd = libc.inotify_init1(0); libc.inotify_add_watch(fd, b"d", 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200)
os.system("cd d; echo x >a; chmod 600 a; mv a b; mkdir e; rm b; rmdir e")
b = os.read(fd, 65536)
while b:
    _, mask, _, n = struct.unpack("iIII", b[:16]); print(hex(mask), b[16:16 + n].rstrip(b"\0").decode()); b = b[16 + n:]
END

### clock
# Time goes on, and a new file is not of the future.
touch f; test "$(stat -c %Y f)" -le "$(date +%s)" && echo past; a=$(date +%s%N); b=$(date +%s%N); test $b -gt $a && echo on; test "$(date +%Y)" -ge 2025 && echo year

### processes
# nproc, ps, /proc of one's own.
test "$(nproc)" -ge 1 && echo processors; ps -o comm= -p $$; readlink /proc/self/exe >/dev/null && echo exe; tr '\0' ' ' </proc/$$/cmdline | cut -c1-4 | head -n 1; kill -0 $$ && echo alive; (exit 3); echo $?

### many processes
# Fifty at once, all waited for.
for i in $(seq 50); do sleep 0.2 & done; wait; echo all; ulimit -u >/dev/null && echo limit

### timers and signals
# alarm, SIGCHLD and traps in a shell.
trap 'echo usr1' USR1; kill -USR1 $$; trap 'echo exit' EXIT; python3 -c '
import signal
signal.signal(signal.SIGALRM, lambda *a: print("alarm")); signal.setitimer(signal.ITIMER_REAL, 0.05); signal.pause()'

### debugger
# ptrace of one's own child.
# needs: strace
strace -e trace=chdir -o t sh -c 'cd /'; grep -c 'chdir("/")' t

### overlay by root
# containerd#2071: an overlay where podman and buildah keep their layers.
# user: root
# want: low up low
d=/var/lib/containers/days.$$; mkdir -p $d/l $d/u $d/w $d/m; cd $d; echo low >l/f; mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m || exit; a=$(cat m/f); echo up >m/f; echo $a $(cat u/f l/f); umount m; cd /; rm -rf $d

### overlay by root for temporary files
# containerd#2071: where builders of images work.
# user: root
# want: low up low
d=/var/tmp/days.$$; mkdir -p $d/l $d/u $d/w $d/m; cd $d; echo low >l/f; mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m || exit; a=$(cat m/f); echo up >m/f; echo $a $(cat u/f l/f); umount m; cd /; rm -rf $d

### overlay by root for Docker
# containerd#2071: where containers keep their layers.
# user: root
# want: low up low
d=/var/lib/docker/days.$$; mkdir -p $d/l $d/u $d/w $d/m; cd $d; echo low >l/f; mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m || exit; a=$(cat m/f); echo up >m/f; echo $a $(cat u/f l/f); umount m; cd /; rm -rf $d

### loop and bind mounts
# mount as root.
# user: root
truncate -s 8M img; mkfs.ext4 -q img; cp img /var/tmp/days-img.$$; mkdir -p /mnt/days.$$; mount -o loop /var/tmp/days-img.$$ /mnt/days.$$ && echo x >/mnt/days.$$/f && cat /mnt/days.$$/f; umount /mnt/days.$$; mkdir a b; echo y >a/f; mount --bind a b && cat b/f && umount b; rmdir /mnt/days.$$; rm /var/tmp/days-img.$$

### tmpfs and namespaces
# unshare and a tmpfs in the project.
# user: root
mkdir m; unshare -m sh -c 'mount -t tmpfs t m && echo x >m/f && cat m/f'; ls m | wc -l; unshare -upf --mount-proc sh -c 'echo $$; hostname days; hostname'

### settings of the kernel
# sysctl reads and writes, as databases' documentation asks.
# user: root
sysctl -n vm.overcommit_memory >/dev/null && echo read; sysctl -qw net.core.somaxconn=2048 && sysctl -n net.core.somaxconn; sysctl -qw vm.max_map_count=262144 && sysctl -n vm.max_map_count

### packages
# dpkg knows what is there.
# user: root
dpkg-query -W -f '${Status}\n' coreutils; dpkg -S /bin/ls >/dev/null 2>&1 || dpkg -S /usr/bin/ls >/dev/null && echo owned; dpkg --audit | wc -l

### hosts file
# A line of /etc/hosts takes effect at once.
# user: root
echo "10.9.8.7 days-$$.test" >>/etc/hosts; getent hosts days-$$.test | cut -d' ' -f1; sed "/days-$$/d" /etc/hosts >h; cat h >/etc/hosts; getent hosts days-$$.test || echo gone

### user namespaces
# bubblewrap, rootless tools and browsers' sandboxes need them.
# needs: unshare
unshare -Urm sh -c 'id -u; mkdir t && mount -t tmpfs none t && echo x >t/f && cat t/f' 2>&1; ls t | wc -l

### memory and descriptors without a file
# memfd_create, eventfd, pidfd, epoll.
# needs: python3
python3 - <<'END'
import os, select, signal
f = os.memfd_create("x"); os.write(f, b"abc"); print(os.pread(f, 3, 0))
p = os.fork()
if p == 0: os._exit(3)
d = os.pidfd_open(p); print(select.select([d], [], [], 20)[0] == [d], os.waitpid(p, 0)[1] >> 8)
e = os.eventfd(1); q = select.epoll(); q.register(e, select.EPOLLIN); print(len(q.poll(20)), os.eventfd_read(e))
END

### sockets of all kinds
# Pairs, datagrams with credentials, and passed descriptors.
# needs: python3
python3 - <<'END'
import array, os, socket
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); a.send(b"one"); a.send(b"two"); print(b.recv(99), b.recv(99))
f = os.open("f", os.O_RDWR | os.O_CREAT); os.write(f, b"passed"); socket.send_fds(a, [b"x"], [f]); _, fds, _, _ = socket.recv_fds(b, 9, 1); print(os.pread(fds[0], 9, 0))
u = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); u.bind("s"); socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"datagram", "s"); print(u.recv(99)); os.unlink("s")
x = socket.socket(socket.AF_UNIX); x.bind("\0bawn-days"); x.listen(); print(x.getsockname())
END

### birth of a file
# statx tells when a file was made (stat %W), and holes in it.
touch f; test "$(stat -c %W f)" -gt 0 && echo born; truncate -s 1M f; printf x | dd of=f bs=1 seek=500000 conv=notrunc status=none; stat -c %s f; test $(stat -c %b f) -lt 200 && echo sparse

### device files for everyone
# udev's rules let every user open these, for sshfs, rclone and VPNs.
# want: 666 /dev/fuse|666 /dev/net/tun
stat -c '%a %n' /dev/fuse /dev/net/tun | paste -sd'|'; exec 3<>/dev/fuse

### file systems for tools
# Tracers and BPF tools look for these, as systemd mounts them.
# user: root
# want: bpf tracefs debugfs fusectl
for d in /sys/fs/bpf /sys/kernel/tracing /sys/kernel/debug /sys/fs/fuse/connections; do findmnt -no FSTYPE $d | head -1; done | paste -sd' '

### lock file of mode 0
# lima#5039: open(O_CREAT|O_EXCL, 0000), as locks of Go programs, made an orphan.
python3 - <<'P'
import os
for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
    fd = os.open("lock", flags | os.O_CREAT | os.O_EXCL, 0)
    if flags != os.O_RDONLY: os.write(fd, b"x")
    s = os.fstat(fd); print(oct(s.st_mode), s.st_size, s.st_nlink)
    os.close(fd); os.stat("lock"); os.chmod("lock", 0o600); os.unlink("lock")
print(os.listdir("."))
P

### descriptor of a replaced file
# libkrun#705: fchmod, fstat, ftruncate and fsync of a file that a rename has replaced (dpkg).
python3 - <<'P'
import os
open("status","w").write("old"); open("new","w").write("new")
fd = os.open("status", os.O_RDWR)
os.rename("new", "status")
os.fchmod(fd, 0o640); os.ftruncate(fd, 2); os.pwrite(fd, b"Z", 1); os.fsync(fd)
os.utime(fd, (5, 7)); s = os.fstat(fd)
print(oct(s.st_mode), s.st_nlink, s.st_size, s.st_mtime, os.pread(fd, 9, 0))
os.close(fd); print(open("status").read(), os.listdir("."))
P

### program replaced while it runs
# An exec'd program that replaces itself.
cp /bin/sleep prog; ./prog 3 & p=$!; sleep 0.2
cp /bin/true prog 2>&1 | sed 's/.*: //'; cp /bin/true prog2 && mv prog2 prog && ./prog; echo $?
readlink /proc/$p/exe | sed 's,.*/,,'; kill $p

### hard link in node_modules
# orbstack#2622: link(2) below a directory called node_modules made a copy.
mkdir -p node_modules/.store/a Node_Modules; echo 1 >f
for d in node_modules/f node_modules/.store/a/f Node_Modules/f; do ln f $d; done
echo 2 >>f; stat -c %h f; cat node_modules/.store/a/f; stat -c %i f node_modules/f Node_Modules/f | uniq | wc -l

### two hundred files written at once
# desktop-feedback#295: a bundler's files were empty, at random.
python3 - <<'P'
import concurrent.futures as f, os
os.mkdir("dist")
def w(i):
    p = f"dist/chunk-{i}.js"
    fd = os.open(p, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.write(fd, b"x" * (100 + i)); os.close(fd)
    return os.stat(p).st_size == 100 + i == len(open(p).read())
for _ in range(3):
    with f.ThreadPoolExecutor(16) as ex: print(all(ex.map(w, range(200))))
print(sum(os.path.getsize("dist/" + n) == 0 for n in os.listdir("dist")))
P

### descriptors are given back
# orbstack#1253: the server of files kept descriptors of files that were closed.
for i in $(seq 300); do echo $i >f$i; done
for n in 1 2 3; do cat f* | wc -l; done; rm f*; ls | wc -l

### mapping that grows
# rust#122262, cross#1313: mmap MAP_SHARED, as cargo, mold and sqlite use it.
python3 - <<'P'
import mmap, os
fd = os.open("m", os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 10000)
m = mmap.mmap(fd, 10000, mmap.MAP_SHARED); m[9990:10000] = b"0123456789"; m.flush()
print(os.pread(fd, 10, 9990), os.stat("m").st_size)
os.ftruncate(fd, 20000); m.resize(20000); m[19999:20000] = b"!"; del m
print(open("m", "rb").read()[-1:], os.stat("m").st_blocks > 0)
r = os.open("m", os.O_RDONLY); p = mmap.mmap(r, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE); p[0:1] = b"P"
print(os.pread(fd, 1, 0))
P

### console device
# containerization#145: /dev/console, tty, ptmx and their like.
for d in console tty ptmx null zero full random urandom; do [ -c /dev/$d ] && echo $d; done
test -d /dev/pts && test -d /dev/shm && test -L /dev/fd && echo dirs

### orphans are waited for
# microsandbox#1201: processes whose parent has ended stay as zombies and fill the table. The host's own process 1 is no
# measure: that of a container often waits for no orphan.
# where: outside
# want: 0
for i in 1 2 3 4 5; do $R sh -c 'for i in 1 2 3 4 5 6; do (sh -c "sleep 0.2 & sleep 0.1 & exit" &); done'; done
$R sh -c 'for i in $(seq 100); do n=$(ps -e -o stat=,ppid= | grep -c "^Z.* 1$"); [ $n = 0 ] && break; sleep 0.2; done; echo $n'

### core dump
# A crash leaves a core where the limit is raised.
# want: core
ulimit -c unlimited; sh -c 'kill -SEGV $$'; ls | sed 's/core.*/core/'

### tracing of a program
# gvisor: strace and ltrace follow children.
# needs: strace
strace -f -e trace=execve,openat -o t sh -c 'cat /dev/null; true' && grep -c 'execve.*= 0' t

### asynchronous input and output
# io_uring, as node and databases use it.
python3 - <<'P'
import ctypes
l = ctypes.CDLL(None, use_errno=True); b = ctypes.create_string_buffer(240)
fd = l.syscall(425, 8, b); print(fd >= 0)
P

### watches of many directories
# A bundler watches ten thousand directories.
mkdir -p w; (cd w; seq 10000 | xargs mkdir)
python3 - <<'P'
import ctypes, os
l = ctypes.CDLL(None); fd = l.inotify_init(); print(all(l.inotify_add_watch(fd, b"w/%d" % i, 0x100) >= 0 for i in range(1, 10001)))
P

### watches of many programs
# for-mac#6071: 128 instances are few for an editor, a bundler and a test runner.
python3 - <<'P'
import ctypes
l = ctypes.CDLL(None); print(all(l.inotify_init() >= 0 for i in range(100)))
P

### large shared memory
# Chromium and PyTorch need more than Docker's 64 MB in /dev/shm.
python3 -c 'f=open("/dev/shm/x-day","wb"); f.truncate(1<<30); f.seek(200<<20); f.write(b"x"*1000); print(f.tell())'; rm /dev/shm/x-day

### manual pages of alternatives
# docker-library/openjdk, debuerreotype: Java and PostgreSQL are not installed where the image has no directories for manuals,
# since update-alternatives makes symbolic links there.
# want: 12345678
for n in 1 2 3 4 5 6 7 8; do
	sudo update-alternatives --quiet --install /usr/local/bin/day$n day$n /bin/true 1 --slave /usr/share/man/man$n/day.$n.gz day.$n.gz /etc/hostname
	test -L /usr/share/man/man$n/day.$n.gz && printf $n
	sudo update-alternatives --quiet --remove day$n /bin/true
done; echo

### many mappings
# Elasticsearch and SQL Server ask for vm.max_map_count of 262144 at least.
# want: enough
test $(cat /proc/sys/vm/max_map_count) -ge 262144 && echo enough || cat /proc/sys/vm/max_map_count

### broadcast and multicast
# Service discovery on the loopback address: mDNS, consul, ROS.
python3 - <<'P'
import socket, struct
a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); a.bind(("", 35353))
a.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4s4s", socket.inet_aton("224.0.0.251"), socket.inet_aton("127.0.0.1")))
b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); b.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
b.sendto(b"hello", ("224.0.0.251", 35353)); a.settimeout(5); print(a.recv(99))
P

### runtime directory
# distrobox#1184: XDG_RUNTIME_DIR is there, one's own and closed to others.
# want: 700 mine works
stat -c %a "$XDG_RUNTIME_DIR" | tr '\n' ' '; test -O "$XDG_RUNTIME_DIR" && printf 'mine '; mkfifo $XDG_RUNTIME_DIR/day-$$ && rm $XDG_RUNTIME_DIR/day-$$ && echo works

### id of the machine
# D-Bus, Docker and telemetry need a stable machine-id of 32 digits.
# want: 32
tr -d '\n' </etc/machine-id | wc -c

### boot time and uptime
# uptime, who -b and journalctl agree.
python3 -c 'import time; b=[int(l.split()[1]) for l in open("/proc/stat") if l.startswith("btime")][0]; u=float(open("/proc/uptime").read().split()[0]); print(abs(time.time()-u-b)<3)'

### clocks agree
# Monotonic, boot and real time go on alike over a second.
python3 -c '
import time
c=(time.CLOCK_REALTIME,time.CLOCK_MONOTONIC,time.CLOCK_BOOTTIME,time.CLOCK_MONOTONIC_RAW)
a=[time.clock_gettime(x) for x in c]; time.sleep(1); b=[time.clock_gettime(x) for x in c]
d=[y-x for x,y in zip(a,b)]; print(max(d)-min(d)<0.05 and min(d)>=0.999)'

### priority may be lowered
# nice, ionice and chrt as build tools use them.
nice -n 5 nice; ionice -c3 true && echo idle; chrt -b 0 true && echo batch; taskset 1 nproc

### limits of a person
# ulimit -n is raised to the hard limit, as Java and Go do.
# want: raised
ulimit -n $(ulimit -Hn) && test $(ulimit -n) -ge 65536 && echo raised

### temporary file that is removed while open
# vagrant#2282: a temporary file that is removed while it is open.
python3 -c 'import tempfile; t=tempfile.TemporaryFile(dir="."); t.write(b"1"); t.seek(0); print(t.read())'; ls | wc -l

### moved while it is open
# npm#20605: rename and unlink of a file that is open for writing or runs.
python3 - <<'P'
import os, shutil, subprocess
f = open("package.json.1", "w"); f.write("1"); os.rename("package.json.1", "package.json"); f.write("2"); f.close(); print(open("package.json").read())
shutil.copy("/bin/sleep", "s"); p = subprocess.Popen(["./s", "9"]); os.rename("s", "t"); os.unlink("t"); print(p.poll()); p.kill()
P

### page for a browser
# workers-sdk#23, git-credential-manager#1778: a login that cannot start xdg-open ended, and the address was not seen.
# where: outside
# want: 3 open this on your host: https://a.test/?code=1&x=%20
$R sh -c 'xdg-open "https://a.test/?code=1&x=%20" 2>e; echo $? $(cut -d: -f3- e)'

### very large sparse file
# Disk images of VMs and databases: a terabyte that takes no room.
truncate -s 1T f && printf end | dd of=f bs=1 seek=1099511627000 conv=notrunc 2>/dev/null; stat -c %s f; tail -c +1099511627001 f | head -c 3; echo; test $(stat -c %b f) -lt 1000 && echo sparse

### many files open at once
# orbstack#1253: an index or a database holds eight thousand files open.
python3 - <<'P'
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (8500,)*2) if resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 8500 else None
f = [os.open(f"f{i}", os.O_RDWR | os.O_CREAT) for i in range(8000)]
for i in f: os.write(i, b"x")
print(len(f), os.fstat(f[-1]).st_size); [os.close(i) for i in f]
P
ls | wc -l

### zero range
# fallocate -z, as qemu-img and filesystems use it.
yes | head -c 100000 >f; fallocate -z -o 4096 -l 8192 f && od -An -tx1 -j 4096 -N 4 f; stat -c %s f

### large attributes
# user.* of 3000 bytes, twenty of them listed.
python3 - <<'P'
import os
open("f","w"); os.setxattr("f","user.big",b"x"*3000); [os.setxattr("f",f"user.a{i}",b"%d"%i) for i in range(20)]
print(len(os.getxattr("f","user.big")), len(os.listxattr("f")))
P

### names of descriptors
# /proc/self/fd of files, of deleted ones, open by it again.
python3 - <<'P'
import os
f = open("a","w+"); f.write("1"); f.flush(); os.rename("a","b"); print(os.path.basename(os.readlink(f"/proc/self/fd/{f.fileno()}")))
os.unlink("b"); print(os.path.basename(os.readlink(f"/proc/self/fd/{f.fileno()}"))); print(open(f"/proc/self/fd/{f.fileno()}").read())
P

### directory times
# make, ninja and CMake compare the time of a directory after its contents changed.
mkdir d; touch -d 2020-01-01 d; a=$(stat -c %Y d); touch d/x; b=$(stat -c %Y d); test $b -gt $a && echo newer; touch -d 2020-01-01 d; chmod 644 d/x; stat -c %y d | cut -c1-10; rm d/x; test $(stat -c %Y d) -gt $a && echo newer

### access times
# relatime: a read after a write moves it.
echo 1 >f; touch -a -d 2020-01-01 f; cat f >/dev/null; test $(stat -c %X f) -gt 1600000000 && echo moved
