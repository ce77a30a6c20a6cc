#!/bin/sh
# Written by bawn. The sandbox has no browser, and cannot open a page in the host's.
if [ $# -ne 1 ]; then
	echo "usage: xdg-open { file | URL }" >&2
	exit 1
fi
printf 'xdg-open: the sandbox has no browser: open this on your host: %s\n' "$1" >&2
exit 3
