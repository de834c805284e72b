// Package apitest holds HTTP exchanges against api/openapi.yaml. It is for tests
// only, and needs neither a database nor a server: whoever has made an exchange,
// in process or over the wire, hands it in.
//
// The document is a promise about both sides, so both are looked at: an answer
// must be documented, with all that it has, and a request that was accepted must
// be one that the document allows.
package apitest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/oncepay/oncepay/api"
)

// Check fails the test if the exchange is not as openapi.yaml says. The bodies are
// given apart, because reading them from req and res uses them up; both may be nil.
func Check(t testing.TB, req *http.Request, reqBody []byte, res *http.Response, resBody []byte) {
	t.Helper()
	if err := Problem(req, reqBody, res, resBody); err != nil {
		t.Errorf("apitest: %s %s answered %d: %v", req.Method, req.URL.Path, res.StatusCode, err)
	}
}

// Problem says what is wrong with an exchange, or returns nil.
func Problem(req *http.Request, reqBody []byte, res *http.Response, resBody []byte) error {
	if isGoServersOwn(res) {
		return nil
	}
	d, err := Load()
	if err != nil {
		return err
	}
	route, params := d.find(req.Method, req.URL.EscapedPath())
	resBody, styled, err := d.asEnvelope(res, resBody)
	switch {
	case err != nil:
		return err
	case styled && resBody == nil:
		if route != nil && route.Operation.Responses.Status(res.StatusCode) == nil {
			return errors.New("the operation has no such status")
		}
		return nil
	case styled:
		plain := *res
		plain.Header = res.Header.Clone()
		plain.Header.Set("Content-Type", "application/json")
		res = &plain
	}
	if route == nil || isUnrouted(res, resBody) {
		return d.unrouted(res, resBody)
	}
	input := &openapi3filter.RequestValidationInput{
		Request: copyOf(req, reqBody), PathParams: params, Route: route, QueryParams: req.URL.Query(), Options: options,
	}
	if wasValid(res, resBody) && !mayBeSilentReplay(req, res) {
		if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
			return fmt.Errorf("it was accepted, but the document does not allow it: %w", err)
		}
	}
	return openapi3filter.ValidateResponse(context.Background(), (&openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: res.StatusCode, Header: res.Header, Options: options,
	}).SetBodyBytes(resBody))
}

// Document is openapi.yaml, ready to check against.
type Document struct {
	// Spec is the document, made stricter: an answer's object has no members but
	// those that are named.
	Spec *openapi3.T
}

// Load reads the document once. The first call returns what all later ones do.
var Load = sync.OnceValues(func() (*Document, error) {
	spec, err := openapi3.NewLoader().LoadFromData(api.Document)
	if err != nil {
		return nil, fmt.Errorf("openapi.yaml cannot be read: %w", err)
	}
	// On a 3.1 document the validator compiles each schema again for each request.
	// What the document uses of 3.1 (null as a type, numbers as exclusive bounds),
	// the other validator understands as well.
	spec.OpenAPI = "3.0.3"
	makeStrict(spec)
	for _, style := range []string{"NestError", "Problem"} { // no operation names them
		closeObjects(spec.Components.Schemas[style], map[*openapi3.Schema]bool{})
	}
	for _, media := range []string{"text/html", "text/css", "text/javascript"} { // unknown to the validator
		openapi3filter.RegisterBodyDecoder(media, openapi3filter.PlainBodyDecoder)
	}
	return &Document{spec}, nil
})

var options = &openapi3filter.Options{
	IncludeResponseStatus:             true,
	RejectWhenRequestBodyNotSpecified: true,
	SkipSettingDefaults:               true,
	AuthenticationFunc:                credentialsGiven,
}

// credentialsGiven knows nothing of who is who: only that an accepted request has
// shown something.
func credentialsGiven(_ context.Context, in *openapi3filter.AuthenticationInput) error {
	header := in.RequestValidationInput.Request.Header
	name := in.SecurityScheme.Name
	if in.SecurityScheme.Type == "http" {
		name = "Authorization"
	}
	if header.Get(name) == "" {
		return errors.New("without the header " + name)
	}
	return nil
}

// isGoServersOwn reports whether Go's HTTP server refused the request before we
// saw it, in its own plain text. The document says so once, for all operations.
func isGoServersOwn(res *http.Response) bool {
	switch res.StatusCode {
	case http.StatusBadRequest, http.StatusExpectationFailed, http.StatusRequestHeaderFieldsTooLarge,
		http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return res.Header.Get("X-Request-Id") == "" && strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain")
	}
	return false
}

// wasValid reports whether the answer says that the request was a valid one. A 4xx
// doesn't; nor does a replay with another body, which may be any body at all; nor
// what can go wrong before a request is looked at.
func wasValid(res *http.Response, body []byte) bool {
	switch {
	case res.StatusCode >= 400 && res.StatusCode < 500, res.Header.Get("Idempotency-Body-Mismatch") != "":
		return false
	case res.StatusCode == http.StatusInternalServerError, res.StatusCode == http.StatusServiceUnavailable:
		return bytes.Contains(body, []byte(`"PROVIDER_`))
	}
	return true
}

