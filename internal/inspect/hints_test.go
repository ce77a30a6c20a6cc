package inspect

import (
	"context"
	"fmt"
	"net/http/httptrace"
	"net/textproto"
)

// withHints sends the Link header of an informational answer to got.
func withHints(ctx context.Context, got chan<- string) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		got <- fmt.Sprint(h)
		return nil
	}})
}
