package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/egress"
	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/netstack"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/agent"
	"bawn.dev/bawn/internal/supervisor/vm"
)

// network is the guest's way out.
type network struct {
	dir   store.Dir
	gate  *egress.Gateway
	stack *netstack.Stack
	audit *audit.Log
	agent atomic.Pointer[agent.Client] // once the guest is set up
	attr  attribution
	log   *slog.Logger
	wg    sync.WaitGroup // goroutines that end with the link

	watch *fileWatch // of the files of rules; nil if they cannot be watched

	mu     sync.Mutex
	once   []policy.Rule // until the sandbox stops
	loaded []policy.Rule // from the files
	failed bool          // to load them
}

// newNetwork serves the guest's link. A policy that cannot be read lets nothing
// pass. names are those that the guest knows addresses of already.
// logged is called for each line of the network log (audit.Log.Notify).
func newNetwork(link net.Conn, d store.Dir, spec *sandbox.Spec, names map[string]uint32, log *slog.Logger, logged func(audit.Entry)) (*network, error) {
	netLog, err := audit.Open(d.File(store.NetLogFile), audit.LogBytes)
	if err != nil {
		return nil, fmt.Errorf("network log: %w", err)
	}
	netLog.Notify(logged)
	n := &network{dir: d, audit: netLog, log: log}
	n.attr.ask = n.processes
	n.gate = egress.New(egress.Config{
		Pool4: vm.Pool4, Pool6: vm.Pool6, Log: netLog, Resolve: resolver(spec.Hosts), Process: n.attr.process,
		Limits: egress.Limits{BytesPerSecond: spec.Rate},
		DNS:    []netip.AddrPort{netip.AddrPortFrom(vm.Gateway4.Addr(), 53), netip.AddrPortFrom(vm.Gateway6.Addr(), 53)},
		Info:   []netip.AddrPort{netip.AddrPortFrom(vm.Gateway4.Addr(), 80), netip.AddrPortFrom(vm.Gateway6.Addr(), 80)},
	})
	n.gate.SetNames(names)
	if err := n.reload(); err != nil {
		log.Error("no network: the policy cannot be loaded", "error", err)
	}
	if n.watch, err = n.watchRules(); err != nil {
		log.Warn("rules that are edited by hand take effect with the next bawn policy", "error", err)
	}
	guest4, guest6 := vm.GuestAddrs(spec.ID)
	n.stack, err = netstack.New(link, netstack.Config{
		MTU: vm.LinkMTU, GatewayMAC: vm.GatewayMAC, GuestMAC: vm.GuestMAC(spec.ID),
		Gateway4: vm.Gateway4, Guest4: guest4, Gateway6: vm.Gateway6, Guest6: guest6,
		TCP:     func(r *netstack.TCPRequest) { n.gate.TCP(r.Src, r.Dst, r) },
		UDP:     func(r *netstack.UDPRequest) { n.gate.UDP(r.Src, r.Dst, r) },
		Dropped: func(d netstack.Drop) { n.gate.Dropped(d.Proto, d.Dst, d.Why) },
	})
	if err != nil {
		n.close()
		return nil, err
	}
	n.wg.Go(func() {
		if err := n.stack.Wait(); err != nil {
			log.Error("the network link ended", "error", err)
		}
	})
	return n, nil
}

// watchRules reloads the rules when a person edits a file of them by hand.
func (n *network) watchRules() (*fileWatch, error) {
	files, err := n.dir.RuleFiles()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(files[0]), 0o700); err != nil {
		return nil, err
	}
	return watchFiles(files, func() {
		if n.asOnDisk() { // a verb changed the file, and asked to reload it
			return
		}
		if err := n.reload(); err != nil {
			n.log.Error("the policy cannot be loaded", "error", err)
			return
		}
		n.log.Info("the policy was edited")
	})
}

// asOnDisk reports whether the rules in force are those on disk.
func (n *network) asOnDisk() bool {
	rules, err := n.dir.Rules()
	n.mu.Lock()
	defer n.mu.Unlock()
	return err == nil && !n.failed && reflect.DeepEqual(rules, n.loaded)
}

// reload puts the rules on disk in force. On an error nothing passes until they
// are mended.
func (n *network) reload() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	rules, err := n.dir.Rules()
	n.loaded, n.failed = rules, err != nil
	if err != nil {
		n.gate.SetPolicy(nil)
		return control.Errorf(control.ReasonPolicy, "nothing passes until this is mended: %w", err)
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

// allowedOnce lists these rules.
func (n *network) allowedOnce() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := []string{}
	for _, r := range n.once {
		list = append(list, r.Text)
	}
	return list
}

// forgetOnce takes these rules back.
func (n *network) forgetOnce() error {
	n.mu.Lock()
	n.once = nil
	n.mu.Unlock()
	return n.reload()
}

// close cuts all connections, and returns when nothing of the network runs any more.
func (n *network) close() {
	if n.watch != nil {
		n.watch.Close()
	}
	if n.stack != nil {
		_ = n.stack.Close() // the link is gone, or goes now
	}
	n.wg.Wait()
	n.gate.Close()
	_ = n.audit.Close()
}

// resolver answers for the names of --add-host, and asks the host for the rest.
func resolver(hosts []sandbox.Host) func(context.Context, string) ([]netip.Addr, error) {
	if len(hosts) == 0 {
		return nil // the default
	}
	return func(ctx context.Context, name string) ([]netip.Addr, error) {
		var found []netip.Addr
		for _, h := range hosts {
			if h.Name == name {
				found = append(found, h.Addr)
			}
		}
		if len(found) > 0 {
			return found, nil
		}
		return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	}
}
