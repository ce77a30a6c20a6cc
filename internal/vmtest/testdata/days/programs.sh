# needs: git

### git's first day
# init, add, commit, log, status, diff.
git init -q -b main .; git config user.name n; git config user.email e@x.test; echo 1 >f; mkdir d; echo 2 >d/g; git add .; git commit -qm first; echo 3 >>f; git status --short; git diff --stat | cat; git commit -qam second; git log --format=%s; git fsck --no-progress 2>&1; git show HEAD:d/g

### git clone
# By path (hard links), without, and as a bare mirror.
git init -q -b main a; cd a; git config user.name n; git config user.email e@x.test; seq 1000 >f; git add .; git commit -qm one; cd ..; git clone -q a b; git clone -q --no-hardlinks a c; git clone -q --mirror a m; for r in b c m; do git -C $r log --format=%s; git -C $r fsck --no-progress; done; cd b; echo x >>f; git -c user.name=n -c user.email=e@x.test commit -qam two; git push -q origin HEAD:other; git -C ../a branch

### git rebase
# Three commits onto another branch, one with a conflict.
export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e@x.test GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e@x.test; git init -q -b main .; echo 0 >f; git add f; git commit -qm base; git checkout -qb topic; for i in 1 2 3; do echo $i >t$i; git add t$i; git commit -qm t$i; done; git checkout -q main; echo m >m; git add m; git commit -qm main; git checkout -q topic; git rebase -q main; git log --format=%s; echo a >f; git commit -qam a; git checkout -q main; echo b >f; git commit -qam b; git checkout -q topic; git rebase -q main >/dev/null 2>&1 || git status --short | grep -v '^?'; echo ab >f; git add f; GIT_EDITOR=true git rebase --continue >/dev/null 2>&1; git log --format=%s | head -n 2

### git worktree
# A second tree beside, used and removed.
git init -q -b main r; cd r; git config user.name n; git config user.email e@x.test; echo 1 >f; git add f; git commit -qm one; git worktree add -q ../w -b side; cd ../w; echo 2 >f; git commit -qam two; cd ../r; git log --format=%s side; git worktree list | wc -l; git worktree remove ../w; git worktree list | wc -l; ls ..

