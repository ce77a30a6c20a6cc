package main

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/tokens"
)

// pretender is what a supervisor is asked for, written down.
type pretender struct {
	control.Service // nil: no other method is called
	mu              sync.Mutex
	calls           []string
	access          []control.Access
	worked          time.Duration // processor time
	tokens          []tokens.Total
}

// Usage grows with each call, as one second of one processor does.
func (p *pretender) Usage() (control.Usage, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.worked += time.Second
	return control.Usage{
		Time: time.Unix(1, 0).Add(2 * p.worked), CPU: p.worked, Memory: 512 << 20,
		DiskRead: 1 << 20, DiskWritten: 2 << 20, NetSent: 3 << 10, NetReceived: 4 << 10, Tokens: p.tokens,
	}, nil
}

func (p *pretender) Status() control.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return control.Status{Name: "shop", Phase: sandbox.Running, Access: slices.Clone(p.access)}
}

// asks adds a request of the guest.
func (p *pretender) asks(rule, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.access = append(p.access, control.Access{Rule: rule, Reason: reason, Time: time.Now()})
}

func (p *pretender) RefuseAccess(rule string) error { p.took("refuse " + rule); return nil }

func (p *pretender) ReloadPolicy() error { p.took("reload"); return nil }

func (p *pretender) SettleLog(context.Context) error { return nil }

func (p *pretender) AllowOnce(rule string) error { p.took("once " + rule); return nil }

func (p *pretender) ForgetOnce() error { p.took("forget"); return nil }

func (p *pretender) AllowedOnce() ([]string, error) { return []string{"once.test"}, nil }

func (p *pretender) took(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, what)
}

func (p *pretender) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// pretend makes the sandbox "shop" of dir, which seems to run.
func pretend(t *testing.T, sandboxes *store.Store, dir string) (store.Dir, *pretender) {
	t.Helper()
	d, err := sandboxes.Create(&sandbox.Spec{Name: "shop", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}})
	if err != nil {
		t.Fatal(err)
	}
	p := &pretender{}
	enginetest.Serve(t, d, p)
	return d, p
}

// terminal is a person's: what bawn prints there, line by line or until a question.
type terminal struct {
	t      *testing.T
	master *os.File
	r      *bufio.Reader
	seen   strings.Builder
}

// until reads what is printed up to a text.
func (s *terminal) until(text string) string {
	s.t.Helper()
	if err := s.master.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	for !strings.HasSuffix(b.String(), text) {
		c, err := s.r.ReadByte()
		if err != nil {
			s.t.Fatalf("waiting for %q: %v after %q", text, err, b.String())
		}
		b.WriteByte(c)
		s.seen.WriteByte(c)
	}
	return b.String()
}

func (s *terminal) types(text string) {
	s.t.Helper()
	if _, err := s.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// newTerminal opens a person's terminal; a program writes to and reads from slave.
func newTerminal(t *testing.T) (person *terminal, slave *os.File) {
	t.Helper()
	blocking, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(blocking.Fd()))
	blocking.Close()
	if err == nil {
		err = unix.SetNonblock(fd, true) // for a deadline
	}
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { slave.Close(); master.Close() })
	return &terminal{t: t, master: master, r: bufio.NewReader(master)}, slave
}

// onTerminal runs bawn with a terminal until it ends.
func onTerminal(t *testing.T, ctx context.Context, args ...string) (*terminal, <-chan error) {
	t.Helper()
	person, slave := newTerminal(t)
	return person, runOn(t, ctx, slave, args...)
}

// runOn is onTerminal with a terminal that is there already.
func runOn(t *testing.T, ctx context.Context, slave *os.File, args ...string) <-chan error {
	t.Helper()
	in, errs := os.Stdin, os.Stderr
	os.Stdin, os.Stderr = slave, slave
	ended := make(chan error, 1)
	t.Cleanup(func() { os.Stdin, os.Stderr = in, errs })
	root := rootCommand()
	root.SetOut(slave)
	root.SetArgs(args)
	go func() { ended <- root.ExecuteContext(ctx) }()
	return ended
}

