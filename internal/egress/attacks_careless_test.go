package egress

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lenientNode is nodeServer with a parser that takes what is no HTTP.
func lenientNode(t *testing.T) (addr string, out *output) {
	addr = freePort(t)
	port := addr[strings.LastIndexByte(addr, ':')+1:]
	out = start(t, "node", "-e", `
		require('http').createServer({insecureHTTPParser: true, requireHostHeader: false}, (q, a) => { console.log('REQUEST ' + q.method + ' ' + q.url + ' ' + q.headers.host + '.'); a.end('node') })
		.listen(`+port+`, '127.0.0.1', () => console.log('ready'))`)
	waitFor(t, "node", func() bool { return strings.Contains(out.String(), "ready") })
	return addr, out
}

// javaServer is the server that comes with Java, which takes three words of any kind for a request.
func javaServer(t *testing.T) (addr string, out *output) {
	addr = freePort(t)
	source := filepath.Join(t.TempDir(), "S.java")
	if err := os.WriteFile(source, []byte(`
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
public class S {
  public static void main(String[] args) throws Exception {
    HttpServer s = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 0);
    s.setExecutor(java.util.concurrent.Executors.newCachedThreadPool());
    s.createContext("/", x -> {
      System.out.println("REQUEST " + x.getRequestMethod() + " " + x.getRequestURI() + " " + x.getRequestHeaders().getFirst("Host") + ".");
      x.getRequestBody().readAllBytes();
      x.sendResponseHeaders(200, 4);
      x.getResponseBody().write("java".getBytes());
      x.close();
    });
    s.start();
    System.out.println("ready");
  }
}`), 0o600); err != nil {
		t.Fatal(err)
	}
	out = start(t, "java", source, addr[strings.LastIndexByte(addr, ':')+1:])
	ended := func() bool {
		select {
		case <-out.done:
			return true
		default:
			return false
		}
	}
	waitFor(t, "java", func() bool { return strings.Contains(out.String(), "ready") || ended() })
	if ended() {
		t.Skip("no Java that runs a source file")
	}
	return addr, out
}

// TestAttackCarelessServers: lines that only few servers take for a request's, with another host behind them.
func TestAttackCarelessServers(t *testing.T) {
	for server, begin := range map[string]func(*testing.T) (string, *output){"node": lenientNode, "java": javaServer} {
		t.Run(server, func(t *testing.T) {
			addr, out := begin(t)
			l := newLab(t, testRules{"good.example:9000"})
			l.serve("good.example", "203.0.113.1:9000", addr)
			send := func(text string) {
				c := l.mustDial("good.example", 9000)
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				fmt.Fprint(c, text)
				_ = c.(*net.TCPConn).CloseWrite()
				if _, err := io.ReadAll(c); isTimeout(err) {
					t.Errorf("%q: no end", text)
				}
			}
			for _, text := range []string{
				"GET\x00 / FOO/1.0\r\nHost: other.example\r\n\r\n", "GET\x00 HTTP://other.example/ HTTP/1.0\r\nHost: other.example\r\n\r\n",
				"\x01GET\x00 http:/x HTTP/01.1\r\nHost: other.example\r\n\r\n", "FOO http:/x HTTP /1.1\r\nX: y\r\nHost: other.example\r\n\r\n",
				"(a) /b c\r\nHost: other.example\r\n\r\n", "\xff\xfeGET /b c\r\nhost:other.example\r\n\r\n", "GE:T /b c\r\nHost:\r\n other.example\r\n\r\n",
				"(a) /b c\r\nHost: good.example\r\nContent-Length: 3\r\n\r\nx yGET /b c\r\nHost: other.example\r\n\r\n",
				"M-SEARCH http://other.example/\nHost: good.example\r\n\r\n", "SOURCE http://other.example/ ICE/1.0\r\nHost: good.example\r\n\r\n",
			} {
				send(text)
			}
			if strings.Contains(out.String(), "other.example") {
				t.Errorf("the server was asked for another host:\n%s", out)
			}
			send("GET /arrives HTTP/1.1\r\nHost: good.example:9000\r\nConnection: close\r\n\r\n")
			waitFor(t, "the request", func() bool { return strings.Contains(out.String(), "REQUEST GET /arrives good.example:9000.") })
		})
	}
}