### git collects garbage
# gc, repack, prune; objects are read-only files.
git init -q -b main .; git config user.name n; git config user.email e@x.test; for i in $(seq 6); do echo $i >f$i; git add .; git commit -qm c$i; done; git count-objects | cut -d' ' -f1; git gc -q --prune=now; git count-objects | cut -d' ' -f1; ls .git/objects/pack/*.pack | wc -l; git fsck --full --no-progress; git log --format=%s | wc -l

### git stash and bisect
# Both write and rewrite the tree.
git init -q -b main .; git config user.name n; git config user.email e@x.test; for i in $(seq 8); do echo $i >f; git add f; git commit -qm c$i; done; echo dirty >f; git stash -q; cat f; git stash pop -q; cat f; git checkout -q f; git bisect start HEAD HEAD~7 >/dev/null; git bisect run sh -c 'test $(cat f) -lt 5' 2>/dev/null | grep -o 'is the first bad commit' | head -n 1; git show -s --format=%s refs/bisect/bad; git bisect reset -q 2>/dev/null; cat f

### git submodule
# A repository in a repository.
export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e@x.test GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e@x.test; git init -q -b main s; (cd s; echo lib >l; git add l; git commit -qm lib); git init -q -b main r; cd r; git -c protocol.file.allow=always submodule --quiet add ../s lib 2>/dev/null; git commit -qm add; cat lib/l; git submodule status | wc -l; cd ..; git -c protocol.file.allow=always clone -q --recurse-submodules r c 2>/dev/null; cat c/lib/l

### git sees a mode and a link
# chmod +x and symbolic links are content.
git init -q -b main .; git config user.name n; git config user.email e@x.test; echo x >f; ln -s f l; git add .; git commit -qm one; git config core.fileMode; git config core.symlinks || echo default; chmod +x f; git diff --summary | cat; git ls-files -s | cut -d' ' -f1 | sort

### git with many files
# Two hundred, added, moved and removed.
git init -q -b main .; git config user.name n; git config user.email e@x.test; mkdir d; (cd d; for i in $(seq 200); do echo $i >f$i; done); git add .; git commit -qm one; git status --short | wc -l; git mv d e; git commit -qm moved; git diff --stat HEAD~ -M | tail -n 1; git rm -rq e; git status --short | wc -l; git reset -q --hard; ls e | wc -l

### make
# Dependencies by time, parallel, and rebuilt after a touch.
# needs: make
printf 'all: a.o b.o\n\tcat a.o b.o >all\n%%.o: %%.c\n\tcp $< $@\n' >Makefile; echo a >a.c; echo b >b.c; touch -d '-10 seconds' a.c b.c; make -j 2 all | sort; make -q a.o && echo fresh; touch -d '+10 seconds' a.c; make -q a.o 2>/dev/null || echo stale; cat all

### compiler
# gcc, ar, a shared library, and a program of two files.
# needs: gcc ar
printf 'int f(void) { return 42; }\n' >f.c; printf '#include <stdio.h>\nint f(void);\nint main(void) { printf("%%d\\n", f()); return 3; }\n' >m.c; gcc -c f.c m.c && gcc -o m m.o f.o && ./m; echo $?; ar rcs libf.a f.o && gcc -o s m.c -L. -lf && ./s; gcc -shared -fPIC -o libg.so f.c && gcc -o d m.c -L. -lg -Wl,-rpath,"$PWD" && ./d; echo $?

### sqlite with a log
# WAL: shared memory beside the database, two connections.
# needs: python3
python3 - <<'END'
import os, sqlite3
a = sqlite3.connect("x", isolation_level=None); print(a.execute("pragma journal_mode=wal").fetchone()); a.execute("create table t(a)")
b = sqlite3.connect("x", isolation_level=None); a.execute("begin"); a.execute("insert into t values(1)"); print(b.execute("select count(*) from t").fetchone()); a.execute("commit"); print(b.execute("select count(*) from t").fetchone())
print(sorted(os.listdir("."))); a.close(); b.close(); print(sorted(os.listdir(".")), sqlite3.connect("x").execute("pragma integrity_check").fetchone())
END

### sqlite of four processes
# None of their rows is lost.
# needs: python3
python3 - <<'END'
import os, sqlite3
c = sqlite3.connect("x"); c.execute("pragma journal_mode=wal"); c.execute("create table t(p, n)"); c.commit(); c.close()
for p in range(4):
    if os.fork() == 0:
        c = sqlite3.connect("x", timeout=60, isolation_level=None)
        for n in range(10): c.execute("insert into t values(?, ?)", (p, n))
        os._exit(0)
for p in range(4): print(os.wait()[1])
c = sqlite3.connect("x"); print(c.execute("select count(*), count(distinct p) from t").fetchone(), c.execute("pragma integrity_check").fetchone())
END

### sqlite by its own shell
# Import, dump and back.
# needs: sqlite3
printf '1,a\n2,b\n' >f.csv; sqlite3 x 'create table t(n integer, s text)' '.mode csv' '.import f.csv t' 'select count(*) from t'; sqlite3 x .dump | sqlite3 y; sqlite3 y 'select * from t order by n'; sqlite3 y 'vacuum; pragma integrity_check'

### archives
# gzip, xz, bzip2, zstd of a tree.
# needs: gzip xz bzip2 tar
mkdir d; seq 5000 >d/f; ln -s f d/l; for z in gzip xz bzip2; do tar -I $z -cf t.$z d; mkdir o$z; tar -I $z -xf t.$z -C o$z; cmp d/f o$z/d/f && readlink o$z/d/l; done

### zip
# With a mode and a date.
# needs: python3
python3 - <<'END'
import os, shutil, zipfile
os.mkdir("d"); open("d/f", "w").write("x" * 1000); shutil.make_archive("a", "zip", "d"); print(zipfile.ZipFile("a.zip").namelist()); shutil.unpack_archive("a.zip", "o"); print(open("o/f").read() == "x" * 1000); shutil.rmtree("o"); print(sorted(os.listdir(".")))
END

### patch
# diff -ru and back.
# needs: patch diff
mkdir a b; seq 20 >a/f; sed s/10/ten/ a/f >b/f; echo new >b/n; diff -ruN a b >p || echo differ; (cd a && patch -s -p1 <../p && cat n && grep ten f); diff -r a b && echo equal

### editor
# vim writes with a backup and a swap file, and the name keeps its mode.
# needs: vi
seq 3 >f; chmod 755 f; vi -e -s -u NONE -c '1s/1/one/' -c 'set backup' -c wq f </dev/null >/dev/null 2>&1; cat f; stat -c %a f; ls -A | sort

### python's files
# tempfile, shutil, pathlib, glob, os.walk.
# needs: python3
python3 - <<'END'
import glob, os, pathlib, shutil, tempfile
with tempfile.TemporaryDirectory(dir=".") as d:
    p = pathlib.Path(d); (p / "a" / "b").mkdir(parents=True); (p / "a" / "b" / "f").write_text("x"); shutil.copytree(p / "a", p / "c", symlinks=True)
    print(sorted(os.path.relpath(x, d) for x in glob.glob(d + "/**/f", recursive=True))); print(sum(len(f) for _, _, f in os.walk(d)))
    with tempfile.NamedTemporaryFile(dir=d) as t: t.write(b"abc"); t.flush(); print(os.path.getsize(t.name))
    shutil.move(p / "c", p / "m"); os.replace(p / "m" / "b" / "f", p / "f"); print(sorted(os.listdir(p)))
