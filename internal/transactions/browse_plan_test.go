package transactions

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

// What the console asks of a database that has become large. The statements are those that
// the service sends, with the parameters that it sends; each is planned as PostgreSQL plans
// one that it meets for the first time, and as it plans one that it knows and has stopped
// looking at the parameters of.

const (
	// planRows is how many payments the usual test has: enough that no plan takes a scan of
	// the table for the cheapest. ONCEPAY_PLAN_ROWS says otherwise; `make test-million` says
	// a million.
	planRows    = 100_000
	planRowsEnv = "ONCEPAY_PLAN_ROWS"

	// mostTouched is how many rows one statement may touch, whatever the table's size: a page
	// looks at some four thousand payments at a time, and at the first transaction of each.
	mostTouched = 4 * maxLooked
)

// large are the tables that grow with what merchants do.
var large = []string{
	"payments", "transactions", "idempotency_keys", "events", "arrivals", "provider_calls", "takeovers", "authorizations",
	"customers", "payment_links", "checkout_sessions", "payment_sources", "audit_entries",
}

// fill makes a database of $1 payments: four merchants that have 70, 25, 4.9 and 0.1 % of
// them, a hundred that have none, and what belongs to payments. Ids are as the service makes
// them. One order, one customer and one provider's reference are very common; everything
// else has names of its own. Foreign keys are not asked about each row.
const fill = `
SET session_replication_role = replica;
SET synchronous_commit = off;
SET maintenance_work_mem = '256MB';
CREATE FUNCTION pg_temp.made(i bigint) RETURNS timestamptz IMMUTABLE LANGUAGE sql RETURN to_timestamp(1767225600 + i * 7);
CREATE FUNCTION pg_temp.id(what text, i bigint) RETURNS uuid IMMUTABLE LANGUAGE sql RETURN
    (lpad(to_hex((extract(epoch FROM pg_temp.made(i)) * 1000)::bigint), 12, '0') || '7' || left(md5(what || i), 3) || '8' || right(md5(what || i), 15))::uuid;
CREATE FUNCTION pg_temp.merchant(n int) RETURNS uuid IMMUTABLE LANGUAGE sql RETURN ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid;
CREATE TEMPORARY TABLE plan AS SELECT i,
    pg_temp.merchant(CASE WHEN i %% 1000 = 7 THEN 4 WHEN i %% 1000 < 700 THEN 1 WHEN i %% 1000 < 950 THEN 2 ELSE 3 END) AS account_id,
    pg_temp.id('payment', i) AS id, pg_temp.id('transaction', i) AS tid, pg_temp.made(i) AS at,
    CASE WHEN i %% 10 = 0 THEN 'test' ELSE 'live' END AS mode,
    CASE WHEN i %% 20000 = 11 THEN 'ERROR' WHEN i %% 50 = 3 THEN 'REFUNDED' WHEN i %% 14 = 5 THEN 'DECLINED' ELSE 'SUCCEEDED' END AS status,
    CASE WHEN i %% 20 = 1 THEN 'the-same-order' ELSE 'order-' || i END AS order_id,
    CASE WHEN i %% 10 = 2 THEN 'one-for-all' WHEN i %% 2 = 0 THEN 'customer-' || i %% 5000 ELSE '' END AS customer,
    i %% 10000 = 17 AS open, i %% 40000 = 17 AS parked
FROM generate_series(1, %[1]d) i;
INSERT INTO merchants (account_id, name) SELECT pg_temp.merchant(n), 'Merchant ' || n FROM generate_series(1, 104) n;
INSERT INTO payments (account_id, id, mode, merchant_order_id, status, sub_status, currency, amount, authorized, authorize_pending, settled, settle_pending,
                      refunded, version, request, merchant_customer_id, created_at, updated_at)
SELECT account_id, id, mode, order_id, CASE WHEN open THEN 'PENDING' ELSE status END,
       CASE WHEN open THEN 'PENDING_PROVIDER_CONFIRMATION' WHEN status = 'SUCCEEDED' THEN 'APPROVED' ELSE status END, 'USD', i %% 5000 + 1,
       CASE WHEN NOT open AND status IN ('SUCCEEDED', 'REFUNDED') THEN i %% 5000 + 1 ELSE 0 END, CASE WHEN open THEN i %% 5000 + 1 ELSE 0 END,
       CASE WHEN NOT open AND status IN ('SUCCEEDED', 'REFUNDED') THEN i %% 5000 + 1 ELSE 0 END, CASE WHEN open THEN i %% 5000 + 1 ELSE 0 END,
       CASE WHEN NOT open AND status = 'REFUNDED' THEN i %% 5000 + 1 ELSE 0 END, 1,
       '{"merchant_order_id":"' || order_id || '","description":"A payment of the size that most have, in a table that is to be as large as in earnest","country":"CO","currency":"USD","amount":"1","workflow":"DIRECT","capture":true,"installments":1,"card":"aGFzaG9mdGhlY2FyZA","metadata":[{"key":"warehouse","value":"7"}]}',
       customer, at, at FROM plan;
INSERT INTO transactions (account_id, id, payment_id, mode, type, status, currency, amount, provider, provider_reference, response_code, nonce, card,
                          lease_holder, instance_id, lease_until, may_send_until, travel_us, next_attempt_at, parked_at, created_at, updated_at)
SELECT account_id, tid, id, mode, 'PURCHASE', CASE WHEN open THEN 'CREATED' WHEN status = 'REFUNDED' THEN 'SUCCEEDED' ELSE status END, 'USD', i %% 5000 + 1,
       'TEST_PSP', CASE WHEN i %% 3 = 0 THEN 'common-reference' ELSE 'reference-' || i END,
       CASE WHEN i %% 30000 = 13 THEN 'RARE_CODE' WHEN status = 'DECLINED' THEN 'DECLINED' ELSE 'SUCCEEDED' END, 'nonce-' || i,
       '{"holder_name":"A","iin":"41111111","lfd":"1111","number_length":16,"security_code_length":3,"brand":"VISA","fingerprint":"f","expiration_month":12,"expiration_year":30}',
       tid, tid, CASE WHEN open THEN at END, at, 1000000, at, CASE WHEN parked AND open THEN at END, at, at FROM plan;
INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, transaction_id, response_status, response_body, created_at, expires_at)
SELECT account_id, mode, 'nonce-' || i, 'POST /v1/payments', '\x00', tid, 201, '\x7b7d', at, at + interval '1 day' FROM plan WHERE i %% 4 = 0;
INSERT INTO events (account_id, payment_id, seq, transaction_id, type, status, sub_status, cause, created_at)
SELECT account_id, id, 1, tid, 'payment.purchase', 'SUCCEEDED', 'APPROVED', 'provider', at FROM plan;
INSERT INTO arrivals (account_id, mode, nonce, at, id, verdict, transaction_id, request_id)
SELECT account_id, mode, 'nonce-' || i, at, pg_temp.id('arrival', i), 'new', tid, 'request-' || i FROM plan WHERE i %% 2 = 0 OR open;
INSERT INTO provider_calls (account_id, transaction_id, fence, seq, kind, provider, outcome, started_at, duration_ms)
SELECT account_id, tid, 1, 1, 'send', 'TEST_PSP', 'approved', at, 100 FROM plan WHERE i %% 2 = 0 OR open;
INSERT INTO takeovers (account_id, transaction_id, fence, taken_by, at) SELECT account_id, tid, 2, 'recovery', at FROM plan WHERE i %% 10 = 7;
INSERT INTO authorizations (account_id, payment_id, transaction_id, expires_at) SELECT account_id, id, tid, at FROM plan WHERE i %% 10 = 7;
INSERT INTO customers (account_id, id, mode, merchant_customer_id, profile, created_at, updated_at)
SELECT account_id, pg_temp.id('customer', i), mode, 'customer-' || i, '{}', at, at FROM plan WHERE i %% 10 = 4;
INSERT INTO payment_links (account_id, id, code, mode, merchant_order_id, country, currency, amount, one_time_use, start_at, finish_at, details, created_at, updated_at)
SELECT account_id, pg_temp.id('link', i), 'code-' || i, mode, order_id, 'CO', 'USD', 1, true, at, at + interval '1 day', '{}', at, at FROM plan WHERE i %% 10 = 4;
INSERT INTO checkout_sessions (account_id, id, mode, workflow, merchant_order_id, payment_description, country, currency, amount, callback_url, link_id,
                               details, created_at, updated_at, expires_at)
SELECT account_id, pg_temp.id('session', i), mode, 'SDK_CHECKOUT', order_id, 'd', 'CO', 'USD', 1, '', CASE WHEN i %% 10 = 4 THEN pg_temp.id('link', i) END,
       '{}', at, at, at FROM plan WHERE i %% 2 = 0;
INSERT INTO payment_sources (account_id, payment_id, checkout_session_id) SELECT account_id, id, pg_temp.id('session', i) FROM plan WHERE i %% 2 = 0;
INSERT INTO audit_entries (seq, at, actor_kind, actor_id, actor, address, request_id, action, account_id, target, details, previous_hash, hash)
SELECT i, at, 'operator', '', 'ada', '', '', 'payment.refund_ordered', account_id, 'payment/' || id, '{"nonce":"' || tid || '"}', decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex')
FROM plan WHERE i %% 10 = 0;
ANALYZE;
`

