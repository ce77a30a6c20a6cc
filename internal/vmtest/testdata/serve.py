"""Serve on a port: / is a name, /get?URL is what another server says."""
import http.server
import sys
import urllib.request


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, url = self.path.partition("?")
        text = urllib.request.urlopen(url, timeout=60).read() if path == "/get" else sys.argv[2].encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text)


http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
