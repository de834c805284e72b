package oracle

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/record"
)

const (
	shop  = "00000000-0000-0000-0000-00000000000a"
	other = "00000000-0000-0000-0000-00000000000b"
	card  = "4111111111111111"
)

// scene is a database and what was seen of it from outside.
type scene struct {
	t     *testing.T
	db    *pgx.Conn
	run   Run
	clock time.Duration
}

func newScene(t *testing.T) *scene {
	t.Helper()
	db, err := pgx.Connect(t.Context(), pgtest.Direct(pgtest.URL(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.WithoutCancel(t.Context())) })
	if err := Watch(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	return &scene{t: t, db: db, run: Run{Seed: 7, Settled: true}}
}

func (s *scene) sql(query string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(s.t.Context(), query, args...); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
}

// id is the same for the same name, and a payment's is not its transaction's.
func id(kind, name string) string { return uuid.NewSHA1(uuid.Nil, []byte(kind+name)).String() }

// deal is one payment with its transaction, its order being order-<name> and its
// nonce nonce-<name>.
type deal struct {
	account, name, kind, amount string
}

func (d deal) payment() string     { return id("payment", d.name) }
func (d deal) transaction() string { return id("transaction", d.name) }
func (d deal) nonce() string       { return "nonce-" + strings.Split(d.name, "/")[0] }
func (d deal) order() string       { return "order-" + strings.Split(d.name, "/")[0] }

// after is what its payment is once its transaction has that status.
func (d deal) after(status transactions.Status) paymentStatus {
	tx := transaction{Type: transactions.Type(d.kind), Status: status}
	tx.Amount, _ = money.Parse(d.amount)
	return paymentAfter([]transaction{tx})
}

// begin is what the product's begin does.
func (s *scene) begin(d deal) {
	s.t.Helper()
	settle := "0"
	if d.kind == "PURCHASE" {
		settle = d.amount
	}
	s.sql(`INSERT INTO payments (account_id, id, mode, merchant_order_id, status, sub_status, currency, amount,
	           authorize_pending, settle_pending, request, created_at, updated_at)
	       VALUES ($1, $2, 'test', $3, 'PENDING', 'PENDING_PROVIDER_CONFIRMATION', 'USD', $4, $4, $5, '{}', now(), now())`,
		d.account, d.payment(), d.order(), d.amount, settle)
	s.sql(`INSERT INTO transactions (account_id, id, payment_id, mode, type, status, currency, amount, provider, nonce, card,
	           lease_holder, instance_id, lease_until, may_send_until, travel_us, next_attempt_at, created_at, updated_at)
	       VALUES ($1, $2, $3, 'test', $4, 'CREATED', 'USD', $5, 'sandbox', $6, '{}', $2, $2, now(), now(), 0, now(), now(), now())`,
		d.account, d.transaction(), d.payment(), d.kind, d.amount, d.nonce())
}

// finish is what the product's finish does.
func (s *scene) finish(d deal, status transactions.Status) {
	s.t.Helper()
	after := d.after(status)
	authorized, settled := "0", "0"
	if status == transactions.Succeeded {
		authorized = d.amount
		if d.kind == "PURCHASE" {
			settled = d.amount
		}
	}
	s.sql(`UPDATE transactions SET status = $3, lease_until = NULL WHERE account_id = $1 AND id = $2`, d.account, d.transaction(), string(status))
	s.sql(`UPDATE payments SET status = $3, sub_status = $4, version = version + 1, authorized = $5, settled = $6,
	           authorize_pending = 0, settle_pending = 0 WHERE account_id = $1 AND id = $2`,
		d.account, d.payment(), after.Status, after.Sub, authorized, settled)
	s.sql(`INSERT INTO events (account_id, payment_id, seq, transaction_id, type, status, sub_status, cause, created_at)
	       VALUES ($1, $2, 1, $3, 'payment.' || lower($4::text), $5, $6, 'provider', now())`,
		d.account, d.payment(), d.transaction(), d.kind, after.Status, after.Sub)
	if status == transactions.Succeeded {
		s.run.Ledger = append(s.run.Ledger, record.Entry{
			Reference: d.transaction(), MerchantOrderID: d.order(), AccountID: d.account, Mode: "test", Type: d.kind,
			Amount: d.amount, Currency: "USD", Status: "SUCCEEDED", CreatedAt: "2026-11-21T10:00:01Z",
		})
	}
}

// body is the answer to a payment; it has a card in it, as ours have a part of one.
func (d deal) body(status transactions.Status) []byte {
	after := d.after(status)
	return fmt.Appendf(nil, `{"id":%q,"account_id":%q,"merchant_order_id":%q,"status":%q,"sub_status":%q,"version":1,"amount":{"value":%s,"currency":"USD"},"card":%q}`+"\n",
		d.payment(), d.account, d.order(), after.Status, after.Sub, d.amount, card)
}

// op adds an operation that takes a second, after all others.
func (s *scene) op(d deal, o record.Op) *record.Op {
	o.Account, o.Nonce, o.Order = d.account, d.nonce(), d.order()
	o.Start, o.End = s.clock, s.clock+time.Second
	s.clock += 2 * time.Second
	s.run.Ops = append(s.run.Ops, o)
	return &s.run.Ops[len(s.run.Ops)-1]
}

// paid is a payment from its request to its acknowledgement.
func (s *scene) paid(d deal, status transactions.Status) {
	s.t.Helper()
	s.begin(d)
	s.finish(d, status)
	s.sql(`INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, transaction_id, response_status, response_body, created_at, expires_at)
	       VALUES ($1, 'test', $2, 'purchase', '', $3, 201, $4, now(), now()) ON CONFLICT DO NOTHING`,
		d.account, d.nonce(), d.transaction(), d.body(status))
	s.op(d, record.Op{Kind: record.Pay, Status: 201, Body: d.body(status)})
}

func (s *scene) judge() ([]record.Violation, Figures) {
	s.t.Helper()
	violations, figures, err := Judge(s.t.Context(), s.db, s.run)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, v := range violations {
		if v.Seed != 7 || v.Detail == "" || !slices.Contains(Names(), v.Oracle) || strings.Contains(v.Detail, card) {
			s.t.Errorf("not a violation that can be reported: %+v", v)
		}
	}
	return violations, figures
}

var (
	purchase  = deal{shop, "purchase", "PURCHASE", "45.67"}
	authorise = deal{shop, "authorise", "AUTHORIZE", "10.00"}
	declined  = deal{other, "declined", "PURCHASE", "20.00"}
	firstLife = deal{shop, "lives/1", "PURCHASE", "1.50"}
	nextLife  = deal{shop, "lives/2", "PURCHASE", "1.50"}
)

// ordinary is a run in which everything went well: a replay, a decline, a nonce
// with two lives.
func (s *scene) ordinary() {
	s.paid(purchase, transactions.Succeeded)
	s.op(purchase, record.Op{Kind: record.Pay, Status: 201, Body: purchase.body(transactions.Succeeded)})
	s.paid(authorise, transactions.Succeeded)
	s.paid(declined, transactions.Declined)
	s.paid(firstLife, transactions.Succeeded)
	s.op(firstLife, record.Op{Kind: record.Age, AnsweredBefore: true})
	s.paid(nextLife, transactions.Succeeded)
	s.op(nextLife, record.Op{Kind: record.Look, Status: 200, Answered: true, Payment: nextLife.payment()})
}

func TestNobodyComplainsOfAnOrdinaryRun(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.ordinary()
	violations, figures := s.judge()
	if len(violations) > 0 {
		t.Errorf("violations: %+v", violations)
	}
	if want := (Figures{Acknowledged: 5, Charges: 4, Nonces: 4, Replays: 1}); figures != want {
		t.Errorf("figures are %+v, not %+v", figures, want)
	}
}

// part is an action on a deal's payment: a refund of a purchase, or a capture or a
// cancellation of an authorization.
type part struct {
	deal
	of deal
}

// partOf adds an action to a deal that is paid: it ends as the product's do, and is
// acknowledged.
func (s *scene) partOf(of deal, route, kind, amount string, version int64, after transactions.PaymentStatus) part {
	s.t.Helper()
	p := part{deal{of.account, of.name + "-" + kind + amount, kind, amount}, of}
	s.sql(`INSERT INTO transactions (account_id, id, payment_id, target_id, mode, type, status, currency, amount, provider, nonce, card, request,
	           lease_holder, instance_id, lease_until, may_send_until, travel_us, next_attempt_at, created_at, updated_at)
	       VALUES ($1, $2, $3, $4, 'test', $5, 'CREATED', 'USD', $6, 'sandbox', $7, '{}', '{}', $2, $2, now(), now(), 0, now(), now(), now())`,
		of.account, p.transaction(), of.payment(), of.transaction(), kind, amount, p.nonce())
	s.sql(`UPDATE transactions SET status = 'SUCCEEDED', lease_until = NULL WHERE id = $1`, p.transaction())
	s.sql(`UPDATE payments SET status = $2, sub_status = $3, version = $4, refunded = refunded + $5, settled = settled + $6, captured = captured + $6,
	           canceled = canceled + $7 WHERE id = $1`, of.payment(), after.Status, after.Sub, version,
		amountIf(kind == "REFUND", amount), amountIf(kind == "CAPTURE", amount), amountIf(kind == "CANCEL", amount))
	s.sql(`UPDATE transactions SET refunded = refunded + $2 WHERE id = $1`, of.transaction(), amountIf(kind == "REFUND", amount))
	s.sql(`INSERT INTO events (account_id, payment_id, seq, transaction_id, type, status, sub_status, cause, created_at)
	       VALUES ($1, $2, $3, $4, 'payment.' || lower($5::text), $6, $7, 'provider', now())`,
		of.account, of.payment(), version, p.transaction(), kind, after.Status, after.Sub)
	s.book(p)
	body := fmt.Appendf(nil, `{"id":%q,"amount":{"value":%s,"currency":"USD"},"payment":{"id":%q,"account_id":%q,"merchant_order_id":%q,"status":%q,"sub_status":%q,"version":%d,"amount":{"currency":"USD"}}}`,
		p.transaction(), amount, of.payment(), of.account, of.order(), after.Status, after.Sub, version)
	s.sql(`INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, transaction_id, response_status, response_body, created_at, expires_at)
	       VALUES ($1, 'test', $2, 'act', '', $3, 200, $4, now(), now())`, of.account, p.nonce(), p.transaction(), body)
	s.op(p.deal, record.Op{Kind: record.Act, Action: route, Amount: amount, Status: 200, Body: body}).Order = of.order()
	return p
}

func amountIf(so bool, amount string) string {
	if so {
		return amount
	}
	return "0"
}

// book makes the provider's ledger have it, once more if it has it already.
func (s *scene) book(p part) {
	s.run.Ledger = append(s.run.Ledger, record.Entry{
		Reference: p.transaction(), MerchantOrderID: p.of.order(), AccountID: p.of.account, Mode: "test", Type: p.kind,
		Amount: p.amount, Currency: "USD", Status: "SUCCEEDED", CreatedAt: "2026-11-21T10:00:02Z",
	})
}

// furthered is an ordinary run whose payments go on: two refunds, and two captures.
func (s *scene) furthered() (refund, capture part) {
	s.t.Helper()
	s.ordinary()
	refund = s.partOf(purchase, "refund", "REFUND", "5.67", 2, transactions.PaymentPartiallyRefunded)
	s.partOf(purchase, "refund", "REFUND", "40", 3, transactions.PaymentRefunded)
	capture = s.partOf(authorise, "capture", "CAPTURE", "4.00", 2, transactions.PaymentPartiallyCaptured)
	s.partOf(authorise, "capture", "CAPTURE", "6.00", 3, transactions.PaymentCaptured)
	return refund, capture
}

func TestNobodyComplainsOfPaymentsThatGoOn(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.furthered()
	violations, figures := s.judge()
	if len(violations) > 0 {
		t.Errorf("violations: %+v", violations)
	}
	if want := (Figures{Acknowledged: 9, Charges: 4, Captures: 2, Refunds: 2, Nonces: 8, Replays: 1}); figures != want {
		t.Errorf("figures are %+v, not %+v", figures, want)
	}
}

// Every case tampers with one thing of a run whose payments go on.
func TestOraclesComplainOfActions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		oracles []string
		words   string
		tamper  func(s *scene, refund, capture part)
	}{
		{"a refund booked twice", []string{OneOperation, WithinBounds, ChargeAndPayment, Amounts}, "REFUND of 5.67 is in the ledger 2 times, 1 too many", func(s *scene, refund, _ part) {
			s.book(refund)
		}},
		{"a refund booked again under another reference", []string{OneOperation, WithinBounds, ChargeAndPayment, Amounts}, "of 45.67 that came in, 51.34 went back", func(s *scene, refund, _ part) {
			s.book(part{deal{shop, "unheard of", "REFUND", refund.amount}, refund.of})
		}},
		{"a capture booked twice", []string{OneOperation, WithinBounds, ChargeAndPayment, Amounts}, "CAPTURE 2 times under the reference", func(s *scene, _, capture part) {
			s.book(capture)
		}},
		{"what was captured is cancelled", []string{OneOperation, WithinBounds, ChargeAndPayment, Amounts}, "14 was captured and 10 cancelled", func(s *scene, _, capture part) {
			s.book(part{deal{shop, "cancelled", "CANCEL", "10"}, capture.of})
			s.book(part{deal{shop, "captured", "CAPTURE", "4.00"}, capture.of})
		}},
		{"a reservation that leaked", []string{Amounts}, "refund_pending is 1, not 0", func(s *scene, refund, _ part) {
			s.sql(`ALTER TABLE payments DROP CONSTRAINT payments_refunded_within_settled`)
			s.sql(`DROP TRIGGER campaign_overdrawn ON payments`)
			s.sql(`UPDATE payments SET refund_pending = 1 WHERE id = $1`, refund.of.payment())
		}},
		{"a payment that promised too much for a moment", []string{WithinBounds}, "refunded 45.6700 and 1.0000", func(s *scene, refund, _ part) {
			s.sql(`ALTER TABLE payments DROP CONSTRAINT payments_refunded_within_settled`)
			s.sql(`UPDATE payments SET refund_pending = 1 WHERE id = $1`, refund.of.payment())
			s.sql(`UPDATE payments SET refund_pending = 0 WHERE id = $1`, refund.of.payment())
		}},
		{"a refund that its purchase does not know", []string{Amounts}, "not 45.67 with 0", func(s *scene, refund, _ part) {
			s.sql(`UPDATE transactions SET refunded = 5 WHERE id = $1`, refund.of.transaction())
		}},
		{"an acknowledged refund of another amount", []string{AcknowledgedKept, ChargeAndPayment, Amounts}, "was acknowledged with 5.67 USD and is kept with 5.66 USD", func(s *scene, refund, _ part) {
			s.sql(`UPDATE transactions SET amount = 5.66 WHERE id = $1`, refund.transaction())
		}},
		{"a refund that the provider does not have", []string{WithinBounds}, "that the provider does not have: INVALID_AMOUNT", func(s *scene, refund, _ part) {
			s.sql(`UPDATE transactions SET response_code = 'INVALID_AMOUNT' WHERE id = $1`, refund.transaction())
		}},
		{"two events of one refund", []string{Events}, "has 2 terminal events, not 1", func(s *scene, refund, _ part) {
			s.sql(`INSERT INTO events SELECT account_id, payment_id, 4, transaction_id, type, 'REFUNDED', 'REFUNDED', cause, created_at
				FROM events WHERE transaction_id = $1`, refund.transaction())
		}},
		{"a payment with another status than its captures", []string{ChargeAndPayment, AcknowledgedKept, StatusMachine, Events}, "is SUCCEEDED/PARTIALLY_CAPTURED, and by its transactions SUCCEEDED/CAPTURED", func(s *scene, _, capture part) {
			s.sql(`UPDATE payments SET sub_status = 'PARTIALLY_CAPTURED' WHERE id = $1`, capture.of.payment())
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			refund, capture := s.furthered()
			c.tamper(s, refund, capture)
			s.complained(c.oracles, c.words)
		})
	}
}