// filled is a world of so many payments, and an instance whose every statement is noted.
func filled(t *testing.T, rows int) (*world, instance, *sentStatements) {
	t.Helper()
	w := newWorld(t)
	conn, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if _, err := conn.Exec(t.Context(), fmt.Sprintf(fill, rows)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d payments were made in %s", rows, time.Since(started).Round(100*time.Millisecond))
	sent := &sentStatements{}
	db, err := postgres.Open(t.Context(), w.url, pgtest.Options(w.url, postgres.Options{Tracer: sent}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return w, w.newInstance(db), sent
}

// sentStatements are those that a pool has sent, with their parameters, in order.
type sentStatements struct {
	mu  sync.Mutex
	all []pgx.TraceQueryStartData
}

// TraceQueryStart notes a statement.
func (s *sentStatements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	if len(d.Args) > 0 {
		if _, isForm := d.Args[0].(pgx.QueryResultFormatsByOID); isForm { // how database/sql wants its answer
			d.Args = d.Args[1:]
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, d)
	return ctx
}

// TraceQueryEnd is of no interest.
func (*sentStatements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// since are the statements that f sends and that read, or lock, and change nothing.
func (s *sentStatements) since(f func()) []pgx.TraceQueryStartData {
	s.mu.Lock()
	s.all = nil
	s.mu.Unlock()
	f()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.all), func(d pgx.TraceQueryStartData) bool {
		return !strings.HasPrefix(d.SQL, "/* ") || strings.Contains(d.SQL, "INSERT INTO") || strings.Contains(d.SQL, "UPDATE ") && !strings.Contains(d.SQL, "FOR NO KEY UPDATE") ||
			strings.Contains(d.SQL, "DELETE FROM")
	})
}

// literal is a parameter as SQL.
func literal(v any) string {
	if at := reflect.ValueOf(v); at.Kind() == reflect.Pointer {
		if at.IsNil() {
			return "NULL"
		}
		v = at.Elem().Interface()
	}
	if valuer, ok := v.(driver.Valuer); ok {
		v, _ = valuer.Value() // ours don't fail
	}
	quoted := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	switch v := v.(type) {
	case nil:
		return "NULL"
	case []string:
		return quoted("{" + strings.Join(v, ",") + "}")
	case time.Time:
		return quoted(v.Format(time.RFC3339Nano))
	case []byte:
		return quoted(fmt.Sprintf(`\x%x`, v))
	default:
		return quoted(fmt.Sprint(v))
	}
}

// planNode is one step of a plan, as far as it matters here.
type planNode struct {
	Kind     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Index    string     `json:"Index Name"`
	Rows     float64    `json:"Actual Rows"`
	Filtered float64    `json:"Rows Removed by Filter"`
	Rechecks float64    `json:"Rows Removed by Index Recheck"`
	Loops    float64    `json:"Actual Loops"`
	Plans    []planNode `json:"Plans"`
}

// each calls f with n and all below it.
func (n planNode) each(f func(planNode)) {
	f(n)
	for _, child := range n.Plans {
		child.each(f)
	}
}

// planned executes a statement once more, planned in that mode, and undoes it.
func planned(t *testing.T, conn *pgx.Conn, mode string, d pgx.TraceQueryStartData) (root planNode, text string, took time.Duration) {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	args := make([]string, len(d.Args))
	for i, v := range d.Args {
		args[i] = literal(v)
	}
	execute := "EXECUTE it"
	if len(args) > 0 {
		execute += "(" + strings.Join(args, ", ") + ")"
	}
	var raw string
	for _, statement := range []string{`SET LOCAL plan_cache_mode = ` + mode, `PREPARE it AS ` + d.SQL} {
		if _, err := tx.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := tx.QueryRow(t.Context(), `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+execute, pgx.QueryExecModeSimpleProtocol).Scan(&raw); err != nil {
		t.Fatalf("%s\n%s: %v", d.SQL, execute, err)
	}
	if _, err := tx.Exec(t.Context(), `DEALLOCATE it`, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	var out []struct {
		Plan planNode `json:"Plan"`
		Took float64  `json:"Execution Time"`
	}
	if err := json.Unmarshal([]byte(raw), &out); err != nil {
		t.Fatal(err)
	}
	return out[0].Plan, raw, time.Duration(out[0].Took * float64(time.Millisecond))
}

// wantBounded fails the test if a statement scans a large table, or touches more rows than
// a page may.
func wantBounded(t *testing.T, conn *pgx.Conn, what string, d pgx.TraceQueryStartData, most float64) {
	t.Helper()
	name, _, _ := strings.Cut(strings.TrimPrefix(d.SQL, "/* "), " */")
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		root, text, took := planned(t, conn, mode, d)
		var touched float64
		bad := ""
		root.each(func(n planNode) {
			if n.Relation == "" && n.Index == "" {
				return
			}
			touched += (n.Rows + n.Filtered + n.Rechecks) * n.Loops
			if n.Kind == "Seq Scan" && slices.Contains(large, n.Relation) && n.Loops > 0 {
				bad = "scans " + n.Relation
			}
		})
		if touched > most {
			bad += fmt.Sprintf(" touches %.0f rows", touched)
		}
		t.Logf("%-40s %-34s %-18s %8.0f rows %8s", what, name, mode, touched, took.Round(10*time.Microsecond))
		if bad != "" {
			t.Errorf("%s: %s, %s: %s\n%s", what, name, mode, bad, text)
		}
	}
}

// planSize is how many payments there are to be.
func planSize(t *testing.T) int {
	t.Helper()
	said := os.Getenv(planRowsEnv)
	if said == "" {
		return planRows
	}
	n, err := strconv.Atoi(said)
	if err != nil {
		t.Fatalf("%s must be a number: %v", planRowsEnv, err)
	}
	return n
}

func TestNoStatementOfTheConsoleScansALargeTable(t *testing.T) {
	t.Parallel()
	n := planSize(t)
	w, i, sent := filled(t, n)
	conn, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	idOf := func(what string, i int) uuid.UUID {
		var id uuid.UUID
		ms := time.Date(2026, 1, 1, 0, 0, 7*i, 0, time.UTC).UnixMilli()
		err := conn.QueryRow(t.Context(), `SELECT (lpad(to_hex($3::bigint), 12, '0') || '7' || left(md5($1 || $2), 3) || '8' || right(md5($1 || $2), 15))::uuid`,
			what, strconv.Itoa(i), ms).Scan(&id)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	const some = 20_004 // a payment in the first fifth, with a session, a link and a customer
	payment := idOf("payment", some)
	for _, q := range []string{
		"nonce-20004", "absent", "order-20004", "the-same-order", "reference-20002", "common-reference", "customer-20004", "customer-44", "one-for-all", "code-20004",
		payment.String(), idOf("transaction", some).String(), idOf("session", some).String(), idOf("customer", some).String(),
		idOf("link", some).String(), uuid.NewString(),
	} {
		for _, d := range sent.since(func() {
			if _, err := i.service.Search(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}) {
			wantBounded(t, conn, "search "+q, d, mostTouched)
		}
	}
	for what, list := range listsOfPlans(n, idOf) {
		for _, d := range sent.since(func() {
			page, err := i.service.Payments(t.Context(), list.filter, list.before, 50)
			if err != nil {
				t.Fatal(err)
			}
			if list.some && len(page.Payments) == 0 {
				t.Errorf("%s: nothing was found", what)
			}
		}) {
			wantBounded(t, conn, what, d, mostTouched)
		}
	}
	unsettled := float64(n/10_000+1) * 8 // the index of what is not settled, and three rows for each line
	for what, one := range map[string]struct {
		most float64
		ask  func() error
	}{
		"a payment's file": {100, func() error { _, err := i.service.File(t.Context(), payment); return err }},
		"the payment of a transaction": {100, func() error {
			_, err := i.service.PaymentOf(t.Context(), idOf("transaction", some))
			return err
		}},
		"the unsettled": {unsettled, func() error { _, err := i.service.Unsettled(t.Context(), UnsettledFilter{}, uuid.Nil, 50); return err }},
		"the parked": {unsettled, func() error {
			_, err := i.service.Unsettled(t.Context(), UnsettledFilter{Parked: true}, uuid.Nil, 50)
			return err
		}},
		"the unsettled of one": {unsettled, func() error {
			_, err := i.service.Unsettled(t.Context(), UnsettledFilter{AccountID: planMerchant(1)}, idOf("transaction", 10_017), 50)
			return err
		}},
		"an order in the log": {100, func() error {
			return i.service.store.db.InTx(t.Context(), func(tx postgres.Tx) error {
				p, err := i.service.store.anyPayment(t.Context(), payment)
				if err == nil {
					e := audit.Entry{Action: orderedActions[RouteRefund], Target: "payment/" + payment.String()}
					_, _, err = i.service.store.ordered(t.Context(), tx, p, uuid.NewString(), e, testLease)
				}
				return err
			})
		}},
		"a nonce":               {100, func() error { return lookedUp(i, t, Scope{}) }},
		"a nonce of a merchant": {100, func() error { return lookedUp(i, t, Scope{AccountID: planMerchant(1)}) }},
		"a merchant's own nonce": {100, func() error {
			return lookedUp(i, t, Scope{AccountID: planMerchant(1), Mode: merchants.Live})
		}},
	} {
		for _, d := range sent.since(func() {
			if err := one.ask(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}) {
			wantBounded(t, conn, what, d, one.most)
		}
	}
}

// lookedUp looks a nonce up that there is.
func lookedUp(i instance, t *testing.T, scope Scope) error {
	found, err := i.service.Lookup(t.Context(), scope, "nonce-20004", uuid.Nil)
	if err == nil && len(found.Lives) != 1 {
		err = fmt.Errorf("%d lives were found", len(found.Lives))
	}
	return err
}

// planMerchant is a merchant of fill's.
func planMerchant(n int) uuid.UUID {
	return uuid.MustParse(fmt.Sprintf("00000000-0000-4000-8000-%012d", n))
}

// planList is one list that is asked for.
type planList struct {
	filter PaymentFilter
	before uuid.UUID
	some   bool // something is found on its page
}

// listsOfPlans are lists of every kind: of what is common, rare and absent.
func listsOfPlans(n int, idOf func(string, int) uuid.UUID) map[string]planList {
	from, to := time.Date(2026, 1, 1, 0, 0, 7*n/2, 0, time.UTC), time.Date(2026, 1, 1, 0, 0, 7*n/2+3600, 0, time.UTC)
	low := decimal.NewFromInt(4999)
	middle := idOf("payment", n/2)
	return map[string]planList{
		"all":                            {some: true},
		"all, deep":                      {before: middle, some: true},
		"the common status":              {filter: PaymentFilter{Status: "SUCCEEDED"}, some: true},
		"a rare status":                  {filter: PaymentFilter{Status: "ERROR"}},
		"a status that nothing has":      {filter: PaymentFilter{Status: "VERIFIED"}},
		"a rare response code":           {filter: PaymentFilter{ResponseCode: "RARE_CODE"}},
		"a common response code":         {filter: PaymentFilter{ResponseCode: "DECLINED"}, some: true},
		"an amount":                      {filter: PaymentFilter{MinAmount: &low, Currency: "USD"}, some: true},
		"an hour":                        {filter: PaymentFilter{From: &from, To: &to}, some: true},
		"an hour's rare status":          {filter: PaymentFilter{From: &from, To: &to, Status: "ERROR"}},
		"the large merchant":             {filter: PaymentFilter{AccountID: planMerchant(1)}, some: true},
		"the small merchant":             {filter: PaymentFilter{AccountID: planMerchant(4)}, some: true},
		"the small merchant, deep":       {filter: PaymentFilter{AccountID: planMerchant(4)}, before: middle, some: true},
		"a merchant without payments":    {filter: PaymentFilter{AccountID: planMerchant(50)}},
		"the small merchant's rarities":  {filter: PaymentFilter{AccountID: planMerchant(4), Status: "ERROR", Mode: "test"}},
		"the large merchant's rarities":  {filter: PaymentFilter{AccountID: planMerchant(1), Status: "VERIFIED"}},
		"an order":                       {filter: PaymentFilter{Order: "order-20004"}, some: true},
		"the same order":                 {filter: PaymentFilter{Order: "the-same-order"}, some: true},
		"the same order, deep":           {filter: PaymentFilter{Order: "the-same-order"}, before: idOf("payment", 20_001), some: true},
		"the same order's rarities":      {filter: PaymentFilter{Order: "the-same-order", Status: "VERIFIED"}},
		"the same order of one":          {filter: PaymentFilter{Order: "the-same-order", AccountID: planMerchant(3), Mode: "live"}, some: true},
		"a nonce":                        {filter: PaymentFilter{Nonce: "nonce-20004"}, some: true},
		"a nonce with an order":          {filter: PaymentFilter{Nonce: "nonce-20004", Order: "order-20004"}, some: true},
		"a customer":                     {filter: PaymentFilter{Customer: "customer-44"}, some: true},
		"everybody's customer":           {filter: PaymentFilter{Customer: "one-for-all"}, before: middle, some: true},
		"everybody's customer, one's":    {filter: PaymentFilter{Customer: "one-for-all", AccountID: planMerchant(4)}},
		"a customer whom nobody has":     {filter: PaymentFilter{Customer: "absent"}},
		"everybody's customer, rarities": {filter: PaymentFilter{Customer: "one-for-all", Status: "VERIFIED", ResponseCode: "X"}},
	}
}
