# where: outside
# needs: python3

### paste of a long text
# claude-code#49869: 300 KB arrive whole in a program that reads keys.
terminal; python3 - <<'P'
from t import T
t = T("$R sh -c 'stty raw -echo; echo rea\"\"dy; head -c 300000 | md5sum'")
t.until(b"ready"); t.type((b"\x1b[200~" + bytes(range(32, 127)) * 3300)[:300000]); print(t.end())
P

### paste of many lines
# claude-code#13328: 5000 lines arrive in a program that reads lines.
terminal; python3 - <<'P'
from t import T
t = T("$R sh -c 'stty -echo; echo rea\"\"dy; wc'")
t.until(b"ready"); t.type(b"".join(b"line %d of the paste\n" % i for i in range(5000)) + b"\x04"); print(t.end())
P

### sequences of all kinds
# claude-contained#31: clipboard (OSC 52), links (OSC 8), titles, images, modes, lone bytes: none differs.
terminal; printf '\033]52;c;aGVsbG8=\a\033]8;;http://a.test/\033\\x\033]8;;\033\\\033]0;title\a\033[?2026h\033Pq#0;2;0;0;0~-\033\\' >seq
printf '\033_Gf=24,s=1,v=1;AAAA\033\\\033]1337;File=inline=1:AAAA\a\033[>1u\033[?1004h\033[38;2;1;2;3mc\033[0m\302\205\303\251\360\237\230\200\377' >>seq
python3 - <<'P'
from t import T
t = T("$R sh -c 'stty raw; echo rea\"\"dy; cat seq; echo ended'")
t.until(b"ready\n"); print(t.until(b"ended") == open("seq", "rb").read())
P

### answers of the terminal
# Programs ask for the cursor, colours and the device, and read the answers from the keys.
terminal; python3 - <<'P'
from t import T
t = T(r"""$R sh -c 'stty raw -echo; printf "\033[6n\033]11;?\a\033[c"; head -c 42 | od -An -c; stty sane; echo ended'""")
t.until(b"\x1b[c"); t.type(b"\x1b[12;40R\x1b]11;rgb:1e1e/1e1e/1e1e\x1b\\\x1b[?62;22c"); print(t.until(b"ended").split())
P

### window that is resized all the time
# sbx-releases#63, apple/container#1747: the corner is dragged; the last size counts, and nothing is printed.
terminal; python3 - <<'P'
from t import T; import time
t = T(r"""$R bash -c 'trap "n=1" WINCH; echo rea""dy; read -rsn1; sleep 0.5; stty size; test $n = 1 && echo told'""")
t.until(b"ready")
for i in range(300):
    t.resize(10 + i % 50, 20 + i % 90, 640, 480); time.sleep(0.003)
t.resize(41, 133, 1330, 820); time.sleep(1); t.type(b"q"); print(t.end())
P

### size in pixels
# ttyd#1560: programs that draw images (sixel, kitty) divide the pixels by the cells.
terminal; cat >size.py <<'P'
import fcntl, struct, termios
print("size", *struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))), flush=True)
P
python3 - <<'P'
from t import T; import time
t = T("$R sh -c 'python3 size.py; read x; python3 size.py'", 41, 133, 1330, 820)
t.until(b"size"); print(t.until(b"\r\n")); t.resize(20, 50, 500, 400); time.sleep(1); t.type(b"\n"); t.until(b"size"); print(t.end())
P

### name of the terminal's program
# ddev#8808, clawker#435: links and Shift+Enter are used in terminals that are known by name.
export TERM_PROGRAM=ghostty TERM_PROGRAM_VERSION=1.2 VTE_VERSION=7600 KONSOLE_VERSION=250400 WT_SESSION=a-b COLORFGBG='15;0'
$R sh -c 'echo $TERM_PROGRAM $TERM_PROGRAM_VERSION $VTE_VERSION $KONSOLE_VERSION $WT_SESSION $COLORFGBG'

### with colours or without
# ddev#7058: the person's wish, as no-color.org and its like say it.
NO_COLOR=1 CLICOLOR=0 FORCE_COLOR=2 CLICOLOR_FORCE=1 $R sh -c 'echo $NO_COLOR $CLICOLOR $FORCE_COLOR $CLICOLOR_FORCE'

### pager
# less fills the screen, is led by keys, and leaves the screen and the modes as they were.
# needs: python3 less
terminal; seq 500 >f; TERM=xterm LESS= python3 - <<'P'
from t import T
t = T("$R less f; echo ended; stty -a", 10, 40, 0, 0)
t.until(b"\x1b[?1049h"); t.until(b"\n9"); t.type(b"G"); t.until(b"\n500"); t.type(b"q"); t.until(b"\x1b[?1049l"); t.until(b"ended")
print([w for w in t.end() if w in ("icanon", "-icanon", "icanon;", "echo", "-echo")])
P

### editor with a menu
# nano writes, and the shell reads what it wrote.
# want: hello
terminal; TERM=xterm timeout 100 python3 - >&2 <<'P'
from t import T; import time
t = T("$R nano -I f; echo ended", 20, 70, 0, 0)
t.until(b"GNU nano"); time.sleep(0.5); t.type(b"hello\x18"); t.until(b"Save modified"); t.type(b"y"); t.until(b"File Name", b"Write to File"); t.type(b"\r"); t.until(b"ended")
P
cat f

### errors elsewhere
# Standard error goes to a file while the terminal is the command's.
terminal; python3 - <<'P'
from t import T
print(T("$R sh -c 'test -t 1 && echo tty; test -t 2 || echo none >&2' 2>e").end())
P
cat e

### terminal that is closed
# The command learns of it by SIGHUP; what ignores that lives on.
terminal; python3 - <<'P'
from t import T; import os, time
t = T(r"""$R bash -c 'trap "echo hup >h; exit" HUP; (trap "" HUP; echo rea""dy; sleep 2; echo lives >l) & while :; do sleep 0.1; done'""")
t.until(b"ready"); os.close(t.m); time.sleep(6)
P
cat h l

### multiplexer
# A tmux of the sandbox: its screen follows the window, and it gives the terminal back.
# needs: python3 tmux
terminal; TERM=xterm LC_ALL=C.UTF-8 python3 - <<'P'
from t import T; import time
t = T("$R tmux -L $PPID -f /dev/null new 'tput cols; read x; tput cols; read x'; echo ended; stty -a", 12, 60, 0, 0)
t.until(b"60"); t.resize(12, 47, 0, 0); time.sleep(1); t.type(b"\n"); t.until(b"47"); t.type(b"\n"); t.until(b"[exited]"); t.until(b"ended")
print([w for w in t.end() if w in ("icanon", "-icanon", "icanon;", "echo", "-echo")])
P
