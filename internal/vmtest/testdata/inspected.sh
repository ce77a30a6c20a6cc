# Clients whose connections are inspected, and that use a secret that they do not have (see
# TestProgramsInspected). $at is the server, host and port; it takes the secret as a token or as a password.

### curl
for v in --http1.1 --http2; do curl -sS -m 300 $v -H "Authorization: Bearer $EXAMPLE_KEY" https://$at/who; done >got
is "$(cat got)" "HTTP/1.1 Bearer $EXAMPLE_KEY
HTTP/2.0 Bearer $EXAMPLE_KEY"
curl -sS -m 300 -u "x:$EXAMPLE_KEY" https://$at/who | grep -q '^HTTP/2.0 Basic ' # in base64 the answer has no placeholder, but no value either

### requests and httpx
# apt: python3-requests python3-httpx python3-h2
python3 - $at >got <<'P'
import os, sys, requests, httpx
url, head = f"https://{sys.argv[1]}/who", {"Authorization": "Bearer " + os.environ["EXAMPLE_KEY"]}
print(requests.get(url, headers=head, timeout=300).text, end="")
for h2 in False, True:
    with httpx.Client(http2=h2, timeout=300) as c: print(c.get(url, headers=head).text, end="")
P
is "$(cut -d' ' -f1 got | xargs)" 'HTTP/1.1 HTTP/1.1 HTTP/2.0'
is "$(grep -c "Bearer $EXAMPLE_KEY" got)" 3

### fetch and undici
# Version 6 is the last for the image's Node.
# npm: undici@6
NODE_PATH=$(npm root -g) node - $at >got <<'J'
const url = `https://${process.argv[2]}/who`, headers = { authorization: "Bearer " + process.env.EXAMPLE_KEY };
const undici = require("undici");
(async () => {
  process.stdout.write(await (await fetch(url, { headers })).text());
  process.stdout.write(await (await undici.request(url, { headers })).body.text());
  const dispatcher = new undici.Agent({ allowH2: true });
  process.stdout.write(await (await undici.request(url, { headers, dispatcher })).body.text());
  await dispatcher.close();
})();
J
is "$(cut -d' ' -f1 got | xargs)" 'HTTP/1.1 HTTP/1.1 HTTP/2.0'
is "$(grep -c "Bearer $EXAMPLE_KEY" got)" 3

### websocket and gRPC of Node
# npm: ws @grpc/grpc-js
NODE_PATH=$(npm root -g) node - $at >got <<'J'
const at = process.argv[2], bearer = "Bearer " + process.env.EXAMPLE_KEY, heard = [];
const WebSocket = require("ws"), grpc = require("@grpc/grpc-js"), same = (b) => b;
const ws = new WebSocket(`wss://${at}/socket`, { headers: { authorization: bearer }, origin: "https://" + at });
ws.on("open", () => ws.send("m0"));
ws.on("message", (b) => { heard.push(b.toString()); heard.length < 3 ? ws.send("m" + heard.length) : ws.close(1000); });
ws.on("close", (code) => { console.log("websocket", heard.join(" "), code); call(); });
function call() {
  const Client = grpc.makeGenericClientConstructor({ echo: { path: "/t.T/Echo", requestStream: true, responseStream: true,
    requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same } }, "T");
  const client = new Client(at, grpc.credentials.createSsl()), meta = new grpc.Metadata(), got = [];
  meta.set("authorization", bearer);
  const c = client.echo(meta, { deadline: Date.now() + 300_000 });
  c.on("data", (b) => { got.push(b.toString()); got.length < 3 ? c.write(Buffer.from("g" + got.length)) : c.end(); });
  c.on("error", (e) => { console.log(e.message); process.exit(1); });
  c.on("status", (s) => { console.log("grpc", got.join(" "), s.code, s.metadata.get("x-count").join()); client.close(); });
  c.write(Buffer.from("g0"));
}
J
is "$(cat got)" 'websocket m0 m1 m2 1000
grpc g0 g1 g2 0 3'

