package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/record"
	"github.com/oncepay/oncepay/test/harness"
)

// manner is how a merchant's backend retries.
type manner struct {
	storm     int             // requests at once, at first
	exhausts  bool            // the storm is at one instance, and its database says nothing meanwhile
	hangUps   []time.Duration // patience of the first attempts; 0 waits
	atOnce    bool            // retries without the pause that it was told
	otherBody bool            // every other retry carries another amount
	moves     bool            // goes to another instance each time
	lazy      time.Duration   // pause after the first attempt that came as far as the provider
	replays   int             // times that it asks again once it has its answer
}

const (
	// amount and otherAmount are what orders cost, and what those say whose retries
	// carry another body.
	amount      = "45.67"
	otherAmount = "54.76"
	// restPause is the pause of a client that was told nothing about when to come back.
	restPause = 50 * time.Millisecond
	// impatientFor is how many times a client comes back at once.
	impatientFor = 10
	// ageBy is more than a nonce is kept.
	ageBy = "25 hours"
)

var errStarting = errors.New("the instance is starting")

// clients are the merchants' backends: one connection pool for each instance and
// merchant.
type clients struct {
	mu   sync.Mutex
	by   map[string]*harness.Client
	seen harness.Notes
}

// client is the merchant's, for an instance; nil while that starts.
func (s *stage) client(i *instance, merchant int) *harness.Client {
	u, _ := i.addresses()
	if u == "" {
		return nil
	}
	s.clients.mu.Lock()
	defer s.clients.mu.Unlock()
	if s.clients.by == nil {
		s.clients.by = map[string]*harness.Client{}
	}
	key := fmt.Sprint(i.name, merchant)
	c := s.clients.by[key]
	if c == nil {
		c = harness.NewClient(u, s.merchants[merchant]).NotingTo(&s.clients.seen)
		s.clients.by[key] = c
	}
	c.MoveTo(u)
	return c
}

// ask is one payment, or action, as an order's client asks for it.
type ask struct {
	order    *order
	value    string
	patience time.Duration // 0 waits
	via      *instance
}

// pay sends one request and writes down what came of it.
func (s *stage) pay(ctx context.Context, a ask) (record.Op, harness.Answer) {
	o := a.order
	op := record.Op{
		Account: s.merchants[o.merchant].AccountID, Nonce: o.nonce, Order: o.id, Kind: record.Pay, Start: s.rec.Now(),
	}
	if o.deed != nil {
		op.Kind, op.Action, op.Amount = record.Act, string(o.deed.route), o.deed.value
	}
	c := s.client(a.via, o.merchant)
	if c == nil {
		op.Failed = true
		return op, harness.Answer{Err: errStarting} // nothing was sent, so nothing is written down
	}
	if a.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.patience)
		defer cancel()
	}
	path, body := o.request(s.merchants[o.merchant], a.value)
	answer := c.Post(ctx, path, s.policy.Key(o.nonce), body)
	op.End, op.OtherBody = s.rec.Now(), a.value != amount
	if answer.Err == nil {
		s.hear(ctx, o, &op, answer)
	} else {
		op.Failed = true
		s.noteHangUp(ctx, a)
	}
	s.rec.Add(op)
	return op, answer
}

// hear takes down what a request was told.
func (s *stage) hear(ctx context.Context, o *order, op *record.Op, answer harness.Answer) {
	op.Status, op.Replayed, op.ContentType = answer.Status, s.policy.Replays(answer.Header), answer.Header.Get("Content-Type")
	if op.Told() {
		op.Body = answer.Body
		s.endAfterAnswer(ctx, o)
		return
	}
	op.Code, op.ComeBack = answer.Code(), answer.Header.Get("Retry-After") != ""
	if s.policy.Keeps(*op) {
		op.Body = answer.Body
	}
}

// noteHangUp counts it if it was the client whose patience ended.
func (s *stage) noteHangUp(ctx context.Context, a ask) {
	if a.patience == 0 || ctx.Err() == nil {
		return
	}
	s.faults.note(a.order.nonce, "client: hung up")
	if a.patience <= quickPatience {
		s.faults.hangUp(a.order)
	}
}

// endAfterAnswer kills PostgreSQL, once, if that is what befalls the order now that it
// is paid.
func (s *stage) endAfterAnswer(ctx context.Context, o *order) {
	m := s.ground.mortal
	if m == nil || !o.last {
		return
	}
	o.last = false // its requests come one after the other
	if m.fall(ctx, m.kill, 0) {
		s.faults.note(o.nonce, serverKilledAfter)
	}
}

