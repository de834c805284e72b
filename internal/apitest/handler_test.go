package apitest

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestHandlerChecksWhatItsHandlerDoes, however the request came.
func TestHandlerChecksWhatItsHandlerDoes(t *testing.T) {
	t.Parallel()
	x := created(t)
	for name, c := range map[string]struct {
		status, failures int
		body             []byte
	}{
		"as the document says":      {x.status, 0, x.body},
		"an answer that it has not": {http.StatusTeapot, 1, x.body},
		"a request that it has not": {x.status, 1, []byte(`{"account_id":7}`)},
	} {
		r := &recorder{TB: t}
		h := Handler(r, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if got, err := io.ReadAll(req.Body); err != nil || !bytes.Equal(got, c.body) {
				t.Errorf("%s: the handler reads %q (%v)", name, got, err)
			}
			maps.Copy(w.Header(), x.answered)
			w.WriteHeader(c.status)
			_, _ = w.Write(x.answer)
		}))
		req := httptest.NewRequest(x.method, x.target, bytes.NewReader(c.body))
		maps.Copy(req.Header, x.header)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		if rec.Code != c.status || !bytes.Equal(rec.Body.Bytes(), x.answer) {
			t.Errorf("%s: the client is told %d %s", name, rec.Code, rec.Body)
		}
		if r.failures != c.failures {
			t.Errorf("%s: the test failed %d times, want %d", name, r.failures, c.failures)
		}
	}
}
