# where: outside

### each kind of change
# lima#615: what the host does to a file, as inotify reports it.
mkdir d; watcher; coproc W { exec $R python3 w.py d; }; sees watching; touch d/first; sees '* first'
echo x >d/f; sees 'create f' 'modify f' 'close f'; echo y >>d/f; sees 'modify f' 'close f'; chmod 600 d/f; sees 'attrib f'
touch -d @1000000000 d/f; sees 'attrib f'; mv d/f d/g; sees 'from f' 'to g'; rm d/g; sees 'delete g'
mkdir d/s; sees 'create s'; mv d/s d/t; sees 'from s' 'to t'; rmdir d/t; sees 'delete t'; ln -s x d/l; sees 'create l'; rm d/l; sees 'delete l'
mkfifo d/p; sees 'create p'; echo z >o; ln o d/h; sees 'create h'; mv o d/in; sees '* in'; mv d/in out; sees '* in'

### before the watcher was noticed
# A change right after the watch began.
mkdir d; echo x >d/old; echo x >d/f; watcher; coproc W { exec $R python3 w.py -r d; }; sees watching; echo y >>d/f; rm d/old; echo z >d/new; sees '* f' '* old' '* new'

### new directories
# A watcher that adds them as it learns of them (inotifywait -r, chokidar).
mkdir -p d/a; watcher; coproc W { exec $R python3 w.py -r d; }; sees watching; touch d/first; sees '* first'
mkdir d/b; echo x >d/b/f; sees 'create b' 'create b/f'; echo y >>d/b/f; sees 'modify b/f'; mkdir -p d/a/c/e; sees 'create a/c'; echo z >d/a/c/e/f; sees '* a/c/e/f'; rm -r d/a; sees 'delete a'

### saved by an editor
# A file renamed over the old one (vim, sed -i, VS Code).
mkdir d; echo x >d/f; watcher; coproc W { exec $R python3 w.py d; }; sees watching; touch d/first; sees '* first'
sed -i s/x/y/ d/f; sees 'to f'; cat d/f; echo z >d/.f.swp; mv d/f d/f~; mv d/.f.swp d/f; sees '* f'; for i in 1 2 3; do echo $i >n; mv n d/f; sees '* f'; done

### one file that is watched
# entr, tail -F, nodemon watch the file itself.
echo x >f; watcher; coproc W { exec $R python3 w.py f; }; sees watching; echo y >>f; sees 'modify '; chmod 600 f; sees 'attrib '; echo z >n; mv n f; sees 'deleted '

### branch changed on the host
# git checkout, with a file more, one less and one changed.
git init -q d; cd d || exit; git config user.name n; git config user.email e@x.test; mkdir src; seq 9 >src/f; echo 1 >src/gone; git add .; git commit -qm one
git checkout -qb other; seq 99 >src/f; git rm -q src/gone; echo 2 >src/new; git add .; git commit -qam two; git checkout -q -; cd .. || exit
watcher; coproc W { exec $R python3 w.py d/src; }; sees watching; touch d/src/first; sees '* first'; git -C d checkout -q other; sees '* f' 'delete gone' 'create new'

### the guest's own changes
# Each is reported once, as on a local disk.
mkdir d; watcher; coproc W { exec $R python3 w.py d; }; sees watching; touch d/first; sees '* first'; cat >own.sh <<'END'
echo x >d/own; mv d/own d/own2; chmod 600 d/own2; echo y >>d/own2; rm d/own2; mkdir d/own3; mv d/own3 d/own4; rmdir d/own4; ln -s x d/own5
END
: >.seen; $R sh own.sh; touch d/last; sees '* last'; grep own .seen | sort | uniq -c

### both write the same file
# The host's write after the guest's is reported.
mkdir d; watcher; coproc W { exec $R python3 w.py d; }; sees watching; touch d/first; sees '* first'
$R sh -c 'echo x >d/f'; sees 'close f'; sleep 0.3; echo y >d/f; sees 'modify f' 'close f'; $R sh -c 'cat d/f; rm d/f'; sees 'delete f'; echo z >d/f; sees 'create f'

### what a watcher reads at the event
# The new contents are there.
mkdir d; echo old >d/f; cat >r.py <<'END'
import ctypes, os, select
libc = ctypes.CDLL(None)
fd = libc.inotify_init1(0)
libc.inotify_add_watch(fd, b"d", 0x8)
open("d/f").read()
print("watching", flush=True)
while 0 not in select.select([fd, 0], [], [])[0]:
    os.read(fd, 65536)
    print("now", open("d/f").read().strip(), os.stat("d/f").st_size, flush=True)
END
coproc W { exec $R python3 r.py; }; sees watching; for v in new newer a "even longer"; do echo "$v" >d/f; sees "now $v*"; done

### two hundred files at once
# None is lost.
mkdir d; watcher; coproc W { exec $R python3 w.py d; }; sees watching; touch d/first; sees '* first'; (cd d && seq -f f%g 200 | xargs touch); sees 'create f1' 'create f77' 'create f200'; rm d/f*; sees 'delete f1' 'delete f77' 'delete f200'

### in a container of the guest's
# A mount namespace of its own sees them too.
# needs: sudo unshare
mkdir d; watcher; coproc W { exec $R sudo -n unshare -m python3 w.py d; }; sees watching; touch d/first; sees '* first'; echo x >d/f; sees 'create f'

### copied tree
# cp -r into a directory that is watched with those below.
mkdir -p s/a/b d; echo 1 >s/a/f; echo 2 >s/a/b/g; watcher; coproc W { exec $R python3 w.py -r d; }; sees watching; touch d/first; sees '* first'; cp -r s d/t; sees 'create t' 'create t/a' 'create t/a/f' 'create t/a/b' 'create t/a/b/g'; echo 3 >>d/t/a/b/g; sees 'modify t/a/b/g'

### directory above renamed
# The watch goes on below the new name.
mkdir -p p/d; watcher; coproc W { exec $R python3 w.py p/d; }; sees watching; touch p/d/first; sees '* first'; mv p q; echo x >q/d/f; sees 'create f'; mv q p; echo y >p/d/g; sees 'create g'

### watched directory removed
# The watcher is told, as of its own.
mkdir d; watcher; coproc W { exec $R python3 w.py d; }; sees watching; touch d/first; sees '* first'; rm -r d; sees 'deleted '

### many writes of one file
# The last contents are there at the last event.
mkdir d; watcher; coproc W { exec $R python3 w.py d; }; sees watching; touch d/first; sees '* first'; for i in $(seq 300); do echo $i >>d/f; done; sees 'create f' 'close f'; echo end >d/g; sees 'create g'; $R tail -n 1 d/f

### watched through a link
# A path with a symbolic link in it.
mkdir -p real/d; ln -s real link; watcher; coproc W { exec $R python3 w.py link/d; }; sees watching; touch real/d/first; sees '* first'; echo x >real/d/f; sees 'create f'; rm link/d/f; sees 'delete f'

### names of all kinds
# Blanks, quotes, non-ASCII letters.
mkdir d; watcher; coproc W { exec $R python3 w.py d; }; sees watching; touch d/first; sees '* first'; touch 'd/a b' "d/it's" d/ü 'd/$x'; sees 'create a b' "create it's" 'create ü' 'create $x'