// complained fails the test unless these oracles, and no others, complain, and one of
// them in these words.
func (s *scene) complained(oracles []string, words string) {
	s.t.Helper()
	violations, _ := s.judge()
	var complained []string
	said := false
	for _, v := range violations {
		if !slices.Contains(complained, v.Oracle) {
			complained = append(complained, v.Oracle)
		}
		said = said || strings.Contains(v.Detail, words)
	}
	slices.Sort(complained)
	slices.Sort(oracles)
	if !slices.Equal(complained, oracles) || !said {
		s.t.Errorf("%v complained, not %v, about %q: %+v", complained, oracles, words, violations)
	}
}

func TestAParkedTransactionBreaksNoPromise(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.begin(purchase)
	s.op(purchase, record.Op{Kind: record.Pay, Failed: true})
	s.run.Ledger = []record.Entry{{Reference: purchase.transaction(), MerchantOrderID: purchase.order(), AccountID: shop, Amount: "45.67", Currency: "USD"}}
	s.sql(`UPDATE transactions SET parked_at = now()`)
	violations, figures := s.judge()
	if len(violations) > 0 || figures != (Figures{Charges: 1, Parked: 1, Nonces: 1}) {
		t.Errorf("violations: %+v, figures: %+v", violations, figures)
	}
}

