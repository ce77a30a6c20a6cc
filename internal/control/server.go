package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"bawn.dev/bawn/internal/sandbox"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 1 << 20

// writeLimit bounds the sending of one event. A subscriber that takes longer is dropped.
const writeLimit = 30 * time.Second

// Bodies of requests.
type (
	forceRequest struct {
		Force bool `json:"force"`
	}
	portsRequest struct {
		Add    []sandbox.Port `json:"add"`
		Remove []uint16       `json:"remove"`
	}
	none struct{}
)

// Handler returns the handler that serves s.
func Handler(s Service) http.Handler {
	mux := http.NewServeMux()
	handle(mux, "GET /status", func(context.Context, none) (Status, error) { return s.Status(), nil })
	handle(mux, "GET /usage", func(context.Context, none) (Usage, error) { return s.Usage() })
	handle(mux, "POST /stop", func(ctx context.Context, r forceRequest) (none, error) {
		return none{}, s.Stop(ctx, r.Force)
	})
	handle(mux, "POST /suspend", func(ctx context.Context, r forceRequest) (none, error) {
		return none{}, s.Suspend(ctx, r.Force)
	})
	handle(mux, "POST /snapshot", func(ctx context.Context, path string) (none, error) {
		return none{}, s.Snapshot(ctx, path)
	})
	handle(mux, "POST /ports", func(_ context.Context, r portsRequest) ([]sandbox.Port, error) {
		return s.ChangePorts(r.Add, r.Remove)
	})
	handle(mux, "POST /log/settle", func(ctx context.Context, _ none) (none, error) {
		return none{}, s.SettleLog(ctx)
	})
	handle(mux, "POST /policy/reload", func(context.Context, none) (none, error) {
		return none{}, s.ReloadPolicy()
	})
	handle(mux, "POST /policy/once", func(_ context.Context, rule string) (none, error) {
		return none{}, s.AllowOnce(rule)
	})
	handle(mux, "GET /policy/once", func(context.Context, none) ([]string, error) {
		return s.AllowedOnce()
	})
	handle(mux, "POST /policy/forget", func(context.Context, none) (none, error) {
		return none{}, s.ForgetOnce()
	})
	handle(mux, "POST /policy/refuse", func(_ context.Context, rule string) (none, error) {
		return none{}, s.RefuseAccess(rule)
	})
	handle(mux, "POST /shares/follow", func(ctx context.Context, _ none) (none, error) {
		return none{}, s.FollowShares(ctx)
	})
	handle(mux, "POST /agents", func(ctx context.Context, a sandbox.Agent) (none, error) {
		return none{}, s.AddAgent(ctx, a)
	})
	handle(mux, "POST /restore-point", func(ctx context.Context, _ none) (none, error) {
		return none{}, s.BeginRestorePoint(ctx)
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { serveEvents(w, r, s) })
	return mux
}

// handle adds a route whose request and response are JSON.
func handle[In, Out any](mux *http.ServeMux, pattern string, f func(context.Context, In) (Out, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if r.Method != http.MethodGet {
			err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in)
			if err != nil && !errors.Is(err, io.EOF) { // an empty body is the zero request
				answer(w, http.StatusBadRequest, failure{Error: "malformed request: " + err.Error(), Reason: ReasonRequest})
				return
			}
		}
		out, err := f(r.Context(), in)
		if err != nil {
			answer(w, http.StatusUnprocessableEntity, failureOf(err))
			return
		}
		answer(w, http.StatusOK, out)
	})
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client is gone if this fails
}

// serveEvents sends events, one JSON document a line, until the sandbox ends, the client
// disconnects, or the client does not keep up.
func serveEvents(w http.ResponseWriter, r *http.Request, s Service) {
	sub := s.Subscribe()
	defer sub.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	conn := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	send := func(e Event) bool {
		_ = conn.SetWriteDeadline(time.Now().Add(writeLimit)) // every connection has one
		return enc.Encode(e) == nil && conn.Flush() == nil
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-sub.Events():
			if !ok {
				if sub.Lagged() {
					send(Event{Kind: KindLagged, Time: time.Now()})
				}
				return
			}
			if !send(e) {
				return
			}
		}
	}
}
