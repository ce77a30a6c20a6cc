### modes of chmod
# Every mode that a user may give, read back.
touch f; for m in 0600 0644 0755 0400 0111 0000 0777; do chmod $m f; stat -c %a f; done

### modes by letters
# chmod's own arithmetic sees the true mode.
touch f; chmod u=rw,go= f; stat -c %a f; chmod a+rX f; stat -c %a f; chmod +x f; stat -c %a f; mkdir d; chmod -R go-w,u+rwX d; stat -c %a d

### set-ID bits of one's own file
# setuid and setgid are kept, and chmod clears them.
touch f; chmod 4755 f; stat -c %a f; chmod 2755 f; stat -c %a f; chmod 6711 f; ls -l f | cut -c1-10; chmod 755 f; stat -c %a f

### set-group-ID directory
# New directories inherit the bit.
mkdir d; chmod 2775 d; mkdir d/e; touch d/f; stat -c '%n %a' d d/e d/f

### sticky directory
# As /tmp's.
mkdir -m 1777 d; stat -c %a d; ls -ld d | cut -c1-10

### write clears set-user-ID
# So does the local disk.
cp /bin/true f; chmod 4755 f; echo x >>f; stat -c %a f

### umask at work
# mkdir, touch and the shell make what the umask lets them.
for u in 000 002 022 027 077; do umask $u; touch f$u; mkdir d$u; : >p$u; stat -c %a f$u d$u p$u | tr '\n' ' '; done

### read-only file
# Git's objects have 0444; they are removed, renamed and linked all the same.
echo x >f; chmod 444 f; mv f g; ln g h; rm -f g; cat h; stat -c %a h; test -r h && echo readable

### read-only directory
# rm -rf of a module cache fails without chmod and works with it.
mkdir d; echo x >d/f; chmod 555 d; test "$(id -u)" = 0 || rm -rf d 2>/dev/null; test -e d && echo there; test -e d && chmod -R u+w d; rm -rf d; test -e d || echo gone

### own file without permission
# An ordinary user is refused by his own 0000.
echo x >f; chmod 0 f; if [ "$(id -u)" = 0 ]; then echo refused; else cat f 2>/dev/null || echo refused; fi; chmod 600 f; cat f

### program without permission to run
# 126 inside a shell.
printf '#!/bin/sh\necho ran\n' >s; ./s 2>/dev/null; echo $?; chmod +x s; ./s; chmod 644 s; ./s 2>/dev/null; echo $?

### only executable
# A binary that can be run but not read.
cp /bin/true t; chmod 111 t; ./t; echo $?

### install
# Mode and directories of install(1).
echo x >f; install -D -m 0750 f a/b/g; stat -c '%n %a' a a/b a/b/g; install -d -m 0700 d; stat -c %a d

### copy with everything
# cp -a: modes, times, links.
mkdir -p s/d; echo x >s/f; chmod 640 s/f; ln -s f s/l; ln s/f s/h; chmod 750 s/d; touch -d @1000000000 s/f s/d; cp -a s t; stat -c '%n %a %Y %h' t/f t/d | sort; readlink t/l

### copy as new
# cp without options takes the umask.
umask 022; echo x >f; chmod 777 f; cp f g; stat -c %a g; chmod 600 f; cp f h; stat -c %a h

### archive and back
# tar keeps modes, links and times.
mkdir -p s/d; echo x >s/f; chmod 751 s/f; ln s/f s/h; ln -s nowhere s/l; touch -d @1000000000 s/f; mkfifo s/p; tar cf t.tar s; mkdir o; tar xpf t.tar -C o; stat -c '%n %a %h %F' o/s/* | sort; stat -c %Y o/s/f; test o/s/f -ef o/s/h && echo one file

### rsync of a tree
# rsync -a, then nothing more to do.
# needs: rsync
mkdir -p s/d; seq 100 >s/d/f; chmod 640 s/d/f; ln -s f s/d/l; rsync -a s/ t/; stat -c '%n %a' t/d/f; rsync -ai s/ t/ | wc -l; echo more >>s/d/f; rsync -ai s/ t/ | awk '{print $2}'; rm s/d/l; rsync -ai --delete s/ t/ | awk '{print $NF}' | grep -v '/$'

### hard links of rsync
# -H keeps them.
# needs: rsync
mkdir s; echo x >s/a; ln s/a s/b; rsync -aH s/ t/; stat -c %h t/a

### owner of what is made
# One's own.
touch f; mkdir d; ln -s f l; for x in f d l; do test -O $x && test -G $x && echo own; done; chown "$(id -u):$(id -g)" f && echo allowed

### giving a file away
# An ordinary user may not, and root may.
touch f; if [ "$(id -u)" = 0 ]; then echo refused; else chown 1 f 2>/dev/null || echo refused; fi

### times
# Nanoseconds, before 1970, and now.
touch -d @1234567890.123456789 f; stat -c %.9Y f; touch -d '1969-12-31 00:00 UTC' f; stat -c %Y f; touch f; test $(($(date +%s) - $(stat -c %Y f))) -le 5 && echo now; touch -a -d @1 f; stat -c %X f; touch -r /etc/passwd f; test f -nt /etc/passwd || echo not newer

### newer and older
# test -nt and find -newer see the order of two writes.
echo a >a; sleep 0.02; echo b >b; test b -nt a && echo newer; find . -name b -newer a

### extended attributes
# user.* of files and directories.
touch f; mkdir d; python3 - <<'END'
import os
for p in ("f", "d"):
    os.setxattr(p, "user.one", b"1"); os.setxattr(p, "user.two", bytes(range(256)))
    print(sorted(os.listxattr(p)), os.getxattr(p, "user.one"), len(os.getxattr(p, "user.two")))
    os.removexattr(p, "user.one")
    try: os.getxattr(p, "user.one")
    except OSError as e: print(e.strerror)
    try: os.setxattr(p, "user.two", b"", os.XATTR_CREATE)
    except OSError as e: print(e.strerror)
END

### private key
# ssh refuses a key that others may read.
# needs: ssh-keygen
ssh-keygen -q -t ed25519 -N '' -f k; stat -c %a k k.pub; chmod 644 k; ssh-keygen -y -f k >/dev/null 2>&1 || echo refused; chmod 600 k; ssh-keygen -y -f k >/dev/null && echo accepted

### access that is asked for
# access(2), as test and Python do.
echo x >f; chmod 500 f; python3 -c 'import os; print(os.access("f", os.R_OK), os.access("f", os.X_OK), os.access("none", os.F_OK))'
