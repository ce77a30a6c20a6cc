package sshd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/wire"
)

// newChannel is a request for a channel that nobody accepts.
type newChannel struct {
	kind  string
	extra []byte
}

func (n newChannel) ChannelType() string                      { return n.kind }
func (n newChannel) ExtraData() []byte                        { return n.extra }
func (n newChannel) Reject(ssh.RejectionReason, string) error { return nil }
func (n newChannel) Accept() (ssh.Channel, <-chan *ssh.Request, error) {
	return nil, nil, errors.New("nobody is there")
}

// FuzzRequests sends requests on a session channel, and on a connection: what is kept is
// bounded, and all ports that a client had opened are closed with its connection. No command
// is started, and nothing but the loopback is listened on or connected to.
func FuzzRequests(f *testing.F) {
	pty := ssh.Marshal(struct {
		Term             string
		Cols, Rows, W, H uint32
		Modes            string
	}{"xterm", 80, 24, 0, 0, "\x01\x00\x00\x00\x03\x80\x00\x00\x96\x00\x00"})
	for kind, payload := range map[string][]byte{
		"env": ssh.Marshal(struct{ Name, Value string }{"LANG", "C"}), "pty-req": pty, "window-change": ssh.Marshal(window{1 << 31, 0, 0, 0}),
		"signal": ssh.Marshal(struct{ Name string }{"KILL"}), wire.RequestExecPart: ssh.Marshal(wire.ExecPart{Part: "echo"}), "exec": ssh.Marshal(struct{ C string }{"true"}),
		"subsystem": ssh.Marshal(struct{ Name string }{"sftp"}), "x11-req": nil,
		"tcpip-forward": ssh.Marshal(listenRequest{"127.0.0.1", 0}), "cancel-tcpip-forward": ssh.Marshal(listenRequest{"127.0.0.1", 99999}),
		"direct-tcpip": ssh.Marshal(struct {
			H string
			P uint32
			O string
			Q uint32
		}{"127.0.0.1", 70000, "", 0}),
		"direct-streamlocal@openssh.com": []byte("\x00\x00\x00\xff"),
	} {
		f.Add(kind, payload, kind, payload)
		f.Add("pty-req", pty, kind, payload)
	}
	root := f.TempDir()
	passwd := fmt.Sprintf("me:x:%d:%d::/:/bin/sh\n", os.Getuid(), os.Getgid())
	if err := errors.Join(os.Mkdir(root+"/etc", 0o755), os.WriteFile(root+"/etc/passwd", []byte(passwd), 0o644)); err != nil {
		f.Fatal(err)
	}
	login, err := accounts.NewLogins(root).Find("me")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind1 string, payload1 []byte, kind2 string, payload2 []byte) {
		s := &session{login: login}
		fw := newForwards(nil)
		for _, r := range []*ssh.Request{{Type: kind1, Payload: payload1}, {Type: kind2, Payload: payload2}, {Type: kind1, Payload: payload2}} {
			_ = s.answer(r)
			requestOfConnection(fw, r)
		}
		if len(s.env) > maxEnv || len(s.parts) > 0 && s.partsLen > wire.MaxExec || s.running != nil {
			t.Errorf("%d variables, %d bytes of parts, running %v", len(s.env), s.partsLen, s.running)
		}
		if s.terminal != nil {
			s.terminal.close()
		}
		fw.close()
		for key, l := range fw.listeners {
			if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
				c.Close()
				t.Errorf("%s is still open", key)
			}
		}
	})
}

// requestOfConnection handles a request of a connection or for a channel, unless it is a whole
// one that leads elsewhere than to the loopback.
func requestOfConnection(fw *forwards, r *ssh.Request) {
	var l listenRequest
	if ssh.Unmarshal(r.Payload, &l) != nil || l.Addr == "127.0.0.1" {
		switch r.Type {
		case "tcpip-forward":
			fw.listen(r.Payload)
		case "cancel-tcpip-forward":
			fw.cancel(r.Payload)
		}
	}
	var tcp struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if ssh.Unmarshal(r.Payload, &tcp) != nil || tcp.Port > 65535 {
		fw.directTCP(newChannel{r.Type, r.Payload})
	}
	var unix struct {
		Path      string
		Reserved  string
		Reserved2 uint32
	}
	if ssh.Unmarshal(r.Payload, &unix) != nil {
		fw.directUnix(newChannel{r.Type, r.Payload})
	}
}
