# inside.sh ROOT SUFFIX NAME...: run the scripts NAME.sh beside this file, each in the empty
# directory ROOT/NAME, four at a time. How each ends is in NAME.SUFFIX.{out,err,code}.
set -eu
export HERE=$(cd "$(dirname "$0")" && pwd) ROOT=$1 SUFFIX=$2
shift 2
one() {
	mkdir -p "$ROOT/$1"
	cd "$ROOT/$1"
	local at="$HERE/$1.$SUFFIX" code=0
	timeout -k 5 400 bash "$HERE/$1.sh" >"$at.out" 2>"$at.err" </dev/null || code=$?
	echo $code >"$at.code"
}
export -f one
printf '%s\0' "$@" | xargs -0 -n 1 -P 4 bash -euc 'one "$0"'
