// streams.js KIND URL CA: talks with the servers of streams_test.go, answering
// each message before the next is sent, and says what it heard.
const fs = require("fs");
const [kind, url, ca] = process.argv.slice(2);
const { protocol, host } = new URL(url);
const secure = protocol === "https:";
const rounds = 3;
const heard = [];

function fail(err) { console.log(kind + ": " + err); process.exit(1); }

function grpc() {
  const grpc = require("@grpc/grpc-js");
  const same = (b) => b;
  const Client = grpc.makeGenericClientConstructor({
    echo: { path: "/t.T/Echo", requestStream: true, responseStream: true,
      requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same },
  }, "T");
  const client = new Client(host, secure ? grpc.credentials.createSsl(fs.readFileSync(ca)) : grpc.credentials.createInsecure());
  const call = client.echo({ deadline: Date.now() + 300_000 });
  const say = (n) => call.write(Buffer.from("m" + n));
  call.on("data", (b) => {
    heard.push(b.toString());
    if (heard.length < rounds) say(heard.length); else call.end();
  });
  call.on("error", fail);
  call.on("status", (s) => {
    console.log(`grpc: ${heard.join(" ")} status ${s.code} count ${s.metadata.get("x-count")}`);
    client.close();
  });
  say(0);
}

function websocket() {
  const WebSocket = require("ws");
  const ws = new WebSocket(`${secure ? "wss" : "ws"}://${host}/socket`, { ca: secure ? fs.readFileSync(ca) : undefined, origin: url });
  setTimeout(() => fail("nothing more came"), 300_000).unref();
  ws.on("error", fail);
  ws.on("open", () => ws.send("m0"));
  ws.on("message", (b) => {
    heard.push(b.length < 10 ? b.toString() : b.length + " bytes");
    if (heard.length < rounds) ws.send("m" + heard.length);
    else if (heard.length === rounds) ws.send(Buffer.alloc(1_000_000, "x"));
    else ws.close(1000);
  });
  ws.on("close", (code) => console.log(`websocket: ${heard.join(" ")}, closed ${code}`));
}

({ grpc, websocket })[kind]();
