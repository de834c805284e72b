package checkout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
	"github.com/oncepay/oncepay/internal/transactions"
)

// shop is a database, the customers' routes on it, and a merchant of each policy. Each
// exchange is held against the API document.
type shop struct {
	t       *testing.T
	url     string
	db      *postgres.DB
	auth    *merchants.Service
	api     *httptest.Server
	handler *Handler
	logs    *logs
	test    merchants.KeyPair // of a merchant with the default policy
	live    merchants.KeyPair
}

// logs may be written and read by many.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, url: pgtest.URL(t), logs: &logs{}}
	log := slog.New(slog.NewJSONHandler(s.logs, nil))
	db, err := postgres.Open(t.Context(), s.url, pgtest.Options(s.url, postgres.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	policies, err := idem.NewPolicies(idem.Presets(idem.Options{})...)
	if err != nil {
		t.Fatal(err)
	}
	prints, err := idem.NewFingerprinter([]byte("a secret of the tests, 32 bytes or more"), nil)
	if err != nil {
		t.Fatal(err)
	}
	payments, err := transactions.NewService(transactions.Options{
		DB: db, Providers: providers.NewRegistry(nil), Arrivals: idem.NewArrivals(db, log), Policies: policies, Fingerprints: prints, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.db, s.auth = db, merchants.NewService(db, policies.Names())
	service := NewService(Options{DB: db, Payments: payments, Auth: s.auth, Policies: policies, Prints: prints})
	e := httpapi.New(httpapi.Options{
		Log: log, Transient: postgres.IsTransient, Describe: postgres.Describe, Style: transactions.NewHandler(payments, s.auth).ErrorStyle,
	})
	s.handler = &Handler{service: service}
	s.handler.mountCustomers(e)
	s.api = httptest.NewServer(apitest.Handler(t, e))
	t.Cleanup(s.api.Close)
	var account uuid.UUID
	account, s.test = s.merchant("")
	if s.live, err = s.auth.CreateKey(t.Context(), account, merchants.Live); err != nil {
		t.Fatal(err)
	}
	return s
}

// merchant makes one more.
func (s *shop) merchant(policy string) (uuid.UUID, merchants.KeyPair) {
	s.t.Helper()
	m, pair, err := s.auth.Create(s.t.Context(), "A merchant", policy)
	if err != nil {
		s.t.Fatal(err)
	}
	return m.AccountID, pair
}

// reply is what was answered.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// ask sends a request with a key pair, a body ("": none) and headers, by turns name and
// value.
func (s *shop) ask(pair merchants.KeyPair, method, path, body string, headers ...string) reply {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.api.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set(merchants.HeaderPublicKey, pair.PublicAPIKey)
	r.Header.Set(merchants.HeaderSecret, pair.PrivateSecretKey)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for pair := range slices.Chunk(headers, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	res, err := s.api.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, data}
}

// customer is the answer's, which must have that status.
func (s *shop) customer(r reply, status int) map[string]any {
	s.t.Helper()
	if r.status != status {
		s.t.Fatalf("it answered %d: %s", r.status, r.body)
	}
	var m map[string]any
	if err := json.Unmarshal(r.body, &m); err != nil {
		s.t.Fatal(err)
	}
	return m
}

// create makes a customer of the first merchant, in test mode.
func (s *shop) create(body string, headers ...string) map[string]any {
	s.t.Helper()
	return s.customer(s.ask(s.test, http.MethodPost, "/v1/customers", body, headers...), http.StatusCreated)
}

// refused fails the test unless r is an error of that code, and returns its messages.
func (s *shop) refused(r reply, code apierr.Code) []string {
	s.t.Helper()
	var e struct {
		Code     apierr.Code `json:"code"`
		Messages []string    `json:"messages"`
	}
	if err := json.Unmarshal(r.body, &e); err != nil || e.Code != code || r.status != apierr.New(code).Status {
		s.t.Fatalf("it answered %d: %s, want %s", r.status, r.body, code)
	}
	return e.Messages
}

func (s *shop) count(query string, args ...any) int {
	s.t.Helper()
	var n int
	if err := s.db.Conn(s.t.Context()).Raw(query, args...).Row().Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

func path(id any) string { return fmt.Sprintf("/v1/customers/%s", id) }

// fullCustomer is all that can be said of one.
const fullCustomer = `{"merchant_customer_id":"shopper-1","merchant_customer_created_at":"2022-05-09T20:46:54.786342Z",
	"first_name":"Ana","last_name":"Müller <&> Söhne","gender":"MALE","date_of_birth":"","email":"no address","nationality":"?","country":"st",
	"document":{"document_type":"X","n":1.50},"phone":{"number":5551234567},"billing_address":{"a":{"b":[1,null]}},"shipping_address":{},
	"metadata":[{"key":"k","value":"v","more":1}],"unknown":{"is":"ignored"}}`

// Contract, B9 and A22: what describes a customer is not interpreted.
func TestCustomerIsGivenBackAsTheyWereDescribed(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	before := time.Now().Add(-time.Minute)
	c := s.create(fullCustomer)
	id, at := c["id"], c["created_at"]
	if _, err := uuid.Parse(fmt.Sprint(id)); err != nil || len(fmt.Sprint(id)) != 36 {
		t.Errorf("the id is %v", id)
	}
	if made, err := time.Parse(time.RFC3339, fmt.Sprint(at)); err != nil || made.Before(before) || made.After(time.Now().Add(time.Minute)) {
		t.Errorf("created_at is %v", at)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(fullCustomer), &want); err != nil {
		t.Fatal(err)
	}
	delete(want, "unknown")
	want["metadata"] = []any{map[string]any{"key": "k", "value": "v"}}
	want["id"], want["created_at"], want["updated_at"] = id, at, at
	if !reflect.DeepEqual(c, want) {
		t.Errorf("it is %v\nwant %v", c, want)
	}
	one := s.ask(s.test, http.MethodGet, path(id), "")
	if got := s.customer(one, http.StatusOK); !reflect.DeepEqual(got, want) {
		t.Errorf("later it is %v", got)
	}
	if got := s.ask(s.test, http.MethodGet, "/v1/customers?merchant_customer_id=shopper-1", ""); got.status != http.StatusOK || strings.TrimSpace(string(got.body)) != "["+strings.TrimSpace(string(one.body))+"]" {
		t.Errorf("by the merchant's name it is %d %s", got.status, got.body)
	}
	if got := s.ask(s.test, http.MethodGet, "/v1/customers/external/shopper-1", ""); string(got.body) != string(one.body) {
		t.Errorf("by the merchant's name, in the path, it is %d %s", got.status, got.body)
	}
	if !bytes.Contains(one.body, []byte(`"n":1.50`)) {
		t.Error("a number is not written as it was")
	}
}

func TestWhatIsNotKnownOfACustomerIsNull(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	// Each member, in the order of the contract's example.
	order := []string{
		"id", "merchant_customer_id", "first_name", "last_name", "gender", "date_of_birth", "email", "nationality", "country", "document", "phone",
		"billing_address", "shipping_address", "metadata", "created_at", "updated_at", "merchant_customer_created_at",
	}
	nulls := map[string]any{}
	for _, name := range order {
		nulls[name] = nil
	}
	maps.DeleteFunc(nulls, func(name string, _ any) bool {
		return slices.Contains([]string{"id", "merchant_customer_id", "created_at", "updated_at"}, name)
	})
	said, err := json.Marshal(nulls)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"left-out": `{"merchant_customer_id":"left-out"}`, "null": `{"merchant_customer_id":"null",` + string(said[1:])} {
		r := s.ask(s.test, http.MethodPost, "/v1/customers", body)
		c := s.customer(r, http.StatusCreated)
		for member := range nulls {
			if v, there := c[member]; !there || v != nil {
				t.Errorf("%s: %s is %v, %t", name, member, v, there)
			}
		}
		at := 0
		for _, member := range order {
			i := bytes.Index(r.body[at:], []byte(`"`+member+`":`))
			if i < 0 {
				t.Errorf("%s: %s is not where it belongs", name, member)
				break
			}
			at += i
		}
		if len(c) != len(order) {
			t.Errorf("%s: it has %d members", name, len(c))
		}
	}
}

func TestEachRuleOfACustomer(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return `"` + strings.Repeat("é", n) + `"` }
	for body, want := range map[string]string{
		`[]`:       "INVALID_REQUEST: $ must be an object",
		`null`:     "INVALID_REQUEST: $ must be an object",
		`"s-1"`:    "INVALID_REQUEST: $ must be an object",
		`{}`:       "MISSING_PARAMETERS: $.merchant_customer_id is required",
		`{"x":""}`: "MISSING_PARAMETERS: $.merchant_customer_id is required",

		`{"merchant_customer_id":null}`:              "MISSING_PARAMETERS: $.merchant_customer_id is required",
		`{"merchant_customer_id":""}`:                "INVALID_PARAMETERS: $.merchant_customer_id must have 1 to 255 characters",
		`{"merchant_customer_id":1}`:                 "INVALID_PARAMETERS: $.merchant_customer_id must be a string",
		`{"merchant_customer_id":"a\nb"}`:            "INVALID_PARAMETERS: $.merchant_customer_id must not contain control characters",
		`{"merchant_customer_id":` + long(256) + `}`: "INVALID_PARAMETERS: $.merchant_customer_id must have 1 to 255 characters",
		`{"merchant_customer_id":` + long(255) + `}`: "",

		`{"merchant_customer_id":"a","gender":1}`:                        "INVALID_PARAMETERS: $.gender must be a string",
		`{"merchant_customer_id":"a","email":` + long(256) + `}`:         "INVALID_PARAMETERS: $.email must have at most 255 characters",
		`{"merchant_customer_id":"a","email":` + long(255) + `}`:         "",
		`{"merchant_customer_id":"a","first_name":"a\tb\n"}`:             "",
		`{"merchant_customer_id":"a","phone":"123"}`:                     "INVALID_PARAMETERS: $.phone must be an object",
		`{"merchant_customer_id":"a","document":[]}`:                     "INVALID_PARAMETERS: $.document must be an object",
		`{"merchant_customer_id":"a","phone":{"a":` + long(40000) + `}}`: "INVALID_PARAMETERS: $.phone must have at most 65536 bytes",
		`{"merchant_customer_id":"a","metadata":{}}`:                     "INVALID_PARAMETERS: $.metadata must be an array of at most 120 pairs of key and value",
		`{"merchant_customer_id":"a","metadata":[{"key":"k"}]}`:          "MISSING_PARAMETERS: $.metadata[0].value is required",
		`{"merchant_customer_id":"a","metadata":[]}`:                     "",

		`{"merchant_customer_id":"a","merchant_customer_created_at":"2022-05-09T20:46:54+02:00"}`: "",
		`{"merchant_customer_id":"a","merchant_customer_created_at":"2022-05-09"}`:                "",
		`{"merchant_customer_id":"a","merchant_customer_created_at":"yesterday"}`:                 "INVALID_PARAMETERS: $.merchant_customer_created_at must be a date and time as in RFC 3339",
		`{"merchant_customer_id":"a","merchant_customer_created_at":1652129214}`:                  "INVALID_PARAMETERS: $.merchant_customer_created_at must be a date and time as in RFC 3339",
		`{"merchant_customer_id":"a","merchant_customer_created_at":"0001-01-01T00:00:00+09:00"}`: "INVALID_PARAMETERS: $.merchant_customer_created_at must be a date and time as in RFC 3339",

		`{"gender":1,"phone":2}`: "MISSING_PARAMETERS: $.merchant_customer_id is required; $.gender must be a string; $.phone must be an object",
	} {
		tree, err := jsontree.Parse([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		said, err := parseCustomer(tree, true)
		if err == nil {
			_, err = said.of(Customer{})
		}
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%.80s: %q, want %q", body, got, want)
		}
	}
}

// A moment without an offset is in UTC, and what PostgreSQL would round is cut.
func TestMomentIsReadAsShopsWriteIt(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for said, want := range map[string]string{
		"2022-05-09T20:46:54.786342Z":       "2022-05-09T20:46:54.786342Z",
		"2022-05-09T20:46:54.7863429-03:00": "2022-05-09T23:46:54.786342Z",
		"2022-05-09T20:46:54":               "2022-05-09T20:46:54.000000Z",
		"2022-05-09":                        "2022-05-09T00:00:00.000000Z",
		"0001-01-01T00:00:00Z":              "0001-01-01T00:00:00.000000Z",
		"9999-12-31T23:59:59.9999999Z":      "9999-12-31T23:59:59.999999Z",
	} {
		c := s.create(`{"merchant_customer_id":"` + said + `","merchant_customer_created_at":"` + said + `"}`)
		if c["merchant_customer_created_at"] != want {
			t.Errorf("%s became %v", said, c["merchant_customer_created_at"])
		}
		if again := s.customer(s.ask(s.test, http.MethodGet, path(c["id"]), ""), http.StatusOK); again["merchant_customer_created_at"] != want {
			t.Errorf("%s is later %v", said, again["merchant_customer_created_at"])
		}
	}
}

// Altogether there is a limit, too, which the database holds as well.
func TestWhatIsKnownOfACustomerIsBounded(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	half := `{"a":"` + strings.Repeat("<", 60_000) + `"}`
	c := s.create(`{"merchant_customer_id":"a","billing_address":` + half + `,"shipping_address":` + half + `}`)
	r := s.ask(s.test, http.MethodPatch, path(c["id"]), `{"document":`+half+`}`)
	if m := s.refused(r, apierr.InvalidParameters); len(m) != 1 || m[0] != "$ must describe the customer in at most 131072 bytes, what is known of them included" {
		t.Errorf("it is told %q", m)
	}
	c = s.customer(s.ask(s.test, http.MethodPatch, path(c["id"]), `{"document":`+half+`,"billing_address":null}`), http.StatusOK)
	if c["billing_address"] != nil || c["document"] == nil {
		t.Error("what is exchanged does not fit")
	}
}

func TestCustomerIsChangedWhereSomethingIsSaid(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.create(fullCustomer)
	for _, step := range []struct {
		body    string
		changes map[string]any
	}{
		{`{}`, nil},
		{`{"unknown":1}`, nil},
		{`{"email":"a@example.com"}`, map[string]any{"email": "a@example.com"}},
		{`{"email":null,"phone":null}`, map[string]any{"email": nil, "phone": nil}},
		{`{"phone":null}`, map[string]any{}},
		{`{"billing_address":{"b":2}}`, map[string]any{"billing_address": map[string]any{"b": 2.0}}}, // as a whole
		{`{"metadata":[]}`, map[string]any{"metadata": []any{}}},
		{`{"metadata":null}`, map[string]any{"metadata": nil}},
		{`{"merchant_customer_created_at":null}`, map[string]any{"merchant_customer_created_at": nil}},
		{`{"merchant_customer_created_at":"2020-01-02"}`, map[string]any{"merchant_customer_created_at": "2020-01-02T00:00:00.000000Z"}},
		{`{"merchant_customer_id":"shopper-1"}`, map[string]any{}}, // it is theirs
		{`{"merchant_customer_id":"shopper-2","first_name":""}`, map[string]any{"merchant_customer_id": "shopper-2", "first_name": ""}},
	} {
		got := s.customer(s.ask(s.test, http.MethodPatch, path(c["id"]), step.body), http.StatusOK)
		earlier, later := fmt.Sprint(c["updated_at"]), fmt.Sprint(got["updated_at"])
		if step.changes == nil && later != earlier || step.changes != nil && later <= earlier {
			t.Errorf("%s: updated_at was %s, and is %s", step.body, earlier, later)
		}
		maps.Copy(c, step.changes)
		c["updated_at"] = got["updated_at"]
		if !reflect.DeepEqual(got, c) {
			t.Errorf("%s: it is %v\nwant %v", step.body, got, c)
		}
		if now := s.customer(s.ask(s.test, http.MethodGet, path(c["id"]), ""), http.StatusOK); !reflect.DeepEqual(now, c) {
			t.Errorf("%s: later it is %v\nwant %v", step.body, now, c)
		}
	}
	for body, code := range map[string]apierr.Code{
		`[]`: apierr.InvalidRequest, `{"merchant_customer_id":null}`: apierr.MissingParameters, `{"gender":{}}`: apierr.InvalidParameters,
	} {
		s.refused(s.ask(s.test, http.MethodPatch, path(c["id"]), body), code)
	}
	s.create(`{"merchant_customer_id":"shopper-3"}`)
	s.refused(s.ask(s.test, http.MethodPatch, path(c["id"]), `{"merchant_customer_id":"shopper-3","email":"b@example.com"}`), apierr.CustomerIDDuplicated)
	if now := s.customer(s.ask(s.test, http.MethodGet, path(c["id"]), ""), http.StatusOK); !reflect.DeepEqual(now, c) {
		t.Errorf("after what was refused it is %v\nwant %v", now, c)
	}
}

// Two who change different things at the same time do not undo each other's.
func TestConcurrentChangesOfACustomerAreAllKept(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.create(`{"merchant_customer_id":"a"}`)
	var all sync.WaitGroup
	for _, name := range profileTexts {
		all.Go(func() {
			if r := s.ask(s.test, http.MethodPatch, path(c["id"]), `{"`+name+`":"said"}`); r.status != http.StatusOK {
				t.Errorf("%s: %d %s", name, r.status, r.body)
			}
		})
	}
	all.Wait()
	now := s.customer(s.ask(s.test, http.MethodGet, path(c["id"]), ""), http.StatusOK)
	for _, name := range profileTexts {
		if now[name] != "said" {
			t.Errorf("%s is %v", name, now[name])
		}
	}
}

func TestCustomerWhoIsNotThereIsNotFound(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for _, id := range []string{uuid.NewString(), "x", "%00", uuid.Nil.String(), "{" + uuid.NewString() + "}"} {
		for _, method := range []string{http.MethodGet, http.MethodPatch, http.MethodDelete} {
			body := ""
			if method == http.MethodPatch {
				body = `{"email":"a"}`
			}
			s.refused(s.ask(s.test, method, "/v1/customers/"+url.PathEscape(id), body), apierr.CustomerNotFound)
		}
	}
	if r := s.ask(s.test, http.MethodGet, "/v1/customers?merchant_customer_id=nobody", ""); r.status != http.StatusOK || strings.TrimSpace(string(r.body)) != "[]" {
		t.Errorf("a list of nobody is %d %s", r.status, r.body)
	}
	s.refused(s.ask(s.test, http.MethodGet, "/v1/customers", ""), apierr.MissingParameters)
	s.refused(s.ask(s.test, http.MethodGet, "/v1/customers?merchant_customer_id=", ""), apierr.MissingParameters)
	s.refused(s.ask(s.test, http.MethodGet, "/v1/customers?merchant_customer_id=%00", ""), apierr.InvalidParameters)
	s.refused(s.ask(s.test, http.MethodGet, "/v1/customers?merchant_customer_id=%FF", ""), apierr.InvalidParameters)
	for _, name := range []string{"nobody", "%00", "%FF", "%2F"} {
		s.refused(s.ask(s.test, http.MethodGet, "/v1/customers/external/"+name, ""), apierr.CustomerNotFound)
	}
}

// A shop may call its customers what it likes.
func TestCustomerIsFoundByAnyName(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for _, name := range []string{"a/b", "100%", "%2F", "a b+c", "Ünï", "?x=1&y", "external", "'; DROP TABLE customers; --", " "} {
		said, err := json.Marshal(map[string]string{"merchant_customer_id": name})
		if err != nil {
			t.Fatal(err)
		}
		c := s.create(string(said))
		for _, where := range []string{"/v1/customers?merchant_customer_id=" + url.QueryEscape(name), "/v1/customers/external/" + url.PathEscape(name)} {
			if r := s.ask(s.test, http.MethodGet, where, ""); r.status != http.StatusOK || !strings.Contains(string(r.body), fmt.Sprint(c["id"])) {
				t.Errorf("%s: %d %s", where, r.status, r.body)
			}
		}
	}
}

// Promise 8: merchants and modes see nothing of each other, and are in nobody's way.
func TestCustomersOfMerchantsAndModesAreApart(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	_, other := s.merchant("")
	ids := map[string]merchants.KeyPair{}
	for _, pair := range []merchants.KeyPair{s.test, s.live, other} {
		c := s.customer(s.ask(pair, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"same"}`, idem.Header, "same"), http.StatusCreated)
		ids[fmt.Sprint(c["id"])] = pair
	}
	if len(ids) != 3 {
		t.Fatalf("%d customers were made, want three", len(ids))
	}
	for id, owner := range ids {
		for _, pair := range []merchants.KeyPair{s.test, s.live, other} {
			if pair.PublicAPIKey == owner.PublicAPIKey {
				continue
			}
			s.refused(s.ask(pair, http.MethodGet, path(id), ""), apierr.CustomerNotFound)
			s.refused(s.ask(pair, http.MethodPatch, path(id), `{"email":"a"}`), apierr.CustomerNotFound)
			s.refused(s.ask(pair, http.MethodDelete, path(id), ""), apierr.CustomerNotFound)
		}
		r := s.ask(owner, http.MethodGet, "/v1/customers?merchant_customer_id=same", "")
		if strings.Count(string(r.body), `"id"`) != 1 || !strings.Contains(string(r.body), id) {
			t.Errorf("its own list is %s", r.body)
		}
	}
	if n := s.count(`SELECT count(*) FROM customers`); n != 3 {
		t.Errorf("%d are left", n)
	}
}

func TestCustomersNeedBothKeys(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.create(`{"merchant_customer_id":"a"}`)
	public := merchants.KeyPair{PublicAPIKey: s.test.PublicAPIKey}
	for _, r := range []struct{ method, path, body string }{
		{http.MethodPost, "/v1/customers", `{"merchant_customer_id":"b"}`}, {http.MethodGet, "/v1/customers?merchant_customer_id=a", ""},
		{http.MethodGet, "/v1/customers/external/a", ""}, {http.MethodGet, path(c["id"]), ""},
		{http.MethodPatch, path(c["id"]), `{}`}, {http.MethodDelete, path(c["id"]), ""},
	} {
		s.refused(s.ask(public, r.method, r.path, r.body), apierr.InvalidCredentials)
	}
}

// Their cards stay known, and none of them can be paid with any more.
func TestDeletedCustomerIsGoneWithTheirSessionsAndCards(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	gone, stays := s.create(fullCustomer), s.create(`{"merchant_customer_id":"shopper-2"}`)
	for _, c := range []map[string]any{gone, stays} {
		pgtest.Exec(t, s.url, `INSERT INTO customer_sessions (account_id, id, mode, customer_id, country, callback_url, created_at, expires_at)
			SELECT account_id, gen_random_uuid(), mode, id, 'UY', '', now(), now() + interval '1 hour' FROM customers WHERE id = $1`, c["id"])
		for _, status := range []string{"ENROLLED", "ENROLL_IN_PROCESS", "DECLINED", "UNENROLLED"} {
			pgtest.Exec(t, s.url, `INSERT INTO payment_methods (account_id, id, mode, customer_id, status, country, provider, provider_token, card, created_at, updated_at)
				SELECT account_id, gen_random_uuid(), mode, id, '`+status+`', 'UY', 'P', 'token', '{}', now() - interval '1 day', now() - interval '1 day' FROM customers WHERE id = $1`, c["id"])
		}
	}
	if r := s.ask(s.test, http.MethodDelete, path(gone["id"]), ""); r.status != http.StatusAccepted || strings.TrimSpace(string(r.body)) != "{}" {
		t.Errorf("it answered %d %s", r.status, r.body)
	}
	s.refused(s.ask(s.test, http.MethodDelete, path(gone["id"]), ""), apierr.CustomerNotFound)
	s.refused(s.ask(s.test, http.MethodGet, path(gone["id"]), ""), apierr.CustomerNotFound)
	for query, want := range map[string]int{
		`SELECT count(*) FROM customers WHERE id = $1`:                                                                  0,
		`SELECT count(*) FROM customer_sessions WHERE customer_id = $1`:                                                 0,
		`SELECT count(*) FROM payment_methods WHERE customer_id = $1 AND provider_token = ''`:                           4,
		`SELECT count(*) FROM payment_methods WHERE customer_id = $1 AND status = 'UNENROLLED'`:                         3,
		`SELECT count(*) FROM payment_methods WHERE customer_id = $1 AND status = 'DECLINED'`:                           1,
		`SELECT count(*) FROM payment_methods WHERE customer_id = $1 AND updated_at > created_at + interval '1 minute'`: 4,
	} {
		if n := s.count(query, gone["id"]); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
	if n := s.count(`SELECT count(*) FROM payment_methods m JOIN customer_sessions c USING (customer_id) WHERE m.customer_id = $1 AND m.provider_token = 'token'`, stays["id"]); n != 4 {
		t.Errorf("of the other customer's cards %d are left", n)
	}
	// The name is free again.
	s.create(fullCustomer)
}

// A card that is being kept while its customer goes is let go of, too.
func TestCardThatIsKeptWhileItsCustomerGoesIsLetGoOf(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.create(`{"merchant_customer_id":"a"}`)
	keeping, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		err := s.db.InTx(t.Context(), func(tx postgres.Tx) error {
			if err := tx.Exec(`SELECT 1 FROM customers WHERE id = $1::uuid FOR KEY SHARE`, c["id"]).Error; err != nil {
				return err
			}
			close(keeping)
			<-release
			return tx.Exec(`INSERT INTO payment_methods (account_id, id, mode, customer_id, status, country, provider, provider_token, card, created_at, updated_at)
				SELECT account_id, gen_random_uuid(), mode, id, 'ENROLLED', 'UY', 'P', 'token', '{}', now(), now() FROM customers WHERE id = $1::uuid`, c["id"]).Error
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-keeping
	all.Go(func() {
		if r := s.ask(s.test, http.MethodDelete, path(c["id"]), ""); r.status != http.StatusAccepted {
			t.Errorf("it answered %d %s", r.status, r.body)
		}
	})
	for s.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '/* checkout.delete_customer */%'`) == 0 {
		if t.Failed() {
			break
		}
	}
	close(release)
	all.Wait()
	if n := s.count(`SELECT count(*) FROM payment_methods WHERE status = 'UNENROLLED' AND provider_token = ''`); n != 1 {
		t.Error("the card can still be paid with")
	}
}

// Contract, A8 to A11, for what moves no money.
func TestNonceOfACustomerIsToldTheFirstAnswer(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	first := s.ask(s.test, http.MethodPost, "/v1/customers", fullCustomer, idem.Header, "nonce-1")
	c := s.customer(first, http.StatusCreated)
	if first.header.Get("Idempotent-Replayed") != "" {
		t.Error("the first answer says that it is a replay")
	}
	for name, body := range map[string]string{"the same body": fullCustomer, "another body": `{"merchant_customer_id":"b"}`, "an invalid body": `{}`, "a broken body": `{`} {
		r := s.ask(s.test, http.MethodPost, "/v1/customers", body, idem.AliasHeader, "nonce-1")
		differs := r.header.Get("Idempotency-Body-Mismatch") == "true"
		if r.status != first.status || string(r.body) != string(first.body) || r.header.Get("Idempotent-Replayed") != "true" || differs == (name == "the same body") {
			t.Errorf("%s: %d %v %s", name, r.status, r.header, r.body)
		}
	}
	patch := s.ask(s.test, http.MethodPatch, path(c["id"]), `{"email":"x"}`, idem.Header, "nonce-2")
	s.customer(patch, http.StatusOK)
	s.customer(s.ask(s.test, http.MethodPatch, path(c["id"]), `{"email":"y"}`), http.StatusOK)
	if r := s.ask(s.test, http.MethodPatch, path(c["id"]), `{"email":"x"}`, idem.Header, "nonce-2"); string(r.body) != string(patch.body) {
		t.Errorf("the change was told again as %s", r.body)
	}
	if now := s.customer(s.ask(s.test, http.MethodGet, path(c["id"]), ""), http.StatusOK); now["email"] != "y" {
		t.Errorf("a replay made the change again: %v", now["email"])
	}
	// Another operation, or the same on another customer.
	other := s.create(`{"merchant_customer_id":"b"}`)
	s.refused(s.ask(s.test, http.MethodPost, "/v1/customers", fullCustomer, idem.Header, "nonce-2"), apierr.IdempotencyKeyReused)
	s.refused(s.ask(s.test, http.MethodPatch, path(other["id"]), `{"email":"x"}`, idem.Header, "nonce-2"), apierr.IdempotencyKeyReused)
	s.refused(s.ask(s.test, http.MethodPatch, path(c["id"]), `{}`, idem.Header, "nonce-1"), apierr.IdempotencyKeyReused)
	// One that is malformed, or sent twice and differently, does nothing.
	s.refused(s.ask(s.test, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"c"}`, idem.Header, "a,b"), apierr.InvalidParameters)
	s.refused(s.ask(s.test, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"c"}`, idem.Header, "a", idem.AliasHeader, "b"), apierr.InvalidParameters)
	if n := s.count(`SELECT count(*) FROM customers`); n != 2 {
		t.Errorf("%d customers were made, want two", n)
	}
	if logged := s.logs.String(); !strings.Contains(logged, `"idem_verdict":"replayed"`) || !strings.Contains(logged, `"idem_verdict":"mismatch"`) {
		t.Error("the log does not say what the nonces met")
	}
}

// What is refused leaves the nonce free, for a corrected body.
func TestNonceOfARefusedCustomerIsFree(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.create(`{"merchant_customer_id":"a"}`)
	s.refused(s.ask(s.test, http.MethodPost, "/v1/customers", `{}`, idem.Header, "nonce-1"), apierr.MissingParameters)
	s.refused(s.ask(s.test, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"a"}`, idem.Header, "nonce-1"), apierr.CustomerIDDuplicated)
	s.create(`{"merchant_customer_id":"b"}`, idem.Header, "nonce-1")
	s.refused(s.ask(s.test, http.MethodPatch, path(uuid.NewString()), `{}`, idem.Header, "nonce-2"), apierr.CustomerNotFound)
	s.create(`{"merchant_customer_id":"c"}`, idem.Header, "nonce-2")
}

// Each policy in its manner.
func TestPoliciesOfCustomers(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for _, policy := range []struct {
		name, nonce, replay  string
		otherBody            int
		echoes, countsInTest bool
	}{
		{"yuno", "n-1", "Idempotent-Replayed", 201, false, true},
		{"novu", "n-1", "Idempotency-Replay", 422, true, true},
		{"fyno", "n-1", "", 201, false, false},
		{"ietf", `"n-1"`, "Idempotent-Replayed", 422, false, true},
	} {
		account, test := s.merchant(policy.name)
		live, err := s.auth.CreateKey(t.Context(), account, merchants.Live)
		if err != nil {
			t.Fatal(err)
		}
		for mode, pair := range map[string]merchants.KeyPair{"test": test, "live": live} {
			counts := mode == "live" || policy.countsInTest
			first := s.ask(pair, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"a"}`, idem.AliasHeader, policy.nonce)
			s.customer(first, http.StatusCreated)
			again := s.ask(pair, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"a"}`, idem.AliasHeader, policy.nonce)
			if !counts {
				s.refused(again, apierr.CustomerIDDuplicated)
				continue
			}
			if again.status != http.StatusCreated || string(again.body) != string(first.body) || policy.replay != "" && again.header.Get(policy.replay) != "true" {
				t.Errorf("%s, %s: a retry is told %d %v %s", policy.name, mode, again.status, again.header, again.body)
			}
			if echoed := again.header.Get(idem.AliasHeader) == policy.nonce; echoed != policy.echoes {
				t.Errorf("%s, %s: the nonce was given back: %t", policy.name, mode, echoed)
			}
			if other := s.ask(pair, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"b"}`, idem.AliasHeader, policy.nonce); other.status != policy.otherBody {
				t.Errorf("%s, %s: another body is told %d %s", policy.name, mode, other.status, other.body)
			}
			// None is required.
			s.customer(s.ask(pair, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"c"}`), http.StatusCreated)
		}
	}
}

func TestOfManyWhoMakeACustomerWithOneNonceOneDoes(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	var all sync.WaitGroup
	var mu sync.Mutex
	bodies, fresh := map[string]bool{}, 0
	for range 12 {
		all.Go(func() {
			r := s.ask(s.test, http.MethodPost, "/v1/customers", fullCustomer, idem.Header, "nonce-1")
			mu.Lock()
			defer mu.Unlock()
			bodies[string(r.body)] = true
			if r.header.Get("Idempotent-Replayed") == "" {
				fresh++
			}
			if r.status != http.StatusCreated {
				t.Errorf("it answered %d %s", r.status, r.body)
			}
		})
	}
	all.Wait()
	if n := s.count(`SELECT count(*) FROM customers`); n != 1 || len(bodies) != 1 || fresh != 1 {
		t.Errorf("%d customers were made, %d were told, %d of them as new", n, len(bodies), fresh)
	}
}

func TestOfManyWhoMakeACustomerOfOneNameOneDoes(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	var all sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 8 {
		all.Go(func() {
			headers := []string{idem.Header, fmt.Sprint("nonce-", i)}
			if i%2 == 0 {
				headers = nil
			}
			r := s.ask(s.test, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"a"}`, headers...)
			mu.Lock()
			defer mu.Unlock()
			if r.status == http.StatusCreated {
				made++
			} else if !strings.Contains(string(r.body), string(apierr.CustomerIDDuplicated)) {
				t.Errorf("it answered %d %s", r.status, r.body)
			}
		})
	}
	all.Wait()
	if n := s.count(`SELECT count(*) FROM customers`); n != 1 || made != 1 {
		t.Errorf("%d customers were made, and %d were told so", n, made)
	}
}

