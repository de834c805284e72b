package apierr

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

var styles = []Style{Envelope, Nest, Problem}

// TestEachStyleIsWrittenByteForByteAsItsClientsReadIt: merchants compare bytes, too: an
// error that a policy keeps must come back as it went.
func TestEachStyleIsWrittenByteForByteAsItsClientsReadIt(t *testing.T) {
	t.Parallel()
	none := New(PaymentNotFound)
	one := New(InvalidAmount, "$.amount.value must be above 0")
	several := New(MissingParameters, "$.country is required", "$.amount is required")
	reused := New(IdempotencyKeyReused, "Idempotency-Key was used with another body; use a new key").AboutKey("Idempotency-Key is already used")
	busy := New(RequestInProcess, "come back").Retry(7).AboutKey("a request is outstanding")
	slow := New(RequestTimeout, "the body did not arrive in time").WithStatus(http.StatusRequestTimeout)
	odd := New(InvalidParameters, "$[\"<a>&\u2028\u00e9\\\n\"] must be a string")
	for name, c := range map[string]struct {
		e     *Error
		wants [3]string // envelope, nest, problem
	}{
		"no message": {none, [3]string{
			`{"code":"PAYMENT_NOT_FOUND","messages":["payment not found"],"request_id":"r-1","doc_url":"/docs/errors/PAYMENT_NOT_FOUND"}`,
			`{"message":"payment not found","error":"Bad Request","statusCode":400}`,
			`{"type":"/docs/errors/PAYMENT_NOT_FOUND","title":"Payment not found","status":400,"detail":"payment not found","code":"PAYMENT_NOT_FOUND","request_id":"r-1"}`,
		}},
		"one message": {one, [3]string{
			`{"code":"INVALID_AMOUNT","messages":["$.amount.value must be above 0"],"request_id":"r-1","doc_url":"/docs/errors/INVALID_AMOUNT"}`,
			`{"message":"$.amount.value must be above 0","error":"Bad Request","statusCode":400}`,
			`{"type":"/docs/errors/INVALID_AMOUNT","title":"Invalid amount","status":400,"detail":"$.amount.value must be above 0","code":"INVALID_AMOUNT","request_id":"r-1"}`,
		}},
		"several": {several, [3]string{
			`{"code":"MISSING_PARAMETERS","messages":["$.country is required","$.amount is required"],"request_id":"r-1","doc_url":"/docs/errors/MISSING_PARAMETERS"}`,
			`{"message":["$.country is required","$.amount is required"],"error":"Bad Request","statusCode":400}`,
			`{"type":"/docs/errors/MISSING_PARAMETERS","title":"Missing parameters","status":400,"detail":"$.country is required; $.amount is required","code":"MISSING_PARAMETERS","request_id":"r-1"}`,
		}},
		"about the key": {reused, [3]string{
			`{"code":"IDEMPOTENCY_KEY_REUSED","messages":["Idempotency-Key was used with another body; use a new key"],"request_id":"r-1","doc_url":"/docs/errors/IDEMPOTENCY_KEY_REUSED"}`,
			`{"message":"Idempotency-Key was used with another body; use a new key","error":"Unprocessable Entity","statusCode":422}`,
			`{"type":"/docs/idempotency","title":"Idempotency-Key is already used","status":422,"detail":"Idempotency-Key was used with another body; use a new key","code":"IDEMPOTENCY_KEY_REUSED","request_id":"r-1"}`,
		}},
		"about the key, with Retry-After, in lower case": {busy, [3]string{
			`{"code":"REQUEST_IN_PROCESS","messages":["come back"],"request_id":"r-1","doc_url":"/docs/errors/REQUEST_IN_PROCESS"}`,
			`{"message":"come back","error":"Conflict","statusCode":409}`,
			`{"type":"/docs/idempotency","title":"A request is outstanding","status":409,"detail":"come back","code":"REQUEST_IN_PROCESS","request_id":"r-1"}`,
		}},
		"another status than its code's": {slow, [3]string{
			`{"code":"REQUEST_TIMEOUT","messages":["the body did not arrive in time"],"request_id":"r-1","doc_url":"/docs/errors/REQUEST_TIMEOUT"}`,
			`{"message":"the body did not arrive in time","error":"Request Timeout","statusCode":408}`,
			`{"type":"/docs/errors/REQUEST_TIMEOUT","title":"Request timeout","status":408,"detail":"the body did not arrive in time","code":"REQUEST_TIMEOUT","request_id":"r-1"}`,
		}},
		"what JSON must escape": {odd, [3]string{
			`{"code":"INVALID_PARAMETERS","messages":["$[\"\u003ca\u003e\u0026\u2028é\\\n\"] must be a string"],"request_id":"r-1","doc_url":"/docs/errors/INVALID_PARAMETERS"}`,
			`{"message":"$[\"\u003ca\u003e\u0026\u2028é\\\n\"] must be a string","error":"Bad Request","statusCode":400}`,
			`{"type":"/docs/errors/INVALID_PARAMETERS","title":"Invalid parameters","status":400,"detail":"$[\"\u003ca\u003e\u0026\u2028é\\\n\"] must be a string","code":"INVALID_PARAMETERS","request_id":"r-1"}`,
		}},
	} {
		for i, style := range styles {
			if got := string(c.e.In(style, "r-1")); got != c.wants[i]+"\n" {
				t.Errorf("%s, %s:\n got %s want %s", name, style, got, c.wants[i])
			}
		}
		if !bytes.Equal(c.e.Body("r-1"), c.e.In(Envelope, "r-1")) {
			t.Errorf("%s: Body is not the envelope", name)
		}
	}
}

