package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/oracle"
	"github.com/oncepay/oncepay/test/faults/record"
	"github.com/oncepay/oncepay/test/harness"
)

// outcome is what one round came to.
type outcome struct {
	seed       int64
	policy     string
	took       time.Duration
	operations int
	figures    oracle.Figures
	faults     map[string]int
	points     map[faultpoint.Point]tally
	recovered  []time.Duration
	violations []record.Violation
	log        []string
}

const (
	// inFlight bounds the orders of a stage that are under way at once.
	inFlight = 150
	// between is the mean pause between the starts of two orders.
	between = 50 * time.Millisecond
	// loadLimit bounds the time that faults go on.
	loadLimit = 45 * time.Second
)

// round is one run on a stage of its own: faults, healing, judgement.
func round(ctx context.Context, g *ground, o set, mixed int) (_ outcome, err error) {
	began := time.Now()
	s, err := newStage(ctx, g, o)
	if err != nil {
		return outcome{}, fmt.Errorf("seed %d: %w", o.seed, err)
	}
	defer func() {
		if closeErr := s.close(context.WithoutCancel(ctx)); err == nil {
			err = closeErr
		}
	}()
	if err := s.noteClocks(ctx); err != nil {
		return outcome{}, fmt.Errorf("seed %d: %w", o.seed, err)
	}
	orders := s.drawOrders(mixed)
	s.progress("policy %s, %d orders, %d instances, provider without %q, PostgreSQL ends: %t", s.policy.Name, len(orders), len(s.instances), s.withhold, s.mortal)
	unanswered := s.run(ctx, orders)
	s.progress("healed; judging")
	out, err := s.judgement(ctx, unanswered)
	out.seed, out.policy, out.took = o.seed, o.policy.Name, time.Since(began)
	return out, err
}

// run plays all orders under faults, heals, and waits until nothing is unresolved
// or the time for that is over. It returns the orders that never got an answer.
func (s *stage) run(ctx context.Context, orders []*order) []*order {
	playing, stop := context.WithCancel(ctx)
	defer stop()
	mayhem, calm := context.WithTimeout(ctx, loadLimit)
	defer calm()
	var (
		chaos, plays sync.WaitGroup
		mu           sync.Mutex
		unanswered   []*order
		slots        = make(chan struct{}, inFlight)
	)
	chaos.Go(func() { s.chaos(mayhem) })
	chaos.Go(func() { s.watchInvariants(mayhem) })
	if s.standby != alone {
		chaos.Go(func() { s.standbys(mayhem) })
	}
	for _, o := range orders {
		select {
		case slots <- struct{}{}:
		case <-mayhem.Done():
			continue // nothing more is begun
		}
		plays.Go(func() {
			defer func() { <-slots }()
			if !s.play(playing, o) {
				mu.Lock()
				defer mu.Unlock()
				unanswered = append(unanswered, o)
			}
		})
		rest(mayhem, between)
	}
	played := make(chan struct{})
	go func() { plays.Wait(); close(played) }()
	select {
	case <-played:
	case <-mayhem.Done():
	}
	calm()
	chaos.Wait()
	s.heal()
	s.awaitSettled(ctx)
	// Whoever still asks has an answer by now, or never gets one.
	select {
	case <-played:
	case <-time.After(healLimit):
	case <-ctx.Done():
	}
	stop()
	<-played
	return unanswered
}

// heal ends all faults.
func (s *stage) heal() {
	s.ctl.heal()
	s.scripts.heal()
	if m := s.ground.mortal; m != nil {
		m.heal()
		s.pool.Reset() // its connections may be to a server that has ended
	}
	for _, i := range s.instances {
		i.db.Up()
		i.db.Release()
		s.open(i)
	}
}

const sqlUnresolved = `SELECT count(*) FROM transactions WHERE lease_until IS NOT NULL AND parked_at IS NULL`

// awaitSettled waits until nothing is unresolved, or the limit is over.
func (s *stage) awaitSettled(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, healLimit)
	defer cancel()
	for ctx.Err() == nil {
		var n int
		if err := s.pool.QueryRow(ctx, sqlUnresolved).Scan(&n); err == nil && n == 0 {
			return
		}
		rest(ctx, 100*time.Millisecond)
	}
}