print(os.listdir("."))
END

### perl and awk
# In-place edits and large sorts.
seq 20000 >f; perl -i.bak -ne 'print if $_ % 2' f; wc -l <f; ls; awk '{s += $1} END {print s}' f; sort -rn -S 64K -T . f | head -n 1; sort f | uniq -d | wc -l; split -l 3000 f part; ls part* | wc -l; cat part* | cmp - f && echo joined

### tmux
# A server with a socket in the project; keys in, screen out.
# needs: tmux
tmux -S ./sock -f /dev/null new-session -d -x 80 -y 24 'sh -c "echo hel\"\"lo; cat"'; until tmux -S ./sock capture-pane -p | grep -q hello; do sleep 0.1; done; tmux -S ./sock send-keys typed Enter; until [ "$(tmux -S ./sock capture-pane -p | grep -c typed)" = 2 ]; do sleep 0.1; done; tmux -S ./sock capture-pane -p | head -n 3; tmux -S ./sock kill-server; echo end

### screen in a pager
# less reads a file as it is, when its output is a pipe.
# needs: less
seq 100 >f; less f | md5sum; md5sum <f; file f 2>/dev/null | cut -d: -f1 || echo f

### transfer by sftp
# A server started as a program, and files both ways.
# needs: sftp
s=$(ls /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server 2>/dev/null | head -n 1); test -n "$s" || s=none; mkdir up; seq 1000 >f; chmod 640 f; if [ $s = none ]; then echo put; echo 640; else printf 'put -p f up/g\nget up/g h\n' | sftp -q -b - -D $s >/dev/null 2>&1; cmp f h && echo put; stat -c %a up/g; fi

### rsync by a pipe
# The remote end is a program here.
# needs: rsync
mkdir s; seq 1000 >s/a; echo x >s/b; printf '#!/bin/sh\nshift\nexec "$@"\n' >sh1; chmod +x sh1; rsync -a -e ./sh1 s/ here:"$PWD"/t/ && diff -r s t && echo equal; printf y >>s/b; rsync -a --inplace -e ./sh1 s/ here:"$PWD"/t/ && diff -r s t && echo again

### git bundle and archive
# A repository as one file, and a tree without one.
# needs: git tar
git init -q -b main r; cd r; git config user.name n; git config user.email e@x.test; seq 100 >f; git add f; git commit -qm one; git bundle create -q ../b main; cd ..; git clone -q -b main b c; git -C c log --format=%s; git -C r archive main | tar -tf -; git -C r archive --format=tar --prefix=p/ main | tar -xf - && cmp p/f r/f && echo equal

### git clean and apply
# What is ignored stays, a patch is applied and taken back.
# needs: git
git init -q -b main .; git config user.name n; git config user.email e@x.test; printf '*.o\n' >.gitignore; seq 9 >f; git add .; git commit -qm one; touch a.o junk; git clean -qfd; ls -A; echo 10 >>f; git diff >p.o; git checkout -q f; git apply p.o; tail -n 1 f; git apply -R p.o; tail -n 1 f; git clean -qfdx; ls

### hooks of a clone
# A hook made inside runs inside.
# needs: git
git init -q -b main .; git config user.name n; git config user.email e@x.test; printf '#!/bin/sh\necho hook ran\n' >.git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; echo x >f; git add f; git commit -qm one 2>&1; git log --format=%s

### virtual environment of python
# venv with its links, and a package run from it.
# needs: python3
python3 -c 'import ensurepip' 2>/dev/null; python3 -m venv --without-pip v && . v/bin/activate && python -c 'import sys; print(sys.prefix != sys.base_prefix)'; mkdir -p m; echo 'print("package", __name__)' >m/__main__.py; python -m m

### pool of processes
# multiprocessing: semaphores and shared memory.
# needs: python3
python3 - <<'END'
import multiprocessing as m
from multiprocessing import shared_memory
def f(x): return x * x
if __name__ == "__main__":
    with m.Pool(4) as p: print(sum(p.map(f, range(100))))
    q = m.Queue(); p = m.Process(target=q.put, args=("sent",)); p.start(); print(q.get()); p.join()
    s = shared_memory.SharedMemory(create=True, size=1000); s.buf[0] = 7; t = shared_memory.SharedMemory(s.name); print(t.buf[0]); t.close(); s.close(); s.unlink()
END

