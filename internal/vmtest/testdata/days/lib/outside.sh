# guest starts a shell in the sandbox, which stays until the script ends.
guest() {
	coproc G { exec $R bash; }
}
# now runs a line in that shell and waits for its end.
now() {
	printf '%s\necho =end\n' "$1" >&"${G[1]}"
	local line
	while IFS= read -r line <&"${G[0]}" && [ "$line" != =end ]; do printf '%s\n' "$line"; done
}
# inside is now, after the time for which the guest keeps names that it has seen: 50 ms, and
# 250 ms after a listing (docs/share.md). A command that is started anew takes longer.
inside() {
	sleep 0.3
	now "$1"
}
