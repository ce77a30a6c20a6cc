package egress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/text"
)

// The pages with which the agent asks for a rule and reads what became of it. Their answers are
// plain text that says what happens next.

// askCommand returns the command that asks for a rule. field is the form field rule=RULE, quoted
// for a shell where it has to be.
func askCommand(field string) string {
	return "curl http://" + policy.InfoName + "/ask --data-urlencode " + field + " --data-urlencode 'reason=what you need it for'"
}

// askExample shows how to ask.
func askExample() string { return "  " + askCommand("rule=HOST:PORT") + "\n" }

// serveAsk answers POST /ask.
func (g *Gateway) serveAsk(w http.ResponseWriter, r *http.Request) {
	plain(w, "text/plain; charset=utf-8")
	rule, reason, err := readAsk(w, r)
	if err != nil {
		answerAsk(w, http.StatusBadRequest, err.Error())
		return
	}
	ask, created, err := g.ask(rule, reason)
	var refused *askError
	switch {
	case errors.As(err, &refused):
		if refused.status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", fmt.Sprint(int(askEvery/time.Second)))
		}
		answerAsk(w, refused.status, refused.msg)
	case ask.State == AskAllowed:
		answerAsk(w, http.StatusOK, fmt.Sprintf("The rules allow %s already. If it does not work, read the denial at http://%s/", ask.Rule, policy.InfoName))
	case ask.State == AskRefused:
		answerAsk(w, http.StatusForbidden, fmt.Sprintf("The user refused %s. Do without it, and do not look for another way", ask.Rule))
	case created:
		answerAsk(w, http.StatusAccepted, fmt.Sprintf("The user is asked to allow %s. %s", ask.Rule, whatNext))
	default:
		answerAsk(w, http.StatusAccepted, fmt.Sprintf("The user was asked to allow %s already, and has not decided. %s", ask.Rule, whatNext))
	}
}

// whatNext tells the agent what happens after a request.
const whatNext = "Nothing changes before the user decides, which can take long. Go on with what needs no network, and look now and then: curl http://" + policy.InfoName + "/ask"

// answerAsk writes an answer of one sentence or more.
func answerAsk(w http.ResponseWriter, status int, msg string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, "bawn: %s.\n", text.Line(strings.TrimSuffix(msg, ".")))
	if status == http.StatusBadRequest {
		fmt.Fprint(w, "To ask:\n"+askExample())
	}
}

// readAsk reads a request: a form, a JSON object or, without a body, the query of the URL.
func readAsk(w http.ResponseWriter, r *http.Request) (rule, reason string, err error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAskRequest))
	if err != nil {
		return "", "", fmt.Errorf("the request's body cannot be read, or has more than %d bytes", maxAskRequest)
	}
	body := strings.TrimSpace(string(b))
	if strings.HasPrefix(body, "{") { // curl -d sends it as a form
		var in struct{ Rule, Reason string }
		d := json.NewDecoder(strings.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil {
			return "", "", fmt.Errorf("the JSON object must have the strings rule and reason: %w", err)
		}
		return in.Rule, in.Reason, nil
	}
	if body == "" {
		body = r.URL.RawQuery
	}
	form, err := url.ParseQuery(body)
	if err != nil {
		return "", "", fmt.Errorf("the form cannot be read: %w", err)
	}
	if len(form["rule"]) > 1 || len(form["reason"]) > 1 {
		return "", "", errors.New("one rule and one reason in each request")
	}
	return form.Get("rule"), form.Get("reason"), nil
}

// serveAsks answers GET /ask.
func (g *Gateway) serveAsks(w http.ResponseWriter, _ *http.Request) {
	plain(w, "text/plain; charset=utf-8")
	fmt.Fprint(w, "To ask the user for a rule:\n"+askExample()+"\nYour requests:\n")
	list := g.AccessRequests()
	for _, a := range list {
		fmt.Fprintf(w, "  %-7s %s  %s (%s)\n", a.State, a.Time.Local().Format("15:04:05"), text.Line(a.Rule), text.Line(a.Reason))
	}
	if len(list) == 0 {
		fmt.Fprint(w, "  none\n")
	}
}
