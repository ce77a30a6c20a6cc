# where: outside

### standard output by name in a pipe
# moby#31243: /dev/stdout can be opened when it is a pipe.
$R sh -c 'echo x >/dev/stdout; echo y >/proc/self/fd/1; echo z >/dev/fd/1' | cat

### standard error by name in a pipe
# moby#31243.
$R sh -c 'echo x >/dev/stderr; echo y | tee /dev/stderr >/dev/null' 2>&1 | cat

### standard input by name in a pipe
# moby#31243.
for f in /dev/stdin /dev/fd/0 /proc/self/fd/0 -; do echo "x $f" | $R cat $f; done

### standard streams by name in files
# The same when the host's are files.
echo in >i; $R sh -c 'cat /dev/stdin; echo out >>/dev/stdout; echo err >>/dev/stderr' <i >o 2>e; cat o e

### file that two programs read
# head(1) reads a block and sets the position back: the rest is the next program's, on either side.
seq 9 >f; { $R head -n 2; cat; } <f; { head -n 1; $R head -n 1; $R cat; } <f; $R sh -c 'head -n 1; tail -n 1' <f; { $R grep -m 1 3; $R head -c 2; cat; } <f

### file that is the input
# A program that asks sees a file, and can open it again.
seq 5 >f; $R sh -c 'test -f /dev/stdin && stat -L -c %s /dev/stdin; cat /dev/stdin; head -n 1; cat' <f

### streams that are closed
# Nothing else is taken for one of them, and the status is the command's.
$R sh -c 'exit 7' <&- >&- 2>&-; echo $?; $R sh -c 'echo out; echo err >&2; exit 3' 2>&-; echo $?; $R true <&- && echo unread

### process substitution
# bash opens /dev/fd/63.
$R bash -c 'cat <(echo a) <(echo b); echo c > >(cat); wait'

### here document
# Text of the script is the command's input.
$R cat <<END
one $((1 + 1))
END

### loop that reads lines
# lima#2924: a command in the loop that does not read leaves the lines to the loop.
printf '1\n2\n3\n' | while read -r x; do $R true; echo $x; done

### loop that reads a file
# lima#2924, with a file.
printf '1\n2\n3\n' >f; while read -r x; do $R echo "got $x"; done <f

### loop with input on another descriptor
# The way to be safe with any program.
printf '1\n2\n' >f; while read -r x <&3; do $R echo $x; done 3<f

### script on standard input
# lima#2924: curl ... | sh, where the script runs a command.
printf '%s true\necho second\n%s echo third\n' "$R" "$R" | bash

### input that nobody reads stays
# The next program of a group gets it.
printf 'a\nb\n' | ($R true; cat)

### rest of the input
# A command takes what comes after the shell's own read.
printf '1\n2\n3\n' | { read -r a; $R cat; echo "a=$a"; }

### exit statuses
# Each is the command's own.
for n in 0 1 2 42 125 126 127 128 255; do $R sh -c "exit $n"; echo $?; done

### ended by signals
# 128 and the signal's number.
for s in TERM KILL SEGV HUP ABRT USR1; do $R sh -c "kill -$s \$\$"; echo $?; done 2>/dev/null

### command that does not exist
# 127, by name and by path.
$R no-such-command; echo $?; $R ./no-such-command; echo $?; $R /no/such/place; echo $?

### command that cannot run
# 126: not executable, a directory.
echo x >f; $R ./f; echo $?; mkdir d; $R ./d; echo $?

### script without an interpreter line
# A shell runs it itself.
echo 'echo ran $1' >s; chmod +x s; $R ./s one

### script with an interpreter line
# With an option, and by env.
printf '#!/bin/sh -e\nfalse\necho not\n' >a; printf '#!/usr/bin/env python3\nprint(6 * 7)\n' >b; chmod +x a b; $R ./a; echo $?; $R ./b

### arguments are exact
# Nothing is split, joined, expanded or dropped.
$R printf '<%s>' '' 'a b' '$HOME' "'" '"' '\' '*' '~' $'new\nline' $'\xff' $'\t' '-x' '{}' '!'; echo

### options belong to the command
# After the command's name nothing is an option of ours.
$R echo --help -n -- x; $R printf '%s\n' -- -v

### many arguments
# gh-aw-firewall#2007: a list of a lint run over all files (1.4 MB with its pointers).
$R sh -c 'echo $#' x $(seq 100000)

### one long argument
# gh-aw-firewall#2007: up to the kernel's 128 KiB for one string.
a=$(head -c 130000 /dev/zero | tr '\0' x); $R sh -c 'echo ${#1}' x "$a"

### argument that is too long
# 126, as a shell says it.
a=$(head -c 140000 /dev/zero | tr '\0' x); $R /bin/true "$a" 2>/dev/null; echo $?

