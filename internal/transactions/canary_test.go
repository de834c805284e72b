package transactions

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/admin"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// Case H55. Canaries are values that occur nowhere else: a card number, a security
// code, secrets. They go through every route, every outcome and every error; then
// everything that was kept, logged, told, or even said to PostgreSQL is searched.

// canaryCode is a security code of digits that no random text of ours has (base32
// knows no 0, 1, 8 and 9).
const canaryCode = "9810"

// mine is an installation as cmd puts it together, whose every word is kept.
type mine struct {
	*world
	instance
	proxy      *pgproxy.Proxy
	books      *bookkeeper
	said       bytes.Buffer // what PostgreSQL was told, on the wire
	told       bytes.Buffer // what clients were told
	log        bytes.Buffer
	edges      []*echo.Echo
	card       string
	adminToken string
	canaries   map[string]string // name by value

	reconciler *Reconciler
}

func newMine(t *testing.T) *mine {
	t.Helper()
	w := newWorld(t)
	m := &mine{world: w, proxy: pgproxy.New(t, w.url), adminToken: "admin-token-" + rand.Text() + rand.Text()}
	m.proxy.Copy(&m.said)
	db, err := postgres.Open(t.Context(), m.proxy.URL(), pgtest.Options(m.proxy.URL(), postgres.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	if _, err := db.NoteIdentity(t.Context()); err != nil { // as the program does
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(&lockedWriter{w: &m.log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	m.books = &bookkeeper{psp: w.psp, pageSize: 3}
	m.instance = w.newInstanceWith(db, func(o *Options) {
		o.Log = log
		m.books.listed(o)
	})
	m.reconciler = NewReconciler(m.service, nil)
	w.steady()
	edge := httpapi.Options{Log: log, Transient: postgres.IsTransient, Describe: postgres.Describe}
	public, operator := httpapi.New(edge), httpapi.New(edge)
	api := NewHandler(m.service, m.auth)
	api.Mount(public)
	mountCheckout(public, api, m.auth)
	NewCallbackHandler(m.service).Mount(public)
	admin.Mount(operator, admin.Options{
		Token: m.adminToken, Metrics: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/plain; version=0.0.4")
		}),
		API: []admin.Mounter{merchants.NewOperatorHandler(m.auth), NewOperatorHandler(m.service), NewReconciliationHandler(m.reconciler)},
	})
	m.edges = []*echo.Echo{public, operator}
	m.public, m.operator = serve(t, public), serve(t, operator)

	m.card = "492918091809180"
	for digit := '0'; !luhn(m.card) || len(m.card) < 16; digit++ {
		m.card = m.card[:15] + string(digit)
	}
	m.canaries = map[string]string{
		m.card: "card number", string(testSecret): "installation's secret", m.adminToken: "admin token",
		w.test.PrivateSecretKey: "secret of the test key", w.live.PrivateSecretKey: "secret of the live key",
		"sandbox_secret_WRONG" + rand.Text(): "secret of nobody",
	}
	w.psp.token = "psptok_" + rand.Text()
	m.canaries[w.psp.token] = providersToken
	return m
}

// ask sends a request and keeps what came back.
func (m *mine) ask(method string, server *httptest.Server, path string, body []byte, headers ...string) response {
	m.t.Helper()
	r := m.call(method, server.URL+path, body, headers...)
	fmt.Fprintf(&m.told, "%d %v\n%s\n", r.status, r.header, r.body)
	return r
}

// pay sends a payment with the canaries in it. change may replace anything.
func (m *mine) pay(pair merchants.KeyPair, nonce string, change func(body map[string]any)) response {
	m.t.Helper()
	return m.ask(http.MethodPost, m.public, "/v1/payments", m.payment(nonce, change), append(keys(pair), "X-Idempotency-Key", nonce)...)
}

func (m *mine) payment(nonce string, change func(body map[string]any)) []byte {
	m.t.Helper()
	var body map[string]any
	if err := json.Unmarshal(m.body("order-of-"+nonce, nil), &body); err != nil {
		m.t.Fatal(err)
	}
	data, _ := dig(body, "payment_method", "detail", "card", "card_data")
	data["number"], data["security_code"] = m.card, canaryCode
	if change != nil {
		change(body)
	}
	b, err := json.Marshal(body)
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// dig returns the object at a path, and the one around it.
func dig(body map[string]any, path ...string) (at, parent map[string]any) {
	at = body
	for _, name := range path {
		parent = at
		at, _ = parent[name].(map[string]any)
	}
	return at, parent
}

func set(value any, path ...string) func(map[string]any) {
	return func(body map[string]any) {
		at, _ := dig(body, path[:len(path)-1]...)
		at[path[len(path)-1]] = value
	}
}

// outcomes sends a payment into everything a provider may do, in both modes, each
// with a retry, a retry with another body, and a look at what became of it.
func (m *mine) outcomes() {
	m.t.Helper()
	panics := func(_ context.Context, _ *psp, c providers.Charge) providers.Result {
		panic(c.Card.Number + c.Card.SecurityCode)
	}
	for name, does := range map[string]behaviour{
		"approve": approve, "decline": decline, "accept": accept, "refuse": refuse, "not-reached": notReached,
		"timeout": timeout, "charge-then-timeout": chargeThenTimeout, "server-error": serverError, "panic": panics,
	} {
		for _, pair := range []merchants.KeyPair{m.test, m.live} {
			nonce := name + "-" + pair.Mode
			m.psp.next(does)
			first := m.pay(pair, nonce, nil)
			m.pay(pair, nonce, nil)
			m.pay(pair, nonce, set(json.Number("99.5"), "amount", "value"))
			m.pay(pair, nonce, set(m.card, "country")) // invalid
			if id, ok := first.get("id").(string); ok {
				m.ask(http.MethodGet, m.public, "/v1/payments/"+id, nil, keys(pair)...)
			}
			m.ask(http.MethodGet, m.public, "/v1/payments?merchant_order_id=order-of-"+nonce, nil, keys(pair)...)
			for _, path := range []string{"/" + nonce, "?nonce=" + nonce} {
				m.ask(http.MethodGet, m.public, "/v1/idempotency-keys"+path, nil, keys(pair)...)
				m.ask(http.MethodGet, m.operator, "/admin/v1/nonces"+path, nil, "Authorization", "Bearer "+m.adminToken)
			}
		}
	}
}

// checkouts pays sessions in every way, with tokens, with kept cards and with cards that are
// to be kept, by browsers and by the backend. Customers' sessions and links are made a floor
// above; what a payment could write into them it could write here.
func (m *mine) checkouts() {
	m.t.Helper()
	shopper := m.customer()
	m.insert("customer_sessions", []column{{"account_id", m.account}, {"id", shopper}, {"mode", "test"}, {"customer_id", shopper}, {"country", "US"},
		{"callback_url", ""}, {"created_at", time.Now()}, {"expires_at", time.Now()}})
	m.insert("payment_links", []column{{"account_id", m.account}, {"id", shopper}, {"code", "code"}, {"mode", "test"}, {"merchant_order_id", "order"},
		{"country", "US"}, {"currency", "USD"}, {"amount", "1"}, {"one_time_use", true}, {"start_at", time.Now()}, {"finish_at", time.Now().Add(time.Hour)},
		{"details", "{}"}, {"created_at", time.Now()}, {"updated_at", time.Now()}})
	for name, does := range map[string]behaviour{"approve": approve, "decline": decline, "accept": accept, "refuse": refuse, "timeout": timeout} {
		session := m.session("order-of-session-"+name, column{"customer_id", shopper})
		path := "/v1/checkout/sessions/" + session.String() + "/payment"
		nonce, token := newNonce(), m.token(session, column{"vault_on_success", name == "approve"})
		m.psp.next(does)
		for _, body := range [][]byte{tokenBody(token), m.payment(nonce, nil), []byte(`{"payment_method":{"token":"` + m.psp.token + `"}}`), tokenBody(token)} {
			m.ask(http.MethodPost, m.public, path, body, "public-api-key", m.test.PublicAPIKey, "X-Idempotency-Key", nonce)
		}
		m.ask(http.MethodGet, m.public, path, nil, "public-api-key", m.test.PublicAPIKey)
		m.ask(http.MethodGet, m.public, path+"?raw_response=true", nil, keys(m.test)...)
		m.ask(http.MethodGet, m.operator, "/admin/v1/nonces/"+nonce, nil, "Authorization", "Bearer "+m.adminToken)

		m.psp.next(does)
		kept := m.pay(m.test, "keeps-the-card-"+name, func(body map[string]any) {
			set(true, "payment_method", "vault_on_success")(body)
			body["customer_payer"] = map[string]any{"id": shopper.String()}
		})
		vaulted, _ := kept.get("payment_method", "vaulted_token").(string)
		if (vaulted != "") != (name == "approve") {
			m.t.Errorf("%s: a kept card is told as %q", name, vaulted)
		}
		if vaulted != "" {
			m.want(m.pay(m.test, "pays-with-the-kept-card", func(body map[string]any) {
				set(vaulted, "payment_method", "vaulted_token")(body)
			}), http.StatusCreated)
		}
	}
	for _, path := range []string{"payment_method.token", "payment_method.vaulted_token", "checkout.session"} {
		m.pay(m.test, "a-providers-token-as-"+path, func(body map[string]any) {
			body["checkout"] = map[string]any{}
			set(m.psp.token, strings.Split(path, ".")...)(body)
		})
	}
}

// mistakes sends canaries where they do not belong.
func (m *mine) mistakes() {
	m.t.Helper()
	const cardData = "payment_method.detail.card.card_data."
	free, descriptive := []string{"callback_url", "payment_method.detail.card.soft_descriptor"}, []string{"customer_payer", "additional_data"}
	n := 0
	for _, path := range []string{
		"account_id", "country", "amount", "amount.value", "amount.currency", "workflow", "callback_url", "customer_payer", "additional_data", "metadata",
		"payment_method", "payment_method.type", "payment_method.token", "payment_method.vaulted_token", "payment_method.vault_on_success",
		"payment_method.detail", "payment_method.detail.card", "payment_method.detail.card.capture", "payment_method.detail.card.installments",
		"payment_method.detail.card.soft_descriptor", "payment_method.detail.card.card_data", "split_marketplace", "fraud_screening",
		cardData + "number", cardData + "security_code", cardData + "expiration_month", cardData + "expiration_year",
	} {
		for _, value := range []any{
			m.card, m.card + "x", json.Number(m.card), canaryCode, json.Number(canaryCode), []any{m.card, canaryCode}, map[string]any{m.card: canaryCode},
		} {
			if _, isObject := value.(map[string]any); isObject && slices.Contains(descriptive, path) || slices.Contains(free, path) {
				continue // a merchant's own words, which we keep and give back as they are
			}
			if path == "amount.value" && fmt.Sprint(value) == canaryCode {
				continue // and its own price
			}
			n++
			m.pay(m.test, fmt.Sprint("mistake-", n), set(value, strings.Split(path, ".")...))
		}
	}
	m.pay(m.test, "unknown-fields", func(body map[string]any) { // accepted, and forgotten
		body["card_number"], body["cvv"] = m.card, canaryCode
		data, _ := dig(body, "payment_method", "detail", "card", "card_data")
		data["pan"], data["track_2"] = m.card, ";"+m.card+"=2811"
		amount, _ := dig(body, "amount")
		amount["note"] = m.card
	})
	whole := m.payment("malformed", nil)
	at := bytes.Index(whole, []byte(m.card))
	for what, body := range map[string][]byte{
		"cut": whole[:at+len(m.card)], "a name twice": bytes.Replace(whole, []byte(`"number"`), []byte(`"number":"`+m.card+`","number"`), 1),
		"broken UTF-8": bytes.Replace(whole, []byte(m.card), []byte(m.card+"\xff"), 1), "trailing": append(slices.Clone(whole), m.card...),
		"no object": []byte(`"` + m.card + `"`), "too large": append(slices.Clone(whole), bytes.Repeat([]byte(" "+m.card), 20_000)...),
	} {
		m.ask(http.MethodPost, m.public, "/v1/payments", body, append(keys(m.test), "X-Idempotency-Key", "malformed")...)
		m.ask(http.MethodPost, m.public, "/v1/payments", body, append(keys(m.test), "X-Idempotency-Key", m.card+" "+what)...)
	}
	for _, headers := range [][]string{{"Content-Type", "text/plain; card=" + m.card}, {"Content-Encoding", m.card}} {
		m.ask(http.MethodPost, m.public, "/v1/payments", whole, append(append(keys(m.test), "X-Idempotency-Key", "malformed"), headers...)...)
	}
}

// strangers knock with the wrong keys, at every door and at doors that do not exist.
func (m *mine) strangers() {
	m.t.Helper()
	for secret, name := range m.canaries {
		for _, headers := range [][]string{
			{"public-api-key", m.test.PublicAPIKey, "private-secret-key", secret + "x"},
			{"public-api-key", secret, "private-secret-key", secret}, // the halves mixed up
			{"Authorization", "Bearer " + secret + "x"},
		} {
			for _, path := range []string{"/v1/payments", "/v1/payments/" + secret, "/v1/idempotency-keys?nonce=" + secret, "/" + secret, "/admin/v1/nonces/" + secret} {
				m.ask(http.MethodGet, m.public, path, nil, headers...)
				m.ask(http.MethodGet, m.operator, path, nil, headers...)
				m.ask(http.MethodPost, m.public, path, m.payment(name, nil), headers...)
			}
		}
	}
	m.proxy.Copy(nil) // what is looked for has to be said
	for _, path := range []string{"/v1/payments/" + m.card, "/v1/payments?merchant_order_id=" + m.card, "/v1/payments?limit=" + m.card, "/v1/payments?merchant_order_id=x&after=" + m.card,
		"/v1/idempotency-keys/" + m.card, "/v1/idempotency-keys/%" + m.card} {
		m.ask(http.MethodGet, m.public, path, nil, keys(m.test)...)
		m.ask(http.MethodDelete, m.public, path, nil, keys(m.test)...)
	}
	m.proxy.Copy(&m.said)
}

// operate goes through everything an operator can do, right and wrong.
func (m *mine) operate() {
	m.t.Helper()
	bearer := []string{"Authorization", "Bearer " + m.adminToken}
	// The one place where a secret is told: to whom it is made for.
	made := m.call(http.MethodPost, m.operator.URL+"/admin/v1/merchants", []byte(`{"name":"Second merchant"}`), bearer...)
	m.want(made, http.StatusCreated)
	account, _ := made.get("account_id").(string)
	another := m.call(http.MethodPost, m.operator.URL+"/admin/v1/merchants/"+account+"/keys", []byte(`{"mode":"live"}`), bearer...)
	m.want(another, http.StatusCreated)
	id, _ := another.get("id").(string)
	merchant, key := "/admin/v1/merchants/"+account, "/admin/v1/merchants/"+account+"/keys/"+id
	m.want(m.ask(http.MethodPatch, m.operator, key, []byte(`{"allowed_networks":["192.0.2.0/24"]}`), bearer...), http.StatusOK)
	m.want(m.ask(http.MethodPatch, m.operator, merchant, []byte(`{"idempotency_policy":"novu"}`), bearer...), http.StatusOK)
	successor := m.call(http.MethodPost, m.operator.URL+key+"/rotate", []byte(`{"overlap_seconds":3600}`), bearer...)
	m.want(successor, http.StatusCreated)
	for secret, name := range map[any]string{
		made.get("api_key", "private_secret_key"): "secret of a new merchant", another.get("private_secret_key"): "secret of a new key",
		successor.get("private_secret_key"): "secret of a key's successor",
	} {
		s, ok := secret.(string)
		if !ok || len(s) < 32 {
			m.t.Fatalf("no %s was told", name)
		}
		m.canaries[s] = name
	}
	for _, path := range []string{"/admin/v1/merchants", merchant, merchant + "/keys", merchant + "?limit=" + m.card} {
		m.want(m.ask(http.MethodGet, m.operator, path, nil, bearer...), http.StatusOK)
	}
	for _, action := range []string{key + "/revoke", merchant + "/disable", merchant + "/enable"} {
		m.want(m.ask(http.MethodPost, m.operator, action, nil, bearer...), http.StatusOK)
	}
	for _, body := range []string{`{"allowed_networks":["` + m.card + `"]}`, `{"allowed_networks":"` + m.card + `"}`, `{"overlap_seconds":` + m.card + `}`, `{"` + m.card} {
		m.ask(http.MethodPatch, m.operator, key, []byte(body), bearer...)
		for _, action := range []string{key + "/rotate", key + "/revoke", merchant + "/keys/" + m.card + "/revoke", "/admin/v1/merchants/" + m.card + "/disable"} {
			m.ask(http.MethodPost, m.operator, action, []byte(body), bearer...)
		}
	}
	for _, body := range []string{`{"name":["` + m.card + `"]}`, `{"name":"x","idempotency_policy":"` + m.card + `"}`, `{"mode":"` + m.card + `"}`, `{"` + m.card} {
		m.ask(http.MethodPost, m.operator, "/admin/v1/merchants", []byte(body), bearer...)
		m.ask(http.MethodPatch, m.operator, merchant, []byte(body), bearer...)
		m.ask(http.MethodPost, m.operator, "/admin/v1/merchants/"+account+"/keys", []byte(body), bearer...)
		m.ask(http.MethodPost, m.operator, "/admin/v1/merchants/"+m.card+"/keys", []byte(body), bearer...)
		m.ask(http.MethodPost, m.operator, "/admin/v1/transactions/"+m.card+"/resolve", []byte(body), bearer...)
		m.ask(http.MethodPost, m.operator, "/admin/v1/transactions/"+m.transaction("timeout-test").ID.String()+"/resolve", []byte(body), bearer...)
	}
	m.ask(http.MethodGet, m.operator, "/admin/v1/nonces?nonce=x&account_id="+m.card, nil, bearer...)
	m.ask(http.MethodGet, m.operator, "/metrics", nil)

	m.psp.next(chargeThenTimeout)
	m.pay(m.test, "to-be-resolved", nil)
	m.want(m.ask(http.MethodPost, m.operator, "/admin/v1/transactions/"+m.transaction("to-be-resolved").ID.String()+"/resolve",
		[]byte(`{"outcome":"succeeded","reason":"seen in the provider's console"}`), bearer...), http.StatusOK)
}

// troubles are the database's: it refuses what it is asked for (and quotes the row in
// its complaint), or goes away.
func (m *mine) troubles() {
	m.t.Helper()
	for _, table := range []string{"payments", "events"} { // at begin, and at finish
		m.sql(`ALTER TABLE ` + table + ` ADD CONSTRAINT nothing_goes CHECK (false) NOT VALID`)
		r := m.pay(m.test, "refused-by-"+table, nil)
		if r.status < 500 {
			m.t.Errorf("the database refused %s, and the client was told %s", table, r)
		}
		m.sql(`ALTER TABLE ` + table + ` DROP CONSTRAINT nothing_goes`)
	}
	sold := m.sells("sale-in-trouble", true)
	for n, statement := range []string{"transactions.begin_action", "transactions.lock_payment", "transactions.under_way", "transactions.payment"} {
		m.proxy.Cut(statement, pgproxy.Asked)
		nonce := fmt.Sprint("cut-action-", n)
		m.acts(nonce, sold.refund("1"))
		m.acts(nonce, sold.refund("1"))
	}
	for _, statement := range []string{"transactions.begin", "transactions.finish", "transactions.read_key"} {
		for _, at := range []pgproxy.Point{pgproxy.Asked, pgproxy.Answered} {
			m.proxy.Cut(statement, at)
			nonce := fmt.Sprintf("cut-%s-%d", statement, at)
			m.pay(m.test, nonce, nil)
			m.pay(m.test, nonce, nil)
		}
	}
	m.proxy.Down()
	m.pay(m.test, "database-down", nil)
	m.ask(http.MethodGet, m.public, "/v1/payments?merchant_order_id=x", nil, keys(m.test)...)
	_, _ = m.service.Recover(m.t.Context()) // it has nothing to do it with
	m.proxy.Up()
}

// aftermath lets a fenced-out holder, recovery and the purge write what they write.
func (m *mine) aftermath() {
	m.t.Helper()
	acted, wake := m.holdAnswer(approve)
	zombie := atOnce(1, func(int) (response, error) {
		return request(m.t.Context(), http.MethodPost, m.public.URL+"/v1/payments", m.payment("zombie", nil), append(keys(m.test), "X-Idempotency-Key", "zombie")...)
	})
	receive(m.t, acted, "the send")
	m.shift("zombie", testLease)
	m.pay(m.test, "zombie", nil)
	wake()
	r := receive(m.t, zombie, "the zombie's answer")
	fmt.Fprintf(&m.told, "%d %v\n%s\n", r.status, r.header, r.body)

	m.sql(`UPDATE transactions SET next_attempt_at = clock_timestamp(), lease_until = least(lease_until, clock_timestamp()) WHERE lease_until IS NOT NULL`)
	if n, err := m.service.Recover(m.t.Context()); n == 0 || err != nil {
		m.t.Errorf("recovery took %d: %v", n, err)
	}
	if n, err := m.arrivals.Flush(m.t.Context()); n == 0 || err != nil {
		m.t.Errorf("%d arrivals were written: %v", n, err)
	}
	m.purge()
}

// needles are the ways in which a canary would still be one, in small letters.
func (m *mine) needles() map[string]string {
	needles := map[string]string{}
	add := func(name, value string) {
		for needle, how := range map[string]string{
			value: "", base64.StdEncoding.EncodeToString([]byte(value)): " in base64", base64.RawURLEncoding.EncodeToString([]byte(value)): " in base64",
			hex.EncodeToString([]byte(value)): " in hexadecimal",
		} {
			needles[strings.ToLower(needle)] = name + how
		}
	}
	for value, name := range m.canaries {
		add(name, value)
	}
	groups := []string{m.card[:4], m.card[4:8], m.card[8:12], m.card[12:]}
	add("card number with spaces", strings.Join(groups, " "))
	add("card number with dashes", strings.Join(groups, "-"))
	add("card number's hidden middle", m.card[6:12]+m.card[12:15])
	// A bare digest of a card number can be guessed back within minutes.
	a, b, c := md5.Sum([]byte(m.card)), sha1.Sum([]byte(m.card)), sha256.Sum256([]byte(m.card))
	for name, digest := range map[string][]byte{"MD5": a[:], "SHA-1": b[:], "SHA-256": c[:]} {
		add("bare "+name+" of the card number", string(digest))
	}
	return needles
}

// noise is what may hold the digits of a security code by chance: ids, digests, times,
// keys, ports.
var noise = regexp.MustCompile(`(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?|(sandbox|prod)_\w+|:\d{5}\b|\d+\.\d+`)

// providersToken is a canary, too: with it a card can be charged. It has its two places.
const providersToken = "provider's token"

// tokensPlaces are where a provider's token is kept, and what PostgreSQL is told of it there.
var tokensPlaces = []string{
	"one_time_tokens.provider_token", "payment_methods.provider_token", "the dump of public.one_time_tokens", "the dump of public.payment_methods",
	"what PostgreSQL was told",
}

// codeIn finds the security code where it stands for itself, and returns what is
// around it.
func codeIn(data []byte) string {
	const around = 100 // more than the longest noise
	wordy := func(i int) bool {
		return i >= 0 && i < len(data) && (unicode.IsLetter(rune(data[i])) || unicode.IsDigit(rune(data[i])))
	}
	for from := 0; ; {
		at := bytes.Index(data[from:], []byte(canaryCode))
		if at < 0 {
			return ""
		}
		at += from
		from = at + 1
		lo, hi := max(0, at-around), min(len(data), at+around)
		covered := slices.ContainsFunc(noise.FindAllIndex(data[lo:hi], -1), func(span []int) bool {
			return lo+span[0] <= at && at+len(canaryCode) <= lo+span[1]
		})
		if !covered && !wordy(at-1) && !wordy(at+len(canaryCode)) {
			return string(data[lo:hi])
		}
	}
}

// search returns what a place holds that it should not.
func (m *mine) search(place string, data []byte) (found []string) {
	small := bytes.ToLower(data)
	for needle, name := range m.needles() {
		kept := strings.HasPrefix(name, providersToken) && slices.ContainsFunc(tokensPlaces, func(p string) bool { return strings.HasSuffix(place, p) })
		if bytes.Contains(small, []byte(needle)) && !kept {
			found = append(found, place+" holds the "+name)
		}
	}
	if around := codeIn(data); around != "" {
		found = append(found, fmt.Sprintf("%s holds the security code: %q", place, around))
	}
	return found
}

// searchDatabase looks at every column of every table, at bytes as bytes, and at what
// a dump of each table would hold. It returns what it found, and the number of rows.
func (m *mine) searchDatabase() (found []string, rows map[string]int) {
	m.t.Helper()
	conn, err := pgx.Connect(m.t.Context(), pgtest.Direct(m.url))
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = conn.Close(m.t.Context()) }()
	columns, err := conn.Query(m.t.Context(), `SELECT quote_ident(table_schema) || '.' || quote_ident(table_name), quote_ident(column_name), data_type
		FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
		WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')`)
	if err != nil {
		m.t.Fatal(err)
	}
	type column struct{ Table, Name, Type string }
	all, err := pgx.CollectRows(columns, pgx.RowToStructByPos[column])
	if err != nil {
		m.t.Fatal(err)
	}
	rows = map[string]int{}
	for _, c := range all {
		value := "convert_to(" + c.Name + "::text, 'UTF8')"
		if c.Type == "bytea" {
			value = c.Name
		}
		values, err := conn.Query(m.t.Context(), `SELECT `+value+` FROM `+c.Table)
		if err != nil {
			m.t.Fatal(err)
		}
		contents, err := pgx.CollectRows(values, pgx.RowTo[[]byte])
		if err != nil {
			m.t.Fatal(err)
		}
		rows[c.Table] = len(contents)
		found = append(found, m.search("the column "+c.Table+"."+c.Name, bytes.Join(contents, []byte("\n")))...)
	}
	for table := range rows {
		var dump bytes.Buffer
		if _, err := conn.PgConn().CopyTo(m.t.Context(), &dump, `COPY `+table+` TO STDOUT`); err != nil {
			m.t.Fatal(err)
		}
		found = append(found, m.search("the dump of "+table, dump.Bytes())...)
	}
	return found, rows
}

func TestH55NothingSecretIsKeptLoggedOrTold(t *testing.T) {
	t.Parallel()
	m := newMine(t)
	m.outcomes()
	m.actions()
	m.callbacks()
	m.compare()
	m.mistakes()
	m.strangers()
	m.operate()
	m.checkouts()
	m.troubles()
	m.aftermath()
	m.proxy.Copy(nil)
	m.public.Close()
	m.operator.Close() // nothing runs any more

	found, rows := m.searchDatabase()
	for _, place := range []struct {
		name string
		data []byte
	}{{"the log", m.log.Bytes()}, {"an answer", m.told.Bytes()}, {"what PostgreSQL was told", m.said.Bytes()}} {
		found = append(found, m.search(place.name, place.data)...)
	}
	slices.Sort(found)
	for _, f := range slices.Compact(found) {
		t.Error(f)
	}

	// That nothing was found means something only if everything was there to look at,
	for table, n := range rows {
		// Who operates the installation, and its figures, are no business of this room: the
		// test of the whole program in cmd/payments has them.
		elsewhere := strings.HasPrefix(table, "public.operator") || table == "public.request_minutes"
		if n == 0 && !elsewhere {
			t.Errorf("%s is empty: nothing was looked for in it", table)
		}
	}
	for _, route := range m.unused() {
		t.Errorf("%s was never answered with success: a route without canaries", route)
	}
	// and if what is there is found.
	m.sql(`CREATE TABLE planted AS SELECT $1::text AS words, $2::bytea AS bytes, $3::integer AS number`, "a card: "+m.card, []byte(m.adminToken), canaryCode)
	found, _ = m.searchDatabase()
	for _, place := range []string{"planted.words holds the card number", "planted.bytes holds the admin token", "planted.number holds the security code"} {
		if !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, place) }) {
			t.Errorf("what was planted was not found: %s", place)
		}
	}
}