// judgement asks everybody what they know, and lets the oracles judge.
func (s *stage) judgement(ctx context.Context, unanswered []*order) (outcome, error) {
	out := outcome{points: s.ctl.tallies(), log: s.faults.log()}
	if m := s.ground.mortal; m != nil && m.problem() != nil {
		return out, m.problem()
	}
	if err := s.awaitInstances(ctx); err != nil {
		return out, err
	}
	s.closeShops(ctx)
	seen, lives, err := s.questions(ctx)
	if err != nil {
		return out, err
	}
	ledger, err := s.ledger(ctx)
	if err != nil {
		return out, err
	}
	seen = append(seen, s.judgeLives(lives, ledger)...)
	var unresolved int
	if err := s.pool.QueryRow(ctx, sqlUnresolved).Scan(&unresolved); err != nil {
		return out, err
	}
	conn, err := pgx.Connect(ctx, s.pool.Config().ConnString())
	if err != nil {
		return out, err
	}
	defer conn.Close(ctx)
	run := oracle.Run{Seed: s.seed, Policy: s.policy, Ops: s.doubted(s.rec.Ops()), Ledger: ledger, Sessions: s.sessions(), Settled: unresolved == 0}
	out.faults, run.Broken = s.faults.sums()
	out.operations = len(run.Ops)
	if out.violations, out.figures, err = oracle.Judge(ctx, conn, run); err != nil {
		return out, err
	}
	out.violations = append(out.violations, seen...)
	for _, o := range unanswered {
		out.violations = append(out.violations, s.violation("answered", "%s (%s) never got an answer", o.nonce, o.about))
	}
	out.violations = append(out.violations, s.readLogs()...)
	out.violations = append(out.violations, s.judgeInvariants(ctx)...)
	out.violations = append(out.violations, s.judgeSDK()...)
	out.violations = append(out.violations, s.judgeShops()...)
	for _, text := range s.postman.taken() {
		out.violations = append(out.violations, s.violation("forgery-refused", "%s", text))
	}
	for _, text := range s.clients.seen.All() {
		out.violations = append(out.violations, s.violation("as-documented", "%s", text))
	}
	out.recovered, err = s.recoveries(ctx)
	return out, err
}

// awaitInstances waits until everybody who is to be asked answers again.
func (s *stage) awaitInstances(ctx context.Context) error {
	for _, i := range s.instances {
		if err := i.problem(); err != nil {
			return err
		}
	}
	return s.awaitDirectory(ctx)
}

func (s *stage) violation(name, format string, args ...any) record.Violation {
	return record.Violation{Oracle: name, Seed: s.seed, Detail: fmt.Sprintf(format, args...)}
}

// asking bounds the questions that are asked side by side.
const asking = 8

// questions asks the API for every payment that was acknowledged: by its merchant,
// who must find it, and by another, who must not. It asks what became of each nonce, too,
// acknowledged or not, and under which policy that was lived, and returns the lives that it
// is told of.
func (s *stage) questions(ctx context.Context) (wrong []record.Violation, lives []harness.Life, errs error) {
	byAccount := map[string]int{}
	for n, keys := range s.merchants {
		byAccount[keys.AccountID] = n
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		asked = map[string]bool{}
		slots = make(chan struct{}, asking)
		known = map[string][]harness.Life{} // by account and nonce
		under = map[string]string{}         // which policy
		acks  []record.Op
	)
	once := func(what string, ask func() error) bool {
		if what == "" || asked[what] {
			return false
		}
		asked[what] = true
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := ask(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = errors.Join(errs, err)
			}
		})
		return true
	}
	for _, op := range s.rec.Ops() {
		merchant, nonce := byAccount[op.Account], op.Account+" "+op.Nonce
		if op.Moves() {
			under[nonce] = s.policy.For(op).Name
			once(nonce, func() error {
				found, err := s.livesOf(ctx, merchant, op.Nonce)
				mu.Lock()
				defer mu.Unlock()
				known[nonce] = found
				return err
			})
		}
		if op.Told() && once(tells(op), func() error {
			found, err := s.question(ctx, merchant, op)
			mu.Lock()
			defer mu.Unlock()
			wrong = append(wrong, found...)
			return err
		}) {
			acks = append(acks, op)
		}
	}
	wg.Wait()
	for _, op := range acks {
		if !slices.ContainsFunc(known[op.Account+" "+op.Nonce], func(l harness.Life) bool { return lived(op, l) }) {
			wrong = append(wrong, s.violation("acknowledged-found", "the nonce %s does not know %s", op.Nonce, tells(op)))
		}
	}
	for nonce, found := range known {
		for _, l := range found {
			if l.Policy != under[nonce] {
				wrong = append(wrong, s.violation(lookUpTrue, "transaction %s was lived under the policy %s, and not %s", l.Transaction.ID, l.Policy, under[nonce]))
			}
		}
	}
	return wrong, slices.Concat(slices.Collect(maps.Values(known))...), errs
}

// tells is the id of the payment that an answer tells of, or of the action.
func tells(op record.Op) string {
	told := readOutcome(op.Body)
	if op.Kind == record.Act {
		return told.transaction
	}
	return told.payment
}

// lived is whether a life is the one that an answer tells of.
func lived(op record.Op, l harness.Life) bool {
	told := readOutcome(op.Body)
	return l.PaymentID == told.payment && (op.Kind != record.Act || l.Transaction.ID == told.transaction)
}

