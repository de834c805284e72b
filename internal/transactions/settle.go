package transactions

import (
	"cmp"
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// run is one holder's work on one transaction: from its claim, or its take-over,
// until it finishes, leaves, or finds itself fenced out.
type run struct {
	tx        Transaction
	payment   Payment
	clock     clock
	started   time.Time // before the claim was asked for
	provider  providers.Provider
	watch     Watcher
	terms     terms
	policy    idem.Policy
	by        taker
	requestID string
	deliver   delivery // nil: this holder may only ask
	calls     []call
	window    time.Duration // from started: until then a charge may still go on the wire
	spent     time.Duration // with the provider
}

// saveLimit bounds the writing of what a holder has learnt. It has nothing to do
// with the lease, which may long be over: the fence decides what is saved, and what
// is not is kept as an observation.
// It leaves room for every repetition to meet a lock, and for that observation.
const saveLimit = 12 * time.Second

func (s *Service) newRun(tx Transaction, c clock, started time.Time, p providers.Provider, by taker) *run {
	t := s.terms(p)
	return &run{tx: tx, clock: c, started: started, provider: p, watch: s.watch, terms: t, policy: s.policies.Of(tx.Policy), by: by, window: t.sendWindow()}
}

// maySend says whether a charge may still go on the wire. It is asked again just
// before the first byte. The monotonic clock decides, and the wall clock is a
// second witness: a machine that was suspended stops the first, not the second.
func (r *run) maySend() bool {
	now := time.Now()
	elapsed := max(now.Sub(r.started), now.Round(0).Sub(r.started.Round(0)))
	return elapsed < r.window
}

// mayWrite is what the wire asks just before the first byte. Whoever sleeps after
// it sends late; see prove.
func (r *run) mayWrite() bool {
	may := r.maySend()
	faultpoint.Reach(faultpoint.SendWire, r.tx.Nonce)
	return may
}

func (r *run) order() providers.Order {
	return providers.Order{
		Reference: r.tx.ID.String(), AccountID: r.tx.AccountID.String(), Mode: r.tx.Mode, MerchantOrderID: r.payment.MerchantOrderID,
	}
}

// now is the database's time, never ahead of it, as precise as the database.
func (r *run) now() time.Time { return r.clock.earliest().Truncate(time.Microsecond) }

// exchange does one exchange with the provider and notes it. No database
// transaction is open and no connection is held while it runs.
func (r *run) exchange(ctx context.Context, kind string, f func(ctx context.Context) providers.Result) providers.Result {
	ctx, cancel := context.WithTimeout(ctx, r.terms.timeout)
	defer cancel()
	ctx, seen := r.watch(ctx, r.provider.Name(), kind)
	at, begun := r.now(), time.Now()
	result := storable(f(ctx))
	took := time.Since(begun)
	seen(result.Outcome, took)
	r.spent += took
	r.calls = append(r.calls, call{
		Seq: len(r.calls) + 1, Kind: kind, Provider: r.provider.Name(), Outcome: string(result.Outcome),
		ProviderReference: result.ProviderReference, ResponseCode: result.ResponseCode, Detail: result.Detail,
		StartedAt: at, DurationMS: took.Milliseconds(),
	})
	return result
}

// maxProviderText bounds what is kept of each text of a provider's, in bytes. Their
// ids and codes have a few dozen characters.
const maxProviderText = 255

// maxRedirectURL bounds the place that a payer is sent to, in bytes: what browsers and
// servers take everywhere.
const maxRedirectURL = 2000

// storable makes a provider's texts fit to be kept. An outcome must never be lost
// because PostgreSQL takes no zero byte, or because its text is a megabyte.
func storable(r providers.Result) providers.Result {
	for _, text := range []*string{&r.ProviderReference, &r.ResponseCode, &r.AuthorizationCode, &r.Detail} {
		plain := strings.Map(func(c rune) rune {
			if unicode.IsControl(c) {
				return unicode.ReplacementChar
			}
			return c
		}, strings.ToValidUTF8(*text, string(unicode.ReplacementChar)))
		if len(plain) > maxProviderText {
			plain = strings.ToValidUTF8(plain[:maxProviderText], "")
		}
		*text = plain
	}
	if u, err := url.Parse(r.RedirectURL); err != nil || u.Scheme != "https" && u.Scheme != "http" || len(r.RedirectURL) > maxRedirectURL {
		r.RedirectURL = "" // a browser is sent there: half of one is worth nothing
	}
	if len(r.Raw) > providers.MaxRaw || !json.Valid(r.Raw) {
		r.Raw = nil
	}
	return r
}

// send is one attempt on the wire.
func (s *Service) send(ctx context.Context, r *run) providers.Result {
	if !r.maySend() { // it never was on the wire
		return providers.Result{Outcome: providers.NotReached, Detail: "the time to send had passed"}
	}
	faultpoint.Reach(faultpoint.SendBefore, r.tx.Nonce)
	result := r.exchange(ctx, "send", func(ctx context.Context) providers.Result {
		return r.deliver(ctx, r.provider, r.mayWrite)
	})
	faultpoint.Reach(faultpoint.SendAfter, r.tx.Nonce)
	return result
}

// settle finds out what became of a transaction that somebody else began: from
// what earlier holders learnt too late, else by asking, else by sending the same
// reference again where that is safe. proven means that no send ever had, or will
// have, an effect.
//
// An error means that what is known here could not be read, and nobody was asked:
// the result is Unclear, and nothing may be judged by it.
func (s *Service) settle(ctx context.Context, r *run) (result providers.Result, proven bool, err error) {
	known, conclusive, err := s.store.observation(ctx, r.tx)
	if err != nil {
		return providers.Result{Outcome: providers.Unclear, Detail: "the observations could not be read"}, false, err
	}
	if conclusive {
		return known, false, nil
	}
	traits := r.provider.Traits()
	if traits.Queryable {
		sentAt := r.now()
		result = r.exchange(ctx, "inquire", func(ctx context.Context) providers.Result {
			return r.provider.Inquire(ctx, r.order())
		})
		switch {
		case result.Outcome == providers.Pending && s.overdue(r, sentAt):
			return s.prove(ctx, r, result)
		case result.Outcome != providers.NotFound:
			return result, false, nil
		case r.deliver == nil && !sentAt.Before(r.tx.proofMoment()):
			return s.prove(ctx, r, result)
		}
	}
	if r.deliver != nil {
		return s.send(ctx, r), false, nil
	}
	if traits.Queryable {
		return result, false, nil
	}
	return providers.Result{Outcome: providers.Unclear, Detail: "the provider cannot be asked"}, false, nil
}

// overdue says whether the provider has had its time to decide. Only what can be voided
// is ended for that: what is approved later would be nobody's.
func (s *Service) overdue(r *run, now time.Time) bool {
	return r.tx.Status == Pending && !r.tx.TargetID.Valid && r.provider.Traits().CanVoid && now.Sub(r.tx.CreatedAt) >= s.pendingFor
}

// prove makes sure of an inquiry that was sent after the proof moment and found
// nothing, or nothing decided in all the time there was. What it could not see is a
// send that is still asleep; so a provider that can void a reference is asked to refuse
// it from now on. A late effect of a capture, a cancellation or a refund cannot be taken
// back: those are only believed of such a provider.
func (s *Service) prove(ctx context.Context, r *run, unknown providers.Result) (providers.Result, bool, error) {
	if !r.provider.Traits().CanVoid {
		return unknown, !r.tx.Type.acts(), nil
	}
	if !r.maySend() {
		return unknown, false, nil
	}
	faultpoint.Reach(faultpoint.VoidBefore, r.tx.Nonce)
	result := r.exchange(ctx, "void", func(ctx context.Context) providers.Result {
		return r.provider.Void(ctx, r.order(), r.mayWrite)
	})
	faultpoint.Reach(faultpoint.VoidAfter, r.tx.Nonce)
	return result, result.Outcome == providers.Voided, nil
}

// conclude turns what is known into what is kept and what the caller is told.
// This is the release rule; see the table in docs/concepts/idempotency.md.
func (s *Service) conclude(ctx context.Context, r *run, result providers.Result, proven bool) (Answer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveLimit)
	defer cancel()
	switch {
	case proven && s.overdue(r, r.now()):
		return s.answer(ctx, r, result, "expired", resolution{})
	case proven:
		return s.release(ctx, r, result, Errored, "proved",
			apierr.New(apierr.ProviderUnavailable, "the provider never processed this request; "+r.again()).Retry(retryInProcess))
	case result.Definite():
		return s.answer(ctx, r, result, "provider", resolution{})
	case r.tx.Fence == 1 && result.Outcome == providers.Refused:
		return s.release(ctx, r, result, r.tx.Type.refused(), "refused",
			apierr.New(apierr.InvalidRequest, "the provider refused the request as invalid and moved nothing; correct it and "+r.again()))
	case r.tx.Fence == 1 && result.Outcome == providers.NotReached:
		return s.release(ctx, r, result, Errored, "not_reached",
			apierr.New(apierr.ProviderUnavailable, "the provider could not be reached and moved nothing; "+r.again()).Retry(retryInProcess))
	}
	return s.leave(ctx, r, result)
}

