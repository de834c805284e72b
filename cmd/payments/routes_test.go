package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/admin"
	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/providers"
)

// Who gets in where. The routes are those that the program has mounted: one that is
// added without a line in the tables below fails the tests.

func TestMain(m *testing.M) { pgtest.Main(m) }

// bank is a provider that approves everything, and keeps nothing.
type bank struct{}

func (bank) Name() string { return "TEST_BANK" }

func (bank) Traits() providers.Traits {
	return providers.Traits{Idempotent: true, Queryable: true, CanVoid: true, Timeout: 5 * time.Second, Settle: 10 * time.Second}
}

func (bank) Charge(_ context.Context, c providers.Charge, may providers.MaySend) providers.Result {
	switch {
	case !may():
		return providers.Result{Outcome: providers.NotReached}
	case c.Description == "panic": // with the card in its hands
		panic(c.Card.Number + " " + c.Card.SecurityCode)
	case c.Description == "unclear":
		return providers.Result{Outcome: providers.Unclear, TimedOut: true}
	}
	outcome, known := map[string]providers.Outcome{
		"declined": providers.Declined, "refused": providers.Refused, "not reached": providers.NotReached, "pending": providers.Pending, "broken": providers.Unclear,
	}[c.Description]
	if !known {
		outcome = providers.Approved
	}
	return providers.Result{Outcome: outcome, ProviderReference: "bank-" + c.Reference}
}

func (bank) Operate(_ context.Context, o providers.Operation, may providers.MaySend) providers.Result {
	if !may() {
		return providers.Result{Outcome: providers.NotReached}
	}
	return providers.Result{Outcome: providers.Approved, ProviderReference: "bank-" + o.Reference}
}

func (bank) Inquire(context.Context, providers.Order) providers.Result {
	return providers.Result{Outcome: providers.Unclear}
}

func (bank) Void(context.Context, providers.Order, providers.MaySend) providers.Result {
	return providers.Result{Outcome: providers.Unclear}
}

func (bank) Tokenise(context.Context, providers.Card) (providers.Token, error) {
	return providers.Token{Value: "bank-token-" + rand.Text()}, nil
}

// running is the whole program but its command line, on a database of its own.
type running struct {
	t *testing.T
	*app
	url    string
	client *http.Client

	mu    sync.Mutex
	log   bytes.Buffer
	calls int
}

// Write keeps the log.
func (r *running) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(b)
}

func start(t *testing.T) *running {
	t.Helper()
	return startOn(t, pgtest.URL(t))
}