// question asks for one payment, or for the payment of one action.
func (s *stage) question(ctx context.Context, merchant int, op record.Op) (wrong []record.Violation, err error) {
	told := readOutcome(op.Body)
	id, acts := told.payment, op.Kind == record.Act
	own, err := s.paymentOf(ctx, merchant, id)
	if err != nil {
		return nil, err
	}
	if own.Status != http.StatusOK || !acts && valueIn(own.Body) != valueIn(op.Body) || acts && !bytes.Contains(own.Body, []byte(`"id":"`+told.transaction+`"`)) {
		wrong = append(wrong, s.violation("acknowledged-found", "payment %s of %s is answered %d %s, or with another amount", id, op.Nonce, own.Status, own.Code()))
	}
	others, err := s.paymentOf(ctx, (merchant+1)%len(s.merchants), id)
	if err != nil {
		return wrong, err
	}
	if code := others.Code(); code != "PAYMENT_NOT_FOUND" && (code != "" || others.Status != http.StatusBadRequest) { // a style has no codes
		wrong = append(wrong, s.violation("isolation", "payment %s is answered %d to another merchant", id, others.Status))
	}
	return wrong, nil
}

// judgeLives: of a life that has ended, a look-up tells as many charges as the provider's
// ledger has under its transaction, whatever its nonce answers.
func (s *stage) judgeLives(lives []harness.Life, ledger []record.Entry) (wrong []record.Violation) {
	charges := map[string]int{}
	for _, e := range ledger {
		switch transactions.Type(e.Type) {
		case transactions.Purchase, transactions.Authorize, transactions.Capture:
			charges[e.Reference]++
		default:
		}
	}
	for _, l := range lives {
		if have := charges[l.Transaction.ID]; transactions.Status(l.Transaction.Status).Terminal() && l.Charges != have {
			wrong = append(wrong, s.violation(lookUpTrue, "the look-up of transaction %s, which is %s, tells %d charges, and the ledger has %d",
				l.Transaction.ID, l.Transaction.Status, l.Charges, have))
		}
	}
	return wrong
}

// lookUpTrue is the oracle of judgeLives.
const lookUpTrue = "look-up-true"

// ledger reads the provider's whole ledger.
func (s *stage) ledger(ctx context.Context) ([]record.Entry, error) {
	return harness.Ledger{URL: s.bankURL}.Entries(ctx)
}

// disasters are what no process may have to log.
var disasters = []string{"DATA RACE", "panic:", "fatal error:", `"msg":"panic"`, `"msg":"panic in recovery"`, `"msg":"unexpected"`, harness.CardThatPays, harness.CardWithoutFunds,
	harness.LiveCardThatPays, harness.LiveCardDeclined, cardDeclined}

const (
	// firstCard is where in disasters the card numbers begin.
	firstCard = 6
	// quotedOfLog is how much is told of a line in a log.
	quotedOfLog = 400
)

func (s *stage) readLogs() []record.Violation {
	var wrong []record.Violation
	for _, i := range s.instances {
		if err := i.problem(); err != nil {
			wrong = append(wrong, s.violation("kept-running", "%v", err))
		}
		logs := i.logs()
		for n, words := range disasters {
			if _, after, holds := strings.Cut(logs, words); holds {
				line, _, _ := strings.Cut(after, "\n")
				switch line = line[:min(len(line), quotedOfLog)]; {
				case n >= firstCard:
					words = "a card number"
				case !slices.ContainsFunc(disasters[firstCard:], func(card string) bool { return strings.Contains(line, card) }):
					words += line
				}
				wrong = append(wrong, s.violation("clean-log", "the log of %s holds %s", i.name, words))
			}
		}
	}
	return wrong
}

// recoveries are the times from the last fault that hit a nonce to the end of its
// transaction.
func (s *stage) recoveries(ctx context.Context) ([]time.Duration, error) {
	rows, err := s.pool.Query(ctx, `SELECT nonce, max(updated_at) FROM transactions WHERE lease_until IS NULL GROUP BY nonce`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	last := s.faults.lastHits()
	var list []time.Duration
	for rows.Next() {
		var nonce string
		var at time.Time
		if err := rows.Scan(&nonce, &at); err != nil {
			return nil, err
		}
		if hit, ok := last[nonce]; ok && at.After(hit) {
			list = append(list, at.Sub(hit))
		}
	}
	return list, rows.Err()
}

// valueIn reads what a 201 acknowledged; "" if it is none.
func valueIn(body []byte) string { return acknowledged(body).Amount.Value.String() }

func acknowledged(body []byte) (p struct {
	Amount struct {
		Value json.Number `json:"value"`
	} `json:"amount"`
}) {
	if len(body) > 0 {
		_ = json.Unmarshal(body, &p) // the oracles complain about a body that cannot be read
	}
	return p
}