// A replay tells what is there, also on a primary that is lost with it. What it names
// has to be kept all the same.
func TestReplayByALostPrimaryIsNoPromise(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.ordinary()
	other := append(purchase.body(transactions.Succeeded), '\n')
	s.op(purchase, record.Op{Kind: record.Pay, Status: 201, Body: other, Replayed: true, Doubtful: true})
	s.op(purchase, record.Op{Kind: record.Look, Status: 200, Payment: purchase.payment(), Doubtful: true})
	violations, figures := s.judge()
	if len(violations) > 0 || figures.Shown != 1 {
		t.Errorf("violations: %+v, figures: %+v", violations, figures)
	}
	s.op(purchase, record.Op{Kind: record.Pay, Status: 201, Body: declined.body(transactions.Declined), Replayed: true, Doubtful: true})
	if violations, _ := s.judge(); len(violations) == 0 {
		t.Error("nobody complains of a replay of somebody else's payment")
	}
}

// entry finds a line of the ledger to tamper with.
func (s *scene) entry(d deal) *record.Entry {
	at := slices.IndexFunc(s.run.Ledger, func(e record.Entry) bool { return e.Reference == d.transaction() })
	return &s.run.Ledger[at]
}

func (s *scene) replay(d deal, body []byte) {
	s.op(d, record.Op{Kind: record.Pay, Status: 201, Body: body})
}

