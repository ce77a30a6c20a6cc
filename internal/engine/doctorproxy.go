package engine

import (
	"context"
	"fmt"
	"time"

	"bawn.dev/bawn/internal/egress/tunnel"
	"bawn.dev/bawn/internal/sys/proxyenv"
)

// probeTime bounds the question whether a proxy answers.
const probeTime = 10 * time.Second

// checkProxies asks each proxy of the environment whether it answers and takes the user and
// the password. Without a proxy it returns nothing.
func checkProxies(ctx context.Context) (found []Finding) {
	s, err := proxyenv.Read()
	if err != nil {
		return []Finding{{Check: CheckProxy, Fatal: true, Detail: err.Error(), Remedy: Remedy{Kind: FixProxy}}}
	}
	for _, p := range s.Proxies() {
		f := Finding{Check: CheckProxy, OK: true, Detail: fmt.Sprintf("%s answers", p)}
		probing, cancel := context.WithTimeout(ctx, probeTime)
		if err := new(tunnel.Dialer).Probe(probing, p); err != nil {
			f.OK, f.Detail, f.Remedy = false, err.Error(), Remedy{Kind: FixProxy}
		}
		cancel()
		found = append(found, f)
	}
	return found
}
