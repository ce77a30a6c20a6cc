### tar with owners
# Owners, modes, links and times of a tree, out and in again, as root.
mkdir -p t/d
sudo sh -c 'umask 022; cd t; echo 1 >f; chown daemon:games f; chmod 4751 f; ln f hard; ln -s f soft; mkfifo p; chown -h 7:8 soft; mkdir -m 2770 d/g; chown www-data d/g; touch -d 2001-02-03 d/g'
sudo tar --numeric-owner -cf a.tar t
mkdir out
sudo tar -C out --numeric-owner -xpf a.tar
list() { (cd "$1" && sudo find . -printf '%P %y %U:%G %m %n %l %TY-%Tm-%Td\n' | sort); }
is "$(list t)" "$(list out/t)"
sudo tar --numeric-owner --compare -f a.tar
sudo cp -a t copy
is "$(list t)" "$(list copy)"

### rsync
# Of a tree with hard links, twice: the second time nothing is sent; then with a change.
rsync --version | sed -n 1p
mkdir -p a/x
for i in $(seq 200); do echo $i >a/x/$i; done
ln a/x/1 a/hard
ln -s x/2 a/soft
truncate -s 5M a/sparse
rsync -aHS a/ b/
is "" "$(rsync -aHSin --delete a/ b/)"
is "$(stat -c %i b/x/1)" "$(stat -c %i b/hard)"
echo more >>a/x/7
rm a/x/8
is "$(printf '%s\n' '*deleting x/8' '.d..t...... x/' '>f.st...... x/7' | sort)" "$(rsync -aHSi --delete a/ b/ | sed 's/  */ /' | sort)"
diff -r a b

### search and query
# ripgrep, find, jq and xargs over some thousand files.
rg --version | sed -n 1p
jq --version
for d in $(seq 40); do mkdir -p s/$d/e; for f in $(seq 50); do echo "{\"d\": $d, \"f\": $f}" >s/$d/e/$f.json; done; done
is 2000 "$(find s -name '*.json' | wc -l)"
is 89 "$(rg -l '"d": 7,|"f": 7}' s | wc -l)"
is 1045500 "$(find s -name '*.json' -print0 | xargs -0 cat | jq -s 'map(.d * .f) | add')"
find s -path '*/7/*' -delete
is 1950 "$(find s -type f | wc -l)"
rm -r s
gone s

### debian package
# Built as root of a user (fakeroot's stand-in is root here), with owners in its archive.
mkdir -p p/DEBIAN p/usr/bin
printf 'Package: x\nVersion: 1\nArchitecture: all\nMaintainer: n <n@x.test>\nDescription: x\n' >p/DEBIAN/control
install -m 755 /dev/null p/usr/bin/x
dpkg-deb --root-owner-group -b p x.deb >/dev/null
is "root/root" "$(dpkg-deb -c x.deb | awk '/bin\/x/ {print $2}')"
sudo dpkg-deb -x x.deb out
is "root 755" "$(stat -c '%U %a' out/usr/bin/x)"

### log that the host writes
# tail -F follows it: appended, rotated.
# host: echo zero >log
# edit: case $N in 1) echo one >>log ;; 2) mv log log.1 && echo two >log ;; 3) : >log; sleep 2; echo three >>log ;; esac
tail -n 1 -F log >seen 2>/dev/null &
for want in zero one two three; do
	eventually grep -qx $want seen
	[ $want = three ] || edited
done
is "4" "$(wc -l <seen)"