### server on localhost
# Found by name, by both families' numbers, and gone after its end.
# needs: python3
echo page >index.html; python3 -u - <<'END'
import http.server, threading, urllib.request
class Q(http.server.SimpleHTTPRequestHandler):
    def log_message(*a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Q); threading.Thread(target=s.serve_forever).start()
for h in ("localhost", "127.0.0.1", "127.1.2.3"):
    try: print(urllib.request.urlopen("http://%s:%d/" % (h, s.server_port), timeout=20).read())
    except OSError: print("no")
s.shutdown(); s.server_close()
END

### files of node
# fs in all its ways, and workers.
# needs: node
cat >t.js <<'END'
const fs = require("fs"), { Worker } = require("worker_threads")
fs.mkdirSync("a/b", { recursive: true }); fs.writeFileSync("a/b/f", "x".repeat(1e5)); fs.cpSync("a", "c", { recursive: true })
fs.renameSync("c/b/f", "c/g"); fs.symlinkSync("g", "c/l"); console.log(fs.readFileSync("c/l").length, fs.readdirSync("c").sort().join())
fs.copyFileSync("c/g", "h", fs.constants.COPYFILE_FICLONE); console.log(fs.statSync("h").size); fs.rmSync("a", { recursive: true }); console.log(fs.existsSync("a"))
fs.createReadStream("h").on("data", () => {}).on("close", () => new Worker('console.log("worker", require("fs").statSync("h").size)', { eval: true }))
END
node t.js

### watched by node
# fs.watch inside sees a change inside.
# needs: node
mkdir d; node -e 'const fs = require("fs"); const w = fs.watch("d", (e, n) => { console.log(e, n); w.close() }); fs.writeFileSync("d/f", "x")' | head -n 1

### keys of ssh
# Private keys with the modes that ssh asks for.
# needs: ssh-keygen
ssh-keygen -q -t ed25519 -N '' -f k; stat -c '%a %n' k k.pub; ssh-keygen -y -f k | cut -d' ' -f1; echo text >t; ssh-keygen -q -Y sign -n test -f k t 2>/dev/null; head -n 1 t.sig

### dbm and locks
# The files of programs that lock by flock and by fcntl.
# needs: python3 flock
python3 -c 'import dbm.dumb as d; x = d.open("x", "c"); x["k"] = "v"; x.close(); print(d.open("x")["k"])'; flock l -c 'flock -n l true || echo held'; flock -s l -c 'flock -s -n l echo shared'; python3 -c '
import fcntl, os
f = open("m", "w"); fcntl.lockf(f, fcntl.LOCK_EX)
if os.fork() == 0:
    try: fcntl.lockf(open("m", "w"), fcntl.LOCK_EX | fcntl.LOCK_NB); print("free", flush=True)
    except OSError: print("locked", flush=True)
    os._exit(0)
os.wait()'

### cpio and links
# Hard links and modes survive.
# needs: cpio
mkdir s; echo x >s/a; ln s/a s/b; ln -s a s/l; chmod 750 s/a; (cd s; find . | sort | cpio -o -H newc --quiet >../c); mkdir o; (cd o; cpio -i -m --quiet <../c); stat -c '%h %a' o/a; test o/a -ef o/b && echo linked; readlink o/l

### edited in place
# sed -i, ed, perl and ex leave the mode and no other file.
# needs: perl
printf 'a\nb\n' >f; chmod 640 f; sed -i s/a/A/ f; perl -pi -e s/b/B/ f; cat f; stat -c %a f; ls -A; ln -s f l; sed -i --follow-symlinks s/A/C/ l; test -L l && head -n 1 f

### made and linked at once by many
# docker/for-mac#7059, podman#23061: the linker does not find an object that was written just before.
cat >m.c <<'C'
int f(void);int main(void){return f();}
C
for i in 1 2 3 4 5 6; do (
	mkdir d$i; cd d$i; cp ../m.c .; echo "int f(void){return $i;}" >f.c
	gcc -c m.c f.c && ar rc f.a f.o && mv f.a lib.a && gcc -o m m.o lib.a && ./m; echo $?
) >o$i 2>&1 & done; wait; cat o?

### temporary dependency file
# orbstack#2112: the compiler writes x.d.tmp, mv to x.d, in parallel and after clean.
printf 'all: %s\n%%.o: %%.c\n\t@gcc -MD -MF $*.d.tmp -c $< -o $@ && mv $*.d.tmp $*.d\nclean:\n\t@rm -f *.o *.d\n' "$(seq -f 'f%g.o' -s' ' 24)" >Makefile
for i in $(seq 24); do echo "int f$i;" >f$i.c; done
for n in 1 2 3; do make -j8 >/dev/null && ls *.d | wc -l; make clean; ls *.d 2>/dev/null | wc -l; done
