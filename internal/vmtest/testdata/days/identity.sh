# where: outside

### user and group
# The files of a project have one owner, here and there.
$R sh -c 'id -u; id -g'

### user by name
# whoami, id and Python ask the user database, not the environment.
$R sh -c 'whoami; id -un; python3 -c "import getpass, os, pwd; print(getpass.getuser(), pwd.getpwuid(os.getuid()).pw_name)"'

### supplementary groups
# podman#6774: a group's directory is open to its members.
# A group of the system (below 1000) may have another meaning in the guest.
echo groups; $R id -G | tr ' ' '\n' | awk '$1 >= 1000' | sort -n

### umask of a group
# A team's 002 makes files that the group can write.
umask 002; $R sh -c 'umask; touch f; mkdir d'; stat -c '%n %a' f d

### umask of a loner
# A private 077 makes files that nobody else can read.
umask 077; $R sh -c 'umask; touch f; mkdir d; echo x >g'; stat -c '%n %a' f d g

### umask of nothing
# umask 0 is one as well.
umask 0; $R sh -c 'umask; touch f; mkdir d'; stat -c '%n %a' f d

### time zone by name
# Logs and tests with dates agree with the host's clock.
TZ=Asia/Tokyo $R date -d @0 '+%F %H:%M %Z'

### time zone by rule
# A POSIX rule needs no file of the guest.
TZ='XYZ3:30ABC,M3.2.0,M11.1.0' $R date -d @0 '+%F %H:%M %Z'

### time zone with summer time
# The guest's own time zone data.
TZ=Europe/Berlin $R date -d @1720000000 '+%F %H:%M %Z'

### characters in UTF-8
# minishift#8: a letter of two bytes is one character.
LC_ALL=C.UTF-8 $R sh -c 'printf "\303\274\n" | wc -m; locale charmap'

### bytes in C
# A person who asks for bytes gets bytes.
LC_ALL=C $R sh -c 'printf "\303\274\n" | wc -m; printf "b\nB\na\n" | sort | tr "\n" " "'

### names of files in UTF-8
# docker-brew-debian#45: ls shows letters, not octal numbers.
LC_ALL=C.UTF-8 $R sh -c 'touch Äpfel; ls --quoting-style=shell; ls -b'

### perl has no complaint
# minishift#8: a locale that the guest lacks makes perl warn at each start.
LC_ALL=C.UTF-8 $R perl -e 'print "quiet\n"' 2>&1

### python prints what it likes
# Standard output in a pipe takes the locale's encoding.
LC_ALL=C.UTF-8 $R python3 -c 'import sys; print("ü", sys.stdout.encoding, sys.getfilesystemencoding())' | cat

### terminal types
# code-on-incus#53: programs ask terminfo for the terminal that the person sits at.
for t in xterm-256color screen-256color tmux-256color vt100 linux dumb; do TERM=$t; export TERM; $R sh -c 'echo $TERM $(tput colors)'; done

### true colour
# Tools look at COLORTERM.
COLORTERM=truecolor; export COLORTERM; $R sh -c 'echo $COLORTERM'

### open files
# A bundler opens thousands of files: no less than the host allows.
$R sh -c 'ulimit -n' >n; test "$(cat n)" -ge "$(ulimit -n)" && echo enough

### size of the stack
# Deep recursion that works on the host works in the guest.
n=$($R sh -c 'ulimit -s'); test "$n" = unlimited || test "$n" -ge 8192 && echo enough

### unlimited files and memory
# No limit that a plain login does not have.
$R bash -c 'ulimit -f; ulimit -v; ulimit -t'

### home
# A home of one's own: set, writable, where cd goes.
$R sh -c 'cd && test "$PWD" = "$HOME" && test -w . && test -O . && echo home; test ~ = "$HOME" && echo tilde'

### user in the environment
# Scripts use USER and LOGNAME.
$R sh -c 'test "$USER" = "$(id -un)" && test "$LOGNAME" = "$USER" && echo same'

### shell
# make, tmux and editors start $SHELL.
$R sh -c 'test -x "$SHELL" && "$SHELL" -c "echo shell"'

### working directory
# The command runs where the person stands.
mkdir -p a/b; cd a/b; test "$($R pwd)" = "$PWD" && echo same

### name and arguments of a script
# sh -c takes $0 and the rest.
$R sh -c 'echo "$0" "$#" "$2"' zero one 'two  blanks'

### signals at the start
# No signal is ignored or blocked, whatever the caller of bawn ignores: a child that ignores
# SIGPIPE writes for ever.
# want: SigBlk: 0000000000000000 SigIgn: 0000000000000000
(trap '' PIPE TSTP USR1; echo $($R grep -E 'Sig(Blk|Ign)' /proc/self/status))

### open descriptors
# Nothing of the sandbox's own is left open in the command.
# want: 0 1 2 3
echo $($R ls /proc/self/fd </dev/null)

### priority
# No other priority than a shell's.
$R nice; $R sh -c 'ps -o ni= -p $$ | tr -d " "'

### may become another user
# sudo and ping need it.
$R grep NoNewPrivs /proc/self/status

### own session
# The command leads a process group, and has a parent.
$R sh -c 'test $PPID -gt 0 && echo parent; ps -o stat= -p $$ | cut -c1'

### root without a password
# code-on-incus: an agent installs packages.
# want: 0
$R sudo -n id -u

### an agent knows where it is
# claude-code#9184: IS_SANDBOX.
# want: 1
$R sh -c 'echo $IS_SANDBOX'

### root by sudo trusts the same
# oss-rebuild#145: sudo drops variables, and npm of root refused a host whose certificate is bawn's.
# want: same 1
$R sh -c 'test -n "$NODE_EXTRA_CA_CERTS" && test "$NODE_EXTRA_CA_CERTS" = "$(sudo -n printenv NODE_EXTRA_CA_CERTS)" && echo same $(sudo -n printenv IS_SANDBOX)'
