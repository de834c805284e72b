package merchants

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/postgres"
)

// operator is the operator's API over a bench, without its token: package admin
// has tests of that.
type operator struct {
	*bench
	server *httptest.Server
	logs   *bytes.Buffer // read it only when no request runs
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{bench: newBench(t), logs: &bytes.Buffer{}}
	e := httpapi.New(httpapi.Options{Log: slog.New(slog.NewJSONHandler(o.logs, nil)), Unavailable: postgres.IsUnavailable, Describe: postgres.Describe})
	NewOperatorHandler(o.Service).Mount(e.Group("/admin/v1"))
	o.server = httptest.NewServer(apitest.Handler(t, e))
	t.Cleanup(o.server.Close)
	return o
}

func (o *operator) post(path, body string) (status int, answer []byte) {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), http.MethodPost, o.server.URL+path, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer a token") // package admin looks at it
	res, err := o.server.Client().Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if answer, err = io.ReadAll(res.Body); err != nil {
		o.t.Fatal(err)
	}
	return res.StatusCode, answer
}

func TestOperatorMakesAMerchantThatCanCallAtOnce(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	status, answer := o.post("/admin/v1/merchants", `{"name":"Müller & Söhne <shop>","idempotency_policy":"yuno","unknown":[1]}`)
	var made struct {
		AccountID         string `json:"account_id"`
		Name              string `json:"name"`
		IdempotencyPolicy string `json:"idempotency_policy"`
		APIKey            struct {
			PublicAPIKey     string `json:"public_api_key"`
			PrivateSecretKey string `json:"private_secret_key"`
			Mode             string `json:"mode"`
		} `json:"api_key"`
	}
	d := json.NewDecoder(bytes.NewReader(answer))
	d.DisallowUnknownFields()
	if err := d.Decode(&made); err != nil || status != http.StatusCreated {
		t.Fatalf("got %d (%v)", status, err)
	}
	account, err := uuid.Parse(made.AccountID)
	if err != nil || account.Version() != 7 || made.Name != "Müller & Söhne <shop>" || made.IdempotencyPolicy != "yuno" || made.APIKey.Mode != Test {
		t.Errorf("made account %s, %q, policy %s, mode %s (%v)", made.AccountID, made.Name, made.IdempotencyPolicy, made.APIKey.Mode, err)
	}
	o.wantCaller(o.Service, KeyPair{made.APIKey.PublicAPIKey, made.APIKey.PrivateSecretKey, Test}, account, Test)
	if strings.Contains(o.logs.String(), made.APIKey.PrivateSecretKey) {
		t.Error("the log shows the secret")
	}

	status, answer = o.post("/admin/v1/merchants", `{"name":"Second"}`)
	if err := json.Unmarshal(answer, &made); err != nil || status != http.StatusCreated || made.IdempotencyPolicy != "yuno" {
		t.Errorf("a merchant who chose no policy has %q (%d, %v), want the default", made.IdempotencyPolicy, status, err)
	}
}

func TestOperatorMakesMoreKeys(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	m, first := o.made("First")
	for _, mode := range []string{Live, Test} {
		status, answer := o.post("/admin/v1/merchants/"+m.AccountID.String()+"/keys", `{"mode":"`+mode+`"}`)
		var pair KeyPair
		d := json.NewDecoder(bytes.NewReader(answer))
		d.DisallowUnknownFields()
		if err := d.Decode(&pair); err != nil || status != http.StatusCreated || pair.Mode != mode {
			t.Fatalf("got %d (%v), mode %q", status, err, pair.Mode)
		}
		o.wantCaller(o.Service, pair, m.AccountID, mode)
		if strings.Contains(o.logs.String(), pair.PrivateSecretKey) {
			t.Error("the log shows the secret")
		}
	}
	o.wantCaller(o.Service, first, m.AccountID, Test) // and the older key is as good as before
}