// openNetLog opens the log of a sandbox's network. The caller closes it.
func openNetLog(t *testing.T, d store.Dir) *audit.Log {
	t.Helper()
	log, err := audit.Open(d.File(store.NetLogFile), 0)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func TestAsk(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	d, p := pretend(t, sandboxes, dir)
	log := openNetLog(t, d)
	defer log.Close()
	deny := func(name string) {
		log.Write(audit.Entry{Verdict: audit.Denied, Proto: "tcp", Name: name, Port: 443, Reason: "no rule allows it", Suggest: name})
	}
	deny("past.test") // before anybody asked
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	person, ended := onTerminal(t, ctx, "net", "ask")
	person.until("Ctrl-C.")
	person.types("always\n") // no answer to a question that comes later
	person.until("always\r\n")

	own, common := d.File(store.PolicyFile), filepath.Join(os.Getenv("HOME"), ".config", "bawn", "policy")
	has := func(file, line string) {
		t.Helper()
		b, _ := os.ReadFile(file)
		if got := strings.TrimSuffix(string(b), "\n"); got != line {
			t.Errorf("%s: %q, want %q", file, got, line)
		}
	}
	question := func(name, answer, said string) {
		t.Helper()
		deny(name)
		person.until("allow " + name + "? [o]nce, [s]andbox, [a]lways, [N]o: ")
		person.types(answer + "\n")
		person.until("  " + name + " " + said + "\r\n")
	}
	question("one.test", "o", "allowed until the sandbox stops")
	question("no.test", "n", "stays denied")
	question("nothing.test", "", "stays denied")
	question("other.test", "yes", "stays denied") // which is none of the answers
	has(own, "")
	has(common, "")
	question("box.test", "s", "allowed for this sandbox")
	has(own, "allow box.test")
	has(common, "")
	question("ever.test", "ALWAYS", "allowed for all your sandboxes")
	has(common, "allow ever.test")
	// What was answered, is allowed by now, or leads to no connection is no question.
	for _, name := range []string{"one.test", "no.test", "box.test", "ever.test"} {
		deny(name)
	}
	log.Write(audit.Entry{Verdict: audit.Denied, Proto: "dns", App: "SRV", Name: "_http._tcp.deb.test", Suggest: "_http._tcp.deb.test"})
	log.Write(audit.Entry{Verdict: audit.Allowed, Proto: "tcp", Name: "good.test", Port: 443})
	deny("last\x1b[2J.test") // which no rule can be about
	log.Write(audit.Entry{Verdict: audit.Denied, Proto: "tcp", Name: "last\u202e.test", Port: 22, Reason: "\x1b[2J", Suggest: "last.test:22"})
	person.until("allow last.test:22? [o]nce, [s]andbox, [a]lways, [N]o: ")
	stop() // Ctrl-C, with the question open
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got, want := p.all(), []string{"once one.test", "reload", "reload"}; !slices.Equal(got, want) {
		t.Errorf("asked of the supervisor: %q, want %q", got, want)
	}
	seen := person.seen.String()
	for _, not := range []string{"past.test", "_http", "good.test", "\x1b", "\u202e"} {
		if strings.Contains(seen, not) {
			t.Errorf("%q was shown:\n%s", not, seen)
		}
	}
}

// TestAskUnattended: without a terminal nothing is asked, and nothing allowed.
func TestAskUnattended(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	pretend(t, sandboxes, dir)
	in := os.Stdin
	defer func() { os.Stdin = in }()
	var err error
	if os.Stdin, err = os.Open(os.DevNull); err != nil {
		t.Fatal(err)
	}
	root := rootCommand()
	root.SetArgs([]string{"net", "ask"})
	if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "stays denied") {
		t.Errorf("%v", err)
	}
}

