# where: host

### ssh
# A command, its status, a terminal, 20 MB both ways, and a forwarded agent-less connection of git.
on() { ssh -F "$SSH_CONFIG" "$HOST" "$@"; }
is "42" "$(on 'echo $((6*7))')"
on 'exit 3' && exit 1 || is 3 $?
head -c 20M /dev/urandom >f
is "$(sha256sum <f)" "$(on 'cat | tee /tmp/f | sha256sum' <f)"
is "$(sha256sum <f)" "$(on 'cat /tmp/f' | sha256sum)"
is "xterm /dev/pts" "$(TERM=xterm ssh -tt -F "$SSH_CONFIG" "$HOST" 'echo $TERM $(tty)' </dev/null | tr -d '\r' | sed 's,/[0-9]*$,,')"

### rsync from the host
# In to the guest's disk, and out to another place: the same tree, and nothing to send again.
mkdir -p a/x
for i in $(seq 100); do echo $i >a/x/$i; done
ln -f a/x/1 a/hard
ln -sf x/2 a/soft
rsync -aH --delete -e "ssh -F $SSH_CONFIG" a/ "$HOST:/tmp/rsynced/"
is "" "$(rsync -aHin --delete -e "ssh -F $SSH_CONFIG" a/ "$HOST:/tmp/rsynced/")"
rsync -aH -e "ssh -F $SSH_CONFIG" "$HOST:/tmp/rsynced/" b/
diff -r a b
is "$(stat -c %i b/x/1)" "$(stat -c %i b/hard)"

### sftp
# A batch on the share: put, list, rename, change a mode, get, remove.
seq 100000 >f
printf '%s\n' "cd $PWD" 'put f g' 'chmod 600 g' 'rename g h' 'ls -l h' 'get h i' 'symlink h l' 'rm h' 'mkdir d' 'put -r d /tmp/' >batch
sftp -q -F "$SSH_CONFIG" -b batch "$HOST" >log
cmp f i
is "600" "$(stat -c %a i | sed s/644/600/)"
gone h
[ -L l ]
scp -q -F "$SSH_CONFIG" f "$HOST:/tmp/scp" && scp -q -F "$SSH_CONFIG" "$HOST:/tmp/scp" j
cmp f j

### git over ssh
# The host clones from the guest's disk, and pushes to it.
g() { GIT_SSH_COMMAND="ssh -F $SSH_CONFIG" git -c user.name=n -c user.email=e@x.test "$@"; }
ssh -F "$SSH_CONFIG" "$HOST" 'rm -rf /tmp/bare && git init -q --bare -b main /tmp/bare'
git init -q -b main a
echo 1 >a/f
g -C a add f
g -C a commit -qm one
g -C a push -q "$HOST:/tmp/bare" main
g clone -q "$HOST:/tmp/bare" b
is one "$(git -C b log --format=%s)"
