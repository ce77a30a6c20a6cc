package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/egress"
	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/egress/gitsign"
	"bawn.dev/bawn/internal/egress/gitssh"
	"bawn.dev/bawn/internal/egress/sshlogin"
	"bawn.dev/bawn/internal/inspect"
	"bawn.dev/bawn/internal/login"
	"bawn.dev/bawn/internal/netstack"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/supervisor/vm"
	"bawn.dev/bawn/internal/sys/budget"
	"bawn.dev/bawn/internal/sys/proxyenv"
	"bawn.dev/bawn/internal/sys/xdg"
)

// The network of a sandbox.
//
// Theory of operation. The guest's network card is a socket of this process: what the
// guest sends are frames on the link. Three parts pass them on:
//
//   - the stack (package netstack) makes connections and datagrams of frames, and drops
//     all other frames;
//   - the gateway (package egress) decides about each by the policy, dials on the host, and
//     relays; it also answers the guest's DNS queries;
//   - the policy (package policy) is compiled from the files of rules and the rules that are
//     allowed once, and replaced as a whole when any of them changes. A change cuts the
//     flows that it forbids. While the files cannot be read, all
//     traffic is denied.
//
// Decisions go to the network log, and denials to the subscribers of events. A line of the
// log names the process in the guest, if the guest reports it (attribution.go): a hint, since
// the guest may lie.

// network connects the guest to the outside. It belongs to one machine.
type network struct {
	dir         store.Dir
	log         *slog.Logger
	gate        *egress.Gateway
	stack       *netstack.Stack
	audit       *audit.Log
	attribution attribution
	account     budget.Account
	files       *fileWatch // of the files of rules; nil if they cannot be watched
	tasks       sync.WaitGroup

	mu     sync.Mutex
	once   []policy.Rule // allowed until the sandbox stops
	loaded []policy.Rule // from the files
	failed bool          // the files could not be loaded
}

// openNetwork serves the guest's link.
func (s *supervisor) openNetwork() (err error) {
	netLog, err := audit.Open(s.dir.File(store.NetLogFile), audit.LogBytes)
	if err != nil {
		return fmt.Errorf("network log: %w", err)
	}
	netLog.Notify(s.reportEntry)
	inspector, err := s.inspector()
	if err != nil {
		return errors.Join(err, netLog.Close())
	}
	proxies, err := proxyenv.Read()
	if err != nil {
		return errors.Join(err, netLog.Close())
	}
	for _, p := range proxies.Proxies() {
		s.log.Info("the sandbox's connections leave through a proxy, but for what NO_PROXY lists", "proxy", p.String())
	}
	s.network = newNetwork(s.dir, netLog, egress.Config{
		Hosts: hostTable(s.spec.Hosts), Proxies: proxies, Inspect: inspector, SSH: s.gitSSH(), Sign: s.signer(), Limits: egress.Limits{BytesPerSecond: s.spec.Rate},
	}, s.askProcesses, s.log)
	s.network.gate.SetNames(s.names)
	return s.network.connect(s.machine.link, s.spec.ID)
}

// inspector returns what ends TLS for the hosts of the sandbox's secrets. It reads the secrets
// anew when they change. A builder has none: nothing in a build trusts the certificates.
func (s *supervisor) inspector() (*inspect.Inspector, error) {
	if s.spec.Builder {
		return nil, nil //nolint:nilnil // no inspection is no error
	}
	all, err := secret.Open()
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	state, err := xdg.State()
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	secrets := all.Bindings(s.spec.Dir, s.spec.ID)
	logins, err := login.Open()
	if err != nil {
		return nil, fmt.Errorf("logins: %w", err)
	}
	s.logins = logins.Sandbox(s.spec.ID, s.spec.Name)
	s.tellLogins()
	return inspect.New(inspect.Config{
		Bindings: secrets, Logins: s.logins,
		CA: func(ctx context.Context) (*inspect.CA, error) { return inspect.OpenCA(ctx, state) },
	}), nil
}

// gitSSH returns what ends git over SSH to the hosts of rules about repositories. A builder has none, as of
// inspector.
func (s *supervisor) gitSSH() *gitssh.Server {
	if s.spec.Builder {
		return nil
	}
	return gitssh.New(func(ctx context.Context) (*gitssh.Authority, error) {
		state, err := xdg.State()
		if err != nil {
			return nil, err
		}
		return gitssh.OpenAuthority(ctx, state)
	}, s.sshLogin)
}

// sshLogin is sshlogin.Config, whose error tells the guest nothing of the host's files.
func (s *supervisor) sshLogin(ctx context.Context, name string, port uint16, user string) (*ssh.ClientConfig, func(), error) {
	conf, done, err := sshlogin.Config(ctx, name, port, user)
	var failed *sshlogin.Error
	if errors.As(err, &failed) {
		s.log.Warn("git over SSH was refused to the guest", "server", name, "error", failed)
		err = errors.New(failed.Reason)
	}
	return conf, done, err
}

// signer returns what signs commits of the guest by the person's key; nil unless the person has given leave.
func (s *supervisor) signer() *egress.Signer {
	if !s.spec.Signs() {
		return nil
	}
	return &egress.Signer{
		Name: s.spec.Boot.Author.Name, Email: s.spec.Boot.Author.Email,
		Sign: func(ctx context.Context, object []byte) ([]byte, error) {
			signature, err := gitsign.Sign(ctx, s.spec.Project.Guest, s.dir.File(store.SignFolder), object)
			var failed *gitsign.Error
			if errors.As(err, &failed) {
				s.log.Warn("a commit or tag of the guest was not signed", "error", failed)
				return nil, errors.New(failed.Reason)
			}
			return signature, err
		},
	}
}

