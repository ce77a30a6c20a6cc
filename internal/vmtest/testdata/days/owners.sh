# user: root

### daemon's own file
# lima#504: a service of another user reads back what it wrote with 0600.
install -d -o daemon -g daemon -m 700 d; setpriv --reuid daemon --regid daemon --clear-groups sh -c 'cd d; umask 077; echo one >log; echo two >>log; cat log; mkdir s; mv log s; cat s/log'; stat -c '%U:%G %a' d d/s d/s/log

### other users are kept out
# lima#504: 0600 of daemon is closed to nobody, and open to root.
touch f; chown daemon:daemon f; echo x >f; chmod 600 f; setpriv --reuid nobody --regid nogroup --clear-groups cat f 2>/dev/null || echo refused; cat f

### owner by name and by number
# Also of users that do not exist.
touch f; chown daemon f; stat -c '%U %u' f; chown 12345:54321 f; stat -c '%u %g' f; chown :games f; stat -c %G f; chgrp 0 f; stat -c %g f

### whole tree
# chown -R, found again by find.
mkdir -p d/e; touch d/a d/e/b; chown -R www-data:www-data d; find d -user www-data -group www-data | sort; find d ! -user www-data | wc -l

### symbolic link's owner
# chown -h changes the link, chown what it names.
touch t; ln -s t l; chown -h daemon l; stat -c %U l t; chown games l; stat -c %U l t

### chown and set-user-ID
# A change of owner clears the bit.
cp /bin/true f; chmod 6755 f; chown daemon f; stat -c %a f

### set-user-ID program
# It runs as its owner.
cp /usr/bin/id f; chown daemon f; chmod 4755 f; setpriv --reuid nobody --regid nogroup --clear-groups ./f -un

### set-group-ID program
# It runs with its group.
cp /usr/bin/id f; chgrp games f; chmod 2755 f; setpriv --reuid nobody --regid nogroup --clear-groups ./f -gn

### directory of a group
# Files inherit the group.
mkdir d; chgrp games d; chmod 2775 d; touch d/f; mkdir d/e; touch d/e/g; stat -c '%n %G %a' d/f d/e d/e/g

### member of a group
# May write by the group's bits only.
touch f; chgrp games f; chmod 660 f; setpriv --reuid nobody --regid nogroup --groups 60 sh -c 'echo member >>f'; setpriv --reuid nobody --regid nogroup --clear-groups sh -c 'echo other >>f' 2>/dev/null || echo refused; cat f

### sticky directory of two
# Only its owner removes a file.
mkdir -m 1777 d; setpriv --reuid daemon --clear-groups touch d/f; setpriv --reuid nobody --clear-groups rm -f d/f 2>/dev/null || echo refused; setpriv --reuid nobody --clear-groups mv d/f d/g 2>/dev/null || echo refused; setpriv --reuid daemon --clear-groups rm d/f && echo removed

### root ignores modes
# for-mac#6812: root reads, writes and removes what is closed.
mkdir d; echo x >d/f; chmod 0 d/f; chmod 0 d; cat d/f; echo y >>d/f; cat d/f; ls d; rm -r d; test -e d || echo gone

### root without search permission
# A directory of another user with 0700.
install -d -o daemon -m 700 d; echo x >d/f; cat d/f; stat -c '%U %a' d d/f

