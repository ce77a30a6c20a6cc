# where: host

### pre-commit
# The guest installs the hook, and each of its commits passes it. The host has no hook and its own configuration, its git goes on,
# and what it is told can be acted on: the hook is taken over once the person has seen it.
# apt: pre-commit
# needs: git
inside() { bawn run -n -- bash -euc "$1"; }
git init -q -b main
git config user.name n
git config user.email e@x.test
git config alias.st 'status --short'
cat >.pre-commit-config.yaml <<'CONFIG'
repos:
- repo: local
  hooks:
  - {id: words, name: no forbidden words, language: system, entry: sh -c '! grep -n FORBIDDEN a', pass_filenames: false, always_run: true}
CONFIG
echo one >a
git add .
git commit -qm one
config=$(cat .git/config) hooks=$(ls .git/hooks)
inside '
	pre-commit install
	echo FORBIDDEN >a
	! git commit -qam two
	git log -1 --format=%s
	echo two >a
	git commit -qam two 2>commit.log
	cat commit.log
	grep -q "no forbidden words.*Passed" commit.log
	rm commit.log
	git config alias.evil "!touch evil"
	sed -i "s/no forbidden words/quiet/; s/FORBIDDEN/NEVER/" .pre-commit-config.yaml
	pre-commit run --all-files | grep -q "quiet.*Passed"
	git st
'
is "$config" "$(cat .git/config)"
is "$hooks" "$(ls .git/hooks)"
is two "$(git log -1 --format=%s)"
is "" "$(git status --short)"
grep -q FORBIDDEN .pre-commit-config.yaml
echo "FORBIDDEN on the host" >a
git commit -qam three
bawn review >review
cat review
for name in .git/hooks/pre-commit .git/config .pre-commit-config.yaml; do grep -qF "$name" review; done
grep -q '^ *+.*NEVER' review
bawn accept --yes .git/hooks/pre-commit
grep -q 'pre-commit' .git/hooks/pre-commit
[ -x .git/hooks/pre-commit ]
is "$config" "$(cat .git/config)"

### direnv
# The guest allows and edits .envrc, and has what it wrote; the host's stays, also where direnv is asked to write it.
# apt: direnv
inside() { bawn run -n -- bash -euc "$1"; }
mkdir -p bin
printf 'export A=host\nPATH_add bin\n' >.envrc
printf '#!/bin/sh\necho of the host\n' >bin/tool
chmod +x bin/tool
before=$(sha256sum .envrc bin/tool)
inside '
	direnv version
	direnv allow
	[ "$(direnv exec . sh -c "echo \$A")" = host ]
	echo "export A=guest" >.envrc
	! direnv exec . true
	EDITOR="sed -i s/guest/edited/" direnv edit .
	[ "$(direnv exec . sh -c "echo \$A")" = edited ]
	mkdir -p .direnv sub
	echo "export B=sub" >sub/.envrc
	direnv allow sub
	[ "$(direnv exec sub sh -c "echo \$B")" = sub ]
	direnv status
'
is "$before" "$(sha256sum .envrc bin/tool)"
gone sub/.envrc
gone .direnv
bawn review >review
cat review
grep -qF direnv/.envrc review
grep -q '^ *+export A=edited' review
grep -qF direnv/sub/.envrc review

### husky
# npm runs the script `prepare`, which sets core.hooksPath and makes hooks: they hold in the guest, and the host's git runs none.
# needs: git
inside() { bawn run -n -- bash -euc "$1"; }
git init -q -b main
git config user.name n
git config user.email e@x.test
echo '{"name": "app", "private": true, "version": "1.0.0"}' >package.json
echo node_modules >.gitignore
git add .
git commit -qm one
config=$(cat .git/config)
inside '
	npm pkg set scripts.prepare=husky
	npm pkg set devDependencies.husky=^9
	npm install --no-audit --no-fund --loglevel=error
	[ "$(git config core.hooksPath)" = .husky/_ ]
	printf "echo hooked; touch ran; [ ! -e stop ]\n" >.husky/pre-commit
	touch stop
	git add package.json package-lock.json .husky
	! git commit -qm two
	rm stop ran
	git commit -qm two
	[ -e ran ]
	rm ran
	git status --short
'
is "$config" "$(cat .git/config)"
gone .husky
is two "$(git log -1 --format=%s)"
echo more >>.gitignore
git commit -qm three .gitignore
gone ran
bawn review >review
cat review
grep -qF 'husky/.husky' review
grep -qF hooksPath review
grep -qF package.json review
grep -q prepare review