// via is the instance for the n-th request.
func (s *stage) via(o *order, n int) *instance {
	if !o.manner.moves { // stays where it is for a while
		n /= 3
	}
	return s.instances[(o.merchant+n)%len(s.instances)]
}

// payUntilAnswered is what a merchant's backend does: it asks again, in its
// manner, until it has an answer. It reports whether it got one. An error that its
// policy keeps is one: asking again gets nothing else, so it finds out what is behind it.
func (s *stage) payUntilAnswered(ctx context.Context, o *order) bool {
	if o.bySDK {
		return s.payBySDK(ctx, o)
	}
	if o.manner.storm > 0 {
		s.storm(ctx, o)
	}
	lazy := o.manner.lazy
	for n := 0; ctx.Err() == nil; n++ {
		a := ask{order: o, value: amount, via: s.via(o, n)}
		if o.manner.otherBody && n%2 == 1 {
			a.value = otherAmount
			s.faults.note("", "client: another body")
		}
		if n < len(o.manner.hangUps) {
			a.patience = o.manner.hangUps[n]
		}
		op, answer := s.pay(ctx, a)
		switch {
		case op.Told():
			o.paid = readOutcome(op.Body)
			return true
		case s.policy.Keeps(op):
			return s.findOut(ctx, o)
		case s.refusedForGood(op):
			return true
		}
		pause := restPause
		if told, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && !o.manner.atOnce {
			pause = min(time.Duration(told)*time.Second, lease)
		}
		if n > impatientFor {
			pause = max(pause, 8*restPause)
		}
		if lazy > 0 && s.scripts.sent(o) {
			s.stayAway(ctx, lazy)
			lazy = 0
			continue
		}
		rest(ctx, pause)
	}
	return false
}

// refusedForGood says whether an action was told that its payment does not allow it. A
// request that the provider refused may be repeated, unless that is its answer.
func (s *stage) refusedForGood(op record.Op) bool {
	return op.Kind == record.Act && (op.Status == http.StatusBadRequest || op.Status == http.StatusNotFound) &&
		(s.policy.KeepsErrors || op.Code != string(apierr.InvalidRequest))
}

// findOut looks the order's nonce up until its transaction has ended, or is for the
// provider to decide, and takes what it finds for what the order came to: so does a
// merchant whose nonce answers an error. It reports whether there was an end. An order
// that a person decides about is not waited for.
func (s *stage) findOut(ctx context.Context, o *order) bool {
	for ctx.Err() == nil {
		life, found, err := s.look(ctx, o)
		switch status := transactions.Status(life.Transaction.Status); {
		case err != nil:
		case !found, o.story == person && !status.Terminal():
			return true // the life may have ended meanwhile
		case status.Terminal(), status == transactions.Pending:
			o.paid = outcomeOf{payment: life.PaymentID, transaction: life.Transaction.ID, status: life.Transaction.Status}
			if o.deed != nil || status.Terminal() || s.readDecision(ctx, o) {
				return true
			}
		}
		rest(ctx, 4*restPause)
	}
	return false
}

