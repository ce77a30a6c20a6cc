package egress

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/accept"
	"bawn.dev/bawn/internal/sys/text"
)

// The page for the agent in the guest: what it may reach, and its recent denials. It
// shows nothing that the guest did not do or may not know.

// maxInfoHead bounds a request to the page, in bytes.
const maxInfoHead = 8 << 10

// infoTime bounds each step of a request to the page.
const infoTime = 10 * time.Second

// serveInfo answers one connection to the gateway's own address.
func (g *Gateway) serveInfo(req TCPRequest) {
	if !g.limiter.flows.Allow() {
		req.Reject()
		return
	}
	f := g.begin(policy.Flow{}, func() {}, nil)
	if f == nil {
		req.Reject()
		return
	}
	defer f.end()
	c, err := req.Accept()
	if err != nil || !f.add(c) {
		return
	}
	l := accept.NewOne(c)
	s := &http.Server{
		Handler:        g.infoHandler(),
		ReadTimeout:    g.infoTime,
		WriteTimeout:   g.infoTime,
		IdleTimeout:    g.infoTime,
		MaxHeaderBytes: maxInfoHead,
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed || s == http.StateHijacked {
				l.Close()
			}
		},
	}
	_ = s.Serve(l) // ends when the connection does
}

// infoHandler serves the page.
func (g *Gateway) infoHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, "text/plain; charset=utf-8")
		fmt.Fprint(w, "bawn, on the host, controls the network of this sandbox. Traffic that no rule allows is denied at once:\n"+
			"names do not resolve (NXDOMAIN), connections are reset, HTTP requests get status 403.\n"+
			"The rules cannot be changed from inside the sandbox. Ask for what you need, as text and with a reason:\n"+
			askExample()+
			"The user decides, or runs this on the host: "+allowCommand+" HOST:PORT\n"+
			"Changes of files that the host runs or trusts (.git/hooks, .git/config, .vscode, .envrc, settings of agents, bawn.yaml)\n"+
			"stay in the sandbox, up to 64 MiB (then: no space left on device), and files with secrets (.env, private keys) are hidden.\n"+
			"Links that lead around this are refused (operation not permitted). The user takes such a change over on the host with\n"+
			"bawn accept PATH, sees what was kept back with bawn review, and changes the rules with bawn run --no-guard PATTERN or\n"+
			"--show PATTERN.\n"+
			"This page as JSON: /policy.json, /denials.json\n\nRules:\n")
		list := g.ruleTexts()
		for _, rule := range list {
			fmt.Fprintf(w, "  %s\n", text.Line(rule))
		}
		if len(list) == 0 {
			fmt.Fprint(w, "  none: all network traffic is denied\n")
		}
		fmt.Fprint(w, "\nLatest denials, newest first:\n")
		for _, d := range g.Denials() {
			fmt.Fprintf(w, "  %s\n", d.Text())
		}
	})
	mux.HandleFunc("POST /ask", g.serveAsk)
	mux.HandleFunc("GET /ask", g.serveAsks)
	mux.HandleFunc("POST /sign", g.serveSign)
	mux.HandleFunc("GET /policy.json", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"rules": g.ruleTexts()})
	})
	mux.HandleFunc("GET /denials.json", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"denials": append([]Denial{}, g.Denials()...)})
	})
	return g.forPrograms(mux)
}

// forPrograms keeps web pages that are open in a browser of the guest from the page: what a browser says that another
// site asks for (Sec-Fetch-Site, Origin), and requests to another name that leads here (DNS rebinding).
func (g *Gateway) forPrograms(h http.Handler) http.Handler {
	refused := func(w http.ResponseWriter, _ *http.Request) {
		plain(w, "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "bawn: forbidden: this page is for programs of the sandbox, at http://%s/, and not for other web pages\n", policy.InfoName)
	}
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(refused))
	h = sameOrigin.Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.isInfo(r.Host) {
			h.ServeHTTP(w, r)
		} else {
			refused(w, r)
		}
	})
}

// isInfo reports whether the authority of a request is that of the page: its name, or an address of it.
func (g *Gateway) isInfo(authority string) bool {
	u := url.URL{Host: authority}
	name := u.Hostname()
	if a, err := netip.ParseAddr(name); err == nil {
		return slices.Contains(infoAddrs(g.cfg.Info), a)
	}
	return strings.EqualFold(strings.TrimSuffix(name, "."), policy.InfoName)
}

func plain(w http.ResponseWriter, kind string) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
}