func TestOperatorsMistakesAreToldByPlaceAndRule(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	m, _ := o.made("First")
	keys := "/admin/v1/merchants/" + m.AccountID.String() + "/keys"
	for _, c := range []struct {
		path, body string
		status     int
		code       string
		message    string
	}{
		{"/admin/v1/merchants", ``, 400, "INVALID_REQUEST", "$ must not be empty"},
		{"/admin/v1/merchants", `geheim`, 400, "INVALID_REQUEST", "$ must be well-formed JSON"},
		{"/admin/v1/merchants", `["geheim"]`, 400, "INVALID_REQUEST", "$ must be an object"},
		{"/admin/v1/merchants", `"geheim"`, 400, "INVALID_REQUEST", "$ must be an object"},
		{"/admin/v1/merchants", `{}`, 400, "MISSING_PARAMETERS", "$.name is required"},
		{"/admin/v1/merchants", `{"name":null}`, 400, "MISSING_PARAMETERS", "$.name is required"},
		{"/admin/v1/merchants", `{"Name":"geheim"}`, 400, "MISSING_PARAMETERS", "$.name is required"},
		{"/admin/v1/merchants", `{"name":4711471147114711}`, 400, "INVALID_PARAMETERS", "$.name must be a string"},
		{"/admin/v1/merchants", `{"name":""}`, 400, "INVALID_PARAMETERS", "$.name must have 1 to 255 characters"},
		{"/admin/v1/merchants", `{"name":" "}`, 400, "INVALID_PARAMETERS", "$.name must have 1 to 255 characters"},
		{"/admin/v1/merchants", `{"name":"` + strings.Repeat("g", 256) + `"}`, 400, "INVALID_PARAMETERS", "$.name must have 1 to 255 characters"},
		{"/admin/v1/merchants", `{"name":"a","name":"b"}`, 400, "INVALID_REQUEST", "$.name must not appear twice in the same object"},
		{"/admin/v1/merchants", `{"name":"a","idempotency_policy":"geheim"}`, 400, "INVALID_PARAMETERS", "$.idempotency_policy must be the name of a policy, such as yuno"},
		{"/admin/v1/merchants", `{"name":"a","idempotency_policy":["ietf"]}`, 400, "INVALID_PARAMETERS", "$.idempotency_policy must be a string"},
		{keys, `{}`, 400, "MISSING_PARAMETERS", "$.mode is required"},
		{keys, `{"mode":true}`, 400, "INVALID_PARAMETERS", "$.mode must be a string"},
		{keys, `{"mode":"geheim"}`, 400, "INVALID_PARAMETERS", "$.mode must be test or live"},
		{keys, `{"mode":"LIVE"}`, 400, "INVALID_PARAMETERS", "$.mode must be test or live"},
		{keys, `[]`, 400, "INVALID_REQUEST", "$ must be an object"},
		{"/admin/v1/merchants/geheim/keys", `{"mode":"test"}`, 404, "NOT_FOUND", "there is no merchant with this account_id"},
		{"/admin/v1/merchants/" + uuid.NewString() + "/keys", `{"mode":"test"}`, 404, "NOT_FOUND", "there is no merchant with this account_id"},
	} {
		status, answer := o.post(c.path, c.body)
		var e struct {
			Code     string   `json:"code"`
			Messages []string `json:"messages"`
		}
		if err := json.Unmarshal(answer, &e); err != nil {
			t.Fatalf("%s %s: %v", c.path, c.body, err)
		}
		if status != c.status || e.Code != c.code || !slices.Equal(e.Messages, []string{c.message}) {
			t.Errorf("%s %.60s: got %d %s %q, want %d %s: %s", c.path, c.body, status, e.Code, e.Messages, c.status, c.code, c.message)
		}
		if bytes.Contains(answer, []byte("geheim")) || bytes.Contains(answer, []byte("4711471147114711")) {
			t.Errorf("%s %s: the answer repeats what was sent", c.path, c.body)
		}
	}
	var merchants, pairs int
	if err := o.db.Conn(t.Context()).Raw(`SELECT (SELECT count(*) FROM merchants), (SELECT count(*) FROM api_keys)`).Row().Scan(&merchants, &pairs); err != nil {
		t.Fatal(err)
	}
	if merchants != 1 || pairs != 1 {
		t.Errorf("%d merchants with %d keys are there, want the first one with its one", merchants, pairs)
	}
	if strings.Contains(o.logs.String(), "geheim") {
		t.Error("the log shows what was sent")
	}
}

// A name that PostgreSQL counts otherwise than we do would be an error of ours.
func TestLongestNameFitsTheDatabase(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	for _, name := range []string{strings.Repeat("é", 255), strings.Repeat("😀", 255), strings.Repeat("e\u0301", 127) + "x"} {
		if status, answer := o.post("/admin/v1/merchants", `{"name":"`+name+`"}`); status != http.StatusCreated {
			t.Errorf("a name of 255 characters: got %d %.200s", status, answer)
		}
	}
}

// A key is shown once, so it must not be shown before it is kept.
func TestOperatorIsShownNoKeyThatWasNotStored(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	m, _ := o.made("First")
	o.db.Close()
	for path, body := range map[string]string{
		"/admin/v1/merchants": `{"name":"Second"}`, "/admin/v1/merchants/" + m.AccountID.String() + "/keys": `{"mode":"live"}`,
	} {
		if status, answer := o.post(path, body); status < http.StatusInternalServerError || bytes.Contains(answer, []byte(secretLabel)) {
			t.Errorf("%s: got %d", path, status)
		}
	}
}
