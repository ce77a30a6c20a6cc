"""What a file system does, as one line for each test: run on the guest's own
disk and on a share, the lines must be the same."""
import ctypes, errno, fcntl, hashlib, mmap, os, socket, sqlite3, stat, subprocess, sys, threading

os.chdir(sys.argv[1])
os.umask(0o022)
tests = []


def test(f):
    tests.append(f)
    return f


def err(f, *a, **k):
    try:
        f(*a, **k)
        return "ok"
    except OSError as e:
        return errno.errorcode[e.errno]


def put(name, data=b"x", mode="wb"):
    with open(name, mode) as f:
        f.write(data)


def get(name):
    with open(name, "rb") as f:
        return f.read()


@test
def create_and_mode():
    fd = os.open("f", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    again = err(os.open, "f", os.O_CREAT | os.O_EXCL)
    return oct(os.fstat(fd).st_mode), again, os.write(fd, b"abc"), os.pread(fd, 9, 1)


@test
def readonly_mode_at_creation():
    fd = os.open("ro", os.O_CREAT | os.O_WRONLY, 0o444)
    return os.write(fd, b"abc"), oct(os.stat("ro").st_mode), err(os.open, "missing/x", os.O_RDONLY)


@test
def truncate():
    put("t", b"0123456789")
    os.truncate("t", 4)
    a = get("t")
    os.truncate("t", 8)
    put("t2", b"long")
    open("t2", "wb").close()
    return a, get("t"), os.stat("t2").st_size


@test
def append():
    put("a", b"one")
    put("a", b"two", "ab")
    f, g = open("a", "ab", 0), open("a", "ab", 0)
    f.write(b"1"), g.write(b"2"), f.write(b"3")
    return get("a")


@test
def symlinks():
    put("target", b"t")
    os.symlink("target", "link")
    os.symlink("/nowhere/at all", "dangling")
    os.symlink("loop", "loop")
    os.symlink("x" * 1000, "far")
    return (os.readlink("link"), get("link"), os.lstat("link").st_size, err(open, "dangling"), err(open, "loop"),
            len(os.readlink("far")), err(os.symlink, "a", "link"), stat.S_ISLNK(os.lstat("link").st_mode))


@test
def hard_links():
    put("h", b"1")
    os.link("h", "h2")
    put("h2", b"22")
    a = os.stat("h").st_nlink, get("h"), os.stat("h").st_ino == os.stat("h2").st_ino
    os.unlink("h")
    return a, os.stat("h2").st_nlink, get("h2"), err(os.link, ".", "dirlink")


@test
def renames():
    os.makedirs("d/e")
    put("d/f", b"old")
    put("g", b"new")
    os.rename("g", "d/f")
    os.rename("d", "d2")
    os.mkdir("full"), put("full/x"), os.mkdir("empty")
    return (get("d2/f"), err(os.rename, "d2", "full"), err(os.rename, "d2", "empty"), sorted(os.listdir("empty")),
            err(os.rename, "empty", "empty/e/sub"), err(os.rename, "missing", "x"), err(os.rename, "full", "full/x"))


@test
def rename_flags():
    libc = ctypes.CDLL(None, use_errno=True)
    put("r1", b"1"), put("r2", b"2")

    def renameat2(a, b, flags):
        if libc.renameat2(-100, a, -100, b, flags) != 0:
            return errno.errorcode[ctypes.get_errno()]
        return "ok"
    return renameat2(b"r1", b"r2", 1), renameat2(b"r1", b"r2", 2), get("r1"), get("r2")


@test
def open_rename_keeps_file():
    f = open("or", "w+b", 0)
    f.write(b"123")
    os.rename("or", "or2")
    f.write(b"456")
    return get("or2"), os.fstat(f.fileno()).st_size


@test
def unlinked_stays_open():
    f = open("gone", "w+b", 0)
    f.write(b"still")
    os.unlink("gone")
    f.write(b" here")
    f.seek(0)
    return f.read(), os.fstat(f.fileno()).st_nlink, os.fstat(f.fileno()).st_size, os.path.exists("gone")


@test
def tmpfile():
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"linked")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"from-tmp", 0x400) != 0:  # AT_SYMLINK_FOLLOW
        return errno.errorcode[ctypes.get_errno()]
    return get("from-tmp"), oct(os.stat("from-tmp").st_mode)


