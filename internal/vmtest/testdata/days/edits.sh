# where: outside

### overwritten
# for-mac#7501: the same size, seen by a shell that had read it.
echo one >f; guest; now 'cat f'; echo two >f; now 'cat f'

### overwritten with more
# The size is new as well.
echo one >f; guest; now 'cat f'; seq 10000 >f; now 'wc -c <f; tail -n 1 f'

### overwritten with less
# Nothing of the old rest.
seq 10000 >f; guest; now 'md5sum <f'; echo short >f; now 'cat f; stat -c %s f'

### appended to
# for-mac#7501: ten times, each seen.
echo 0 >f; guest; now 'wc -l <f'; for i in 1 2 3 4 5 6 7 8 9; do echo $i >>f; now 'tail -n 1 f'; done

### emptied and written
# for-mac#7501: a file of size 0 is read again.
: >f; guest; now 'cat f; stat -c %s f'; echo v1 >f; now 'cat f'; : >f; inside 'stat -c %s f'; echo v2 >f; now 'cat f'

### replaced by an editor
# A new file renamed over the old one.
echo one >f; guest; inside 'cat f'; echo two >f.new; mv f.new f; inside 'cat f; ls'

### replaced many times
# for-mac#6692: no stale file handle.
echo 0 >f; guest; inside 'cat f'; for i in 1 2 3 4 5; do echo $i >n; mv n f; inside 'cat f'; done

### edited in place by sed
# sed -i makes a new file, and ed does not.
echo one >f; guest; inside 'cat f'; sed -i s/one/two/ f; inside 'cat f'; perl -i -pe s/two/three/ f; inside 'cat f'

### removed
# The name is gone at once.
echo x >f; guest; inside 'cat f'; rm f; inside 'cat f 2>/dev/null || echo gone; ls | wc -l'

### made after a look in vain
# A name that was looked for and not found.
guest; inside 'cat f 2>/dev/null || echo none'; echo here >f; inside 'cat f'

### removed and made again
# With other contents, five times.
guest; for i in 1 2 3 4 5; do echo $i >f; inside 'cat f'; rm f; inside 'test -e f || echo none'; done

### renamed
# The old name is gone and the new one is there.
echo x >a; guest; inside 'cat a'; mv a b; inside 'cat a 2>/dev/null; cat b; ls'

### swapped
# Two files exchange their names.
echo 1 >a; echo 2 >b; guest; inside 'cat a b'; mv a c; mv b a; mv c b; inside 'cat a b'

### directory made and removed
# The listing follows.
guest; inside 'ls | wc -l'; mkdir -p d/e; inside 'ls d'; rmdir d/e; inside 'ls d | wc -l'; rmdir d; inside 'ls | wc -l'

### listing of many
# A hundred new names in a directory that was listed.
mkdir d; touch d/old; guest; inside 'ls d | wc -l'; (cd d && seq 100 | xargs touch); inside 'ls d | wc -l'; rm d/1?; inside 'ls d | wc -l'

### directory renamed
# Its files have new paths.
mkdir -p d/e; echo x >d/e/f; guest; inside 'cat d/e/f'; mv d g; inside 'cat g/e/f; test -e d || echo gone'

### directory renamed below the shell
# A shell that stands in it goes on (sbx-releases).
mkdir d; echo x >d/f; guest; inside 'cd d; cat f'; mv d e; inside 'cat f; echo y >g; ls'; cat e/g

### directory renamed in which the shell did nothing
# It has only gone there, and lists it afterwards.
mkdir d; echo x >d/f; guest; inside 'cd d'; mv d e; inside 'ls; cat f; echo y >g; ls'; cat e/g; inside 'stat -c %F .'

### directory replaced
# for-mac#7650: git clone anew; paths lead to the new one.
mkdir d; echo old >d/f; guest; inside 'cat d/f'; mv d was; mkdir d; echo new >d/f; inside 'cat d/f; cat was/f'; rm -rf d; mkdir d; echo newer >d/f; inside 'cat d/f'

### file becomes a directory
# And back.
echo x >p; guest; inside 'cat p'; rm p; mkdir p; echo y >p/f; inside 'cat p/f; stat -c %F p'; rm -r p; echo z >p; inside 'cat p'

### mode changed
# chmod on the host.
echo x >f; guest; inside 'stat -c %a f'; chmod 600 f; inside 'stat -c %a f'; chmod 755 f; inside 'stat -c %a f; test -x f && echo runs'

### script made executable
# It runs at once.
printf '#!/bin/sh\necho ran\n' >s; guest; inside 'test -x s || echo not yet'; chmod +x s; inside './s'; printf '#!/bin/sh\necho ran anew\n' >s; inside './s'

