### git replays a history
# Three hundred commits by git am, cloned, rebased, collected and checked: each step leaves the same tree.
git --version
export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e@x.test GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e@x.test
git init -q -b main a
{
	for i in $(seq 300); do
		printf 'commit refs/heads/main\ncommitter n <e@x.test> %d +0000\ndata 2\nc\nM 644 inline d%d/f%d\ndata %d\n%s\n' $((1700000000 + i)) $((i % 7)) $((i % 31)) ${#i} "$i"
		[ $i != 1 ] || printf 'M 644 inline README\ndata 1\nr\n'
	done
} | git -C a fast-import --quiet
git -C a reset -q --hard
tree=$(git -C a rev-parse HEAD:)
first=$(git -C a rev-list --max-parents=0 HEAD)
git -C a format-patch -q --stdout --full-index --binary "$first" >patches
git init -q -b main b
git -C b pull -q ../a "$first"
git -C b am -q <patches
is "$tree" "$(git -C b rev-parse HEAD:)"
is 300 "$(git -C b rev-list --count HEAD)"
git clone -q --no-local b c
cd c
git checkout -q -b topic "$first"
for i in $(seq 40); do echo $i >>mine; git add mine; git commit -qm "mine $i"; done
git rebase -q origin/main
is 340 "$(git rev-list --count HEAD)"
is 40 "$(wc -l <mine)"
git gc -q --aggressive --prune=now
git fsck --full --strict --no-progress
is "$tree" "$(git rev-parse origin/main:)"
git worktree add -q ../w origin/main
is "" "$(git -C ../w status --porcelain)"
is "$tree" "$(git -C ../w write-tree)"
git worktree remove ../w
git push -q origin topic
is "$(git rev-parse topic)" "$(git -C ../b rev-parse topic)"

### git on both sides
# Commits by the host and by the guest in turns, in one repository (vmware/open-vm-tools#90: a corrupt index).
# host: git init -q -b main . && git config user.name h && git config user.email h@x.test && seq 2000 >f && git add f && git commit -qm 0
# edit: git pull -q . HEAD && sed -i "$((N * 10))s/.*/host/" f && git commit -qam "host $N" && git status --porcelain
export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e@x.test GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e@x.test
for i in 1 2 3 4 5; do
	sed -i "$((i * 10 + 5))s/.*/guest/" f
	git commit -qam "guest $i"
	edited
	is "host $i" "$(git log -1 --format=%s)"
	is "" "$(git status --porcelain --untracked-files=no)"
done
is 11 "$(git rev-list --count HEAD)"
is "5 5" "$(grep -c host f) $(grep -c guest f)"
git fsck --full --strict --no-progress

### git of several processes
# Readers all the time beside a writer: none sees an index or a reference that is half-written.
export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e@x.test GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e@x.test
git init -q -b main .
mkdir d
for i in $(seq 200); do echo $i >d/$i; done
git add d
git commit -qm 0
for r in 1 2; do
	(while [ ! -e end ]; do GIT_OPTIONAL_LOCKS=$((r - 1)) git status --porcelain >/dev/null; git log -1 --format=%H >/dev/null; done) 2>errors.$r &
done
for i in $(seq 30); do
	echo x$i >d/$i
	until git add d/$i 2>>locked && git commit -qm $i 2>>locked; do :; done
done
: >end
wait
grep -hv 'index.lock' errors.* && exit 1
is 31 "$(git rev-list --count HEAD)"
git fsck --full --strict --no-progress

### references in a reftable
# A repository whose references are in one binary file: branches, a rebase, a working tree, gc and fsck.
git init -q --ref-format=reftable -b main r
cd r
git config user.name n
git config user.email e@x.test
for i in 1 2 3; do echo $i >f$i; git add .; git commit -qm $i; done
git switch -qc topic HEAD~1
echo t >t
git add t
git commit -qm t
git rebase -q main
git worktree add -q ../w main
git -C ../w commit -q --allow-empty -m w
for i in $(seq 20); do git branch b$i; done
git branch -q -D b7
git gc -q
git fsck --strict
is "t 3 2 1" "$(git log --format=%s | xargs)"
is "w" "$(git log -1 --format=%s main)"
is 20 "$(git for-each-ref refs/heads | grep -vc /main)"
[ ! -e .git/packed-refs ]
