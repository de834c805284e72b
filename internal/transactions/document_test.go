package transactions

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/jsontree"
)

// TestWhatIsAcceptedIsAsTheDocumentSays puts every kind of value into every place that
// the API document names of a payment, a capture, a cancellation or a refund. What is
// accepted, the document must allow: a client that goes by it must be able to tell what
// we will make of its request.
func TestWhatIsAcceptedIsAsTheDocumentSays(t *testing.T) {
	t.Parallel()
	const account = "0198c2f3-7777-7777-8888-999999999999"
	const action = `{"merchant_reference":"reference","reason":"REQUESTED_BY_CUSTOMER","amount":{"currency":"USD","value":45.67}}`
	acts := func(route Route) func(jsontree.Value) error {
		return func(body jsontree.Value) error { _, err := parseAction(body, route); return err }
	}
	for schema, c := range map[string]struct {
		good  string
		parse func(body jsontree.Value) error
		least int // so many accepted bodies say something
	}{
		"CreatePayment": {
			`{"account_id":"` + account + `","merchant_order_id":"order","description":"A test","country":"US","amount":{"currency":"USD","value":45.67},
				"payment_method":{"type":"CARD","detail":{"card":{"card_data":{"number":"4111111111111111","expiration_month":11,"expiration_year":28}}}}}`,
			func(body jsontree.Value) error {
				_, err := parseRequest(body, rules{uuid.MustParse(account), CardRules{rawCards: true, fingerprint: func(string) string { return "keyed" }}})
				return err
			}, 80,
		},
		"Capture":        {action, acts(RouteCapture), 30},
		"Cancel":         {action, acts(RouteCancel), 30},
		"Refund":         {action, acts(RouteRefund), 30},
		"CancelOrRefund": {action, acts(RouteCancelOrRefund), 30},
	} {
		t.Run(schema, func(t *testing.T) {
			t.Parallel()
			d, err := apitest.Load()
			if err != nil {
				t.Fatal(err)
			}
			accepted, tried := allowedAsAccepted(t, d.Spec.Components.Schemas[schema].Value, c.good, c.parse)
			if accepted < c.least || tried < 3*accepted {
				t.Errorf("%d of %d bodies were accepted: that says little", accepted, tried)
			}
		})
	}
}

// allowedAsAccepted fails the test for each body that parse accepts and schema does not
// allow.
func allowedAsAccepted(t *testing.T, schema *openapi3.Schema, good string, parse func(jsontree.Value) error) (accepted, tried int) {
	t.Helper()
	values := []string{
		"null", "true", "false", "0", "1", "-1", "1.5", "28", "1e400", `""`, `" "`, `"x"`, `"123"`, `"text"`, `"4111111111111111"`,
		`"0198c2f3-7777-7777-8888-999999999999"`, `"DUPLICATE"`, `"REVERSE"`, `"PRODUCT_CONFIRMED"`, `"JPY"`, `"12.34"`,
		"[]", "{}", "[1]", `["text"]`, "[{}]", `[{"key":"k","value":"v"}]`, `{"":0}`, `{"text":"text"}`, `{"currency":"KWD","value":"0.001"}`,
	}
	for _, path := range places(schema, nil) {
		for _, value := range values {
			body := put(t, good, path, value)
			tree, err := jsontree.Parse(body)
			if err != nil {
				continue // not JSON to us
			}
			tried++
			if parse(tree) != nil {
				continue
			}
			accepted++
			var read any
			if err := json.Unmarshal(body, &read); err != nil {
				t.Fatal(err)
			}
			if err := schema.VisitJSON(read); err != nil {
				t.Errorf("%v may be %s, but not by the document: %v", path, value, err)
			}
		}
	}
	return accepted, tried
}

// places are the paths of all members that an object of this schema may have.
func places(s *openapi3.Schema, above []string) (paths [][]string) {
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		path := append(slices.Clone(above), name)
		paths = append(append(paths, path), places(s.Properties[name].Value, path)...)
	}
	return paths
}

// put is body with a value at a path, in objects that are made as needed.
func put(t *testing.T, body string, path []string, value string) []byte {
	t.Helper()
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(body), &members); err != nil {
		t.Fatal(err)
	}
	if len(path) == 1 {
		members[path[0]] = json.RawMessage(value)
	} else {
		inner := members[path[0]]
		if inner == nil || bytes.Equal(inner, []byte("null")) {
			inner = []byte("{}")
		}
		members[path[0]] = put(t, string(inner), path[1:], value)
	}
	changed, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}