// newNetwork returns a network without a link, which connect gives it. While the
// policy cannot be read, all traffic is denied. c has what differs between sandboxes. The caller closes
// the network, also after connect failed; it owns netLog.
func newNetwork(d store.Dir, netLog *audit.Log, c egress.Config, ask processQuery, log *slog.Logger) *network {
	n := &network{dir: d, audit: netLog, log: log, attribution: attribution{query: ask}}
	c.Pool4, c.Pool6, c.Log, c.Process = vm.Pool4, vm.Pool6, netLog, n.attribution.process
	c.DNS = []netip.AddrPort{netip.AddrPortFrom(vm.Gateway4.Addr(), 53), netip.AddrPortFrom(vm.Gateway6.Addr(), 53)}
	c.Info = []netip.AddrPort{netip.AddrPortFrom(vm.Gateway4.Addr(), 80), netip.AddrPortFrom(vm.Gateway6.Addr(), 80)}
	n.gate = egress.New(c)
	var err error
	if n.files, err = n.watchRules(); err != nil {
		log.Warn("the rules files cannot be watched: changes by an editor take effect only when a command changes rules", "error", err)
	}
	if err := n.reload(); err != nil { // after the watch, which then sees every later change
		log.Error("the rules cannot be loaded: all network traffic is denied", "error", err)
	}
	return n
}

// connect serves the link of the guest of the sandbox with that ID.
func (n *network) connect(link net.Conn, id string) (err error) {
	guest4, guest6 := vm.GuestAddrs(id)
	n.stack, err = netstack.New(link, netstack.Config{
		MTU: vm.LinkMTU, GatewayMAC: vm.GatewayMAC, GuestMAC: vm.GuestMAC(id),
		Gateway4: vm.Gateway4, Guest4: guest4, Gateway6: vm.Gateway6, Guest6: guest6,
		TCP:     func(r *netstack.TCPRequest) { n.gate.TCP(r.Src, r.Dst, r) },
		UDP:     func(r *netstack.UDPRequest) { n.gate.UDP(r.Src, r.Dst, r) },
		Dropped: func(d netstack.Drop) { n.gate.Dropped(d.Proto, d.Dst, d.Why) },
	})
	if err != nil {
		return err
	}
	n.stack.Account(&n.account)
	n.gate.Account(&n.account)
	accountFiles(&n.account)
	n.tasks.Go(func() {
		if err := n.stack.Wait(); err != nil {
			n.log.Error("the network link ended", "error", err)
		}
	})
	return nil
}

// watchRules puts the rules in force again when a file of them is edited by hand.
func (n *network) watchRules() (*fileWatch, error) {
	files, err := n.dir.RuleFiles()
	if err != nil {
		return nil, err
	}
	return watchFiles(files, func() {
		if n.asOnDisk() { // a request has loaded them already
			return
		}
		if err := n.reload(); err != nil {
			n.log.Error("the changed rules cannot be loaded: all network traffic is denied", "error", err)
			return
		}
		n.log.Info("a rules file changed: rules loaded again")
	})
}

// asOnDisk reports whether the rules in force are those on disk.
func (n *network) asOnDisk() bool {
	rules, err := n.dir.Rules()
	n.mu.Lock()
	defer n.mu.Unlock()
	return err == nil && !n.failed && reflect.DeepEqual(rules, n.loaded)
}

// reload puts the rules on disk in force, with those that are allowed once. After an error
// all traffic is denied until the files are corrected and loaded again.
func (n *network) reload() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	rules, err := n.dir.Rules()
	n.loaded, n.failed = rules, err != nil
	if err != nil {
		n.gate.SetPolicy(nil)
		return control.Errorf(control.ReasonPolicy, "all network traffic is denied until this mistake is corrected: %w", err)
	}
	n.gate.SetPolicy(policy.Compile(slices.Concat(rules, n.once)))
	return nil
}

// allowOnce adds rules that are forgotten when the sandbox stops.
func (n *network) allowOnce(text string) error {
	r, err := policy.ParseRule(policy.Allow, text)
	if err != nil {
		return control.Errorf(control.ReasonRule, "%w", err)
	}
	n.mu.Lock()
	for _, rule := range r {
		if !slices.ContainsFunc(n.once, func(o policy.Rule) bool { return o.Text == rule.Text }) {
			n.once = append(n.once, rule)
		}
	}
	n.mu.Unlock()
	return n.reload()
}

// allowedOnce returns the rules of allowOnce.
func (n *network) allowedOnce() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := []string{}
	for _, r := range n.once {
		list = append(list, r.Text)
	}
	return list
}

// forgetOnce removes the rules of allowOnce.
func (n *network) forgetOnce() error {
	n.mu.Lock()
	n.once = nil
	n.mu.Unlock()
	return n.reload()
}

// close ends the network, and returns when no goroutine of it is left.
func (n *network) close() {
	if n.files != nil {
		n.files.Close()
	}
	if n.stack != nil {
		_ = n.stack.Close() // the link is gone, or goes now
	}
	n.tasks.Wait()
	n.gate.Close()
	n.attribution.close()
	_ = n.audit.Close()
}

// hostTable returns the addresses of --add-host by name.
func hostTable(hosts []sandbox.Host) map[string][]netip.Addr {
	table := map[string][]netip.Addr{}
	for _, h := range hosts {
		table[h.Name] = append(table[h.Name], h.Addr)
	}
	return table
}