// H55 for people: what describes a customer is in their row and their nonce's answer, and
// nowhere else.
func TestNothingOfAProfileIsInLogsOrErrors(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	const canary = "canary-4111111111111111"
	body := strings.NewReplacer("Ana", canary, "no address", canary, "MALE", canary).Replace(fullCustomer)
	c := s.create(body, idem.Header, "nonce-1")
	for _, r := range []reply{
		s.ask(s.test, http.MethodPost, "/v1/customers", body),
		s.ask(s.test, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"`+canary+`\n","gender":["`+canary+`"],"phone":"`+canary+`","merchant_customer_created_at":"`+canary+`"}`),
		s.ask(s.test, http.MethodPost, "/v1/customers", `{"merchant_customer_id":"`+canary+`"`),
		s.ask(s.test, http.MethodPatch, path(c["id"]), `{"merchant_customer_id":null,"email":{"`+canary+`":1}}`),
		s.ask(s.test, http.MethodGet, "/v1/customers?merchant_customer_id="+canary+"%00", ""),
		s.ask(s.test, http.MethodGet, "/v1/customers/external/"+canary, ""),
		s.ask(s.test, http.MethodGet, "/v1/customers/"+canary, ""),
	} {
		if r.status != http.StatusBadRequest || bytes.Contains(r.body, []byte(canary)) {
			t.Errorf("it answered %d %s", r.status, r.body)
		}
	}
	// A row that cannot be read, as nobody of ours writes it.
	pgtest.Exec(t, s.url, `UPDATE customers SET profile = '{"`+canary+`'`)
	s.refused(s.ask(s.test, http.MethodGet, path(c["id"]), ""), apierr.InternalError)
	if logged := s.logs.String(); strings.Contains(logged, canary) || !strings.Contains(logged, "another shape") {
		t.Error("the log has something of the profile, or says nothing")
	}
}