// startOn starts another instance on a database.
func startOn(t *testing.T, url string) *running {
	t.Helper()
	r := &running{t: t, url: url, client: &http.Client{
		Timeout: 20 * time.Second, Transport: &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // an answer like any
	}}
	a, err := startApp(t.Context(), appConfig{
		databaseURL: r.url, pgbouncer: pgtest.Pooled(r.url), secret: []byte("installation-secret-" + rand.Text() + rand.Text()), adminToken: "admin-token-" + rand.Text() + rand.Text(),
		listen: "127.0.0.1:0", adminListen: "127.0.0.1:0", rawLiveCards: true,
		times: times{providerTimeout: 5 * time.Second, settle: 10 * time.Second, lease: 30 * time.Second, recovery: time.Hour, retention: 24 * time.Hour, shutdown: 20 * time.Second},
		// Failures are counted by address: with the proxy of every request trusted, each
		// can have an address of its own.
		limits:    limits{inFlight: 1024, lookups: 100_000, proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		providers: map[string]providers.Provider{merchants.Test: bank{}, merchants.Live: bank{}},
		log:       slog.New(slog.NewJSONHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.app = a
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		if err := a.stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return r
}

// answered is what a client saw.
type answered struct {
	status int
	header http.Header
	body   []byte
}

func (a answered) code() string {
	var e struct{ Code string }
	_ = json.Unmarshal(a.body, &e)
	return e.Code
}

func (a answered) String() string { return fmt.Sprintf("%d %.200s", a.status, a.body) }

// plain is the answer without what differs between any two requests.
func (a answered) plain() string {
	return fmt.Sprint(a.status, " ", string(bytes.ReplaceAll(a.body, []byte(a.header.Get(httpapi.HeaderRequestID)), []byte("id"))))
}

// ask sends one request to a listener, each from an address of its own. headers are
// pairs.
func (r *running) ask(operators bool, method, target, body string, headers ...string) answered {
	r.t.Helper()
	address := r.publicAddr
	if operators {
		address = r.operatorAddr
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+address+target, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	r.calls++
	req.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", r.calls>>16&255, r.calls>>8&255, r.calls&255))
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if !strings.HasPrefix(target, "/debug/pprof") && !isPage(operators, target) { // Go's own
		apitest.Check(r.t, req, []byte(body), res, data)
	}
	return answered{res.StatusCode, res.Header, data}
}

// isPage says whether a path is of what browsers load. That is no API, and in no document.
func isPage(operators bool, path string) bool {
	if operators {
		return !admin.ForPrograms(path)
	}
	return strings.HasPrefix(path, "/pay/") || strings.HasPrefix(path, "/sdk/")
}

// routes are what a listener has mounted, as "METHOD /path".
func (r *running) routes(s *http.Server) []string {
	r.t.Helper()
	e, ok := s.Handler.(*echo.Echo)
	if !ok {
		r.t.Fatalf("the listener serves a %T: its routes cannot be read", s.Handler)
	}
	var names []string
	for _, route := range e.Routes() {
		if route.Method != echo.RouteNotFound {
			names = append(names, route.Method+" "+route.Path)
		}
	}
	slices.Sort(names)
	return names
}

// rows counts the rows of every table, but those that loops write and what is noted
// of requests that were refused.
func (r *running) rows() map[string]int {
	r.t.Helper()
	var tables []string
	if err := r.db.Conn(r.t.Context()).Raw(`SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('arrivals', 'instances', 'reconciliation_progress', 'request_minutes')`).Scan(&tables).Error; err != nil {
		r.t.Fatal(err)
	}
	n := map[string]int{}
	for _, table := range tables {
		var count int
		if err := r.db.Conn(r.t.Context()).Raw(`SELECT count(*) FROM ` + table).Row().Scan(&count); err != nil {
			r.t.Fatal(err)
		}
		n[table] = count
	}
	return n
}

// owned are one account's things in one mode: a purchase, and authorizations.
type owned struct {
	pair                  merchants.KeyPair
	account, order, nonce string
	sale
	held [4]sale
	shop shopping
}

// sale is a payment, and its transaction.
type sale struct{ payment, transaction string }

func (o owned) keys() []string {
	return []string{"public-api-key", o.pair.PublicAPIKey, "private-secret-key", o.pair.PrivateSecretKey}
}

const paymentBody = `{"account_id":%q,"merchant_order_id":%q,"description":%q,"country":"US","workflow":"DIRECT","amount":{"currency":"USD","value":45.67},
	"payment_method":{"type":"CARD","detail":{"card":{"card_data":{"number":%q,"holder_name":"John Doe","expiration_month":11,"expiration_year":28,"security_code":%q}}}}}`

func (o owned) body() string {
	return fmt.Sprintf(paymentBody, o.account, o.order, "A test payment", "4111111111111111", "123")
}

// has lets an account pay once, and hold money as often as its routes need it.
func (r *running) has(account uuid.UUID, pair merchants.KeyPair, name string) owned {
	r.t.Helper()
	o := owned{pair: pair, account: account.String(), order: "order-" + name, nonce: "nonce-" + name}
	o.sale = r.sell(o, o.nonce, o.body())
	o.shop = r.opens(o)
	for i := range o.held {
		o.held[i] = r.sell(o, fmt.Sprintf("%s-held-%d", o.nonce, i), strings.Replace(o.body(), `"card":{`, `"card":{"capture":false,`, 1))
	}
	return o
}

// sell makes one payment of o's.
func (r *running) sell(o owned, nonce, body string) sale {
	r.t.Helper()
	a := r.ask(false, http.MethodPost, "/v1/payments", body, append(o.keys(), "X-Idempotency-Key", nonce)...)
	var paid struct {
		ID           string
		Transactions struct{ ID string }
	}
	if err := json.Unmarshal(a.body, &paid); err != nil || a.status != http.StatusCreated {
		r.t.Fatalf("the payment under %s was not made: %s", nonce, a)
	}
	return sale{paid.ID, paid.Transactions.ID}
}

// people are an account in both modes, another one, and nobody, whose things do not
// exist.
func (r *running) people() (test, live, other, nobody owned) {
	r.t.Helper()
	ctx := r.t.Context()
	mine, testKeys, err := r.auth.Create(ctx, "First merchant", "")
	if err != nil {
		r.t.Fatal(err)
	}
	liveKeys, err := r.auth.CreateKey(ctx, mine.AccountID, merchants.Live)
	if err != nil {
		r.t.Fatal(err)
	}
	theirs, otherKeys, err := r.auth.Create(ctx, "Second merchant", "")
	if err != nil {
		r.t.Fatal(err)
	}
	test, live, other = r.has(mine.AccountID, testKeys, "of-test"), r.has(mine.AccountID, liveKeys, "of-live"), r.has(theirs.AccountID, otherKeys, "of-others")
	nobody = owned{
		pair: merchants.NewKeyPair(merchants.Test), account: uuid.NewString(), order: "order-of-nobody", nonce: "nonce-of-nobody",
		sale: sale{uuid.NewString(), uuid.NewString()}, shop: noShopping(),
	}
	for i := range nobody.held {
		nobody.held[i] = nobody.sale
	}
	return test, live, other, nobody
}

// call is a request that a route takes.
type call struct{ target, body string }

// route is how a route of the merchants' listener is asked for somebody's things.
type route struct {
	open bool // to everybody
	ask  func(o owned) call
	// again is how it is asked for a second time, where the first ends what it is about.
	again func(o owned) call
	let   who // besides those who show a pair
	own   int // what is answered for one's own
	// foreign is what is answered for another account's and another mode's, code and
	// status; where it is 200, the answer is an empty list; where it is 0, what is asked
	// for has no id of its own, and is everybody's.
	foreign     int
	foreignCode string
}

// who is let in by a route.
type who string

const (
	backends who = ""         // with a pair of keys
	either   who = "either"   // and browsers, with the public key alone
	browsers who = "browsers" // alone: a secret beside the public key says nothing
)

// lets says whether somebody is let in without a pair of keys who shows these headers, if
// these are the good public keys.
func (w who) lets(headers []string, public ...string) bool {
	shown := slices.Index(headers, "public-api-key")
	if w == backends || shown < 0 || !slices.Contains(public, headers[shown+1]) {
		return false
	}
	return w == browsers || !slices.Contains(headers, "private-secret-key")
}

var merchantsRoutes = map[string]route{
	"GET /v1/payments/:payment_id": {ask: func(o owned) call { return call{"/v1/payments/" + o.payment, ""} }, own: 200, foreign: 400, foreignCode: "PAYMENT_NOT_FOUND"},
	"GET /v1/payments":             {ask: func(o owned) call { return call{"/v1/payments?merchant_order_id=" + o.order, ""} }, own: 200, foreign: 200},
	"GET /v1/idempotency-keys":     {ask: func(o owned) call { return call{"/v1/idempotency-keys?nonce=" + o.nonce, ""} }, own: 200, foreign: 404, foreignCode: "NOT_FOUND"},
	"GET /v1/idempotency-keys/*":   {ask: func(o owned) call { return call{"/v1/idempotency-keys/" + o.nonce, ""} }, own: 200, foreign: 404, foreignCode: "NOT_FOUND"},
	"POST /v1/payments":            {ask: func(o owned) call { return call{"/v1/payments", o.body()} }, own: 201, foreign: 400, foreignCode: "INVALID_ACCOUNT_ID"},
	"POST /v1/payments/:payment_id/transactions/:transaction_id/capture": {
		ask: func(o owned) call { return o.held[0].act("capture") }, own: 200, foreign: 400, foreignCode: "PAYMENT_NOT_FOUND",
	},
	"POST /v1/payments/:payment_id/transactions/:transaction_id/cancel": {
		ask:   func(o owned) call { return o.held[1].act("cancel") },
		again: func(o owned) call { return o.held[2].act("cancel") }, own: 200, foreign: 400, foreignCode: "PAYMENT_NOT_FOUND",
	},
	"POST /v1/payments/:payment_id/transactions/:transaction_id/refund": {
		ask: func(o owned) call { return o.act("refund") }, own: 200, foreign: 400, foreignCode: "PAYMENT_NOT_FOUND",
	},
	"POST /v1/payments/:payment_id/transactions/:transaction_id/cancel-or-refund": {
		ask: func(o owned) call { return o.act("cancel-or-refund") }, own: 201, foreign: 400, foreignCode: "PAYMENT_NOT_FOUND",
	},
	"POST /v1/payments/:payment_id/cancel-or-refund": {
		ask: func(o owned) call { return call{"/v1/payments/" + o.payment + "/cancel-or-refund", actBody} }, own: 201, foreign: 400, foreignCode: "PAYMENT_NOT_FOUND",
	},
	// The bank never calls back, so there is nothing here for anybody. Who signs what is
	// the sandbox's tests' business.
	"POST /v1/callbacks/:provider_id": {open: true, ask: func(owned) call { return call{"/v1/callbacks/TEST_BANK", "{}"} }, own: 404},
	"GET /livez":                      {open: true, ask: page("/livez"), own: 200},
	"GET /readyz":                     {open: true, ask: page("/readyz"), own: 200},
	"GET /openapi.yaml":               {open: true, ask: page("/openapi.yaml"), own: 200},
	"GET /docs":                       {open: true, ask: page("/docs"), own: 200},
	"GET /docs/assets/:file":          {open: true, ask: page("/docs/assets/unheard-of"), own: 404},
	"GET /docs/errors":                {open: true, ask: page("/docs/errors"), own: 200},
	"GET /docs/idempotency":           {open: true, ask: page("/docs/idempotency"), own: 200},
	"GET /docs/errors/:code":          {open: true, ask: page("/docs/errors/INVALID_AMOUNT"), own: 200},
}

// actBody fits every action, and takes so little that it can be done often.
const actBody = `{"merchant_reference":"reference-1","reason":"REQUESTED_BY_CUSTOMER","amount":{"currency":"USD","value":0.01}}`

// act is an action on s's transaction.
func (s sale) act(action string) call {
	return call{"/v1/payments/" + s.payment + "/transactions/" + s.transaction + "/" + action, actBody}
}

func page(target string) func(owned) call { return func(owned) call { return call{target, ""} } }

// missing compares the routes of a listener with a table's, and fails the test for
// each that is in one of them alone.
func missing[T any](t *testing.T, mounted []string, table map[string]T) {
	t.Helper()
	for _, name := range mounted {
		if _, ok := table[name]; !ok {
			t.Errorf("%s is mounted, and nobody says who may call it", name)
		}
	}
	for name := range table {
		if !slices.Contains(mounted, name) {
			t.Errorf("%s is in the table, and nowhere mounted", name)
		}
	}
}

func TestEveryRouteOfMerchantsKnowsWhoseItIs(t *testing.T) {
	t.Parallel()
	r := start(t)
	table := everyRoute()
	missing(t, r.routes(r.public), table)
	test, live, other, nobody := r.people()
	revoked, err := r.auth.CreateKey(t.Context(), uuid.MustParse(test.account), merchants.Test)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.db.Conn(t.Context()).Exec(`UPDATE api_keys SET revoked_at = clock_timestamp(), changed_at = clock_timestamp() WHERE public_api_key = $1`, revoked.PublicAPIKey).Error; err != nil {
		t.Fatal(err)
	}
	if _, err := r.auth.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	const public, secret = "public-api-key", "private-secret-key"
	p := test.pair
	strangers := map[string][]string{
		"no key":                         nil,
		"a wrong key":                    nobody.keys(),
		"half a pair, the public key":    {public, p.PublicAPIKey},
		"half a pair, the secret":        {secret, p.PrivateSecretKey},
		"the wrong secret":               {public, p.PublicAPIKey, secret, nobody.pair.PrivateSecretKey},
		"the wrong public key":           {public, nobody.pair.PublicAPIKey, secret, p.PrivateSecretKey},
		"the halves of two accounts":     {public, p.PublicAPIKey, secret, other.pair.PrivateSecretKey},
		"the halves of two modes":        {public, live.pair.PublicAPIKey, secret, p.PrivateSecretKey},
		"the halves mixed up":            {public, p.PrivateSecretKey, secret, p.PublicAPIKey},
		"a revoked key":                  owned{pair: revoked}.keys(),
		"the secret as a bearer's":       {"Authorization", "Bearer " + p.PrivateSecretKey},
		"the operator's token":           {"Authorization", "Bearer " + r.cfg.adminToken},
		"the operator's token as secret": {public, p.PublicAPIKey, secret, r.cfg.adminToken},
		"the keys in the query":          {"X-Original-Url", "/v1/payments?public-api-key=" + p.PublicAPIKey + "&private-secret-key=" + p.PrivateSecretKey},
		"the keys as cookies":            {"Cookie", public + "=" + p.PublicAPIKey + "; " + secret + "=" + p.PrivateSecretKey},
		"the account alone, by its id":   {public, test.account, secret, test.account},
	}
	for i, name := range r.routes(r.public) {
		c, known := table[name]
		if !known {
			continue // said above
		}
		method, _, _ := strings.Cut(name, " ")
		// Browsers' nonces are UUIDs; the same name is the same nonce.
		drawn := func(nonce string) string { return uuid.NewSHA1(uuid.Nil, []byte(nonce)).String() }
		ask := func(who owned, what owned, nonce string) answered {
			q := c.ask(what)
			return r.ask(false, method, q.target, q.body, append(who.keys(), "X-Idempotency-Key", drawn(nonce))...)
		}
		before := r.rows()
		for who, headers := range strangers {
			if c.let.lets(headers, p.PublicAPIKey, live.pair.PublicAPIKey) {
				continue // no stranger there
			}
			q := c.ask(test)
			a := r.ask(false, method, q.target, q.body, append(slices.Clone(headers), "X-Idempotency-Key", test.nonce)...)
			switch {
			case c.open && a.status != c.own:
				t.Errorf("%s, with %s: got %s, want %d", name, who, a, c.own)
			case !c.open && (a.status != http.StatusUnauthorized || a.code() != "INVALID_CREDENTIALS" || a.header.Get("Idempotent-Replayed") != ""):
				t.Errorf("%s, with %s: got %s", name, who, a)
			}
		}
		if c.open {
			continue
		}
		if c.foreign != 0 {
			r.foreign(name, c, ask, test, live, other, nobody)
		}
		if after := r.rows(); !maps.Equal(before, after) {
			t.Errorf("%s: the strangers left something: %v became %v", name, before, after)
		}
		if method == http.MethodPost { // a nonce is another one in each mode
			nonce := fmt.Sprintf("nonce-of-both-modes-%d", i)
			for mode, who := range map[string]owned{"live": live, "test": test} {
				if a := ask(who, who, nonce); a.status != c.own || a.header.Get("Idempotent-Replayed") != "" {
					t.Errorf("%s under a nonce of both modes, with a %s key: got %s", name, mode, a)
				}
			}
		}
		if c.again != nil {
			c.ask = c.again
		}
		if a := ask(test, test, fmt.Sprintf("nonce-of-mine-%d", i)); a.status != c.own { // so that the refusals mean something
			t.Errorf("%s of one's own: got %s, want %d", name, a, c.own)
		}
	}
}

// everyRoute are those of payments, and those of the checkout.
func everyRoute() map[string]route {
	all := maps.Clone(merchantsRoutes)
	maps.Copy(all, checkoutRoutes)
	return all
}

// byAccount are the routes that look at the account first; the mode is the key's own.
var byAccount = []string{
	"POST /v1/payments", "POST /v1/checkout/sessions", "POST /v1/tokens", "POST /v1/payment-links", "POST /v1/customers/sessions",
	"POST /v1/customers/:customer_id/payment-methods",
}

// foreign asks a route for what is another's, or of another mode: it is told as if it did
// not exist.
func (r *running) foreign(name string, c route, ask func(who, what owned, nonce string) answered, test, live, other, nobody owned) {
	r.t.Helper()
	inexistent := ask(test, nobody, "nonce-of-"+name)
	if inexistent.status != c.foreign || inexistent.code() != c.foreignCode || c.foreign == http.StatusOK && strings.TrimSpace(string(inexistent.body)) != "[]" {
		r.t.Errorf("%s of nobody's: got %s, want %d %s", name, inexistent, c.foreign, c.foreignCode)
	}
	foreign := []struct {
		what       string
		who, thing owned
	}{{"another account's", test, other}, {"the live mode's with a test key", test, live}, {"the test mode's with a live key", live, test}}
	if slices.Contains(byAccount, name) {
		foreign = foreign[:1]
	}
	for _, f := range foreign {
		if a := ask(f.who, f.thing, "nonce-of-"+name); a.plain() != inexistent.plain() {
			r.t.Errorf("%s of %s is told as %s, what does not exist as %s", name, f.what, a, inexistent)
		}
	}
}

// operatorsRoute is how a route of the operator's listener is asked, and what it
// answers to the token.
type operatorsRoute struct {
	open bool
	call
	own int
}

// operatorsRoutes are asked for an account's things; what ends something is asked of
// another one's.
func operatorsRoutes(o, other owned) map[string]operatorsRoute {
	merchant, theirs := "/admin/v1/merchants/"+o.account, "/admin/v1/merchants/"+other.account
	key, theirKey := merchant+"/keys/"+o.pair.ID.String(), theirs+"/keys/"+other.pair.ID.String()
	routes := map[string]operatorsRoute{
		"GET /metrics":             {true, call{"/metrics", ""}, 200},
		"GET /livez":               {true, call{"/livez", ""}, 200},
		"GET /readyz":              {true, call{"/readyz", ""}, 200},
		"POST /admin/v1/merchants": {false, call{"/admin/v1/merchants", `{"name":"Third merchant"}`}, 201},
		"POST /admin/v1/merchants/:account_id/keys":                {false, call{"/admin/v1/merchants/" + o.account + "/keys", `{"mode":"live"}`}, 201},
		"GET /admin/v1/merchants":                                  {false, call{"/admin/v1/merchants", ""}, 200},
		"GET /admin/v1/merchants/:account_id":                      {false, call{merchant, ""}, 200},
		"PATCH /admin/v1/merchants/:account_id":                    {false, call{merchant, `{"name":"First merchant, renamed"}`}, 200},
		"POST /admin/v1/merchants/:account_id/enable":              {false, call{merchant + "/enable", ""}, 200},
		"POST /admin/v1/merchants/:account_id/disable":             {false, call{theirs + "/disable", ""}, 200},
		"GET /admin/v1/merchants/:account_id/keys":                 {false, call{merchant + "/keys", ""}, 200},
		"PATCH /admin/v1/merchants/:account_id/keys/:key_id":       {false, call{key, `{"allowed_networks":null}`}, 200},
		"POST /admin/v1/merchants/:account_id/keys/:key_id/rotate": {false, call{key + "/rotate", `{}`}, 201},
		"POST /admin/v1/merchants/:account_id/keys/:key_id/revoke": {false, call{theirKey + "/revoke", ""}, 200},
		"POST /admin/v1/reconciliations":                           {false, call{"/admin/v1/reconciliations", `{"since":"1h"}`}, 200},
		"GET /admin/v1/differences":                                {false, call{"/admin/v1/differences", ""}, 200},
		"GET /admin/v1/invariants":                                 {false, call{"/admin/v1/invariants", ""}, 200},
		"GET /admin/v1/nonces":                                     {false, call{"/admin/v1/nonces?nonce=" + o.nonce, ""}, 200},
		"GET /admin/v1/nonces/*":                                   {false, call{"/admin/v1/nonces/" + o.nonce, ""}, 200},
		"POST /admin/v1/transactions/:transaction_id/resolve": {false,
			call{"/admin/v1/transactions/" + o.transaction + "/resolve", `{"outcome":"failed","reason":"seen"}`}, 409},
		"GET /admin/v1/operators":                            {false, call{"/admin/v1/operators", ""}, 200},
		"POST /admin/v1/operators":                           {false, call{"/admin/v1/operators", `{"name":"somebody","role":"viewer"}`}, 201},
		"PATCH /admin/v1/operators/:name":                    {false, call{"/admin/v1/operators/nobody", `{"role":"viewer"}`}, 404},
		"POST /admin/v1/operators/:name/reset-password":      {false, call{"/admin/v1/operators/nobody/reset-password", ""}, 404},
		"POST /admin/v1/operators/:name/sign-out":            {false, call{"/admin/v1/operators/nobody/sign-out", ""}, 404},
		"POST /admin/v1/operators/:name/withdraw-invitation": {false, call{"/admin/v1/operators/nobody/withdraw-invitation", ""}, 404},
		"GET /admin/v1/tokens":                               {false, call{"/admin/v1/tokens", ""}, 200},
		"POST /admin/v1/tokens":                              {false, call{"/admin/v1/tokens", `{"name":"a program","scope":"viewer"}`}, 201},
		"POST /admin/v1/tokens/:token_id/revoke":             {false, call{"/admin/v1/tokens/" + uuid.NewString() + "/revoke", ""}, 404},
		"GET /debug/pprof/":                                  {false, call{"/debug/pprof/", ""}, 200},
		"GET /debug/pprof/profile":                           {false, call{"/debug/pprof/profile?seconds=1", ""}, 200},
		"GET /debug/pprof/trace":                             {false, call{"/debug/pprof/trace?seconds=0.01", ""}, 200},
		"GET /openapi.yaml":                                  {true, call{"/openapi.yaml", ""}, 200},
		"GET /docs":                                          {true, call{"/docs", ""}, 200},
		"GET /docs/assets/:file":                             {true, call{"/docs/assets/unheard-of", ""}, 404},
		"GET /docs/errors":                                   {true, call{"/docs/errors", ""}, 200},
		"GET /docs/idempotency":                              {true, call{"/docs/idempotency", ""}, 200},
		"GET /docs/errors/:code":                             {true, call{"/docs/errors/INVALID_AMOUNT", ""}, 200},
	}
	for _, name := range []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"} {
		routes["GET /debug/pprof/"+name] = operatorsRoute{false, call{"/debug/pprof/" + name, ""}, 200}
	}
	return routes
}

// forPrograms are the routes of the operator's listener but the console's, which
// access_test.go is about.
func (r *running) forPrograms() []string {
	return slices.DeleteFunc(r.routes(r.operator), func(name string) bool {
		_, path, _ := strings.Cut(name, " ")
		return isPage(true, path)
	})
}

func TestEveryRouteOfTheOperatorsNeedsTheToken(t *testing.T) {
	t.Parallel()
	r := start(t)
	test, live, other, nobody := r.people()
	table := operatorsRoutes(test, other)
	missing(t, r.forPrograms(), table)
	token := r.cfg.adminToken
	strangers := map[string][]string{
		"no token":                 nil,
		"a wrong token":            {"Authorization", "Bearer " + nobody.pair.PrivateSecretKey},
		"an empty token":           {"Authorization", "Bearer "},
		"half the token":           {"Authorization", "Bearer " + token[:len(token)/2]},
		"the token and more":       {"Authorization", "Bearer " + token + "x"},
		"the token in capitals":    {"Authorization", "Bearer " + strings.ToUpper(token)},
		"the token alone":          {"Authorization", token},
		"the token by its user":    {"Authorization", "Basic " + token},
		"a merchant's keys":        test.keys(),
		"a merchant's live keys":   live.keys(),
		"a merchant's secret":      {"Authorization", "Bearer " + live.pair.PrivateSecretKey},
		"the token as a cookie":    {"Cookie", "Authorization=Bearer " + token},
		"the token under a prefix": {"X-Authorization", "Bearer " + token},
		"the installation's":       {"Authorization", "Bearer " + string(r.cfg.secret)},
	}
	public := r.routes(r.public)
	for _, name := range r.forPrograms() {
		c, known := table[name]
		if !known {
			continue
		}
		method, _, _ := strings.Cut(name, " ")
		before := r.rows()
		for who, headers := range strangers {
			a := r.ask(true, method, c.target, c.body, headers...)
			switch {
			case c.open && a.status != c.own:
				t.Errorf("%s, with %s: got %s, want %d", name, who, a, c.own)
			case !c.open && (a.status != http.StatusUnauthorized || a.code() != "INVALID_CREDENTIALS" || a.header.Get("WWW-Authenticate") != "Bearer"):
				t.Errorf("%s, with %s: got %s", name, who, a)
			}
		}
		if after := r.rows(); !maps.Equal(before, after) {
			t.Errorf("%s: the strangers left something: %v became %v", name, before, after)
		}
		if a := r.ask(true, method, c.target, c.body, "Authorization", "Bearer "+token); a.status != c.own {
			t.Errorf("%s, with the token: got %s, want %d", name, a, c.own)
		}
		// What is the operator's is not on the merchants' listener, whatever one brings.
		if !slices.Contains(public, name) {
			a := r.ask(false, method, c.target, c.body, append(test.keys(), "Authorization", "Bearer "+token)...)
			if a.status != http.StatusNotFound || a.code() != "NOT_FOUND" {
				t.Errorf("%s is on the merchants' listener: %s", name, a)
			}
		}
	}
}