// watchAfter is when reconciliation first looks at a reference that was taken over or
// given back: when everything that was sent under it has arrived or never will.
func (r *run) watchAfter() time.Duration {
	return max(r.tx.proofMoment().Sub(r.now()), r.terms.travel())
}

// answer stores an outcome as the nonce's answer.
func (s *Service) answer(ctx context.Context, r *run, result providers.Result, cause string, decided resolution) (Answer, error) {
	e := ending{
		status: r.tx.Type.status(result), providerReference: result.ProviderReference, responseCode: result.ResponseCode,
		authorizationCode: result.AuthorizationCode, redirectURL: result.RedirectURL, rawResponse: string(result.Raw),
		at: r.now(), authorizedFor: s.authorizedFor, watch: r.watchAfter(),
		cause: cause, calls: r.calls, resolution: decided,
	}
	if e.status == Expired {
		e.responseCode = expiredCode
	}
	if e.status == Pending {
		e.poll = pollAfter(e.at.Sub(r.tx.CreatedAt))
		e.redirectURL = cmp.Or(e.redirectURL, r.tx.RedirectURL)
		e.responseCode = cmp.Or(e.responseCode, pendingCode(e.redirectURL))
	}
	e.tell = tell
	return s.finish(ctx, r, result, e, nil)
}

