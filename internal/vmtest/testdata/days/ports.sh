# where: outside
# needs: python3 curl

### server of the other family
# sbx-releases#342, claude-code#44844: a server on ::1 alone, asked by every name of this host.
# want: six six six
cat >s.py <<'P'
import socket
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1); s.bind(("::1", 7301)); s.listen()
while True:
    c, _ = s.accept(); c.recv(999); c.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nsix "); c.close()
P
p=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
bawn port "$p:7301" >/dev/null; $R timeout 100 python3 s.py </dev/null >/dev/null 2>&1 &
curl -s --retry 60 --retry-delay 1 --retry-connrefused http://127.0.0.1:$p/
echo "$(curl -s "http://[::1]:$p/")$(curl -s http://localhost:$p/)" | sed 's/ $//'; $R pkill -f 's.py$'; bawn port --remove $p >/dev/null; wait

### callback of a login
# claude-code#20793: a login waits on a port that it has chosen itself; the browser of the host comes back to that number.
# want: got /callback?code=1
cat >s.py <<'P'
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"got " + self.path.encode() + b"\n")
    def log_message(self, *a): pass
s = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), H); print("waits", flush=True); s.handle_request()
P
p=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
coproc L { $R python3 s.py $p; }
read -r line <&"${L[0]}"; bawn port $p >/dev/null
curl -s --retry 60 --retry-delay 1 --retry-connrefused "http://localhost:$p/callback?code=1"; bawn port --remove $p >/dev/null; wait