func TestEveryCodeInEveryStyleHasItsFieldsAndNoOthers(t *testing.T) {
	t.Parallel()
	fields := map[Style][]string{
		Envelope: {"code", "doc_url", "messages", "request_id"},
		Nest:     {"error", "message", "statusCode"},
		Problem:  {"code", "detail", "request_id", "status", "title", "type"},
	}
	for _, c := range Codes() {
		for _, e := range []*Error{
			New(c), New(c, "one"), New(c, "one", "two"), New(c, "one").Retry(60), New(c, "one").AboutKey("of the key"), New(c).WithStatus(http.StatusTeapot),
		} {
			for _, style := range styles {
				body := e.In(style, "r-1")
				var got map[string]any
				if err := json.Unmarshal(body, &got); err != nil || !bytes.HasSuffix(body, []byte("}\n")) || bytes.Count(body, []byte("\n")) != 1 {
					t.Fatalf("%s, %s: not one line of JSON: %q (%v)", c, style, body, err)
				}
				if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, fields[style]) {
					t.Errorf("%s, %s: the members are %q", c, style, names)
				}
				if bytes.Contains(body, []byte("60")) {
					t.Errorf("%s, %s: Retry-After is a header, not a member: %s", c, style, body)
				}
				holdsTogether(t, e, style, got)
			}
		}
	}
}

// holdsTogether checks what the members of an error say.
func holdsTogether(t *testing.T, e *Error, style Style, got map[string]any) {
	t.Helper()
	said := e.Messages
	if len(said) == 0 {
		said = []string{strings.ToLower(strings.ReplaceAll(string(e.Code), "_", " "))}
	}
	var listed []any
	for _, m := range said {
		listed = append(listed, m)
	}
	ok := true
	is := func(member string, want any) { ok = ok && got[member] == want }
	switch style {
	case Envelope:
		messages, _ := got["messages"].([]any)
		ok = slices.Equal(messages, listed)
		is("code", string(e.Code))
		is("request_id", "r-1")
		is("doc_url", "/docs/errors/"+string(e.Code))
	case Nest:
		if len(said) == 1 {
			is("message", said[0])
		} else {
			messages, _ := got["message"].([]any)
			ok = slices.Equal(messages, listed)
		}
		is("error", http.StatusText(e.Status))
		is("statusCode", float64(e.Status))
		ok = ok && got["error"] != ""
	case Problem:
		is("status", float64(e.Status))
		is("detail", strings.Join(said, "; "))
		is("code", string(e.Code))
		is("request_id", "r-1")
		if e.KeyProblem == "" {
			is("type", "/docs/errors/"+string(e.Code))
		} else {
			is("type", SpecificationPath)
			is("title", "Of the key")
		}
		title, _ := got["title"].(string)
		ok = ok && title != "" && title[0] >= 'A' && title[0] <= 'Z'
	}
	if !ok {
		t.Errorf("%v (status %d), %s: %v", e, e.Status, style, got)
	}
}

func TestStylesAreThreeAndSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	for style, c := range map[Style]struct{ contentType, link string }{
		Envelope: {"application/json", ""},
		Nest:     {"application/json", ""},
		Problem:  {"application/problem+json", `</docs/idempotency>; rel="describedby"; type="text/html"`},
	} {
		if !style.Known() || style.ContentType() != c.contentType || style.Link() != c.link {
			t.Errorf("%s: known %t, %q, %q", style, style.Known(), style.ContentType(), style.Link())
		}
	}
	for _, style := range []Style{"", "ENVELOPE", "problem+json", "xml"} {
		if style.Known() {
			t.Errorf("%q is known", style)
		}
		// Whoever gets there still answers with something that a client can read.
		if got, want := New(NotFound, "m").In(style, "r"), New(NotFound, "m").In(Envelope, "r"); !bytes.Equal(got, want) || style.ContentType() != "application/json" || style.Link() != "" {
			t.Errorf("%q is written as %s", style, got)
		}
	}
}

// TestWritingAnErrorChangesNothingOfIt: many requests share one.
func TestWritingAnErrorChangesNothingOfIt(t *testing.T) {
	t.Parallel()
	e := New(MissingParameters, "b", "a")
	for range 2 {
		for _, style := range styles {
			_ = e.In(style, "r")
		}
	}
	about := e.AboutKey("title")
	if !slices.Equal(e.Messages, []string{"b", "a"}) || e.KeyProblem != "" || e.RetryAfter != 0 || about.KeyProblem != "title" || about.Code != e.Code || about.Status != e.Status {
		t.Errorf("it is %+v now, and about the key %+v", e, about)
	}
}
