### make and a compiler
# Sixty files, four jobs: built once, not built again, and built where a header of the host changes.
# edit: sed -i 's/41/42/' answer.h
make --version | sed -n 1p
gcc --version | sed -n 1p
echo '#define ANSWER 41' >answer.h
for i in $(seq 60); do
	[ $((i % 10)) != 0 ] || echo '#include "answer.h"'
	echo "int f$i(void) { return $([ $((i % 10)) = 0 ] && echo ANSWER || echo $i); }"
done >all.c
for i in $(seq 60); do { grep -h include all.c | head -n 1; grep "f$i(" all.c; } >f$i.c; done
rm all.c
{ for i in $(seq 60); do echo "int f$i(void);"; done; echo '#include <stdio.h>'; echo 'int main(void) { int s = 0;'; for i in $(seq 60); do echo "s += f$i();"; done; echo 'printf("%d\n", s); return 0; }'; } >main.c
cat >Makefile <<'END'
objects := $(patsubst %.c,%.o,$(wildcard *.c))
prog: libf.a main.o
	gcc -o $@ main.o -L. -lf
libf.a: $(filter-out main.o,$(objects))
	ar rcs $@ $?
%.o: %.c
	gcc -O1 -MMD -c -o $@ $<
-include $(objects:.o=.d)
END
make -s -j 4
sum=$(./prog)
make -q
edited
make -q && exit 1
make -s -j 4
is $((sum + 6)) "$(./prog)"
make -q

### go
# A module with a dependency; caches on the share as well; the second build compiles nothing.
# apt: golang-go
export GOCACHE=$PWD/cache GOMODCACHE=$PWD/modules GOFLAGS=-modcacherw GOTOOLCHAIN=local
go version
mkdir m && cd m
cat >main.go <<'END'
package main

import (
	"fmt"

	"github.com/google/uuid"
)

func answer() string { return uuid.NewSHA1(uuid.NameSpaceDNS, []byte("x")).String() }

func main() { fmt.Println(answer()) }
END
cat >main_test.go <<'END'
package main

import "testing"

func TestAnswer(t *testing.T) {
	if len(answer()) != 36 {
		t.Error(answer())
	}
}
END
go mod init x.test/m 2>/dev/null
go get github.com/google/uuid@v1.6.0 2>/dev/null
go build -o prog .
is 36 "$(./prog | tr -d '\n' | wc -c)"
go vet ./...
go test ./...
is "" "$(go build -x -o prog . 2>&1 | grep /compile)"
go mod verify

### cargo
# A program and its library; the second build is fresh.
# apt: cargo
cargo --version
export CARGO_HOME=$PWD/home
cargo new -q --lib lib --vcs none
cargo new -q app --vcs none
echo 'pub fn answer() -> i32 { 42 }' >lib/src/lib.rs
echo 'fn main() { println!("{}", lib::answer()); }' >app/src/main.rs
echo 'lib = { path = "../lib" }' >>app/Cargo.toml
cd app
is 42 "$(cargo run -q --offline)"
cargo build --offline 2>&1 | grep -q Compiling && exit 1
echo 'pub fn answer() -> i32 { 43 }' >../lib/src/lib.rs
is 43 "$(cargo run -q --offline)"

### python
# An environment, a package installed into it by pip, and its byte code.
# apt: python3-setuptools python3-venv
python3 --version
python3 -m venv --system-site-packages v
mkdir -p p/mod
echo 'def answer(): return 42' >p/mod/__init__.py
printf '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n[project]\nname = "mod"\nversion = "1"\n[project.scripts]\nanswer = "mod:main"\n' >p/pyproject.toml
printf 'def main(): print(answer())\n' >>p/mod/__init__.py
v/bin/pip --version
v/bin/pip install -q --no-build-isolation --no-index ./p
is 42 "$(v/bin/answer)"
ls v/lib/python3*/site-packages/mod/__pycache__/*.pyc >/dev/null
v/bin/pip uninstall -q -y mod
gone v/bin/answer