// tell is the answer to the request that made t, which is how p came to be as it is.
func tell(p Payment, t Transaction) (*answer, error) {
	body, status, err := presentOutcome(p, t)
	if err != nil {
		return nil, err
	}
	return &answer{status: status, body: body}, nil
}

// release ends a transaction that had no effect and gives the nonce back, unless
// the policy keeps errors; then the error is the nonce's answer.
func (s *Service) release(ctx context.Context, r *run, result providers.Result, status Status, cause string, told *apierr.Error) (Answer, error) {
	e := ending{
		status: status, responseCode: result.ResponseCode, released: true, at: r.now(), watch: r.watchAfter(),
		cause: cause, calls: r.calls,
	}
	if r.keepsErrors() {
		e.released, e.tell = false, func(Payment, Transaction) (*answer, error) { return r.errorAnswer(told), nil }
	}
	return s.finish(ctx, r, result, e, told)
}

// finish saves an ending, and tells the caller only what is saved: the answer that was
// stored, or, for an ending that is no answer, toldErr.
func (s *Service) finish(ctx context.Context, r *run, result providers.Result, e ending, toldErr *apierr.Error) (Answer, error) {
	faultpoint.Reach(faultpoint.FinishBefore, r.tx.Nonce)
	var (
		matched bool
		stored  *answer
	)
	err := s.save(ctx, func() (err error) {
		matched, stored, err = s.store.finish(ctx, r.tx, r.payment, e)
		return err
	})
	faultpoint.Reach(faultpoint.FinishAfter, r.tx.Nonce)
	switch {
	case err != nil:
		s.log.ErrorContext(ctx, "an outcome could not be saved; it will be asked for again", "transaction_id", r.tx.ID, "fence", r.tx.Fence,
			"outcome", string(result.Outcome), "provider_reference", result.ProviderReference, "error", postgres.Describe(err))
		s.observe(ctx, r, result) // where a lock, and not the database's absence, was in the way
		return r.describe(Answer{}), unavailable(err)
	case matched:
		return r.told(stored, toldErr)
	}
	o, found, err := s.store.outcome(ctx, r.tx.AccountID, r.tx.ID)
	if err == nil && found && o.Fence == r.tx.Fence && o.LeaseHolder == r.tx.LeaseHolder && o.Status == e.status {
		// An earlier try of this save had committed, and its answer was lost.
		if o.ResponseStatus != nil {
			stored = &answer{status: *o.ResponseStatus, body: o.ResponseBody}
		}
		return r.told(stored, toldErr)
	}
	if e.resolution.made() { // a person's word is no provider's
		result.Outcome = providers.Outcome("decided_" + e.resolution.outcome)
	}
	s.observe(ctx, r, result)
	if err != nil {
		return r.describe(Answer{}), unavailable(err)
	}
	return r.tellStored(o, found)
}

