package api_test

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/api"
	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
)

// load reads the document once; nobody changes it.
var load = sync.OnceValues(func() (*openapi3.T, error) { return openapi3.NewLoader().LoadFromData(api.Document) })

// document is openapi.yaml as it stands.
func document(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// strict is openapi.yaml as exchanges are checked against it.
func strict(t *testing.T) *openapi3.T {
	t.Helper()
	d, err := apitest.Load()
	if err != nil {
		t.Fatal(err)
	}
	return d.Spec
}

// operation is one operation of the document.
type operation struct {
	name   string // method and path
	path   string
	method string
	*openapi3.Operation
}

func operations(doc *openapi3.T) []operation {
	var all []operation
	for path, item := range doc.Paths.Map() {
		for method, o := range item.Operations() {
			all = append(all, operation{method + " " + path, path, method, o})
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return cmp.Compare(a.name, b.name) })
	return all
}

// answer is one response of the document, shared or not.
type answer struct {
	name   string
	status int
	*openapi3.Response
}

// answers are every operation's, and those that no operation gives.
func answers(t *testing.T, doc *openapi3.T) []answer {
	t.Helper()
	var all []answer
	for _, o := range operations(doc) {
		for code, r := range o.Responses.Map() {
			status, err := strconv.Atoi(code)
			if err != nil {
				t.Fatalf("%s: %s is no status: answer by answer, without default", o.name, code)
			}
			all = append(all, answer{o.name + " " + code, status, r.Value})
		}
	}
	return append(all,
		answer{"NoSuchPath", http.StatusNotFound, doc.Components.Responses["NoSuchPath"].Value},
		answer{"NoSuchMethod", http.StatusMethodNotAllowed, doc.Components.Responses["NoSuchMethod"].Value})
}

// unready is the one answer above 400 that is no error: it is what was asked for.
const unready = "GET " + httpapi.ReadyzPath + " 503"

// codes are the error codes that an answer may have; none if it is no error.
func (a answer) codes() []apierr.Code {
	var all []apierr.Code
	content := a.Content.Get(echo.MIMEApplicationJSON)
	if content == nil {
		return nil
	}
	for _, part := range content.Schema.Value.AllOf {
		if part.Ref != "" {
			continue
		}
		for _, code := range part.Value.Properties["code"].Value.Enum {
			s, _ := code.(string)
			all = append(all, apierr.Code(s))
		}
	}
	return all
}

func TestDocumentIsValidOpenAPI31(t *testing.T) {
	t.Parallel()
	doc := document(t)
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("openapi is %s", doc.OpenAPI)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEveryOperationSaysWhoMayCallIt(t *testing.T) {
	t.Parallel()
	doc := document(t)
	for _, o := range operations(doc) {
		security := doc.Security
		if o.Security != nil {
			security = *o.Security
		}
		var schemes []string
		for _, s := range security {
			schemes = append(schemes, slices.Sorted(maps.Keys(s))...)
		}
		want := []string{"publicKey", "secretKey"}
		switch {
		case slices.Contains([]string{"/metrics", httpapi.LivezPath, httpapi.ReadyzPath}, o.path),
			slices.Contains(o.Tags, "Documentation"),
			slices.Contains(o.Tags, "Providers"): // who signs what they say
			want = nil
		case strings.HasPrefix(o.path, "/admin/"):
			want = []string{"adminToken"}
		case slices.Contains(o.Tags, "Checkout") && len(security) == 2: // browsers, too, show the public key alone
			want = []string{"publicKey", "secretKey", "publicKey"}
		case slices.Contains(o.Tags, "Checkout") && len(schemes) == 1: // nobody else
			want = []string{"publicKey"}
		}
		if !slices.Equal(schemes, want) {
			t.Errorf("%s asks for %v, want %v", o.name, schemes, want)
		}
		if want != nil && o.Responses.Value("401") == nil {
			t.Errorf("%s asks for credentials, and has no 401", o.name)
		}
	}
}

// TestEveryExampleFitsItsSchema also holds the examples of answers to having no
// member that the schema does not name.
func TestEveryExampleFitsItsSchema(t *testing.T) {
	t.Parallel()
	doc := strict(t)
	used := map[string]bool{}
	check := func(where string, content openapi3.Content, o openapi3.SchemaValidationOption) {
		for media, m := range content {
			if len(m.Examples) == 0 {
				t.Errorf("%s has no example", where)
			}
			for name, e := range m.Examples {
				used[strings.TrimPrefix(e.Ref, "#/components/examples/")] = true
				if err := m.Schema.Value.VisitJSON(e.Value.Value, o); err != nil {
					t.Errorf("%s, %s, example %s: %v", where, media, name, err)
				}
			}
		}
	}
	for _, a := range answers(t, doc) {
		check(a.name, a.Content, openapi3.VisitAsResponse())
	}
	for _, o := range operations(doc) {
		if o.RequestBody != nil {
			check(o.name+" request", o.RequestBody.Value.Content, openapi3.VisitAsRequest())
		}
		for _, p := range o.Parameters {
			if p.Value.Example == nil {
				t.Errorf("%s: parameter %s has no example", o.name, p.Value.Name)
			} else if err := p.Value.Schema.Value.VisitJSON(p.Value.Example); err != nil {
				t.Errorf("%s: the example of parameter %s: %v", o.name, p.Value.Name, err)
			}
		}
	}
	for name, h := range doc.Components.Headers {
		if h.Value.Example == nil {
			t.Errorf("header %s has no example", name)
		} else if err := h.Value.Schema.Value.VisitJSON(h.Value.Example); err != nil {
			t.Errorf("the example of header %s: %v", name, err)
		}
	}
	for name := range doc.Components.Examples {
		if !used[name] {
			t.Errorf("nothing uses the example %s", name)
		}
	}
}

// TestErrorExamplesLookLikeOurErrors compares each with what apierr would write.
func TestErrorExamplesLookLikeOurErrors(t *testing.T) {
	t.Parallel()
	shown := map[apierr.Code]bool{}
	for name, e := range document(t).Components.Examples {
		value, isObject := e.Value.Value.(map[string]any)
		code, isError := value["code"].(string)
		if !isObject || !isError {
			continue
		}
		shown[apierr.Code(code)] = true
		want := string(apierr.New(apierr.Code(code), "m").Body("r"))
		if docURL, _ := value["doc_url"].(string); !strings.Contains(want, strconv.Quote(docURL)) {
			t.Errorf("%s: doc_url is %s, want that of %s", name, docURL, want)
		}
		if len(value) != strings.Count(want, `":`) {
			t.Errorf("%s has the members %v", name, slices.Sorted(maps.Keys(value)))
		}
	}
	for _, code := range apierr.Codes() {
		if !shown[code] {
			t.Errorf("no example shows %s", code)
		}
	}
}

// TestErrorCodesAreThoseOfTheCode: the list is the same, each code is somewhere
// under its own status, and every error has one.
func TestErrorCodesAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	doc := document(t)
	var listed []apierr.Code
	for _, code := range doc.Components.Schemas["ErrorCode"].Value.Enum {
		s, _ := code.(string)
		listed = append(listed, apierr.Code(s))
	}
	if !slices.Equal(listed, apierr.Codes()) {
		t.Errorf("the document lists %v, the code has %v", listed, apierr.Codes())
	}
	// Where a code travels with another status than its usual one.
	others := map[apierr.Code]int{apierr.RequestTimeout: http.StatusRequestTimeout, apierr.NotFound: http.StatusBadRequest} // the contract's own paths
	answered := map[apierr.Code]bool{}
	for _, a := range answers(t, doc) {
		codes := a.codes()
		if a.status >= 400 != (len(codes) > 0) && a.name != unready {
			t.Errorf("%s has the codes %v", a.name, codes)
		}
		for _, code := range codes {
			answered[code] = true
			if usual := apierr.New(code).Status; usual != a.status && others[code] != a.status {
				t.Errorf("%s says %s, which travels with %d", a.name, code, usual)
			}
		}
	}
	for _, code := range apierr.Codes() {
		if !answered[code] {
			t.Errorf("no answer of the document has %s", code)
		}
	}
}

// TestEveryAnswerNamesItsRequest and says, where waiting may help, for how long.
func TestEveryAnswerNamesItsRequest(t *testing.T) {
	t.Parallel()
	for _, a := range answers(t, document(t)) {
		if a.Headers["X-Request-Id"] == nil {
			t.Errorf("%s has no X-Request-Id", a.name)
		}
		waits := slices.Contains([]int{409, 429, 502, 503, 504}, a.status) && a.name != unready
		if (a.Headers["Retry-After"] != nil) != waits {
			t.Errorf("%s: Retry-After %v", a.name, a.Headers["Retry-After"] != nil)
		}
	}
}

// TestTheTwoPaymentsDifferInTheirTransactionsOnly holds two long lists together.
func TestTheTwoPaymentsDifferInTheirTransactionsOnly(t *testing.T) {
	t.Parallel()
	schemas := document(t).Components.Schemas
	created, found := *schemas["CreatedPayment"].Value, *schemas["Payment"].Value
	if !slices.Equal(created.Required, found.Required) {
		t.Error("they require different members")
	}
	if len(created.Properties) != len(created.Required) || len(found.Properties) != len(found.Required) {
		t.Error("a payment always has all its members")
	}
	for name, p := range created.Properties {
		if other := found.Properties[name]; name != "transactions" && (other == nil || p.Ref != other.Ref || !reflect.DeepEqual(p.Value, other.Value)) {
			t.Errorf("they differ in %s", name)
		}
	}
}

// TestLimitsInTheDocumentAreThoseOfTheCode compares the numbers that the code
// exports; docs/reference/limits.md is held against all of them.
func TestLimitsInTheDocumentAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	doc := document(t)
	nonce := doc.Components.Parameters["IdempotencyKey"].Value
	if nonce.Name != idem.Header || doc.Components.Parameters["IdempotencyKeyAlias"].Value.Name != idem.AliasHeader {
		t.Error("the names of the nonce's headers differ")
	}
	for length, want := range map[int]bool{0: false, 1: true, idem.MaxNonceLength: true, idem.MaxNonceLength + 1: false} {
		if err := nonce.Schema.Value.VisitJSON(strings.Repeat("k", length)); (err == nil) != want {
			t.Errorf("a nonce of %d characters: %v", length, err)
		}
	}
	for _, length := range []int{0, 1, 255, 256, 10_000} {
		if err := doc.Components.Schemas["KeptNonce"].Value.VisitJSON(idem.KeyOf(strings.Repeat("k", length))); err != nil {
			t.Errorf("what is kept of a nonce of %d characters: %v", length, err)
		}
	}
	if expiration := doc.Components.Parameters["IdempotencyExpiration"].Value; expiration.Name != idem.ExpirationHeader ||
		!strings.Contains(expiration.Description, strconv.Itoa(int(idem.MaxRetention.Seconds()))) {
		t.Errorf("the document's %s does not say %s", expiration.Name, idem.MaxRetention)
	}
	for c := range 256 {
		s := string([]byte{byte(c)})
		if c >= 0x80 {
			s = string(rune(c))
		}
		if err := doc.Components.Schemas["Nonce"].Value.VisitJSON(s); (err == nil) != idem.ValidNonce(s) {
			t.Errorf("character %#x: the code says %t, the document %v", c, idem.ValidNonce(s), err)
		}
	}
	if large := strconv.Itoa(httpapi.MaxBody); !strings.Contains(*doc.Components.Responses["TooLarge"].Value.Description, large) {
		t.Errorf("the document does not say that a body has at most %s bytes", large)
	}
}

// TestServersAreOnLoopback: a reader who tries the document out, as it is, must not
// send anything anywhere else.
func TestServersAreOnLoopback(t *testing.T) {
	t.Parallel()
	doc := document(t)
	for _, s := range append(slices.Clone(doc.Servers), doc.Paths.Value("/metrics").Servers...) {
		if u, err := url.Parse(s.URL); err != nil || u.Scheme != "http" || u.Hostname() != "127.0.0.1" || u.Path != "" {
			t.Errorf("server %s", s.URL)
		}
	}
}