### npm
npm config set --location=project registry https://$at/npm/
npm config set --location=project "//$at/npm/:_authToken" '${EXAMPLE_KEY}'
echo '{"name":"user","version":"1.0.0"}' >package.json
npm install --no-audit --no-fund --no-update-notifier --cache=/var/tmp/npm-cache bawn-hello >&2
is "$(node -p 'require("bawn-hello")')" 'hello of npm'

### pip
# apt: python3-pip
pip download -q --disable-pip-version-check --no-cache-dir --no-deps -d . --index-url "https://user:$EXAMPLE_KEY@$at/pip/" bawn-hello
is "$(PYTHONPATH=$(ls -d *.whl) python3 -c 'import bawn_hello; print(bawn_hello.word)')" 'hello of pip'

### cargo
# apt: cargo
mkdir .cargo src
printf '[registries.own]\ncredential-provider = "cargo:token"\nindex = "sparse+https://%s/cargo/"\n' $at >.cargo/config.toml
printf '[package]\nname = "user"\nversion = "1.0.0"\nedition = "2021"\n[dependencies]\nbawn-hello = { version = "1", registry = "own" }\n' >Cargo.toml
echo 'fn main() { println!("{}", bawn_hello::WORD) }' >src/main.rs
export CARGO_HOME=$PWD/home CARGO_REGISTRIES_OWN_TOKEN="Bearer $EXAMPLE_KEY"
is 'hello of cargo' "$(cargo run -q)"

### docker login
# The Docker daemon of the sandbox has the placeholder as the password of a registry.
echo "$EXAMPLE_KEY" | docker login -u user --password-stdin $at 2>/dev/null
docker pull -q $at/hello:1
is 2 "$(docker image inspect -f '{{len .RootFS.Layers}}' $at/hello:1)"
docker tag $at/hello:1 $at/again:2
docker push -q $at/again:2
docker logout $at

### Go and its modules
# apt: golang-go
cat >go.mod <<'E'
module user.test/user
go 1.18
E
cat >main.go <<'G'
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"

	"bawn.test/hello"
)

func main() {
	r, _ := http.NewRequest("GET", "https://"+os.Args[1]+"/who", nil)
	r.Header.Set("Authorization", "Bearer "+os.Getenv("EXAMPLE_KEY"))
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		panic(err)
	}
	io.Copy(os.Stdout, a.Body)
	fmt.Println(hello.Word)
}
G
printf 'machine %s login user password %s\n' $at "$EXAMPLE_KEY" >~/.netrc; chmod 600 ~/.netrc
GOFLAGS=-mod=mod GOPROXY=https://$at/go GONOSUMDB=* GONOSUMCHECK=1 go build -o user .
rm ~/.netrc
is "$(./user $at)" "HTTP/2.0 Bearer $EXAMPLE_KEY
hello of go"

### grpc-go
# apt: golang-go
cat >go.mod <<'E'
module user.test/grpc
go 1.18
E
cat >main.go <<'G'
package main

import (
	"context"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

type raw struct{}

func (raw) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v any) error { *v.(*[]byte) = append([]byte{}, b...); return nil }
func (raw) Name() string                    { return "raw" }

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	c, err := grpc.Dial(os.Args[1], grpc.WithTransportCredentials(credentials.NewTLS(nil)))
	check(err)
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+os.Getenv("EXAMPLE_KEY"))
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/t.T/Echo", grpc.ForceCodec(raw{}))
	check(err)
	for i := 0; i < 3; i++ {
		m := []byte(fmt.Sprint("g", i))
		check(s.SendMsg(&m))
		check(s.RecvMsg(&m))
		fmt.Print(string(m), " ")
	}
	check(s.CloseSend())
	var m []byte
	fmt.Println(s.RecvMsg(&m), s.Trailer().Get("x-count"))
}
G
GOFLAGS=-mod=mod go get google.golang.org/grpc@v1.56.3 >&2
GOFLAGS=-mod=mod go build -o user .
is "$(./user $at)" 'g0 g1 g2 EOF [3]'

