### blanks and quotes
# Names of people's folders.
for n in 'a b' ' lead' 'trail ' "it's" 'q"q' 'back\slash' '$HOME' '*' '?' '[x]' '~' '#hash' 'semi;colon' 'pipe|' '&' '-n' '--' '(p)' '{b}' '!' '%20' 'tab	tab'; do mkdir -- "./$n" && echo "$n" >"./$n/f" && cat "./$n/f"; done; find . -name f | wc -l

### newline in a name
# Legal, and found by find -print0.
touch $'new\nline' $'\n' $'end\n'; find . -type f -print0 | tr '\0' '|' | tr '\n' 'N' | tr '|' '\n' | sort; ls | wc -l

### letters of all scripts
# Names are bytes; none is changed or folded.
for n in ü ñandú 日本語 Ελλάδα русский עברית 🎉 é é; do echo "$n" >"$n"; done; ls | wc -l; cat 🎉 日本語; printf '%s' é é | od -An -tx1; ls | od -An -tx1 | md5sum

### bytes that are no letters
# An old archive's Latin-1.
touch $'\xff\xfe' $'caf\xe9' $'\x01\x7f'; ls -b; python3 -c 'import os; print(sorted(os.listdir(b".")))'

### upper and lower case
# Two names.
echo 1 >a; echo 2 >A; cat a A; ls | wc -l; mv a B; test -e b || echo none; git init -q . 2>/dev/null && git config core.ignorecase || echo unset

### long name
# 255 bytes are the limit.
n=$(head -c 255 /dev/zero | tr '\0' n); echo x >$n && cat $n; touch ${n}x 2>/dev/null || echo too long; mkdir d && mv $n d/ && ls d | wc -c

### long path
# Deeper than one path can say: 60 directories of 80 bytes, gone by rm -rf.
n=$(head -c 80 /dev/zero | tr '\0' n); top=$PWD; for i in $(seq 60); do mkdir $n && cd -P $n 2>/dev/null || cd $n; done; echo x >f; cat f; cd "$top"; find . -name f 2>/dev/null | wc -l; rm -rf n*; ls | wc -l

### deep tree
# 200 directories.
p=.; for i in $(seq 200); do p=$p/d; done; mkdir -p $p; echo deep >$p/f; cat $p/f; find . -type d | wc -l; (cd $p && test -e ../d && cat f); rm -r d; ls | wc -l

### dots and slashes
# Paths are tidied as the kernel does.
mkdir -p a/b; echo x >a/b/f; cat a//b///f a/./b/../b/f ./a/b/../../a/b/f; cat a/b/f/ 2>/dev/null || echo not a directory; touch ... ..f .h; ls -A | sort | tr '\n' ' '

### links of all kinds
# Relative, to a directory, dangling, chained.
mkdir -p d/e; echo x >d/f; ln -s d/f r; ln -s ../f d/e/up; ln -s d ld; ln -s nowhere dangling; ln -s r rr; ln -s "$PWD/d/f" abs; cat r d/e/up ld/f rr abs; cat dangling 2>/dev/null || echo dangling; readlink r rr ld; readlink -f d/e/up | grep -o 'd/f$'; test -L abs && echo link; (cd ld && pwd -P | grep -o '/d$')

### long link
# A target of 1000 bytes is kept.
t=$(head -c 1000 /dev/zero | tr '\0' t); ln -s $t l; test "$(readlink l)" = $t && stat -c %s l

### forty links
# A chain that the kernel still follows, and one that it does not.
echo x >0; for i in $(seq 42); do ln -s $((i - 1)) $i; done; cat 40; cat 42 2>/dev/null || echo too many

### directory with blanks and a quote
# Run from a folder with a hard name.
# where: outside
mkdir "it's a \"dir\" \$x"; cd "it's a \"dir\" \$x"; echo in >f; $R cat f; test "$($R pwd)" = "$PWD" && echo same

### directory with letters
# Run from a folder with letters that are not ASCII.
# where: outside
mkdir 'Übung 日本'; cd 'Übung 日本'; $R sh -c 'basename "$PWD"; echo x >ä'; cat ä

### directory with a newline
# Run from a folder whose name has two lines.
# where: outside
mkdir $'two\nlines'; cd $'two\nlines'; $R sh -c 'echo x >f; pwd | tail -n 1'; cat f

### directory behind a link
# devcontainers#932: $PWD is the path that the person sees.
# where: outside
mkdir -p real/p; echo x >real/p/f; ln -s real via; cd via/p; $R sh -c 'basename "${PWD%/p}"; cat "$PWD/f"; basename "$(dirname "$(pwd -P)")"'

### absolute link in the project
# It means the same here and there.
# where: outside
mkdir d; echo x >d/f; ln -s "$PWD/d/f" l; $R cat l; $R sh -c 'echo y >l'; cat d/f

### link made inside
# Its target is as it was written.
# where: outside
$R sh -c 'echo x >t; ln -s t a; ln -s "$PWD/t" b; ln t h'; cat a b h; readlink a; test "$(readlink b)" = "$PWD/t" && echo absolute; stat -c %h t

### argument is an absolute path
# A file of the project named in full.
# where: outside
mkdir 'a b'; echo x >'a b/f'; $R cat "$PWD/a b/f"; $R sh -c 'realpath "a b/f"' | sed "s|^$PWD/||"

### removed working directory
# A shell whose directory is gone.
mkdir d; cd d; rmdir ../d; pwd >/dev/null && echo knows; touch f 2>/dev/null || echo none; cd .. 2>/dev/null; mkdir ../x$$ 2>/dev/null; rmdir ../x$$; echo on
