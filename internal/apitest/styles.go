package apitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/getkin/kin-openapi/openapi3"
)

// problemType is the media type of an error in the style of RFC 9457.
const problemType = "application/problem+json"

// problemLink is the header that goes with it.
const problemLink = `</docs/idempotency>; rel="describedby"; type="text/html"`

// asEnvelope takes an error back from the style in which a policy has it written. The
// document says once how the styles differ, and for each operation what its errors are
// in the contract's own; the answer is held against both.
//
// An error without a code says less than the contract's, so only its status is left to
// be held against the operation: then body is nil.
func (d *Document) asEnvelope(res *http.Response, body []byte) (envelope []byte, styled bool, err error) {
	switch {
	case res.StatusCode < http.StatusBadRequest:
		return body, false, nil
	case res.Header.Get("Content-Type") == problemType:
		envelope, err = d.fromProblem(res, body)
		return envelope, true, err
	case bytes.Contains(body, []byte(`"statusCode":`)):
		return nil, true, d.fits("NestError", res, body, "statusCode")
	}
	return body, false, nil
}

func (d *Document) fromProblem(res *http.Response, body []byte) ([]byte, error) {
	if link := res.Header.Get("Link"); link != problemLink {
		return nil, fmt.Errorf("the problem's Link is %q", link)
	}
	if err := d.fits("Problem", res, body, "status"); err != nil {
		return nil, err
	}
	var p struct {
		Detail    string `json:"detail"`
		Code      string `json:"code"`
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"code": p.Code, "messages": []string{p.Detail}, "request_id": p.RequestID, "doc_url": "/docs/errors/" + p.Code,
	})
}

// fits holds an error against one of the document's schemas; its member of that name
// repeats the status.
func (d *Document) fits(schema string, res *http.Response, body []byte, status string) error {
	var v map[string]any
	if err := json.Unmarshal(body, &v); err != nil {
		return err
	}
	if said, ok := v[status].(float64); !ok || int(said) != res.StatusCode {
		return errors.New("its " + status + " is not that of the answer")
	}
	return d.Spec.Components.Schemas[schema].Value.VisitJSON(v, openapi3.MultiErrors())
}
