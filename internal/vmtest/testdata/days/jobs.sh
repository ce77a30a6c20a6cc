# where: outside
# needs: script

### terminal on all three
# script(1) gives the command a terminal.
script -qec "$R sh -c 'test -t 0 && test -t 1 && test -t 2 && echo terminal'" /dev/null </dev/null | grep -o terminal

### size of the terminal
# Rows and columns are the host's.
script -qec "stty rows 33 cols 77; $R stty size" /dev/null </dev/null | grep -o '33 77'

### status under a terminal
# The command's own.
script -qec "$R sh -c 'exit 7'" /dev/null </dev/null >/dev/null; echo $?

### modes of the terminal
# What the person had set is there afterwards.
script -qec "stty -echo -icanon min 2; stty -g >a; $R true; stty -g >b" /dev/null </dev/null >/dev/null; cmp a b && echo same

### name of the terminal
# tty(1) names one that can be opened.
script -qec "$R sh -c 'echo opened >\$(tty); echo too >/dev/tty'" /dev/null </dev/null | grep -oE 'opened|too'

### background at a prompt
# claude-code#36976: a job in the background is not stopped for its output.
script -qec "bash -mc '$R sh -c \"echo ran >f\" & wait; cat f' 2>/dev/null" /dev/null </dev/null

### background with its input elsewhere
# claude-code#36976.
echo x >f; script -qec "bash -mc '$R cat f </dev/null >g & wait; cat g' 2>/dev/null" /dev/null </dev/null

### timeout in a script on a terminal
# claude-code#36976: timeout makes a process group, which is then in the background.
script -qec "bash -c 'timeout 100 $R sh -c \"echo in-f >f\" </dev/null >/dev/null; echo status-\$?; cat f'" /dev/null </dev/null | grep -oE 'status-[0-9]+|in-f'

### two jobs
# Both end, each with its status.
script -qec "bash -mc '$R sh -c \"exit 3\" </dev/null >a & p=\$!; $R sh -c \"exit 4\" </dev/null >b & q=\$!; wait \$p; echo \$?; wait \$q; echo \$?' 2>/dev/null" /dev/null </dev/null

### interrupted
# Ctrl-C arrives as SIGINT; the command may handle it.
coproc T { exec script -qefc "$R sh -c 'trap \"echo got; exit 4\" INT; echo rea\"\"dy; while :; do sleep 0.1; done'" /dev/null; }
i=${T[1]} p=$T_PID; exec 7<&"${T[0]}"; while read -r l <&7; do case $l in *ready*) break ;; esac; done; printf '\003' >&$i; while read -r l <&7; do case $l in *got*) echo got; break ;; esac; done; wait $p; echo $?

### quit
# Ctrl-\ arrives as SIGQUIT.
coproc T { exec script -qefc "$R sh -c 'trap \"echo got; exit 5\" QUIT; echo rea\"\"dy; while :; do sleep 0.1; done'" /dev/null; }
i=${T[1]} p=$T_PID; exec 7<&"${T[0]}"; while read -r l <&7; do case $l in *ready*) break ;; esac; done; printf '\034' >&$i; while read -r l <&7; do case $l in *got*) echo got; break ;; esac; done; wait $p; echo $?

### end of input by Ctrl-D
# cat ends.
coproc T { exec script -qefc "$R sh -c 'echo rea\"\"dy; cat >f; echo en\"\"ded'" /dev/null; }
i=${T[1]} p=$T_PID; exec 7<&"${T[0]}"; while read -r l <&7; do case $l in *ready*) break ;; esac; done; printf 'line\n\004' >&$i; while read -r l <&7; do case $l in *ended*) echo ended; break ;; esac; done; wait $p; echo $?; cat f

### password is not shown
# A program turns the echo off and on again.
coproc T { exec script -qefc "$R bash -c 'read -rsp \"pass\"\"word: \" p; echo; echo \"\${#p}\"'" /dev/null; }
i=${T[1]} p=$T_PID; exec 7<&"${T[0]}"; IFS= read -r -d : l <&7; echo "${l: -8}"; printf 'secret\n' >&$i; cat <&7 2>/dev/null | tr -d '\r ' | grep -o '^6'; wait $p