// mayBeSilentReplay reports whether an answer may be the first one of another body
// without saying so: a policy that reads keys in live mode alone marks nothing, and
// keeps errors, too; what it has answered is told so under another policy as well.
func mayBeSilentReplay(req *http.Request, res *http.Response) bool {
	return (res.StatusCode < 300 || res.StatusCode >= 500) && (req.Header.Get("Idempotency-Key") != "" || req.Header.Get("X-Idempotency-Key") != "") && strings.HasPrefix(req.Header.Get("public-api-key"), "prod_")
}

// isUnrouted reports whether the answer is one that no operation gives. A listener
// gives it to what is mounted on the other one, too.
func isUnrouted(res *http.Response, body []byte) bool {
	return res.StatusCode == http.StatusNotFound && bytes.Contains(body, []byte(`"there is nothing at this path"`))
}

// unrouted checks an answer to a request that no operation of the document is
// meant by.
func (d *Document) unrouted(res *http.Response, body []byte) error {
	name, known := map[int]string{
		http.StatusNotFound: "NoSuchPath", http.StatusMethodNotAllowed: "NoSuchMethod", http.StatusUnauthorized: "Unauthorized",
		http.StatusTooManyRequests: "RateLimited", http.StatusServiceUnavailable: "DatabaseAway",
	}[res.StatusCode]
	if !known {
		return errors.New("the document has no such operation")
	}
	operation := &openapi3.Operation{Responses: openapi3.NewResponses(openapi3.WithStatus(res.StatusCode, d.Spec.Components.Responses[name]))}
	return openapi3filter.ValidateResponse(context.Background(), (&openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: &http.Request{}, Route: &routers.Route{Spec: d.Spec, Operation: operation}},
		Status:                 res.StatusCode, Header: res.Header, Options: options,
	}).SetBodyBytes(body))
}

// find is the operation that a request means, with its path parameters decoded.
// It goes by the path as it was sent: a nonce may hold an encoded slash.
func (d *Document) find(method, escapedPath string) (*routers.Route, map[string]string) {
	segments := strings.Split(escapedPath, "/")
	for path, item := range d.Spec.Paths.Map() {
		operation := item.GetOperation(method)
		if operation == nil {
			continue
		}
		if params, ok := match(strings.Split(path, "/"), segments); ok {
			return &routers.Route{Spec: d.Spec, Path: path, PathItem: item, Method: method, Operation: operation}, params
		}
	}
	return nil, nil
}

func match(template, segments []string) (params map[string]string, ok bool) {
	if len(template) != len(segments) {
		return nil, false
	}
	params = map[string]string{}
	for i, want := range template {
		name, isParam := strings.CutPrefix(want, "{")
		switch value, err := url.PathUnescape(segments[i]); {
		case !isParam && want != segments[i]:
			return nil, false
		case isParam && err != nil:
			return nil, false
		case isParam:
			params[strings.TrimSuffix(name, "}")] = value
		}
	}
	return params, true
}

// copyOf is req for the validator, which reads and changes what it is given.
func copyOf(req *http.Request, body []byte) *http.Request {
	c := req.Clone(context.Background())
	if c.Header.Get("Content-Encoding") == "gzip" {
		body = unpacked(body)
		c.Header.Del("Content-Encoding")
	}
	c.Body, c.ContentLength, c.GetBody = http.NoBody, int64(len(body)), nil
	if len(body) > 0 {
		c.Body = io.NopCloser(bytes.NewReader(body))
	}
	return c
}

// unpacked is what is packed in body; nothing, where that is not gzip.
func unpacked(body []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		return nil
	}
	return plain
}

// makeStrict lets no answer have a member that the document does not name. The
// document itself leaves that open: a client has to expect new members.
func makeStrict(spec *openapi3.T) {
	seen := map[*openapi3.Schema]bool{}
	response := func(r *openapi3.ResponseRef) {
		for _, m := range r.Value.Content {
			closeObjects(m.Schema, seen)
		}
	}
	for _, r := range spec.Components.Responses {
		response(r)
	}
	for _, item := range spec.Paths.Map() {
		for _, operation := range item.Operations() {
			for _, r := range operation.Responses.Map() {
				response(r)
			}
		}
	}
}

// closeObjects closes every object below ref that names its members and does not
// say that there may be others. A schema without a type only adds to another one.
func closeObjects(ref *openapi3.SchemaRef, seen map[*openapi3.Schema]bool) {
	if ref == nil || ref.Value == nil || seen[ref.Value] {
		return
	}
	s := ref.Value
	seen[s] = true
	if s.Type.Is(openapi3.TypeObject) && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
		none := false
		s.AdditionalProperties.Has = &none
	}
	for _, property := range s.Properties {
		closeObjects(property, seen)
	}
	for _, part := range s.AllOf {
		closeObjects(part, seen)
	}
	closeObjects(s.Items, seen)
}