// unused are the routes of which the log knows no success.
func (m *mine) unused() []string {
	routes := map[string]bool{}
	for _, e := range m.edges {
		for _, r := range e.Routes() {
			if r.Method != echo.RouteNotFound {
				routes[r.Method+" "+r.Path] = true
			}
		}
	}
	for line := range bytes.Lines(m.log.Bytes()) {
		var l struct {
			Method, Route string
			Status        int
		}
		if json.Unmarshal(line, &l) == nil && l.Status >= 200 && l.Status < 300 {
			delete(routes, l.Method+" "+l.Route)
		}
	}
	return slices.Sorted(maps.Keys(routes))
}

// A client's bug that turns a value into a name, and then writes it twice, is told
// the place where it did so. A short name of digits alone is no name.
func TestH55SecurityCodeInThePlaceOfANameIsNotToldBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := bytes.Replace(w.body("order-1", nil), []byte(`"security_code"`), []byte(`"`+canaryCode+`":1,"`+canaryCode+`":2,"security_code"`), 1)
	r := w.create("nonce-1", body)
	w.want(r, http.StatusBadRequest, "INVALID_REQUEST")
	if messages := fmt.Sprint(r.get("messages")); strings.Contains(messages, canaryCode) {
		t.Errorf("told back: %s", messages)
	}
}

// A card is in memory only while its request runs. Its type refuses to be printed,
// logged or encoded, so that it takes more than a careless line to lose one.
func TestH55CardRefusesToBeWritten(t *testing.T) {
	t.Parallel()
	card := providers.Card{Number: "4929180918091809", SecurityCode: canaryCode, HolderName: "John Doe", ExpirationYear: 2028, ExpirationMonth: 11}
	charge := providers.Charge{Card: card}
	req := Request{Handed: HandedCard{Card: card}}
	cmd := Command{Request: req, ArrivedAt: time.Now()}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("event", "card", card, "charge", charge, "request", req)
	slog.New(slog.NewTextHandler(&log, nil)).Info("event", "card", card, "charge", charge, "request", req)
	written := log.String()
	for _, v := range []any{card, &card, charge, &charge, req, &req, cmd, &cmd, []providers.Card{card}, map[string]providers.Card{"card": card}} {
		written += fmt.Sprintf("%v %+v %#v %s\n", v, v, v, v)
		if b, err := json.Marshal(v); err == nil {
			written += string(b)
		}
	}
	if strings.Contains(written, card.Number) || codeIn([]byte(written)) != "" {
		t.Error("a card was written in full")
	}
}