// told is what the caller hears of what is saved: the very bytes that a retry will
// hear, where they are kept.
func (r *run) told(stored *answer, toldErr *apierr.Error) (Answer, error) {
	switch {
	case stored != nil:
		a := Answer{Status: stored.status, Body: stored.body}
		if toldErr != nil {
			a.Code = toldErr.Code
		}
		return r.describe(a), nil
	case toldErr != nil:
		return r.describe(Answer{}), toldErr
	}
	return r.describe(Answer{}), nil
}

// tellStored answers a holder that was fenced out from what is stored: by
// transaction, never by nonce, so it cannot be another life's answer.
func (r *run) tellStored(o outcome, found bool) (Answer, error) {
	switch {
	case found && o.ResponseStatus != nil:
		return r.describe(Answer{Status: *o.ResponseStatus, Body: o.ResponseBody}), nil
	case found && o.Released:
		return r.describe(Answer{}), apierr.New(apierr.ProviderUnavailable, "the provider charged nothing; "+retrySame).Retry(retryInProcess)
	}
	return r.describe(Answer{}), apierr.New(apierr.ProviderError, "the outcome is not known yet; "+retrySame).Retry(retryInProcess)
}

// leave ends this holder's work without an outcome. Nothing is told that could be
// taken for one.
func (s *Service) leave(ctx context.Context, r *run, result providers.Result) (Answer, error) {
	told := r.unresolved(result)
	l := leaving{
		next:          grace,
		resendRefused: r.tx.Fence > 1 && result.Outcome == providers.Refused,
		calls:         r.calls,
	}
	if r.keepsErrors() && told.Code != apierr.RequestInProcess {
		l.answer = r.errorAnswer(told)
	}
	if r.by == byRecovery {
		l.attempt = 1
		l.park = s.shouldPark(r, result.Outcome)
		l.next = s.nextAttempt(r, result.Outcome)
	}
	faultpoint.Reach(faultpoint.LeaveBefore, r.tx.Nonce)
	var matched bool
	err := s.save(ctx, func() (err error) {
		matched, err = s.store.leave(ctx, r.tx, l)
		return err
	})
	faultpoint.Reach(faultpoint.LeaveAfter, r.tx.Nonce)
	switch {
	case err != nil && l.answer != nil: // told says that it is kept
		return r.describe(Answer{}), unavailable(err)
	case err != nil:
		return r.describe(Answer{}), told
	case matched:
		return r.told(l.answer, told)
	}
	s.observe(ctx, r, result)
	o, found, err := s.store.outcome(ctx, r.tx.AccountID, r.tx.ID)
	return r.tellStored(o, found && err == nil)
}

// unresolved is what the caller of an unresolved attempt is told.
func (r *run) unresolved(result providers.Result) *apierr.Error {
	switch {
	case result.Outcome == providers.NotFound || result.Outcome == providers.Voided:
		wait := r.tx.proofMoment().Sub(r.now())
		return apierr.New(apierr.RequestInProcess, "the provider does not know this payment yet and may still receive it; "+retrySame).AboutKey(idem.TitleInFlight).Retry(secondsUntil(wait))
	case result.TimedOut:
		return apierr.New(apierr.RequestTimeout, "the provider did not answer in time, the outcome is not known; "+r.findOut()).Retry(retryInProcess)
	}
	return apierr.New(apierr.ProviderError, "the provider's answer leaves the outcome open; "+r.findOut()).Retry(retryInProcess)
}

