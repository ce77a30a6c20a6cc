package egress

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/text"
)

// allowCommand is the command of the host that adds a rule. The pages that the guest reads
// name it, so that an agent can ask for the rule that it needs.
const allowCommand = "bawn policy allow"

// page returns an HTTP answer about the flow itself: the rule that would let it
// through.
func (f *flow) page(reason string) []byte {
	return errorPage(http.StatusForbidden, reason, f.g.suggest(f.to))
}

// errorPage returns an HTTP answer of bawn's own, for people and agents to read.
// suggest is the rule that is missing, or empty.
func errorPage(status int, reason, suggest string) []byte {
	body := errorText(status, reason, suggest)
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nX-Bawn: denied\r\nConnection: close\r\n\r\n",
		status, http.StatusText(status), len(body))
	b.Write(body)
	return b.Bytes()
}

// errorText returns the body of errorPage.
func errorText(status int, reason, suggest string) []byte {
	var body bytes.Buffer
	fmt.Fprintf(&body, "bawn: %s: %s\n", strings.ToLower(http.StatusText(status)), text.Line(reason))
	if suggest != "" && status == 403 {
		fmt.Fprintf(&body, "The missing rule: %s\n", text.Line(suggest))
		if x, err := policy.ExposureOf(suggest, policy.Host{}); err == nil && x.Opens != "" {
			fmt.Fprintf(&body, "The rule would open %s.\n", text.Line(x.Opens))
		}
		fmt.Fprintf(&body, "To allow it, the user runs this on the host: %s %s\n", allowCommand, text.Line(text.ShellWord(suggest)))
		fmt.Fprintf(&body, "To ask the user for it: %s\n", askCommand(text.Line(text.ShellWord("rule="+suggest))))
	}
	fmt.Fprintf(&body, "All rules and the latest denials: http://%s/\n", policy.InfoName)
	return body.Bytes()
}
