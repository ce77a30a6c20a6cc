# dir: javascript

### npm
# A lock file with real packages, twice: the second time over the first (docker/for-mac#6690: archives that seem corrupt).
echo "node $(node --version), npm $(npm --version)"
npm ci --no-audit --no-fund --loglevel=error
find node_modules -type f ! -name .package-lock.json | sort | xargs -d '\n' sha256sum >first
npm ci --no-audit --no-fund --loglevel=error
sha256sum --quiet -c first
npm ls --all >/dev/null
node_modules/.bin/tsc --version
node_modules/.bin/vite --version

### pnpm
# The store beside the packages, hard links and all (docker/for-mac#6787: files that are there are not found).
# npm: pnpm@10
echo "pnpm $(pnpm --version)"
rm -rf pnpm && mkdir pnpm && few >pnpm/package.json && cd pnpm
pnpm config set --location=project store-dir "$PWD/store"
pnpm install --reporter=append-only >log 2>&1 || { tail -n 20 log; exit 1; }
rm -rf node_modules
pnpm install --offline --frozen-lockfile --reporter=append-only >log 2>&1 || { tail -n 20 log; exit 1; }
[ "$(stat -c %h "$(readlink -f node_modules/typescript)/lib/typescript.js")" -ge 2 ] || echo "copied, not linked"
is "Version 5.9.3" "$(node_modules/.bin/tsc --version)"
pnpm store status

### yarn
# The classic one, with its cache on the share: from its lock file, a package added, a script, and again from the cache alone.
# npm: yarn@1
echo "yarn $(yarn --version)"
rm -rf yarn && mkdir yarn && few >yarn/package.json && cd yarn
y() { yarn --cache-folder "$PWD/cache" --no-progress --non-interactive "$@"; }
y install --silent
rm -rf node_modules cache
y install --silent --frozen-lockfile
y check --integrity --silent
y add --silent --dev --exact picocolors@1.1.1
jq '.scripts = {"tsc": "tsc --version", "color": "node color.js"}' package.json >new && mv new package.json
echo 'console.log(require("picocolors").isColorSupported)' >color.js
is "Version 5.9.3" "$(y run --silent tsc)"
is false "$(NO_COLOR=1 y run --silent color)"
sum=$(sum_of node_modules .yarn-integrity)
rm -rf node_modules
y install --silent --frozen-lockfile --offline
is "$sum" "$(sum_of node_modules .yarn-integrity)"

### yarn berry
# Yarn 4 as its projects have it: its program in the project, packages in node_modules, the cache in the project.
# npm: yarn@1
rm -rf berry && mkdir -p berry/.yarn/releases && few >berry/package.json && cd berry
npm install --silent --no-audit --no-fund --prefix tool @yarnpkg/cli-dist@4.18.1
mv tool/node_modules/@yarnpkg/cli-dist/bin/yarn.js .yarn/releases/yarn.cjs
rm -r tool
cat >.yarnrc.yml <<'END'
enableGlobalCache: false
enableTelemetry: false
nodeLinker: node-modules
yarnPath: .yarn/releases/yarn.cjs
END
: >yarn.lock # its own project
y() { yarn "$@" >log 2>&1 || { tail -n 50 log; exit 1; }; }
is 4.18.1 "$(yarn --version)" # the classic one runs that of the project
y install
rm -rf node_modules .yarn/cache
y install --immutable
y add --dev --exact picocolors@1.1.1
jq '.scripts = {"tsc": "tsc --version", "color": "node color.js"}' package.json >new && mv new package.json
echo 'console.log(require("picocolors").isColorSupported)' >color.js
is "Version 5.9.3" "$(yarn run tsc)"
is false "$(NO_COLOR=1 yarn run color)"
sum=$(sum_of node_modules .yarn-state.yml)
rm -rf node_modules
YARN_ENABLE_NETWORK=0 y install --immutable --immutable-cache
is "$sum" "$(sum_of node_modules .yarn-state.yml)"

### packages with guarded names
# A package with folders that are guarded on the host (.vscode, .husky), as archives: the managers move folders.
# npm: pnpm@10 yarn@1
rm -rf guarded && mkdir -p guarded/pack/.vscode guarded/pack/.husky guarded/npm guarded/pnpm guarded/yarn && cd guarded
echo '{"name": "pack", "version": "1.0.0"}' >pack/package.json
echo '{}' >pack/.vscode/settings.json
echo x >pack/.husky/pre-commit
tar -czf pack.tgz --transform 's,^pack,package,' pack
for m in npm pnpm yarn; do
	echo '{"name": "x", "version": "1.0.0", "license": "MIT", "dependencies": {"pack": "file:../pack.tgz"}}' >$m/package.json
done
(cd npm && npm install --no-audit --no-fund --loglevel=error && npm ci --no-audit --no-fund --loglevel=error && npm install --no-audit --no-fund --loglevel=error pack@file:../pack.tgz)
(cd pnpm && pnpm install --store-dir "$PWD/store" --reporter=append-only && rm -rf node_modules && pnpm install --store-dir "$PWD/store" --frozen-lockfile --reporter=append-only) >log 2>&1 || { cat log; exit 1; }
(cd yarn && yarn install --no-progress --non-interactive --silent --cache-folder "$PWD/cache")
for m in npm pnpm yarn; do
	is "{}" "$(cat $m/node_modules/pack/.vscode/settings.json)"
	is x "$(cat $m/node_modules/pack/.husky/pre-commit)"
done

