package apierr

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Style is how an error looks on the wire. Teams come with clients that read one of
// them already.
type Style string

// The styles.
const (
	// Envelope is the contract's own: code, messages, request_id and doc_url.
	Envelope Style = "envelope"
	// Nest is that of servers built with NestJS: message, error and statusCode.
	Nest Style = "nest"
	// Problem is RFC 9457, application/problem+json.
	Problem Style = "problem"
)

// SpecificationPath is where each listener serves the page that says what an
// idempotency key is here: the draft standard asks for one that is published, and for
// errors that lead to it.
const SpecificationPath = "/docs/idempotency"

// Known says whether there is such a style.
func (s Style) Known() bool { return s == Envelope || s == Nest || s == Problem }

// ContentType is the media type of an error in this style.
func (s Style) ContentType() string {
	if s == Problem {
		return "application/problem+json"
	}
	return "application/json"
}

// Link is the Link header of an error in this style; "": there is none.
func (s Style) Link() string {
	if s == Problem {
		return "<" + SpecificationPath + `>; rel="describedby"; type="text/html"`
	}
	return ""
}

// Body is the error as the contract has it.
func (e *Error) Body(requestID string) []byte { return e.In(Envelope, requestID) }

// In is the error as it goes on the wire in a style: one line of JSON.
func (e *Error) In(style Style, requestID string) []byte {
	messages := e.Messages
	if len(messages) == 0 {
		messages = []string{e.words()}
	}
	switch style {
	case Nest:
		// A list where there is more than one thing to say, as its validation does.
		var message any = messages
		if len(messages) == 1 {
			message = messages[0]
		}
		return encoded(struct {
			Message    any    `json:"message"`
			Error      string `json:"error"`
			StatusCode int    `json:"statusCode"`
		}{message, http.StatusText(e.Status), e.Status})
	case Problem:
		kind, title := DocPath(e.Code), e.words()
		if e.KeyProblem != "" {
			kind, title = SpecificationPath, e.KeyProblem
		}
		return encoded(struct {
			Type      string `json:"type"`
			Title     string `json:"title"`
			Status    int    `json:"status"`
			Detail    string `json:"detail"`
			Code      Code   `json:"code"`
			RequestID string `json:"request_id"`
		}{kind, strings.ToUpper(title[:1]) + title[1:], e.Status, strings.Join(messages, "; "), e.Code, requestID})
	case Envelope:
	}
	return encoded(struct {
		Code      Code     `json:"code"`
		Messages  []string `json:"messages"`
		RequestID string   `json:"request_id"`
		DocURL    string   `json:"doc_url"`
	}{e.Code, messages, requestID, DocPath(e.Code)})
}

// words are the code as one says it.
func (e *Error) words() string { return strings.ToLower(strings.ReplaceAll(string(e.Code), "_", " ")) }

func encoded(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers
	}
	return append(b, '\n')
}