@test
def directories():
    os.makedirs("x/y/z")
    put("x/y/f")
    return (err(os.rmdir, "x/y"), err(os.unlink, "x/y"), err(os.rmdir, "x/y/f"), err(os.mkdir, "x"), os.stat("x/y").st_nlink >= 2,
            sorted(os.listdir("x/y")), err(os.rmdir, "x/y/z"), err(os.chdir, "x/y/f"))


@test
def names():
    odd = [b"\xff\xfe not UTF-8", b"new\nline", b"-rf", b" ", b"\x01", "ü".encode(), "ü".encode("utf-8"), b"a" * 255, b"CASE", b"case"]
    os.mkdir("names")
    for n in odd:
        put(b"names/" + n, n)
    ok = all(get(b"names/" + n) == n for n in odd)
    return ok, sorted(os.listdir(b"names")) == sorted(set(odd)), err(open, b"names/" + b"a" * 256, "w")


@test
def modes_and_times():
    put("m")
    os.chmod("m", 0o640)
    os.utime("m", ns=(1_000_000_123_456_789, 1_500_000_000_987_654_321))
    s = os.stat("m")
    os.mkdir("sticky"), os.chmod("sticky", 0o1777)
    put("ro2"), os.chmod("ro2", 0o400)
    os.symlink("m", "ml")
    os.utime("ml", ns=(5, 7), follow_symlinks=False)
    return (oct(s.st_mode), s.st_atime_ns, s.st_mtime_ns, oct(os.stat("sticky").st_mode), os.lstat("ml").st_mtime_ns,
            os.stat("m").st_mtime_ns, os.stat("m").st_ctime_ns > s.st_mtime_ns)


@test
def mtime_follows_writes():
    put("w", b"1")
    os.utime("w", ns=(1, 1))
    put("w", b"2", "r+b")
    a = os.stat("w").st_mtime_ns > 10**18
    os.mkdir("wd"), os.utime("wd", ns=(1, 1))
    put("wd/new")
    return a, os.stat("wd").st_mtime_ns > 10**18


@test
def extended_attributes():
    put("xa")
    os.setxattr("xa", "user.one", b"1")
    os.setxattr("xa", "user.two", b"\x00\xff" * 500)
    a = sorted(os.listxattr("xa")), os.getxattr("xa", "user.one"), len(os.getxattr("xa", "user.two"))
    os.removexattr("xa", "user.one")
    return a, err(os.getxattr, "xa", "user.one"), err(os.setxattr, "xa", "user.two", b"", os.XATTR_CREATE)


@test
def sparse():
    with open("s", "wb") as f:
        f.seek(1 << 30)
        f.write(b"end")
    s = os.stat("s")
    fd = os.open("s", os.O_RDWR)
    a = s.st_size, s.st_blocks < 1000, os.lseek(fd, 0, os.SEEK_DATA) > 1 << 29, os.lseek(fd, 0, os.SEEK_HOLE)
    os.pwrite(fd, b"x" * (1 << 20), 0)
    libc = ctypes.CDLL(None, use_errno=True)
    r = libc.fallocate64(fd, 3, ctypes.c_long(0), ctypes.c_long(1 << 20)) if hasattr(libc, "fallocate64") else 0
    return a, r, os.pread(fd, 4, 0), err(os.posix_fallocate, fd, 0, 1 << 16)


@test
def large():
    block = os.urandom(1 << 20)
    h = hashlib.sha256()
    with open("large", "wb") as f:
        for i in range(64):
            b = bytes([i]) + block[1:]
            f.write(b), h.update(b)
        os.fsync(f.fileno())
    g = hashlib.sha256()
    with open("large", "rb") as f:
        while b := f.read(1 << 20):
            g.update(b)
    return g.digest() == h.digest(), os.stat("large").st_size