### tsc
# It builds a project, and watches it: the host's edit is compiled, and its mistake is told.
# edit: mkdir -p ts/src && echo "export const n: number = $N$([ $N = 2 ] && echo ' + no');" >ts/src/n.ts.new && mv ts/src/n.ts.new ts/src/n.ts
packages
rm -rf ts && mkdir -p ts/src
echo '{"compilerOptions": {"outDir": "out", "rootDir": "src", "strict": true, "module": "commonjs", "types": []}, "include": ["src"]}' >ts/tsconfig.json
echo 'export const n: number = 0;' >ts/src/n.ts
echo 'import { n } from "./n"; declare const console: any; console.log("n is", n);' >ts/src/main.ts
node_modules/.bin/tsc -p ts --watch --preserveWatchOutput >ts/log &
eventually grep -q 'Found 0 errors' ts/log
is "n is 0" "$(node ts/out/main.js)"
edited
eventually grep -q 'n = 1;' ts/out/n.js
is "n is 1" "$(node ts/out/main.js)"
edited
eventually grep -q "Cannot find name 'no'" ts/log
edited
eventually grep -q 'n = 3;' ts/out/n.js

### nodemon
# It starts a program anew after an edit of the host: in place, by rename, and of a new file.
# edit: cd nm; case $N in 1) echo 'console.log("two")' >app.js ;; 2) echo 'console.log(require("./new.js"))' >.new && mv .new app.js ;; 3) echo 'module.exports = "four"' >new.js ;; esac
packages
rm -rf nm && mkdir nm && cd nm
echo 'module.exports = "three"' >new.js
echo 'console.log("one")' >app.js
../node_modules/.bin/nodemon -q app.js >log 2>&1 &
eventually grep -qx one log
for want in two three four; do
	cd ..
	edited
	cd nm
	eventually grep -qx $want log
done

### chokidar
# Each change of the host is told once.
# edit: cd ck; case $N in 1) mkdir new && echo 1 >new/f ;; 2) echo 2 >>new/f ;; 3) mv new/f moved ;; 4) rm -r new moved ;; esac
packages
rm -rf ck ck.log && mkdir -p ck/old
cat >ck.js <<'END'
const w = require("chokidar").watch("ck", { ignoreInitial: true });
w.on("ready", () => console.log("ready")).on("all", (event, path) => console.log(event, path));
END
node ck.js >ck.log &
eventually grep -qx ready ck.log
for want in 'add ck/new/f' 'change ck/new/f' 'add ck/moved' 'unlink ck/moved'; do
	edited
	eventually grep -qx "$want" ck.log
done
eventually grep -qx 'unlinkDir ck/new' ck.log
is "" "$(sort ck.log | uniq -d)"
jq -r '"chokidar " + .version' node_modules/chokidar/package.json

### webpack
# Its watch mode: a changed module is bundled again.
# edit: echo "module.exports = 'edit $N'" >wp/m.js
packages
rm -rf wp && mkdir wp
echo "module.exports = 'edit 0'" >wp/m.js
echo 'console.log(require("./m.js"))' >wp/main.js
node_modules/.bin/webpack --mode development --watch --entry ./wp/main.js -o wp/out >wp.log 2>&1 &
eventually grep -q compiled wp.log
is "edit 0" "$(node wp/out/main.js)"
for i in 1 2; do
	edited
	eventually grep -q "edit $i" wp/out/main.js
	is "edit $i" "$(node wp/out/main.js)"
done

### vite
# The development server tells a page (its WebSocket) of the host's edit, and serves the new module; then it builds.
# edit: sed -i "s/edit [0-9]/edit $N/" vt/m.js
packages
rm -rf vt vt.log && mkdir vt
echo '<!doctype html><script type="module" src="/main.js"></script>' >vt/index.html
echo 'import { m } from "./m.js"; document.title = m; if (import.meta.hot) import.meta.hot.accept("./m.js", (n) => { document.title = n.m })' >vt/main.js
echo 'export const m = "edit 0"' >vt/m.js
node_modules/.bin/vite vt --port 5199 --strictPort >vt.log 2>&1 &
eventually curl -fsS http://localhost:5199/m.js
curl -fsS http://localhost:5199/main.js | grep -q hot
curl -fsS http://localhost:5199/m.js | grep -q 'edit 0'
cat >page.js <<'END'
const ws = new (require("ws"))("ws://localhost:5199/", "vite-hmr");
ws.on("message", (m) => console.log(String(m)));
END
# Node gives an address 250 ms before it tries the next one, which is too little under emulation.
node --no-network-family-autoselection page.js >page.log &
eventually grep -q '"connected"' page.log
for i in 1 2; do
	edited
	eventually grep -q "\"updates\?\"" page.log
	eventually sh -c "curl -fsS http://localhost:5199/m.js | grep -q 'edit $i'"
	is "$i" "$(grep -c '"update"' page.log)"
done
kill %1
node_modules/.bin/vite build vt >/dev/null
grep -rq 'edit 2' vt/dist/assets

### jest
# It runs the tests of what the host has just changed, and no others.
# dir: jest
# npm: jest@29
# edit: case $N in 1) sed -i 's/1/2/' one.js ;; 2) sed -i 's/2/1/' one.js ;; esac
echo '{"name": "j"}' >package.json
rm -f package-lock.json
echo 'module.exports = 1' >one.js
echo 'module.exports = 5' >other.js
for m in one other; do echo "test('$m', () => expect(require('./$m')).not.toBe(2))" >$m.test.js; done
git init -q .
git config user.name n
git config user.email e@x.test
git add .
git commit -qm 1
jest >log 2>&1
grep -q '2 passed' log
(sleep 1000 | script -qec 'jest --watch --no-color' /dev/null) >log 2>&1 &
eventually grep -q 'No tests found related' log
edited
eventually grep -q '1 failed' log
if grep 'other.test' log; then exit 1; fi
: >log
edited
eventually grep -q 'No tests found related' log
