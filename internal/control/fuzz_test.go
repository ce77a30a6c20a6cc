package control_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"bawn.dev/bawn/internal/control"
)

// FuzzRequests sends bodies to every request of a supervisor: each is answered, malformed
// ones with an error.
func FuzzRequests(f *testing.F) {
	paths := []string{"/stop", "/suspend", "/snapshot", "/ports", "/policy/once", "/policy/reload", "/policy/forget", "/log/settle", "/shares/follow"}
	for i, body := range []string{`{"force":true}`, ``, `"/snapshots/one"`, `{"add":[{"host":1,"guest":2}],"remove":[3]}`, `"allow example.com"`, `null`, `[`, `{}{}`, `[[[[`} {
		f.Add(i, []byte(body))
	}
	f.Fuzz(func(t *testing.T, which int, body []byte) {
		path := paths[uint(which)%uint(len(paths))]
		w := httptest.NewRecorder()
		control.Handler(&standIn{}).ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
		switch w.Code {
		case http.StatusOK, http.StatusBadRequest, http.StatusUnprocessableEntity:
		default:
			t.Errorf("%s: status %d", path, w.Code)
		}
	})
}