// Every case tampers with one thing of an ordinary run. The oracles named first
// must complain, in these words, and no other oracle may.
func TestOraclesComplain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		oracles []string
		words   string
		tamper  func(*scene)
	}{
		{"an order charged twice under one reference", []string{OneCharge, ChargeAndPayment, Amounts}, "2 charges in the ledger where 1 are allowed", func(s *scene) {
			s.run.Ledger = append(s.run.Ledger, *s.entry(purchase))
		}},
		{"a third charge where one age allows two", []string{OneCharge, ChargeAndPayment, Amounts}, "3 charges in the ledger where 2 are allowed", func(s *scene) {
			s.run.Ledger = append(s.run.Ledger, *s.entry(nextLife))
		}},
		{"a charge that we know nothing of", []string{OneCharge, ChargeAndPayment, Amounts}, "which is no transaction", func(s *scene) {
			e := *s.entry(purchase)
			e.Reference = id("transaction", "unheard of")
			s.run.Ledger = append(s.run.Ledger, e)
		}},
		{"a charge of a declined transaction", []string{ChargeAndPayment, Amounts}, "was charged and is DECLINED", func(s *scene) {
			s.run.Ledger = append(s.run.Ledger, record.Entry{
				Reference: declined.transaction(), MerchantOrderID: declined.order(), AccountID: other, Mode: "test", Type: "PURCHASE", Amount: "20", Currency: "USD",
			})
		}},
		{"a success without a charge", []string{ChargeAndPayment, Amounts}, "has 0 entries in the ledger, not 1", func(s *scene) {
			s.run.Ledger = s.run.Ledger[1:]
		}},
		{"a charge of another amount", []string{ChargeAndPayment, Amounts}, "the ledger has 45.68 USD", func(s *scene) { s.entry(purchase).Amount = "45.68" }},
		{"a charge of another type", []string{ChargeAndPayment, Amounts}, "the ledger has a AUTHORIZE", func(s *scene) { s.entry(purchase).Type = "AUTHORIZE" }},
		{"a charge for another order", []string{ChargeAndPayment}, "and the ledger has order order-authorise", func(s *scene) {
			s.entry(purchase).MerchantOrderID = authorise.order()
			s.entry(authorise).MerchantOrderID = purchase.order()
		}},
		{"a charge to another account", []string{ChargeAndPayment, Isolation}, "the ledger has it under account " + other, func(s *scene) {
			s.entry(purchase).AccountID = other
		}},
		{"an acknowledged payment that is missing", []string{AcknowledgedKept, AnswerDurable, StatusMachine, ChargeAndPayment, Amounts}, "is missing", func(s *scene) {
			s.sql(`DELETE FROM events WHERE payment_id = $1`, purchase.payment())
			s.sql(`DELETE FROM idempotency_keys WHERE transaction_id = $1`, purchase.transaction())
			s.sql(`DELETE FROM transactions WHERE payment_id = $1`, purchase.payment())
			s.sql(`DELETE FROM payments WHERE id = $1`, purchase.payment())
		}},
		{"an answer whose nonce is missing", []string{AnswerDurable}, "it has no row", func(s *scene) {
			s.sql(`DELETE FROM idempotency_keys WHERE transaction_id = $1`, purchase.transaction())
		}},
		{"an answer that is not stored", []string{AnswerDurable}, "its row has no answer", func(s *scene) {
			s.sql(`UPDATE idempotency_keys SET response_status = NULL, response_body = NULL WHERE transaction_id = $1`, declined.transaction())
		}},
		{"an answer that is stored otherwise", []string{AnswerDurable}, "its row has a 201", func(s *scene) {
			s.sql(`UPDATE idempotency_keys SET response_body = response_body || ' ' WHERE transaction_id = $1`, purchase.transaction())
		}},
		{"a first answer of a primary that was lost", []string{AnswerDurable}, "its row has a 201", func(s *scene) {
			for i := range s.run.Ops {
				s.run.Ops[i].Doubtful = true
			}
			s.sql(`UPDATE idempotency_keys SET response_body = response_body || ' ' WHERE transaction_id = $1`, purchase.transaction())
		}},
		{"an acknowledged amount that is not kept", []string{AcknowledgedKept, ChargeAndPayment}, "with 45.67 USD and is kept with 45.68 USD", func(s *scene) {
			s.sql(`UPDATE payments SET amount = 45.68 WHERE id = $1`, purchase.payment())
		}},
		{"an acknowledged order that is not kept", []string{AcknowledgedKept, ChargeAndPayment}, "is kept for order elsewhere", func(s *scene) {
			s.sql(`UPDATE payments SET merchant_order_id = 'elsewhere' WHERE id = $1`, purchase.payment())
		}},
		{"an acknowledgement that nobody can read", []string{AcknowledgedKept}, "cannot be read", func(s *scene) {
			s.op(deal{shop, "garbled", "PURCHASE", "1"}, record.Op{Kind: record.Pay, Status: 201, Body: []byte("{")})
		}},
		{"a decline that was told as a success", []string{AcknowledgedKept, SameAnswer, Linearizable, KeptAnswer}, "was acknowledged as SUCCEEDED/APPROVED with version 1 and is kept as DECLINED/DECLINED", func(s *scene) {
			s.replay(declined, declined.body(transactions.Succeeded))
		}},
		{"a replay of other bytes", []string{SameAnswer, Linearizable, KeptAnswer}, "they differ from byte", func(s *scene) {
			s.replay(purchase, append(purchase.body(transactions.Succeeded), '\n'))
		}},
		{"a second payment in one life", []string{OneCharge, SameAnswer, Linearizable, KeptAnswer}, "its life had not ended in between", func(s *scene) {
			s.paid(deal{shop, "purchase/2", "PURCHASE", "45.67"}, transactions.Succeeded)
		}},
		{"an answer of another life's payment", []string{SameAnswer, Linearizable, KeptAnswer}, "they differ from byte", func(s *scene) {
			s.replay(firstLife, append(firstLife.body(transactions.Succeeded), ' '))
		}},
		{"two lives whose age came too late", []string{SameAnswer, Linearizable, KeptAnswer}, "its life had not ended in between", func(s *scene) {
			for i, o := range s.run.Ops {
				if o.Kind == record.Age {
					s.run.Ops[i].Start, s.run.Ops[i].End = time.Hour, time.Hour
				}
			}
		}},
		{"columns that still promise money", []string{Amounts}, "authorize_pending is 45.67, not 0", func(s *scene) {
			s.sql(`UPDATE payments SET authorized = 0, settled = 0, authorize_pending = 45.67, settle_pending = 45.67 WHERE id = $1`, purchase.payment())
		}},
		{"an authorisation that is settled", []string{Amounts}, "settled is 10, not 0", func(s *scene) {
			s.sql(`UPDATE payments SET settled = 10 WHERE id = $1`, authorise.payment())
		}},
		{"a terminal status that changed", []string{StatusMachine, ChargeAndPayment, AcknowledgedKept, Amounts, Events}, `moved from "DECLINED" to "SUCCEEDED"`, func(s *scene) {
			s.sql(`UPDATE transactions SET status = 'SUCCEEDED' WHERE id = $1`, declined.transaction())
			s.sql(`UPDATE payments SET status = 'SUCCEEDED', sub_status = 'APPROVED' WHERE id = $1`, declined.payment())
		}},
		{"a move that nobody saw", []string{StatusMachine}, `is DECLINED, and its last move made it "CREATED"`, func(s *scene) {
			s.sql(`DELETE FROM campaign.moves WHERE transaction_id = $1 AND new_status = 'DECLINED'`, declined.transaction())
		}},
		{"a first status that is not CREATED", []string{StatusMachine}, `was "" and moved from "" to "PENDING"`, func(s *scene) {
			s.sql(`UPDATE campaign.moves SET new_status = 'PENDING' WHERE transaction_id = $1 AND old_status IS NULL`, declined.transaction())
			s.sql(`UPDATE campaign.moves SET old_status = 'PENDING' WHERE transaction_id = $1 AND new_status = 'DECLINED'`, declined.transaction())
		}},
		{"a lease on a terminal row", []string{StatusMachine, Settled}, "is DECLINED and has a lease: true", func(s *scene) {
			s.sql(`ALTER TABLE transactions DROP CONSTRAINT transactions_unresolved_has_lease`)
			s.sql(`UPDATE transactions SET lease_until = now() WHERE id = $1`, declined.transaction())
		}},
		{"a payment that went back", []string{StatusMachine, Events, AcknowledgedKept, ChargeAndPayment}, "moved from DECLINED/DECLINED to PENDING/PENDING_PROVIDER_CONFIRMATION", func(s *scene) {
			s.sql(`UPDATE payments SET status = 'PENDING', sub_status = 'PENDING_PROVIDER_CONFIRMATION' WHERE id = $1`, declined.payment())
		}},
		{"an event that is missing", []string{Events}, "has version 1 and 0 events", func(s *scene) {
			s.sql(`DELETE FROM events WHERE payment_id = $1`, purchase.payment())
		}},
		{"an event with a gap before it", []string{Events}, "its event number 1 has seq 2", func(s *scene) {
			s.sql(`UPDATE events SET seq = 2 WHERE payment_id = $1`, purchase.payment())
		}},
		{"an event too many", []string{Events}, "has 2 terminal events, not 1", func(s *scene) {
			s.sql(`INSERT INTO events SELECT account_id, payment_id, 2, transaction_id, type, status, sub_status, cause, created_at FROM events WHERE payment_id = $1`, purchase.payment())
		}},
		{"an event that says something else", []string{Events}, "was never so with version 1", func(s *scene) {
			s.sql(`UPDATE events SET status = 'ERROR', sub_status = 'ERROR' WHERE payment_id = $1`, purchase.payment())
		}},
		{"an event of another payment's transaction", []string{Events}, "which is not this payment's", func(s *scene) {
			s.sql(`UPDATE events SET transaction_id = $2 WHERE payment_id = $1`, purchase.payment(), authorise.transaction())
		}},
		{"an answered nonce that is in process", []string{Linearizable, KeptAnswer}, "pay 409 REQUEST_IN_PROCESS", func(s *scene) {
			s.op(purchase, record.Op{Kind: record.Pay, Status: 409, Code: "REQUEST_IN_PROCESS"})
		}},
		{"another merchant's payment in an answer", []string{Isolation, AcknowledgedKept, AnswerDurable}, "was acknowledged to account " + shop + " and to account " + other, func(s *scene) {
			s.replay(deal{other, "purchase", "PURCHASE", "45.67"}, purchase.body(transactions.Succeeded))
		}},
		{"a charge for an order that nobody asked for", []string{Isolation}, "was asked for by []", func(s *scene) {
			unasked := deal{shop, "unasked", "PURCHASE", "1"}
			s.begin(unasked)
			s.finish(unasked, transactions.Succeeded)
		}},
		{"something unresolved", []string{Settled}, "1 transactions are unresolved and not parked, among them: transaction " + id("transaction", "open"), func(s *scene) {
			s.begin(deal{shop, "open", "PURCHASE", "1"})
			s.run.Settled = false
		}},
		{"a healing that took too long", []string{Settled}, "by now, everything is terminal or parked", func(s *scene) { s.run.Settled = false }},
		{"a charge that was broken off", []string{NotBrokenOff}, "nonce n, order o", func(s *scene) {
			s.run.Broken = []record.BrokenOff{{Order: "o", Nonce: "n", After: time.Second, Detail: "reset"}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.ordinary()
			c.tamper(s)
			s.complained(c.oracles, c.words)
		})
	}
}