### long script
# A command of 100 KB handed over by -c.
$R sh -c "$(yes : | head -n 50000); echo ran"

### binary data in and out
# 3 MB of all bytes.
head -c 3000000 /dev/urandom >r; $R cat <r >s; cmp r s && echo same

### every byte
# None is special in a pipe.
perl -e 'print map chr, 0 .. 255' | $R cat | od -An -tx1 | md5sum

### much output
# 5 MB and its end.
$R head -c 5000000 /dev/zero | wc -c

### one long line
# A line has no limit.
$R sh -c 'head -c 1000000 /dev/zero | tr "\0" x' | wc -lc

### output without a newline
# The last bytes arrive as well.
$R printf abc | od -An -c

### no output and no input
# An empty file, twice.
$R cat </dev/null | wc -c; $R true | wc -c

### end of input
# The command sees it, and may speak after it.
printf 'a\nb\n' | $R sh -c 'wc -l; echo after'

### input of a device
# What is left is not drained.
$R head -c 5 /dev/stdin </dev/zero | wc -c

### input of a named pipe
# mkfifo on the host.
mkfifo p; echo through >p & $R cat <p

### dialogue
# Each answer comes before the next question.
coproc D { exec $R sh -c 'while read -r x; do echo "<$x>"; done; echo bye'; }
o=${D[0]} i=${D[1]}; for x in one two three; do echo $x >&$i; read -r y <&$o; echo "$y"; done; exec {i}>&-; cat <&$o

### reader that goes away
# The writer ends by SIGPIPE, with its status.
$R yes | head -n 1; echo "${PIPESTATUS[0]}"

### pipeline of three
# Commands of the sandbox feed each other through the host.
$R echo hello | $R tr a-z A-Z | $R rev

### status of a pipeline
# pipefail sees it.
set -o pipefail; $R false | cat; echo $?; $R sh -c 'cat >/dev/null; exit 3' </dev/null | $R cat; echo $?

### appended output
# >> on the host.
$R echo 1 >f; $R echo 2 >>f; $R cat f

### not a terminal
# A pipe is none.
$R sh -c 'test -t 0 || test -t 1 || echo none' </dev/null | cat

### background child holds the output
# minimal#1342: the command's end is the end, and the child lives on.
$R sh -c 'sleep 1000 & echo $! >pid; echo done' >out; cat out; $R sh -c 'kill $(cat pid) && echo lived'

### daemon
# setsid and nohup leave something behind that runs.
$R sh -c 'setsid nohup sleep 1000 >/dev/null 2>&1 </dev/null & echo $! >pid'; $R sh -c 'kill $(cat pid) && echo lived'

### backquotes
# A shell takes the output whole, without the last newline.
x=$($R printf 'a\n\nb\n\n'); echo "[$x]"

### xargs
# One command for each word.
printf 'a\nb\nc\n' | xargs -n 1 $R echo

### xargs with all
# One command for all words.
seq 500 | xargs $R echo | md5sum

### find and exec
# The names of files found on the host.
mkdir d; echo 1 >d/a; echo 2 >'d/b c'; find d -type f | sort | tr '\n' '\0' | xargs -0 -n 1 $R cat

### several at once
# Six commands do not mix up their output or their status.
for i in 1 2 3 4 5 6; do ($R sh -c "echo $i; exit $i" >o$i; echo "$i $?" >s$i) & done; wait; cat o? s?

### make with jobs
# Recipes that run in the sandbox, two at a time.
printf 'all: a b c\na b c:\n\t@$(R) sh -c "echo $@ >$@"\n' >Makefile; make -s -j 2; cat a b c

### timeout lets a short command be
# timeout(1) around it.
timeout 100 $R sh -c 'echo in; exit 4'; echo $?

### timeout ends a long command
# 124, and nothing is left.
timeout 3 $R sleep 1000; echo $?

### nohup
# Its output goes on.
nohup $R echo x 2>/dev/null

### signal is handed on
# docker and kill: the command handles it and chooses its status.
$R sh -c 'trap "echo got; exit 3" TERM; trap "echo usr" USR1; echo ready; while :; do sleep 0.1; done' >out & p=$!
until grep -q ready out; do sleep 0.1; done; kill -USR1 $p; until grep -q usr out; do sleep 0.1; done; kill -TERM $p; wait $p; echo $?; cat out

### signal that ends
# 143 for a command that does not handle it.
$R sh -c 'echo ready; exec sleep 1000' >out & p=$!; until grep -q ready out; do sleep 0.1; done; kill -TERM $p; wait $p; echo $?

### both outputs in one pipe
# 2>&1 keeps the order of lines (moby#37531: build logs with errors out of place).
$R sh -c 'for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done' 2>&1 | cat

