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
# watcher writes w.py, which watches directories by inotify, with -r also those below, and prints each
# event: what happened, and the path below the directory. It ends with its standard input.
watcher() {
	cat >w.py <<'END'
import ctypes, os, select, struct, sys
libc = ctypes.CDLL(None)
fd = libc.inotify_init1(0)
names = {0x100: "create", 0x200: "delete", 0x40: "from", 0x80: "to", 0x2: "modify", 0x8: "close", 0x4: "attrib", 0x400: "deleted"}
deep, dirs = sys.argv[1] == "-r", {}
def watch(path, below):
    dirs[libc.inotify_add_watch(fd, path.encode(), sum(names))] = below
    if deep:
        for n in os.listdir(path):
            if below or os.path.isdir(os.path.join(path, n)):
                found(path, below, n, below != "")
def found(path, below, n, new):
    if new:
        print("create", below + n, flush=True)
    if os.path.isdir(os.path.join(path, n)):
        watch(os.path.join(path, n), below + n + "/")
base = sys.argv[-1]
watch(base, "")
print("watching", flush=True)
while 0 not in select.select([fd, 0], [], [])[0]:
    b = os.read(fd, 65536)
    while b:
        wd, mask, _, n = struct.unpack("iIII", b[:16])
        name = b[16:16 + n].rstrip(b"\0").decode(); b = b[16 + n:]
        for bit in names:
            if mask & bit and wd in dirs:
                print(names[bit], dirs[wd] + name, flush=True)
        if deep and mask & 0x40000100 == 0x40000100:
            watch(os.path.join(base, dirs[wd] + name), dirs[wd] + name + "/")
END
}
# sees waits until the watcher, which is the coprocess W, has printed lines that match each of
# the patterns, in any order, and prints the patterns.
sees() {
	local line p waiting=("$@") rest
	while [ ${#waiting[@]} -gt 0 ]; do
		IFS= read -r -t 60 line <&"${W[0]}" || { echo "missing: ${waiting[*]}"; return; }
		printf '%s\n' "$line" >>.seen
		rest=()
		# shellcheck disable=SC2053 # a pattern
		for p in "${waiting[@]}"; do [[ $line == $p ]] || rest+=("$p"); done
		waiting=("${rest[@]}")
	done
	printf '%s\n' "$@"
}
# terminal writes t.py, with which a script of Python runs a command on a terminal of its own.
terminal() {
	cat >t.py <<'END'
import fcntl, os, pty, select, struct, termios
class T:
    """A command of sh on a terminal with rows, columns and pixels; $R in it is the way into the sandbox."""
    def __init__(self, command, *size):
        self.out = b""
        self.pid, self.m = pty.fork()
        if not self.pid:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *(size or (24, 80, 0, 0))))
            os.execvp("sh", ["sh", "-c", command])
    def resize(self, *size):
        fcntl.ioctl(self.m, termios.TIOCSWINSZ, struct.pack("HHHH", *size))
    def pump(self, text=b""):
        """Types what the terminal takes of text now, and reads what it has. Returns what was not typed; None at the end."""
        r, w, _ = select.select([self.m], [self.m] if text else [], [], 60)
        if not r and not w:
            raise TimeoutError("nothing for a minute after %r" % self.out[-500:])
        if w:
            text = text[os.write(self.m, text[:512]):]
        if r:
            try:
                b = os.read(self.m, 65536)
            except OSError: # EIO: all have closed it
                return None
            self.out += b
            return text if b else None
        return text
    def until(self, *texts):
        """Waits for one of texts, and returns what came before it."""
        while not any(t in self.out for t in texts):
            if self.pump() is None:
                raise EOFError("ended with %r" % self.out[-500:])
        at, t = min((self.out.index(t), t) for t in texts if t in self.out)
        before, self.out = self.out[:at], self.out[at + len(t):]
        return before
    def type(self, text):
        while text:
            text = self.pump(text)
            if text is None:
                raise EOFError("ended with %r" % self.out[-500:])
    def end(self):
        """Returns the rest of the output, in words."""
        while self.pump() is not None:
            pass
        os.waitpid(self.pid, 0)
        return self.out.decode().split()
END
}