@test
def mmap_shared():
    put("mm", b"a" * 8192)
    with open("mm", "r+b") as f:
        m = mmap.mmap(f.fileno(), 0)
        m[100:104] = b"MMAP"
        m[8000] = 0x7a
        m.flush()
        m.close()
    b = get("mm")
    with open("mm", "r+b") as f, mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE) as m:
        m[0] = 0
    return b[100:104], b[8000], get("mm")[0]


@test
def execute_and_map():
    put("prog", b"#!/bin/sh\necho ran $1\n")
    a = err(subprocess.run, ["./prog"])
    os.chmod("prog", 0o755)
    out = subprocess.run(["./prog", "it"], capture_output=True).stdout
    import shutil
    shutil.copy("/bin/true", "true")
    return a, out, subprocess.run(["./true"]).returncode


@test
def locks():
    put("lk")
    f = open("lk", "r+b")
    fcntl.flock(f, fcntl.LOCK_EX)
    g = open("lk", "r+b")
    a = err(fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(f, fcntl.LOCK_UN)
    b = err(fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
    child = ("import fcntl\nf=open('lk','r+b')\n"
             "try:\n fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 10, 0)\n print('got')\nexcept OSError: print('busy')\n"
             "fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 10, 100); print('elsewhere')")
    return a, b, subprocess.run([sys.executable, "-c", child], capture_output=True).stdout


@test
def lock_waits():
    put("lw")
    f = open("lw", "r+b")
    fcntl.lockf(f, fcntl.LOCK_EX)
    p = subprocess.Popen([sys.executable, "-c", "import fcntl; f=open('lw','r+b'); print('try', flush=True); fcntl.lockf(f, fcntl.LOCK_EX); print('got')"],
                         stdout=subprocess.PIPE)
    a = p.stdout.readline()
    put("meanwhile")
    fcntl.lockf(f, fcntl.LOCK_UN)
    return a, p.communicate()[0]


@test
def fifos_and_sockets():
    os.mkfifo("p")
    got = []
    t = threading.Thread(target=lambda: got.append(get("p")))
    t.start()
    put("p", b"through")
    t.join()
    s = socket.socket(socket.AF_UNIX)
    s.bind("sock"), s.listen()
    c = socket.socket(socket.AF_UNIX)
    c.connect("sock")
    k, _ = s.accept()
    k.send(b"hi")
    return got, c.recv(9), stat.S_ISFIFO(os.stat("p").st_mode), stat.S_ISSOCK(os.stat("sock").st_mode)


@test
def sqlite():
    db = sqlite3.connect("db")
    out = [db.execute("pragma journal_mode=wal").fetchone()]
    db.execute("create table t(a integer primary key, b)")
    with db:
        db.executemany("insert into t(b) values(?)", [("x%d" % i,) for i in range(1000)])
    other = sqlite3.connect("db")
    out.append(other.execute("select count(*), max(b) from t").fetchone())
    with db:
        db.execute("delete from t where a > 500")
    out.append(other.execute("select count(*) from t").fetchone())
    out.append(other.execute("pragma integrity_check").fetchone())
    db.close(), other.close()
    return out


@test
def copy_range():
    put("c1", b"0123456789" * 1000)
    a, b = os.open("c1", os.O_RDONLY), os.open("c2", os.O_CREAT | os.O_RDWR)
    n = os.copy_file_range(a, b, 5000, 10, 0)
    return n, os.pread(b, 10, 0)


@test
def seek_in_directory():
    os.mkdir("many")
    for i in range(300):
        put("many/%03d" % i, b"")
    seen = []
    with os.scandir("many") as it:
        for e in it:
            seen.append(e.name)
            if len(seen) % 7 == 0:
                os.unlink("many/" + e.name)
    return len(seen), len(set(seen)), len(os.listdir("many"))


@test
def long_paths():
    deep = "/".join(["d" * 200] * 30)  # longer than PATH_MAX
    at = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=at)
        at = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
    fd = os.open("f", os.O_CREAT | os.O_RDWR, dir_fd=at)
    longest = "d" * 200 + "/" + "./" * 1900
    return (os.write(fd, b"deep"), err(os.stat, deep), err(os.stat, longest), err(os.mkdir, "d" * 255), err(os.mkdir, "d" * 256),
            err(os.rename, "d" * 255, "e" * 256), err(os.symlink, "x" * 4095, "l"), err(os.symlink, "x" * 4096, "l2"))


@test
def exchange():
    libc = ctypes.CDLL(None, use_errno=True)
    os.mkdir("dir"), put("dir/in"), put("file", b"f")

    def exchanged(a, b):
        return "ok" if libc.renameat2(-100, a, -100, b, 2) == 0 else errno.errorcode[ctypes.get_errno()]
    r = exchanged(b"dir", b"file"), exchanged(b"file", b"missing"), exchanged(b"file", b"file/in")
    return r, get("dir"), os.listdir("file"), sorted(os.listdir("."))


@test
def rename_over_open_file():
    put("new", b"new")
    f = open("old", "w+b", 0)
    f.write(b"old")
    os.rename("new", "old")
    f.write(b" still")
    f.seek(0)
    return f.read(), get("old"), os.fstat(f.fileno()).st_nlink, os.stat("old").st_size


@test
def rename_one_link_to_another():
    put("a", b"1"), os.link("a", "b")
    os.rename("a", "b")  # two names of one file: nothing is done
    return sorted(os.listdir(".")), os.stat("b").st_nlink


@test
def truncate_unlinked():
    f = open("f", "w+b", 0)
    f.write(b"0123456789")
    os.unlink("f")
    os.ftruncate(f.fileno(), 4)
    os.fchmod(f.fileno(), 0o600)
    os.utime(f.fileno(), ns=(1, 2))
    s = os.fstat(f.fileno())
    return s.st_size, oct(s.st_mode), s.st_mtime_ns, os.pread(f.fileno(), 99, 0)


@test
def holes():
    libc = ctypes.CDLL(None, use_errno=True)
    size, keep, punch, zero = 1 << 20, 1, 2, 16
    fd = os.open("h", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"x" * size, 0)

    def fallocate(mode, at, n):
        r = libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(n))
        return "ok" if r == 0 else errno.errorcode[ctypes.get_errno()]
    full = os.fstat(fd).st_blocks
    out = [fallocate(punch | keep, 1 << 18, 1 << 18), os.pread(fd, 2, (1 << 18) - 1), os.pread(fd, 2, (1 << 19) - 1),
           full - os.fstat(fd).st_blocks >= 512, os.lseek(fd, 0, os.SEEK_HOLE), os.lseek(fd, 1 << 18, os.SEEK_DATA)]
    out += [fallocate(zero, 0, 4096), os.pread(fd, 1, 0), fallocate(keep, size, 4096), os.fstat(fd).st_size]
    return out, fallocate(0, size, 4096), os.fstat(fd).st_size, err(os.lseek, fd, 1 << 30, os.SEEK_DATA)