### time changed
# touch on the host.
touch -d @1000000000 f; guest; inside 'stat -c %Y f'; touch -d @1100000000.123456789 f; inside 'stat -c %.9Y f'

### size changed
# truncate makes it longer and shorter.
echo x >f; guest; inside 'stat -c %s f'; truncate -s 1M f; inside 'stat -c %s f; tr -d "\0" <f'; truncate -s 1 f; inside 'cat f; echo'

### hard link
# The number of names, and one file.
echo x >a; guest; inside 'stat -c %h a'; ln a b; inside 'stat -c %h a; cat b'; echo y >b; inside 'cat a'; rm a; inside 'stat -c %h b'

### symbolic link turned
# A deployment's "current".
mkdir v1 v2; echo 1 >v1/f; echo 2 >v2/f; ln -s v1 current; guest; inside 'cat current/f'; ln -sfn v2 current; inside 'cat current/f; readlink current'

### symbolic link becomes a file
# It is no longer followed.
echo t >target; ln -s target p; guest; inside 'cat p'; rm p; echo own >p; inside 'cat p; stat -c %F p'

### open file that is replaced
# A descriptor keeps the old file.
echo old >f; guest; inside 'exec 3<f'; echo new >n; mv n f; inside 'cat <&3; cat f'

### open file that is removed
# A descriptor keeps its contents.
seq 1000 >f; guest; inside 'exec 3<f; read -r x <&3; echo $x'; rm f; inside 'tail -n 1 <&3; test -e f || echo gone'

### open file that grows
# tail -f: a descriptor reads on.
echo 1 >f; guest; inside 'exec 3<f; cat <&3'; echo 2 >>f; inside 'cat <&3'; echo 3 >>f; inside 'cat <&3'

### log that is rotated
# tail -F looks at the name again.
echo 1 >log; guest; inside 'cat log'; mv log log.1; echo 2 >log; inside 'cat log log.1'

### written by both
# Lines are appended in turn.
: >f; guest; for i in 1 2 3; do echo "host $i" >>f; inside "echo guest $i >>f"; done; cat f; inside 'cat f'

### written inside
# The host sees it at once.
guest; inside 'echo x >f; mkdir d; ln -s f l; chmod 640 f'; cat f; stat -c '%n %a' d f; readlink l; inside 'echo y >>f'; cat f; inside 'rm f'; ls

### written inside and still open
# Data does not wait for close.
guest; inside 'exec 4>f; echo a >&4'; cat f; inside 'echo b >&4'; cat f

### descriptor of the host
# What the guest appends, a reader of the host reads on.
echo 1 >f; exec 5<f; cat <&5; guest; inside 'echo 2 >>f'; cat <&5; inside 'mv f g; echo 3 >>g'; cat <&5

### archive unpacked over
# tar replaces files that the guest has read.
mkdir a; echo 1 >a/f; tar cf t.tar a; echo 2 >a/f; guest; inside 'cat a/f'; tar xf t.tar; inside 'cat a/f'

### branch changed
# git on the host, status in the guest.
git init -q .; git config user.name n; git config user.email e@x.test; echo 1 >f; git add f; git commit -qm one; git checkout -qb other; echo 2 >f; git commit -qam two
guest; inside 'cat f; git status --short'; git checkout -q -; inside 'cat f; git status --short; git log --format=%s'; echo 3 >f; inside 'git status --short'

### commit inside
# The host's git agrees.
git init -q .; git config user.name n; git config user.email e@x.test; guest; inside 'echo 1 >f; git add f; git commit -qm one; git status --short'; git log --format=%s; git status --short; echo 2 >f; git commit -qam two; inside 'git log --format=%s; git status --short'

### make after an edit
# The time of the edit is newer than the target's.
printf 'out: in\n\tcp in out\n' >Makefile; echo 1 >in; guest; inside 'make'; inside 'make | sed "s/^make: .out. is/out is/"'; echo 22 >in; touch -d '+2 seconds' in; inside 'make -s; cat out'

### module edited
# Python imports what the host wrote.
echo 'v = 1' >m.py; guest; inside 'python3 -Bc "import m; print(m.v)"'; echo 'v = 222' >m.py; inside 'python3 -Bc "import m; print(m.v)"'

### mapped anew
# for-mac#7501: a new mapping has new pages.
printf 'aaaa' >f; guest; inside "python3 -c 'import mmap; f = open(\"f\"); print(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[:])'"; printf 'bbbb' >f; inside "python3 -c 'import mmap; f = open(\"f\"); print(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[:])'"