### archive with owners
# tar as root restores owners, modes, links, devices.
mkdir s; touch s/a s/b; chown 12:34 s/a; chown www-data s/b; chmod 4750 s/b; ln -s a s/l; chown -h 56:78 s/l; mkfifo s/p; mknod s/null c 1 3; tar cf t.tar s; mkdir o; tar xpf t.tar -C o; stat -c '%n %u:%g %a %F' o/s/*

### copy with owners
# cp -a as root.
mkdir s; touch s/a; chown 12:34 s/a; chmod 2755 s/a; cp -a s t; stat -c '%n %u:%g %a' t/a; cp s/a u; stat -c '%u:%g %a' u

### rsync with owners
# rsync -aHX as root.
mkdir s; echo 1 >s/a; ln s/a s/b; chown 12:34 s/a; setfattr -n user.x -v y s/a 2>/dev/null || python3 -c 'import os; os.setxattr("s/a", "user.x", b"y")'; rsync -aHX s/ t/; stat -c '%n %u:%g %h' t/a t/b; python3 -c 'import os; print(os.getxattr("t/a", "user.x"))'; rsync -aHXi s/ t/ | wc -l

### install with an owner
# install -o -g -m.
echo x >f; install -o www-data -g games -m 4711 f g; stat -c '%U %G %a' g

### devices
# mknod; archive tools list and copy them.
mknod n c 1 3; mknod z b 7 0; stat -c '%F %t %T' n z; ls -l n | cut -c1; find . -type c

### package of files
# dpkg-deb packs root's modes and unpacks them.
mkdir -p p/DEBIAN p/opt; printf 'Package: p\nVersion: 1\nArchitecture: all\nMaintainer: A <a@x.test>\nDescription: p\n' >p/DEBIAN/control; echo x >p/opt/f; chmod 755 p p/DEBIAN; chmod 4755 p/opt/f; dpkg-deb --root-owner-group -b p p.deb >/dev/null; dpkg-deb -x p.deb o; stat -c '%n %a' o/opt/f

### home of a new user
# useradd -m with a home in the project.
useradd -m -d "$PWD/home" -u 4321 "days$$"; stat -c '%u %a' home home/.bashrc; su "days$$" -c 'cd; umask; echo x >own; stat -c %u own' | tail -n 1; userdel "days$$"

### sudo to another user
# sudo -u keeps to the other's rights.
mkdir -m 777 d; chmod 755 .; sudo -u www-data sh -c 'echo x >d/f; chmod 600 d/f'; stat -c '%U %a' d/f; sudo -u nobody cat d/f 2>/dev/null || echo refused

### umask of another user
# A service with 0027 and a group.
install -d -o www-data -g games -m 2770 d; setpriv --reuid www-data --regid www-data --clear-groups sh -c 'umask 027; touch d/f; mkdir d/e'; stat -c '%n %U %G %a' d/f d/e

### rename between owners
# Owner and mode go with the file.
touch f; chown daemon f; chmod 640 f; mkdir d; mv f d/g; stat -c '%U %a' d/g; ln d/g h; stat -c '%U %h' h

### new file in the old one's place
# It does not take over the old owner.
touch f; chown daemon f; chmod 600 f; rm f; touch f; stat -c '%U %a' f; touch g; chown games g; touch n; mv n g; stat -c '%U %a' g

### write by another user clears the bits
# A user who may write is not the owner.
cp /bin/true f; chown daemon:daemon f; chmod 4777 f; setpriv --reuid nobody --clear-groups sh -c 'echo x >>f'; stat -c %a f

### database with its own user
# A database's directory of 0700 with a journal, by another user.
install -d -o www-data -g www-data -m 700 db; setpriv --reuid www-data --regid www-data --clear-groups python3 - <<'END'
import sqlite3
c = sqlite3.connect("db/x"); print(c.execute("pragma journal_mode=delete").fetchone())
c.execute("create table t(a)"); c.executemany("insert into t values(?)", [(i,) for i in range(100)]); c.commit()
print(c.execute("select sum(a) from t").fetchone(), c.execute("pragma integrity_check").fetchone())
END
stat -c '%U %a' db db/x

### unprivileged chown
# A user gives neither owner nor a group that he is not in.
mkdir -m 777 d; setpriv --reuid nobody --regid nogroup --groups 60 sh -c 'cd d; touch f; chown daemon f 2>/dev/null || echo no owner; chgrp www-data f 2>/dev/null || echo no group; chgrp 60 f && stat -c %g f'

### chmod of another's file
# Only the owner and root.
touch f; chmod 666 f; setpriv --reuid nobody --clear-groups chmod 777 f 2>/dev/null || echo refused; setpriv --reuid nobody --clear-groups touch f && echo touched; setpriv --reuid nobody --clear-groups touch -d @1 f 2>/dev/null || echo not set