@test
def mmap_is_what_write_sees():
    put("mm", b"a" * 8192)
    with open("mm", "r+b", 0) as f, mmap.mmap(f.fileno(), 0) as m, open("mm", "rb", 0) as g:
        m[5000:5003] = b"map"
        g.seek(5000)
        a = g.read(3)
        f.seek(100), f.write(b"write")
        b = m[100:105]
        child = subprocess.run([sys.executable, "-c", "print(open('mm','rb').read()[5000:5003])"], capture_output=True).stdout
        f.truncate(4096)
        return a, b, child, os.fstat(f.fileno()).st_size


@test
def two_processes_append():
    put("log", b"")
    code = "import os,sys\nfd=os.open('log',os.O_WRONLY|os.O_APPEND)\nfor i in range(50): os.write(fd,(sys.argv[1]*99+'\\n').encode())"
    for p in [subprocess.Popen([sys.executable, "-c", code, c]) for c in "ab"]:
        p.wait()
    lines = get("log").splitlines()
    return len(lines), sorted(set(lines)) == [b"a" * 99, b"b" * 99], lines.count(b"a" * 99)


@test
def locks_of_two_processes():
    put("lk")
    holder = subprocess.Popen([sys.executable, "-c", "import fcntl,sys\nf=open('lk','r+b'); g=open('lk','r+b')\n"
                               "fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(g, fcntl.LOCK_EX, 10, 50)\nprint(flush=True); sys.stdin.read()"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    f = open("lk", "r+b")
    out = (err(fcntl.flock, f, fcntl.LOCK_SH | fcntl.LOCK_NB), err(fcntl.lockf, f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 55),
           err(fcntl.lockf, f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 60))
    holder.kill(), holder.wait()
    return out, err(fcntl.flock, f, fcntl.LOCK_EX | fcntl.LOCK_NB), err(fcntl.lockf, f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 55)


@test
def shared_locks():
    put("sl")
    f, g, h = open("sl", "r+b"), open("sl", "r+b"), open("sl", "rb")
    return (err(fcntl.flock, f, fcntl.LOCK_SH), err(fcntl.flock, g, fcntl.LOCK_SH | fcntl.LOCK_NB), err(fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB),
            err(fcntl.lockf, h, fcntl.LOCK_EX | fcntl.LOCK_NB), err(fcntl.lockf, h, fcntl.LOCK_SH | fcntl.LOCK_NB))


@test
def more_extended_attributes():
    put("xa"), os.mkdir("xd"), os.symlink("xa", "xl")
    os.setxattr("xd", "user.dir", b"d")
    os.setxattr("xa", "user.empty", b"")
    os.setxattr("xa", "user.empty", b"now", os.XATTR_REPLACE)
    return (os.listxattr("xd"), os.getxattr("xa", "user.empty"), err(os.setxattr, "xa", "user.none", b"", os.XATTR_REPLACE),
            err(os.removexattr, "xa", "user.none"), err(os.setxattr, "xl", "user.link", b"", follow_symlinks=False),
            err(os.setxattr, "xa", "user." + "n" * 251, b""), err(os.setxattr, "xa", "nonsense", b""))


@test
def access_and_times():
    put("f")
    os.utime("f", ns=(123, 999_999_999)), os.utime("f", ns=(-1_000_000_001, -5))
    s = os.stat("f")
    os.chmod("f", 0o000)
    a = os.access("f", os.R_OK), os.access("f", os.W_OK)
    os.chmod("f", 0o444)
    return s.st_atime_ns, s.st_mtime_ns, a, os.access("f", os.R_OK), os.access("f", os.X_OK), err(os.utime, "missing")


@test
def a_large_directory():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    libc.opendir.argtypes, libc.readdir.argtypes = [ctypes.c_char_p], [ctypes.c_void_p]
    libc.telldir.argtypes, libc.seekdir.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_long]
    os.mkdir("many")
    for i in range(1_500):
        os.close(os.open("many/%05d" % i, os.O_CREAT))

    def entry():
        e = libc.readdir(d)
        return e and ctypes.string_at(e + 19)  # d_name
    d = libc.opendir(b"many")
    marks, names = [], []
    while True:
        at = libc.telldir(d)
        n = entry()
        if not n:
            break
        marks.append(at), names.append(n)
    back = True
    for i in (1_400, 17, 755, 0, len(names) - 1, 1_024):
        libc.seekdir(d, marks[i])
        back = back and entry() == names[i]
    return len(names), len(set(names)), back


@test
def space():
    s = os.statvfs(".")
    return s.f_bavail > 0, s.f_namemax, s.f_blocks >= s.f_bavail


for t in tests:
    d = t.__name__ + ".d"
    os.mkdir(d)
    os.chdir(d)
    try:
        result = t()
    except Exception as e:
        result = "raised %s: %s" % (type(e).__name__, e)
    os.chdir("..")
    print("%s: %r" % (t.__name__, result), flush=True)
