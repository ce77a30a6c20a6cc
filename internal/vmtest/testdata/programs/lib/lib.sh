set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
# is fails unless two texts are the same: what is right, and what was found.
is() {
	[ "$1" = "$2" ] || { printf 'want %q, found %q\n' "$1" "$2" >&2; exit 1; }
}
# eventually waits until a command succeeds: at most 4 minutes, since a machine may be emulated.
eventually() {
	local end=$((SECONDS + 240))
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || { printf 'waited in vain for: %s\n' "$*" >&2; exit 1; }
		sleep 0.2
	done
}
# gone succeeds if there is no such file.
gone() { [ ! -e "$1" ]; }
# edited has the host make the case's next edit, and waits for its end.
edited() {
	: >ready
	eventually gone ready
}
# packages installs the packages of JavaScript that several cases use.
packages() {
	[ -e node_modules/.package-lock.json ] || npm ci --no-audit --no-fund --loglevel=error
}
# sum_of prints one sum of all files of a tree, but those with a name.
sum_of() { find "$1" -type f ! -name "$2" | sort | xargs -d '\n' sha256sum | sha256sum; }
# few prints a list of the packages of JavaScript without the largest trees, and without packages for each platform, since
# Yarn 1 fetches those of all platforms.
few() { jq 'del(.devDependencies["nodemon", "vite", "webpack", "webpack-cli"])' package.json; }
