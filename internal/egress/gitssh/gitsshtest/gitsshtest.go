// Package gitsshtest has a server of git over SSH, and keys and an ssh-agent of a person, for tests.
package gitsshtest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"bawn.dev/bawn/internal/sys/accept"
	"bawn.dev/bawn/internal/sys/proc"
)

// NewKey returns a new key, also as what signs with it.
func NewKey(t *testing.T) (ssh.Signer, ed25519.PrivateKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s, key
}

// Agent serves an ssh-agent with these keys until the test ends, and returns its socket.
func Agent(t *testing.T, keys ...ed25519.PrivateKey) (socket string) {
	t.Helper()
	ring := agent.NewKeyring()
	for _, k := range keys {
		if err := ring.Add(agent.AddedKey{PrivateKey: k}); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("", "agent") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket) //nolint:noctx // does not block
	if err != nil {
		t.Fatal(err)
	}
	group := accept.NewGroup()
	t.Cleanup(group.Close)
	group.Serve(l, 8, func(_ context.Context, c net.Conn) { _ = agent.ServeAgent(ring, c) })
	return socket
}

// Server takes one key, and runs the commands of sessions by a shell in a directory, as sshd does. An absolute
// path is one below the directory.
type Server struct {
	Root   string
	Key    ssh.PublicKey
	Host   ssh.Signer
	Listen net.Listener
	Env    []string // of the commands
	Hang   bool     // commands are not run

	mu       sync.Mutex
	commands []string
	users    []string
	env      []string
}

// Serve serves connections until the listener is closed.
func (s *Server) Serve(t *testing.T) {
	for {
		c, err := s.Listen.Accept()
		if err != nil {
			return
		}
		go s.one(t, c)
	}
}

func (s *Server) one(t *testing.T, c net.Conn) {
	defer c.Close()
	conf := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if string(k.Marshal()) != string(s.Key.Marshal()) {
			return nil, errors.New("another key")
		}
		return &ssh.Permissions{}, nil
	}}
	conf.AddHostKey(s.Host)
	sc, channels, requests, err := ssh.NewServerConn(c, conf)
	if err != nil {
		return
	}
	s.note(&s.users, sc.User())
	go ssh.DiscardRequests(requests)
	for n := range channels {
		ch, reqs, err := n.Accept()
		if err != nil {
			return
		}
		go s.session(t, ch, reqs)
	}
}

// session runs the command of a session.
func (s *Server) session(t *testing.T, ch ssh.Channel, reqs <-chan *ssh.Request) {
	defer ch.Close()
	env := s.Env
	for r := range reqs {
		_ = r.Reply(r.Type == "env" || r.Type == "exec", nil)
		switch r.Type {
		case "env":
			var p struct{ Name, Value string }
			_ = ssh.Unmarshal(r.Payload, &p)
			env = append(env, p.Name+"="+p.Value)
			s.note(&s.env, p.Name+"="+p.Value)
		case "exec":
			var p struct{ Command string }
			_ = ssh.Unmarshal(r.Payload, &p)
			s.note(&s.commands, p.Command)
			go ssh.DiscardRequests(reqs)
			status := s.run(t, ch, p.Command, env)
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ N uint32 }{status}))
			return
		}
	}
}

// run returns the status of a command.
func (s *Server) run(t *testing.T, ch ssh.Channel, line string, env []string) uint32 {
	if s.Hang {
		_, _ = io.Copy(io.Discard, ch)
		return 1
	}
	cmd := proc.Command(t.Context(), "sh", "-c", strings.Replace(line, " '/", " '", 1))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.Root, env, ch, ch.Stderr()
	in, err := cmd.StdinPipe()
	if err == nil {
		go func() { _, _ = io.Copy(in, ch); in.Close() }()
		err = cmd.Run()
	}
	if err != nil {
		return 1
	}
	return 0
}

func (s *Server) note(list *[]string, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*list = append(*list, text)
}

// Seen returns what the server was asked to run, the users that logged in, and the variables that they set, one
// a line each.
func (s *Server) Seen() (commands, users, env string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.commands, "\n"), strings.Join(s.users, "\n"), strings.Join(s.env, "\n")
}