### process that polls
# A watcher with an interval (as webpack's poll): it sees size, time and name change.
echo 1 >f; guest; inside 'stat -c "%s %h" f'; echo 12345 >>f; inside 'stat -c "%s %h" f'; ln f g; inside 'stat -c "%s %h" f'

### deep in a tree
# A path of ten directories.
mkdir -p 1/2/3/4/5/6/7/8/9/10; echo a >1/2/3/4/5/6/7/8/9/10/f; guest; inside 'cat 1/2/3/4/5/6/7/8/9/10/f'; mv 1/2/3 1/2/x; mkdir -p 1/2/3/4/5/6/7/8/9/10; echo b >1/2/3/4/5/6/7/8/9/10/f; inside 'cat 1/2/3/4/5/6/7/8/9/10/f 1/2/x/4/5/6/7/8/9/10/f'

### tree removed
# rm -rf on the host below a shell that has read it.
mkdir -p d/e; echo x >d/e/f; guest; inside 'cat d/e/f'; rm -rf d; inside 'ls d 2>/dev/null || echo gone'; mkdir -p d/e; echo y >d/e/f; inside 'cat d/e/f'

### copied over
# cp -p keeps the old time: contents count, not the time.
echo one >f; touch -d @1000000000 f; guest; inside 'cat f'; echo two >n; touch -d @1000000000 n; cp -p n f; inside 'cat f; stat -c %Y f'

### large file written again
# 4 MB, read by the guest before and after.
head -c 4000000 /dev/zero >f; guest; inside 'md5sum <f'; head -c 4000000 /dev/zero | tr '\0' x >f; inside 'md5sum <f'; printf Y | dd of=f bs=1 seek=2000000 conv=notrunc status=none; inside 'md5sum <f'

### events of a file's changes
# lima#615: inotify reports what the host does: a watcher of the guest builds anew.
mkdir d; echo x >d/f; cat >w.py <<'END'
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
fd = libc.inotify_init1(0)
libc.inotify_add_watch(fd, b"d", 0x2 | 0x100 | 0x200 | 0x40 | 0x80)
print("watching", flush=True)
import select
seen = set()
while not {b"f", b"new"} <= seen and select.select([fd], [], [], 60)[0]:
    b = os.read(fd, 65536)
    while b:
        _, mask, _, n = struct.unpack("iIII", b[:16])
        seen.add(b[16:16 + n].rstrip(b"\0")); b = b[16 + n:]
print(sorted(seen), flush=True)
END
coproc W { exec $R python3 w.py; }
o=${W[0]} p=$W_PID; read -r l <&$o; echo "$l"; echo y >>d/f; echo z >d/new; read -r l <&$o; echo "$l"

### directory made unreadable and back
# chmod of a directory on the host, listed inside.
mkdir d; echo x >d/f; guest; now 'ls d'; chmod 700 d; echo y >d/g; inside 'ls d; stat -c %a d'; chmod 755 d; inside 'stat -c %a d'

### a thousand appends
# A reader inside that reads on gets all lines, each once.
: >log; guest; for i in $(seq 1000); do echo "line $i" >>log; done; inside 'wc -l <log; tail -n 1 log; sort -u log | wc -l'

### release that is turned
# ln -sfn to the next release (capistrano), while a shell stands in the current one.
mkdir r1 r2; echo 1 >r1/f; echo 2 >r2/f; ln -s r1 current; guest; now 'cd current; cat f'; ln -sfn r2 current; inside 'cat ../current/f; cat f; readlink ../current'

### modules replaced by a rename
# node_modules.new over node_modules; require of a new process.
# needs: node
mkdir -p node_modules/m; echo 'module.exports = 1' >node_modules/m/index.js; guest; now 'node -p "require(\"m\")"'; mkdir -p nm/m; echo 'module.exports = 2' >nm/m/index.js; mv node_modules old; mv nm node_modules; inside 'node -p "require(\"m\")"'

### commit on the host
# git status and log inside after commit, stash and reset outside.
# needs: git
git init -q .; git config user.name n; git config user.email e@x.test; echo 1 >f; git add f; git commit -qm one; guest; now 'git status --short; git log --format=%s'; echo 2 >f; git commit -qam two; inside 'git status --short; git log --format=%s | head -n 1'; echo 3 >f; inside 'git status --short'; git checkout -q f; inside 'git status --short; cat f'; git reset -q --hard HEAD~; inside 'git log --format=%s; cat f'