// stayAway rests for that long, or until all faults have ended: a merchant who is still
// away then would only keep the round waiting.
func (s *stage) stayAway(ctx context.Context, d time.Duration) {
	select {
	case <-s.scripts.healed:
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// storm sends the same request many times at once.
func (s *stage) storm(ctx context.Context, o *order) {
	s.faults.note("", "client: storm")
	if o.manner.exhausts {
		s.exhaust(ctx, o)
		return
	}
	var wg sync.WaitGroup
	for n := range o.manner.storm {
		wg.Go(func() { s.pay(ctx, ask{order: o, value: amount, via: s.instances[n%len(s.instances)]}) })
	}
	wg.Wait()
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// look asks what became of the order's nonce. Without an error, a nonce that has
// no life yet is not found.
func (s *stage) look(ctx context.Context, o *order) (newest harness.Life, found bool, err error) {
	op := record.Op{Account: s.merchants[o.merchant].AccountID, Nonce: o.nonce, Order: o.id, Kind: record.Look, Start: s.rec.Now()}
	c := s.client(s.via(o, 0), o.merchant)
	if c == nil {
		return newest, false, errStarting
	}
	lives, err := c.Lives(ctx, o.nonce)
	if err != nil {
		return newest, false, err
	}
	op.End = s.rec.Now()
	if len(lives) > 0 {
		newest = lives[0]
		op.Payment = newest.PaymentID
		if newest.AnswerStatus != nil {
			op.Answered, op.AnswerStatus = true, *newest.AnswerStatus
		}
		if o.deed != nil {
			op.Payment = newest.Transaction.ID
		}
	}
	s.rec.Add(op)
	return newest, len(lives) > 0, nil
}

// age puts the times of the order's nonce back by more than its retention. It tries
// again for a while where the database cannot be reached.
func (s *stage) age(ctx context.Context, o *order) error {
	return patiently(ctx, func(ctx context.Context) error { return s.ageOnce(ctx, o) })
}

func (s *stage) ageOnce(ctx context.Context, o *order) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err // nothing was sent, so nothing is written down
	}
	defer conn.Release()
	op := record.Op{Account: s.merchants[o.merchant].AccountID, Nonce: o.nonce, Order: o.id, Kind: record.Age, Start: s.rec.Now()}
	rows, _ := conn.Query(ctx, `UPDATE idempotency_keys k SET created_at = k.created_at - $3::interval, expires_at = k.expires_at - $3::interval
		FROM transactions t WHERE k.account_id = $1::uuid AND k.key_id = $2 AND t.account_id = k.account_id AND t.id = k.transaction_id
		RETURNING k.response_status IS NOT NULL AS answered, t.lease_until IS NOT NULL AS unresolved`, op.Account, o.nonce, ageBy)
	aged, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Answered, Unresolved bool }])
	op.End, op.Failed = s.rec.Now(), err != nil // then it may have happened all the same
	if err == nil && len(aged) == 0 {
		return nil // the nonce has no life
	}
	op.AnsweredBefore, op.Unresolved = err != nil || aged[0].Answered, err == nil && aged[0].Unresolved
	s.rec.Add(op)
	s.faults.note("", "time: a nonce aged by "+ageBy)
	return err
}

// resolve decides about an order as somebody does who has looked into the
// provider's ledger, once nothing can arrive there any more.
func (s *stage) resolve(ctx context.Context, o *order) {
	for ctx.Err() == nil {
		life, found, err := s.look(ctx, o)
		if err != nil {
			rest(ctx, restPause)
			continue
		}
		// An error that is kept as the answer does not say that anything was decided.
		answered := life.KeyState == "answered" && (!s.policy.KeepsErrors || transactions.Status(life.Transaction.Status).Terminal())
		if !found || answered || life.KeyState == "released" || life.KeyState == "expired" {
			return
		}
		booked, err := harness.Ledger{URL: s.bankURL}.Of(ctx, o.id)
		_, admin := s.via(o, 0).addresses()
		if err != nil || admin == "" {
			rest(ctx, restPause)
			continue
		}
		decision := map[string]any{"outcome": "failed", "reason": "the provider's ledger has no such charge"}
		if len(booked) > 0 {
			decision = map[string]any{"outcome": "succeeded", "provider_reference": booked[0].Reference, "reason": "the provider's ledger has this charge"}
		}
		operator := harness.Operator{URL: admin, Token: s.token}
		answer := operator.Do(ctx, http.MethodPost, "/admin/v1/transactions/"+life.Transaction.ID+"/resolve", decision)
		if answer.Err == nil {
			s.faults.note("", "person: a decision")
		}
		if answer.Err == nil && answer.Status < http.StatusMultipleChoices {
			return
		}
		rest(ctx, 500*time.Millisecond)
	}
}

// patience is how long somebody asks again who meets a process that is starting, or
// a connection that broke when faults were still going on.
const patience = 15 * time.Second

// patiently asks until it gets an answer of whatever kind but "try again".
func patiently(ctx context.Context, ask func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		rest(ctx, restPause)
	}
}

// paymentOf reads a payment by its id, as the merchant or somebody else.
func (s *stage) paymentOf(ctx context.Context, merchant int, id string) (a harness.Answer, err error) {
	err = patiently(ctx, func(ctx context.Context) error {
		c := s.client(s.instances[0], merchant)
		if c == nil {
			return errStarting
		}
		a = c.Get(ctx, "/v1/payments/"+id)
		if a.Err == nil && a.Status >= http.StatusInternalServerError {
			return fmt.Errorf("read payment %s: %s", id, a)
		}
		return a.Err
	})
	return a, err
}

// livesOf looks a nonce up.
func (s *stage) livesOf(ctx context.Context, merchant int, nonce string) (lives []harness.Life, err error) {
	err = patiently(ctx, func(ctx context.Context) (err error) {
		c := s.client(s.instances[len(s.instances)-1], merchant)
		if c == nil {
			return errStarting
		}
		lives, err = c.Lives(ctx, nonce)
		return err
	})
	return lives, err
}