### Java
# Where the host has authorities of its own, bawn adds several certificates. Debian's package of Java's list reads a file of each.
# apt: default-jdk-headless
# dir: java
cat >Who.java <<'J'
import java.net.URI;
import java.net.http.*;
public class Who {
  public static void main(String[] a) throws Exception {
    for (var v : HttpClient.Version.values()) {
      var r = HttpRequest.newBuilder(URI.create("https://" + a[0] + "/who")).header("Authorization", "Bearer " + System.getenv("EXAMPLE_KEY")).build();
      System.out.print(HttpClient.newBuilder().version(v).build().send(r, HttpResponse.BodyHandlers.ofString()).body());
    }
  }
}
J
javac Who.java
is "$(java Who $at)" "HTTP/1.1 Bearer $EXAMPLE_KEY
HTTP/2.0 Bearer $EXAMPLE_KEY"

### Java in a container
# An image with nothing but Java, its libraries and its own list of certificates.
# apt: default-jdk-headless
# dir: java
root=$(mktemp -d)
home=$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")
copy() { mkdir -p "$root$(dirname "$1")"; cp -aL "$1" "$root$1"; }
for l in $(find "$home" -name '*.so' -o -name java -type f | xargs ldd 2>/dev/null | grep -o '/[^ ]*' | sed 's/:$//' | sort -u); do [ ! -f "$l" ] || copy "$l"; done
mkdir -p "$root$(dirname "$home")" "$root/tmp"; cp -aLT "$home" "$root$home" || test -f "$root$home/lib/security/cacerts" # src.zip leads nowhere
cp Who.class "$root/"
deleted=0
for a in $(keytool -list -keystore "$root$home/lib/security/cacerts" -storepass changeit | grep -oE '^(debian:)?bawn-[0-9a-f]*(.pem)?'); do
	keytool -delete -alias "$a" -keystore "$root$home/lib/security/cacerts" -storepass changeit
	deleted=$((deleted + 1))
done
test $deleted -gt 0 || { keytool -list -keystore "$root$home/lib/security/cacerts" -storepass changeit | tail -n 4 >&2; exit 1; }
tar -C "$root" -c . | docker import - java >/dev/null
rm -rf "$root"
docker run --rm -e EXAMPLE_KEY -w / java "$home/bin/java" -cp / Who $at >got 2>err || { cat got err >&2; exit 1; }
is "$(cat got)" "HTTP/1.1 Bearer $EXAMPLE_KEY
HTTP/2.0 Bearer $EXAMPLE_KEY"

### images laid out as those of Alpine and RHEL
# Each has curl, and its certificates where such an image has them; a build step and a container ask.
layout() { # name list
	root=$(mktemp -d)
	for p in bash cat curl; do
		f=$(command -v $p); mkdir -p "$root/bin"; cp -L "$f" "$root/bin/$p"
		for l in $(ldd "$f" | grep -o '/[^ ]*'); do mkdir -p "$root$(dirname "$l")"; cp -nL "$l" "$root$l"; done
	done
	ln -s bash "$root/bin/sh"
	mkdir -p "$root$(dirname "$2")" "$root/tmp"
	cat /usr/share/ca-certificates/mozilla/*.crt >"$root$2" # Debian's list without what the guest adds
	tar -C "$root" -c . | docker import - "$1" >/dev/null
	rm -rf "$root"
	printf 'FROM %s\nARG EXAMPLE_KEY\nARG at\nRUN ["/bin/sh", "-c", "curl -sS -m 300 -H \\"Authorization: Bearer $EXAMPLE_KEY\\" https://$at/who >/who"]\n' "$1" >Dockerfile
	docker build -q --build-arg EXAMPLE_KEY --build-arg at=$at -t "$1-built" . >/dev/null
	docker run --rm -e EXAMPLE_KEY "$1-built" /bin/sh -c "cat /who; curl -sS -m 300 -H \"Authorization: Bearer \$EXAMPLE_KEY\" https://$at/who" >got
	is "$(cat got)" "HTTP/2.0 Bearer $EXAMPLE_KEY
HTTP/2.0 Bearer $EXAMPLE_KEY"
}
layout alpine /etc/ssl/cert.pem
layout rhel /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem
layout rhel6 /etc/pki/tls/certs/ca-bundle.crt