### database written by both in turn
# sqlite: each side closes it before the other opens it.
# needs: python3
cat >q.py <<'END'
import sqlite3, sys
c = sqlite3.connect("x"); c.execute("create table if not exists t(who)"); c.execute("insert into t values(?)", sys.argv[1:]); c.commit(); print(c.execute("select count(*) from t").fetchone()[0])
END
for i in 1 2 3; do python3 q.py host; $R python3 q.py guest; done; python3 q.py host; $R python3 -c 'import sqlite3; print(sqlite3.connect("x").execute("pragma integrity_check").fetchone())'

### working directory removed and made again
# The shell that stood in it comes back by its path.
mkdir d; echo 1 >d/f; guest; now 'cd d; cat f'; rm -r d; mkdir d; echo 2 >d/f; inside 'cd "$PWD" && cat f'

### time of the future
# touch -d tomorrow, as an unpacked archive has it.
echo x >f; guest; now 'cat f'; touch -d '2035-01-02 03:04:05' f; inside 'date -r f +%F; test f -nt /etc/passwd && echo newer'

### case of a name changed
# mv Readme README, on a file system that tells them apart.
echo x >Readme; guest; now 'ls'; mv Readme README; inside 'ls; cat README; test -e Readme || echo gone'

### file and directory of the same name in turn
# A build that puts out a file, then a directory.
guest; for i in 1 2 3; do echo $i >out; inside 'cat out'; rm out; mkdir out; echo d$i >out/f; inside 'cat out/f'; rm -r out; done

### many files changed at once
# sed -i over three hundred files, then grep inside.
mkdir d; for i in $(seq 300); do echo old >d/f$i; done; guest; now 'grep -l old -r d | wc -l'; sed -i s/old/new/ d/*; inside 'grep -l old -r d | wc -l; grep -l new -r d | wc -l'

### git index under two
# sbx-releases#43: both sides asked git for the status, and the index was broken.
git init -q .; git config user.name a; git config user.email a@b
for i in $(seq 60); do echo $i >f$i; done; git add .; git commit -qm 1
guest
printf 'for i in $(seq 30); do echo g$i >>f$i; git add f$i 2>/dev/null; git status >/dev/null; done\n' >&"${G[1]}"
for i in $(seq 31 60); do echo h$i >>f$i; git add f$i 2>/dev/null; git status >/dev/null || echo broken; done
now :; git fsck 2>&1 | grep -v dangling; git add -A; git status --short | wc -l; now 'git add -A; git status --short | wc -l'

### git monitors files
# core.untrackedCache and fsmonitor rely on times of directories and on events.
git init -q .; git config user.name a; git config user.email a@b; git config core.untrackedCache true
mkdir d; echo 1 >d/a; git add .; git commit -qm 1; 
guest
inside 'git status --short'; echo 1 >d/new; inside 'git status --short'; rm d/new; echo 2 >e; inside 'git status --short'
now 'echo x >d/inner'; git status --short; now 'rm d/inner'; git status --short

### lock of git that was left over
# index.lock of a killed git is refused by both, and gone by rm on either side.
git init -q .; git config user.name a; git config user.email a@b; echo 1 >a
guest
now 'touch .git/index.lock'; git add a 2>&1 | grep -c 'index.lock'; rm .git/index.lock
inside 'git add a && git status --short'; touch .git/index.lock; inside 'git add a 2>&1 | grep -c index.lock; rm .git/index.lock; git add a; echo $?'

### git collects while the other works
# git gc on the host while the guest reads and commits.
git init -q .; git config user.name a; git config user.email a@b; git config gc.auto 0
for i in $(seq 20); do echo $i >f; git add f; git commit -qm $i; done
guest
printf 'for i in $(seq 8); do echo g$i >g; git add g; git commit -qm g$i || echo no; git log --oneline >/dev/null || echo nolog; done\n' >&"${G[1]}"
for i in 1 2 3; do git gc -q --prune=now 2>&1 | grep -v warning; git repack -adq; done
now :; git log --oneline | wc -l; git fsck --full 2>&1 | grep -cv dangling; now 'git fsck --full 2>&1 | grep -v dangling; git log --oneline | wc -l'

### large files by a filter
# openqmc#92: without git-lfs, its files were shown as changed; the times and numbers in the host's index hold inside.
git init -q .; git config user.name a; git config user.email a@b; git config filter.x.clean 'tr a-z A-Z'; git config filter.x.smudge 'tr A-Z a-z'
echo '*.bin filter=x' >.gitattributes; echo hello >f.bin; sleep 1.2; git add .; git commit -qm 1; git config --unset filter.x.clean; git config --unset filter.x.smudge; sleep 1.1; git status --short; $R git status --short; echo none