// save repeats a write that is safe to repeat, while the database is away, or
// somebody is in the way, for a moment.
func (s *Service) save(ctx context.Context, write func() error) error {
	pause := savePause
	for attempt := 1; ; attempt++ {
		err := write()
		if err == nil || attempt == saveAttempts || !postgres.IsTransient(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		pause *= 2
	}
}

// observe keeps what a fenced-out holder learnt. Facts are never thrown away; if
// even that fails, the log has it.
func (s *Service) observe(ctx context.Context, r *run, result providers.Result) {
	faultpoint.Reach(faultpoint.ObserveBefore, r.tx.Nonce)
	err := s.save(ctx, func() error { return s.store.observe(ctx, r.tx, result, r.calls) })
	if err != nil {
		s.log.ErrorContext(ctx, "an observation could not be stored", "transaction_id", r.tx.ID, "fence", r.tx.Fence,
			"outcome", string(result.Outcome), "provider_reference", result.ProviderReference, "error", postgres.Describe(err))
	}
}

// describe adds to an answer what the log wants to know.
func (r *run) describe(a Answer) Answer {
	a.Verdict, a.Policy = idem.New, r.policy
	a.TransactionID, a.Provider, a.ProviderTime = r.tx.ID, r.provider.Name(), r.spent
	return a
}

// keepsErrors says whether an error becomes the nonce's answer: where the policy says
// so, and somebody was told who can ask again.
func (r *run) keepsErrors() bool {
	return r.policy.KeepErrors && r.by == byRequest && idem.WasSent(r.tx.Nonce)
}

// again is what a caller can do who was told that nothing moved.
func (r *run) again() string {
	if r.keepsErrors() {
		return "use a new key, as this one keeps its answer"
	}
	return retrySame
}

// findOut is what a caller can do who was told that nobody knows.
func (r *run) findOut() string {
	if r.keepsErrors() {
		return lookUp + " a new key is used, as this one keeps its answer"
	}
	return retrySame
}

// retrySame ends the message of an error whose nonce is open still.
const retrySame = "retry with the same key"

// lookUp begins what replaces it where that cannot be done.
const lookUp = "look up what became of it before"

func (r *run) errorAnswer(e *apierr.Error) *answer {
	return &answer{status: e.Status, body: e.In(r.policy.Errors, r.requestID)}
}

// Response codes that we give ourselves.
const (
	challengeCode = "CHALLENGE_REQUIRED"
	waitingCode   = "PENDING_PROVIDER_CONFIRMATION"
	expiredCode   = "EXPIRED_BY_PROVIDER"
)

// pendingCode is the response code of what a provider has accepted and not decided.
func pendingCode(redirect string) string {
	if redirect != "" {
		return challengeCode
	}
	return waitingCode
}

// statuses are what an outcome alone says. A decline has a class beside it.
var statuses = map[providers.Outcome]Status{providers.Approved: Succeeded, providers.Pending: Pending, providers.Voided: Expired}

// status is the status that a provider's definite answer gives a transaction.
func (t Type) status(r providers.Result) Status {
	if s, ok := statuses[r.Outcome]; ok {
		return s
	}
	switch class, _ := providers.ClassOf(r.ResponseCode); class {
	case providers.ClassError:
		return Errored
	case providers.ClassRejected:
		return t.refused()
	}
	return Declined
}

// refused is how a transaction ends that the provider finds invalid. The contract has
// no REJECTED for what acts on another one.
func (t Type) refused() Status {
	if t.acts() {
		return Errored
	}
	return Rejected
}

// payment is what begin makes of n at that time.
func (n newPayment) payment(at time.Time) Payment {
	kept, _ := n.Request.kept() // begin has encoded it already
	return Payment{
		AccountID: n.AccountID, ID: n.PaymentID, Mode: n.Mode, MerchantOrderID: n.Request.MerchantOrderID,
		Status: Unconfirmed.Status, SubStatus: Unconfirmed.Sub, Currency: n.Request.Currency, Amount: n.Request.Amount,
		Sums: n.sums(), Request: kept, CreatedAt: at, UpdatedAt: at,
	}
}

// sums are what begin reserves.
func (n newPayment) sums() (s Sums) {
	s.AuthorizePending = n.Request.Amount // nothing, of a verification
	if n.Request.Type() == Purchase {
		s.SettlePending = n.Request.Amount
	}
	return s
}

// differsIn names the fields in which a later request differs from the first.
func (k keyRecord) differsIn(cmd Command) []string {
	switch {
	case k.FirstRequest == "":
		return nil // the same
	case cmd.Action != nil:
		return cmd.Action.differs(k.FirstRequest)
	case cmd.Request.Handed.Number == "" && !cmd.Request.tokenised():
		return nil // not valid
	}
	return cmd.Request.differs(k.FirstRequest)
}