func TestFiguresCountSurplusChargesAndLostPayments(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.ordinary()
	s.run.Ledger = append(s.run.Ledger, *s.entry(purchase), *s.entry(purchase))
	s.sql(`UPDATE payments SET currency = 'EUR' WHERE id = $1`, purchase.payment())
	_, figures := s.judge()
	if figures.DoubleCharges != 2 || figures.Lost != 1 || figures.Acknowledged != 5 || figures.Charges != 6 {
		t.Errorf("figures: %+v", figures)
	}
}

func TestOneSentenceDoesNotFillTheReport(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.run.Broken = make([]record.BrokenOff, 3*maxComplaints)
	violations, _ := s.judge()
	if len(violations) != maxComplaints+1 || violations[maxComplaints].Detail != "and 100 more" {
		t.Errorf("%d violations, the last %+v", len(violations), violations[len(violations)-1])
	}
}

func TestWithoutWatchThereIsNoVerdict(t *testing.T) {
	t.Parallel()
	db, err := pgx.Connect(t.Context(), pgtest.Direct(pgtest.URL(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.WithoutCancel(t.Context())) })
	if _, _, err := Judge(t.Context(), db, Run{Settled: true}); err == nil || !strings.Contains(err.Error(), "read moves") {
		t.Errorf("Judge: %v", err)
	}
}

func TestWatchNotesMovesAndNothingElse(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.begin(purchase)
	s.sql(`UPDATE transactions SET fence = fence + 1`)
	s.sql(`UPDATE transactions SET status = 'PENDING'`)
	s.sql(`UPDATE transactions SET status = 'PENDING', attempts = 1`)
	s.finish(purchase, transactions.Succeeded)
	var moves, paymentMoves string
	err := s.db.QueryRow(t.Context(), `SELECT (SELECT string_agg(new_status, ' ' ORDER BY id) FROM campaign.moves),
		(SELECT string_agg(new_status || version, ' ' ORDER BY id) FROM campaign.payment_moves)`).Scan(&moves, &paymentMoves)
	if err != nil || moves != "CREATED PENDING SUCCEEDED" || paymentMoves != "PENDING0 SUCCEEDED1" {
		t.Errorf("noted %q and %q, %v", moves, paymentMoves, err)
	}
	if err := Watch(t.Context(), s.db); err == nil {
		t.Error("Watch began in the middle of a run")
	}
}