### both outputs in one file
# The same with >log 2>&1, and appended to.
$R sh -c 'for i in 1 2 3; do echo out $i; echo err $i >&2; done' >log 2>&1; $R sh -c 'echo err >&2; echo out' >>log 2>&1; cat log

### one output of two
# Each goes where it was sent, also crosswise.
{ $R sh -c 'echo out; echo err >&2' 3>&1 1>&2 2>&3 | sed 's/^/first /'; } 2>crossed; sed 's/^/second /' crossed

### input that is a directory
# The command gets the error, and not an empty input.
$R cat </ 2>&1 | grep -o 'Is a directory'; $R true </ && echo unread

### input that is open for writing
# cat 0>file.
$R cat 0>f 2>/dev/null; echo $?

### loop that waits for its input
# read with a limit of time.
{ until test -e none; do sleep 0.1; done; echo late; } | $R bash -c 'read -t 0.2 x || { echo none; : >none; }; read -t 60 x && echo $x'

### tee and a second reader
# tee >(command), and its status.
seq 5 | $R bash -c 'tee >(md5sum >sum) | tail -n 1; while [ ! -s sum ]; do sleep 0.1; done; cut -c1-8 sum'

### numbers of a pipeline
# PIPESTATUS with the sandbox in each place.
$R true | $R false | $R sh -c 'cat; exit 3'; echo "${PIPESTATUS[@]}"

### not executable output
# A full disk behind the output ends the command with an error.
$R seq 100000 >/dev/full 2>/dev/null; test $? -ne 0 && echo failed

### carriage returns and no newline
# A progress bar's output is as it is.
$R printf 'a\rb\rc' | od -c | head -n 1; $R sh -c 'printf "50%%\r100%%\r\n" >&2' 2>&1 | od -c | head -n 1

### zero bytes and lines
# find -print0, xargs -0, sort -z by the sandbox.
touch a 'b c' $'d\ne'; find . -type f -print0 | $R sort -z | $R xargs -0 -n 1 printf '[%s]'; echo

### a variable with everything
# --env hands on newlines, quotes and bytes.
X=$'line one\nline "two" $HOME \\ \xff'; export X; if [ -n "$R" ]; then bawn run --env X -- sh -c 'printf %s "$X"' | md5sum; else printf %s "$X" | md5sum; fi

### shell that goes on after an error
# sbx-releases#156: an interactive shell ended at the first command that failed.
printf 'false\necho on\nnosuch-command\necho on2\n(exit 3)\necho $?\nexit 4\n' | $R bash -i 2>/dev/null; echo $?

### large upload and download at once
# A pipe in both directions with 20 MB does not block.
head -c 20000000 /dev/zero | $R tr '\0' x | tail -c 5; echo

### many commands in turn
# Thirty commands one after another leave nothing behind.
for i in $(seq 30); do $R true || echo no; done; echo done

### exit while output is pending
# The last lines of a build arrive.
$R sh -c 'seq 200000; exit 3' | tail -1; echo ${PIPESTATUS[0]}

### here documents in a loop
# Each turn has its own input.
for i in 1 2; do $R cat <<X
line $i
X
done

### session of its own
# A program in a session of its own goes on after the command.
$R sh -c 'setsid sh -c "sleep 1; echo late >f" </dev/null >/dev/null 2>&1 & echo started'; sleep 3; cat f

### signals of all kinds
# USR1, USR2, HUP, WINCH, CONT reach the command.
coproc C { exec $R bash -c 'for s in USR1 USR2 HUP ALRM; do trap "echo $s" $s; done; trap "echo T; exit 3" TERM; echo ready; while :; do sleep 0.1; done'; }
read -r l <&"${C[0]}"; exec 7<&"${C[0]}"; p=$C_PID # bash unsets it at the end of the coprocess
for s in USR1 USR2 HUP ALRM TERM; do kill -$s $p; read -r -t 20 l <&7; echo $l; done; wait $p; echo $?

### front end that is killed
# kill -9 of the front end ends the command in the end, which gets SIGHUP. Without a sandbox there is none.
# It writes nothing to its standard error, which is closed.
# want: hup
$R bash -c 'exec 2>/dev/null; trap "echo hup >h; exit" HUP TERM; echo $$ >p; while :; do sleep 0.2; done' </dev/null & p=$!
until test -s p; do sleep 0.2; done; kill -9 $p; until test -s h; do sleep 0.2; done; cat h

### password that nobody can give
# git asks for no password in a script: GIT_TERMINAL_PROMPT, no terminal: it fails at once.
$R sh -c 'git ls-remote http://127.0.0.1:9/x.git' >/dev/null 2>e; echo $?
