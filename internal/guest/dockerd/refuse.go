package dockerd

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"bawn.dev/bawn/internal/sys/text"
)

// Theory of operation. A daemon that cannot start ends, and leaves its clients in the socket's queue. Another start
// would most likely end in the same way, so a client would wait for ever. In place of the daemon the agent
// answers all that wait and, as a client of Docker asks twice (/_ping, then its request), those of the next moments:
// 503 with the reason, which the client prints. A client that comes later has the daemon started again.
//
// A slow host is an exception: the daemon gives containerd 15 s, which the first start may need to read its program.
// The next start finds that in memory. So the daemon is started again, and the clients wait.

const (
	// refusalTime is how long clients are answered after a daemon could not start.
	refusalTime = 3 * time.Second
	// requestTime bounds the wait for a client's request and its end.
	requestTime = time.Second
	// maxSlowStarts bounds how often in a row the daemon is started again because it was too slow.
	maxSlowStarts = 3
	// maxRequestHead bounds what is read of a request, in bytes.
	maxRequestHead = 16 << 10
	// maxRefused bounds how many clients are answered at a time.
	maxRefused = 64
	// maxLogTail bounds how much of the end of the daemon's log is read, in bytes.
	maxLogTail = 4 << 10
	// maxReason bounds the reason that a client gets, in bytes.
	maxReason = 1 << 10
)

// failure returns why a daemon failed; "" if it ended well.
func failure(status syscall.WaitStatus, logFile string) string {
	var how string
	switch {
	case status.Signaled():
		how = "was ended by signal " + status.Signal().String()
	case status.ExitStatus() != 0:
		how = fmt.Sprintf("ended with status %d", status.ExitStatus())
	default:
		return ""
	}
	reason := "the Docker daemon of this sandbox " + how
	if last := lastLine(logFile); last != "" {
		reason += ": " + last
	}
	return text.Short(reason, maxReason) + "; its log is " + logFile + ", and the next command starts it again"
}

// wasSlow reports whether a daemon failed, for that reason, because containerd was not there in time (moby,
// libcontainerd/supervisor, startupTimeout).
func wasSlow(reason string) bool {
	return strings.Contains(reason, "timeout waiting for containerd to start")
}

// lastLine returns the last line of a file that has one.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err != nil || end > maxLogTail {
		_, _ = f.Seek(-maxLogTail, io.SeekEnd)
	} else {
		_, _ = f.Seek(0, io.SeekStart)
	}
	b, _ := io.ReadAll(io.LimitReader(f, maxLogTail))
	s := strings.TrimSpace(string(b))
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// refuse answers the clients of the socket for a while. It returns when it has answered them.
func refuse(socket *os.File, reason string, limit time.Duration) {
	l, err := net.FileListener(socket)
	if err != nil {
		log.Printf("docker: %v", err)
		return
	}
	defer l.Close()
	unixListener, ok := l.(*net.UnixListener)
	if !ok {
		log.Printf("docker: the socket is a %T", l)
		return
	}
	unixListener.SetUnlinkOnClose(false)
	_ = unixListener.SetDeadline(time.Now().Add(limit))
	var clients sync.WaitGroup
	defer clients.Wait()
	free := make(chan struct{}, maxRefused)
	for {
		c, err := l.Accept()
		if errors.Is(err, syscall.ECONNABORTED) {
			continue
		}
		if err != nil {
			return // the time is over
		}
		free <- struct{}{}
		clients.Go(func() {
			defer func() { <-free }()
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(requestTime))
			answer(c, reason)
			// A client that still writes its request would take a closed connection for the answer.
			if u, ok := c.(*net.UnixConn); ok && u.CloseWrite() == nil {
				_, _ = io.Copy(io.Discard, u)
			}
		})
	}
}

// answer reads the head of a request and answers it as the daemon answers what fails (Docker Engine API,
// ErrorResponse).
func answer(c io.ReadWriter, reason string) {
	r := bufio.NewReader(io.LimitReader(c, maxRequestHead))
	first, err := r.ReadString('\n')
	for line := first; err == nil && strings.TrimSpace(line) != ""; {
		line, err = r.ReadString('\n')
	}
	if err != nil {
		return
	}
	body, err := json.Marshal(map[string]string{"message": reason})
	if err != nil {
		return
	}
	if strings.HasPrefix(first, "HEAD ") { // its answer has no body (RFC 9110, section 9.3.2)
		body = nil
	}
	fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
}