// TestOnceIsShownAndReset: what was allowed once is listed with the rest, decides,
// and goes with a reset.
func TestOnceIsShownAndReset(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	_, p := pretend(t, sandboxes, dir)
	run := func(args ...string) (string, error) {
		var out strings.Builder
		root := rootCommand()
		root.SetOut(&out)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	for _, args := range [][]string{{"policy", "show"}, {"policy", "check", "once.test"}} {
		if out, err := run(args...); err != nil || !strings.Contains(out, "once.test") || !strings.Contains(out, "allowed until the sandbox stops") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	if _, err := run("policy", "reset"); err != nil || !slices.Contains(p.all(), "forget") {
		t.Errorf("%v, %q", err, p.all())
	}
}

// TestLearnAsks: the proposal is shown as a difference, and added when the person
// agrees, or was asked to be.
func TestLearnAsks(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	d, _ := pretend(t, sandboxes, dir)
	log := openNetLog(t, d)
	log.Write(audit.Entry{Verdict: audit.Denied, Proto: "tcp", Name: "a.test", Port: 22, Suggest: "a.test:22"})
	log.Close()
	own := d.File(store.PolicyFile)
	for _, c := range []struct{ answer, want string }{{"n", ""}, {"", ""}, {"y", "allow a.test:22\n"}} {
		person, ended := onTerminal(t, t.Context(), "policy", "learn")
		person.until("--- " + own + "\r\n+allow a.test:22\r\n")
		person.until("Add these rules? [y/N] ")
		person.types(c.answer + "\n")
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(own); string(b) != c.want {
			t.Errorf("answer %q: %q, want %q", c.answer, b, c.want)
		}
	}
}

// TestLearnProposesNoHost: what opens services of the host or a private network is shown with
// the reason, and never added, also when everything is agreed to.
func TestLearnProposesNoHost(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	d, _ := pretend(t, sandboxes, dir)
	log := openNetLog(t, d)
	for _, e := range []audit.Entry{
		{Name: "a.test", Port: 22, Suggest: "a.test:22"}, {Name: "host.bawn.internal", Port: 5432, Suggest: "host:5432"}, {Name: "in.test", Port: 80, Suggest: "10.1.2.3:80"},
		{Name: "loop.test", Port: 80, Suggest: "127.0.0.1:80"}, {Name: "meta.test", Port: 80, Suggest: "169.254.169.254:80"}, {Port: 80, Suggest: "[64:ff9b::a9fe:a9fe]:80"}, // as an older bawn suggested
		{Name: "x.test", Port: 443, Suggest: "**"}, {Name: "x.test", Port: 443, Suggest: "preset:github"}, {Name: "x.test", Port: 443, Suggest: "0.0.0.0/0"},
	} {
		e.Verdict, e.Proto = audit.Denied, "tcp"
		log.Write(e)
	}
	log.Close()
	var out strings.Builder
	root := rootCommand()
	root.SetOut(&out)
	root.SetArgs([]string{"policy", "learn", "--yes"})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(d.File(store.PolicyFile)); string(b) != "allow a.test:22\n" {
		t.Errorf("added: %q", b)
	}
	for _, want := range []string{"not proposed: host:5432 would open SERVICES OF THE HOST on port 5432; if you want that: bawn policy allow host:5432\n", "not proposed: 10.1.2.3:80 would open A PRIVATE NETWORK"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
	for _, not := range []string{"127.0.0.1", "169.254", "64:ff9b", "**", "preset:", "0.0.0.0"} {
		if strings.Contains(out.String(), not) {
			t.Errorf("%q is proposed:\n%s", not, &out)
		}
	}
}

// TestAskAboutTheHost: services of the host are opened by a second answer, which is a word.
func TestAskAboutTheHost(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	d, p := pretend(t, sandboxes, dir)
	log := openNetLog(t, d)
	defer log.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	person, ended := onTerminal(t, ctx, "net", "ask")
	person.until("Ctrl-C.")
	deny := func(port, suggest string, number uint16) {
		t.Helper()
		log.Write(audit.Entry{Verdict: audit.Denied, Proto: "tcp", Name: "host.bawn.internal", Port: number, Reason: "no rule allows it", Suggest: suggest})
		person.until("the rule would open SERVICES OF THE HOST on port " + port + "\r\n")
		person.until("[N]o: ")
	}
	for i, second := range []string{"", "y", "once"} {
		port := []string{"11", "12", "13"}[i]
		deny(port, "host:"+port, uint16(11+i))
		person.types("o\n")
		person.until(`Type "host" to confirm: `)
		person.types(second + "\n")
		person.until("  host:" + port + " stays denied\r\n")
	}
	deny("14", "host:14", 14)
	person.types("n\n") // which needs no second one
	person.until("  host:14 stays denied\r\n")
	deny("15", "host:15", 15)
	person.types("o\n")
	person.until(`Type "host" to confirm: `)
	person.types("host\n")
	person.until("  host:15 allowed until the sandbox stops\r\n")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := p.all(); !slices.Equal(got, []string{"once host:15"}) {
		t.Errorf("%q", got)
	}
}

// TestAttackTypedBefore: what was typed before a question is not its answer, whichever
// question it is.
func TestAttackTypedBefore(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	d, _ := pretend(t, sandboxes, dir)
	log := openNetLog(t, d)
	log.Write(audit.Entry{Verdict: audit.Denied, Proto: "tcp", Name: "a.test", Port: 22, Suggest: "a.test:22"})
	log.Close()
	propose(t, dir, "allow: ['host:5432']\n")
	for _, c := range []struct {
		args     []string
		question string
	}{{[]string{"trust"}, "Approve this? [y/N] "}, {[]string{"policy", "learn"}, "Add these rules? [y/N] "}} {
		for _, early := range []string{"y\n", "yes\nhost\n", "y\ny\ny\n"} {
			person, slave := newTerminal(t)
			person.types(early)
			person.until(strings.ReplaceAll(early, "\n", "\r\n")) // the terminal has it
			ended := runOn(t, t.Context(), slave, c.args...)
			person.until(c.question)
			person.types("n\n")
			<-ended
		}
	}
	if out, code := bawnTrust(t, "--show"); code != 1 {
		t.Errorf("approved: %s", out)
	}
	if b, _ := os.ReadFile(d.File(store.PolicyFile)); len(b) > 0 {
		t.Errorf("added: %s", b)
	}
}

// TestAgentAsks: what the agent asks for is listed, asked about with its reason, and answered.
func TestAgentAsks(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	d, p := pretend(t, sandboxes, dir)
	log := openNetLog(t, d)
	defer log.Close()
	p.asks("early.test:22", "before anybody looked")
	var out strings.Builder
	root := rootCommand()
	root.SetOut(&out)
	root.SetArgs([]string{"ls"})
	if err := root.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), "The agent in shop asks for early.test:22; to decide: bawn net ask --name shop\n") {
		t.Errorf("%v\n%s", err, &out)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	person, ended := onTerminal(t, ctx, "net", "ask")
	answer := func(rule, reason, answer, said string) {
		t.Helper()
		if shown := person.until("allow " + rule + "? [o]nce, [s]andbox, [a]lways, [N]o: "); !strings.Contains(shown, reason) {
			t.Errorf("%q is missing in %q", reason, shown)
		}
		person.types(answer + "\n")
		person.until("  " + rule + " " + said + "\r\n")
	}
	answer("early.test:22", `the agent's reason: "before anybody looked"`, "o", "allowed until the sandbox stops")
	ask := func(rule, reason string) {
		p.asks(rule, reason)
		log.Write(audit.Entry{Verdict: audit.Asked, Suggest: rule, Reason: reason})
	}
	ask("early.test:22", "again") // answered
	ask("no.test:22", "for a look")
	answer("no.test:22", `"for a look"`, "n", "is refused, and the agent can read that")
	ask("box.test", "to fetch")
	answer("box.test", `"to fetch"`, "s", "allowed for this sandbox")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got, want := p.all(), []string{"once early.test:22", "refuse no.test:22", "reload"}; !slices.Equal(got, want) {
		t.Errorf("asked of the supervisor: %q, want %q", got, want)
	}
	if b, _ := os.ReadFile(d.File(store.PolicyFile)); string(b) != "allow box.test\n" {
		t.Errorf("%q", b)
	}
}

// TestAttackAgentAsks: a wide rule needs a second word, and no text of the agent reaches the
// terminal as it is.
func TestAttackAgentAsks(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	d, p := pretend(t, sandboxes, dir)
	p.asks("0.0.0.0/0:*", "\x1b[2J\u202eall\r\nallow x? y")
	p.asks("**", "please")
	p.asks("169.254.169.254", "the weather")
	p.asks("host:5432", "the database")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	person, ended := onTerminal(t, ctx, "net", "ask")
	for _, c := range []struct{ rule, opens, second string }{
		{"0.0.0.0/0:*", "EVERY ADDRESS of the Internet", `Type "wide" to confirm: `},
		{"**", "EVERY NAME on the Internet", `Type "wide" to confirm: `},
		{"169.254.169.254", "", `Type "yes" to confirm: `},
		{"host:5432", "SERVICES OF THE HOST", `Type "host" to confirm: `},
	} {
		if shown := person.until("allow " + c.rule + "? [o]nce, [s]andbox, [a]lways, [N]o: "); !strings.Contains(shown, "WARNING: the rule would open "+c.opens) {
			t.Errorf("no warning in %q", shown)
		}
		person.types("always\n")
		person.until(c.second)
		person.types("always\n")
		person.until("  " + c.rule + " is refused, and the agent can read that\r\n")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := p.all(); !slices.Equal(got, []string{"refuse 0.0.0.0/0:*", "refuse **", "refuse 169.254.169.254", "refuse host:5432"}) {
		t.Errorf("%q", got)
	}
	if seen := person.seen.String(); strings.ContainsAny(seen, "\x1b\u202e") || strings.Contains(seen, "\nallow x?") {
		t.Errorf("%q", seen)
	}
	if b, _ := os.ReadFile(d.File(store.PolicyFile)); len(b) > 0 {
		t.Errorf("added: %s", b)
	}
}
