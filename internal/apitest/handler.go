package apitest

import (
	"bytes"
	"io"
	"net/http"
)

// Failer is the part of a test that Handler needs.
type Failer interface {
	Helper()
	Errorf(format string, args ...any)
}

// Handler is h, and fails the test for each exchange that is not as openapi.yaml
// says. So a test need not think of it, whatever its clients are: those that write
// their requests by hand, and those that hang up.
func Handler(t Failer, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Helper()
		var sent bytes.Buffer
		asked := r.Clone(r.Context())
		body := r.Body
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(body, &sent), body}
		answer := &recording{ResponseWriter: w, status: http.StatusOK}
		h.ServeHTTP(answer, r)
		res := &http.Response{StatusCode: answer.status, Header: w.Header()}
		if err := Problem(asked, sent.Bytes(), res, answer.body.Bytes()); err != nil {
			t.Errorf("apitest: %s %s answered %d: %v", r.Method, r.URL.Path, answer.status, err)
		}
	})
}

// recording keeps what is answered.
type recording struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

// WriteHeader implements http.ResponseWriter.
func (r *recording) WriteHeader(status int) {
	if status >= http.StatusOK { // others come in front of the answer
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recording) Write(b []byte) (int, error) {
	r.body.Write(b)
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *recording) Unwrap() http.ResponseWriter { return r.ResponseWriter }
