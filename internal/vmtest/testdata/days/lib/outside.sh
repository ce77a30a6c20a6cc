# guest starts a shell in the sandbox, which stays until the script ends.
guest() {
	coproc G { exec $R bash; }
}
# inside runs a line in that shell and waits for its end.
inside() {
	printf '%s\necho =end\n' "$1" >&"${G[1]}"
	local line
	while IFS= read -r line <&"${G[0]}" && [ "$line" != =end ]; do printf '%s\n' "$line"; done
}
