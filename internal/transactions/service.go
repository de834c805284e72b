package transactions

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

const (
	// sendMargin is kept between the last moment to send and what must follow it
	// within the lease. It covers the pause between looking at the clock and the
	// first byte.
	sendMargin = time.Second
	// saveTime is what a finish may take after the provider has answered.
	saveTime = 2 * time.Second
	// LeaseMargin is how much longer than the provider's time-out a lease must be.
	LeaseMargin = sendMargin + saveTime

	// grace is how much later than a merchant's own retry recovery comes: the
	// retry can do more, because it brings the card again.
	grace = time.Second

	// maxLooks bounds how often one request looks at a nonce that changes under
	// its eyes. Each look that fails means that somebody else got on.
	maxLooks = 3

	// saveAttempts and savePause: a finish is repeated, because what it writes is
	// the only memory of a charge, but within saveTime.
	saveAttempts = 4
	savePause    = 100 * time.Millisecond

	// Retry-After values of the contract, in seconds.
	retryInProcess = 1
	retryParked    = 60
)

// Options are what a Service needs.
type Options struct {
	DB        *postgres.DB
	Providers providers.Registry
	Arrivals  *idem.Arrivals
	// Lease is how long a claim keeps others out. It is longer than any request
	// may run, so only a claim whose owner died outlives it.
	Lease time.Duration
	// Policies are those that a life may have begun under.
	Policies idem.Policies
	// Fingerprints compares bodies and cards.
	Fingerprints *idem.Fingerprinter
	// RawLiveCards allows card numbers in live mode.
	RawLiveCards bool
	Log          *slog.Logger
	// AuthorizedFor is how long an authorization may be captured, by the database's
	// clock. 0 means DefaultAuthorizedFor.
	AuthorizedFor time.Duration
	// PendingFor is how long a provider may take to decide what it has accepted, before
	// it is asked to refuse it. 0 means DefaultPendingFor.
	PendingFor time.Duration
	// Watch may be nil.
	Watch Watcher
}

// What Options mean by 0.
const (
	// DefaultAuthorizedFor is what card networks keep an authorization for, most often.
	DefaultAuthorizedFor = 7 * 24 * time.Hour
	// DefaultPendingFor is as long as an answer is kept: whoever was told "pending" hears
	// the end of it while they can still ask with the same key.
	DefaultPendingFor = 24 * time.Hour
)

// Watcher is called as an exchange with a provider begins; kind is send, inquire, void or
// reverse. The exchange goes on with the context that it returns; the function that it
// returns is called with what the exchange came to.
type Watcher func(ctx context.Context, provider, kind string) (context.Context, func(providers.Outcome, time.Duration))

// unwatched is the Watcher where nobody asked for one.
func unwatched(ctx context.Context, _, _ string) (context.Context, func(providers.Outcome, time.Duration)) {
	return ctx, func(providers.Outcome, time.Duration) {}
}

// Service creates payments, resumes what was left unresolved, and answers what
// became of a nonce.
type Service struct {
	store     store
	providers providers.Registry
	arrivals  *idem.Arrivals
	lease     time.Duration
	policies  idem.Policies
	prints    *idem.Fingerprinter
	rawLive   bool
	log       *slog.Logger
	watch     Watcher
	instance  uuid.UUID

	authorizedFor, pendingFor time.Duration
}

// NewService fails if the lease is too short for one of the providers.
func NewService(o Options) (*Service, error) {
	for _, p := range o.Providers.All() {
		if least := p.Traits().Timeout + LeaseMargin; o.Lease < least {
			return nil, fmt.Errorf("the lease must be at least %s: the time-out of provider %s and %s more", least, p.Name(), LeaseMargin)
		}
	}
	if o.Watch == nil {
		o.Watch = unwatched
	}
	return &Service{
		store: store{o.DB}, providers: o.Providers, arrivals: o.Arrivals, lease: o.Lease, policies: o.Policies,
		prints: o.Fingerprints, rawLive: o.RawLiveCards, log: o.Log, watch: o.Watch, instance: uuid.Must(uuid.NewV7()),
		authorizedFor: cmp.Or(o.AuthorizedFor, DefaultAuthorizedFor), pendingFor: cmp.Or(o.PendingFor, DefaultPendingFor),
	}, nil
}

// terms are the times that one transaction's holders must keep, all from the
// moment of the claim.
type terms struct{ lease, timeout, settle time.Duration }

func (s *Service) terms(p providers.Provider) terms {
	t := p.Traits()
	return terms{lease: s.lease, timeout: t.Timeout, settle: t.Settle}
}

// sendWindow is how long after the claim a charge may still go on the wire.
func (t terms) sendWindow() time.Duration { return t.lease - t.timeout - sendMargin }

// firstLook is when recovery looks at a claim that nobody finished.
func (t terms) firstLook() time.Duration { return t.lease + grace }

// travel is how long a send may be on its way after the last moment to send.
func (t terms) travel() time.Duration { return t.timeout + t.settle }

// proofMoment is when everything that may ever have been sent has either arrived
// or never will. An inquiry sent after it, and answered "unknown to us", proves
// that nothing was or will be booked. The senders' own terms count, not the
// asker's: a deployment may have shortened them in between.
func (t Transaction) proofMoment() time.Time {
	return t.MaySendUntil.Add(time.Duration(t.TravelUS) * time.Microsecond)
}

// Command is one request that moves money: a Request that creates a payment, or an
// Action on one.
type Command struct {
	AccountID uuid.UUID
	Mode      string
	Policy    idem.Policy // of a life that it begins; one that is there keeps its own
	idem.Key
	Operation string // method, route and target: what the nonce names
	Print     idem.Print
	Request   Request
	Action    *Action // nil: it creates a payment
	RequestID string
	ArrivedAt time.Time // by this process's clock
}

// Answer is what a request is told.
type Answer struct {
	Status        int
	Body          []byte
	Code          apierr.Code // of an error that is kept as the answer, when it is told first
	Policy        idem.Policy // of the nonce's life: the manner in which it is told
	Verdict       idem.Verdict
	BodyDiffers   bool // and the answer is the first request's
	TransactionID uuid.UUID
	Provider      string
	ProviderTime  time.Duration
}

// Execute begins, calls and finishes, or tells what became of the nonce. Its error
// is an *apierr.Error wherever we know what to say; then the Answer still holds
// what is known for the log.
//
// From here on the client's connection doesn't matter: a client that hangs up
// must not stop a charge half-way.
func (s *Service) Execute(ctx context.Context, cmd Command) (Answer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.lease)
	defer cancel()
	a, err := s.execute(ctx, cmd)
	if _, told := apierr.From(err); !told && postgres.IsLockTimeout(err) {
		// Behind an uncommitted duplicate, a purge, or somebody who takes it over.
		return s.busy(cmd)
	}
	return a, err
}

func (s *Service) execute(ctx context.Context, cmd Command) (Answer, error) {
	if cmd.Action != nil {
		return s.act(ctx, cmd)
	}
	for range maxLooks {
		provider, refusal, err := s.complete(ctx, &cmd)
		if err != nil {
			return Answer{}, err
		}
		if refusal == nil {
			r, err := s.begin(ctx, cmd, provider)
			if err != nil {
				return Answer{}, err
			}
			if r != nil {
				return s.carryOut(ctx, cmd, r)
			}
		}
		a, done, free, err := s.look(ctx, cmd, refusal == nil)
		if done || err != nil {
			return a, err
		}
		if free && refusal != nil { // what began before there was a reason against it is still answered
			s.arrive(cmd, idem.Rejected, uuid.Nil, false, nil)
			return Answer{Verdict: idem.Rejected}, refusal
		}
	}
	return s.busy(cmd)
}

// complete completes a request with what it refers to, and says where it goes, or why no
// payment can begin with it.
func (s *Service) complete(ctx context.Context, cmd *Command) (p providers.Provider, refusal *apierr.Error, err error) {
	if cmd.Request.checkout() {
		if refusal, err = s.find(ctx, cmd); refusal != nil || err != nil {
			return nil, refusal, err
		}
	}
	if p, refusal = s.providerFor(*cmd); refusal != nil || cmd.Request.Source.NewCard == uuid.Nil || cmd.Request.tokenised() {
		return p, refusal, nil
	}
	// A card that is to be kept is the provider's to keep. Whoever comes second must not wait
	// for that.
	if _, taken, err := s.store.readKey(ctx, cmd.AccountID, cmd.Mode, cmd.Nonce, idem.Print{}); taken || err != nil {
		return p, nil, err
	}
	_, cmd.Request.Source.NewCardToken, err = s.Tokenise(ctx, cmd.Mode, cmd.Request.Handed)
	return p, nil, err
}

// carryOut sends what was begun, and tells what came of it.
func (s *Service) carryOut(ctx context.Context, cmd Command, r *run) (Answer, error) {
	s.arrive(cmd, idem.New, r.tx.ID, false, nil)
	return s.conclude(ctx, r, s.send(ctx, r), false)
}

// look reads what a nonce stands for, and answers the request where that says how. If
// the nonce is free it says so; a life that is over is ended first, if end says so. If
// it says nothing at all, the nonce has just changed: look again.
func (s *Service) look(ctx context.Context, cmd Command, end bool) (a Answer, done, free bool, err error) {
	k, found, err := s.store.readKey(ctx, cmd.AccountID, cmd.Mode, cmd.Nonce, cmd.Print)
	switch {
	case err != nil:
		return Answer{}, false, false, err
	case !found: // released or purged since, or never there
		return Answer{}, false, true, nil
	case !k.over():
		a, done, err = s.meet(ctx, cmd, k)
		return a, done, false, err
	case !end:
		return Answer{}, false, true, nil
	}
	faultpoint.Reach(faultpoint.EndLifeBefore, cmd.Nonce)
	return Answer{}, false, false, s.store.endLife(ctx, cmd.AccountID, cmd.Mode, cmd.Nonce, k.ID)
}

// busy is told to whoever looked often enough at a nonce that changes under their eyes,
// or waited for somebody who has it in hand.
func (s *Service) busy(cmd Command) (Answer, error) {
	s.arrive(cmd, idem.InProcess, uuid.Nil, false, nil)
	return Answer{Verdict: idem.InProcess}, cmd.Policy.InFlight()
}

// Replay is the read-only look for a finished nonce: a retry whose body is broken
// is answered like any other, if the policy ignores retry bodies. It reports
// whether there was an answer; nothing is begun or changed.
func (s *Service) Replay(ctx context.Context, cmd Command) (Answer, bool, error) {
	if !cmd.Protected() {
		return Answer{}, false, nil
	}
	// A body that ended early cancels the request, but whoever shut down only their
	// own half of the connection still listens.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.lease)
	defer cancel()
	k, found, err := s.store.readKey(ctx, cmd.AccountID, cmd.Mode, cmd.Nonce, idem.Print{})
	if err != nil || !found || k.ResponseStatus == nil || k.Operation != cmd.Operation || k.over() || !s.policies.Of(k.Policy).IgnoreRetryBody {
		return Answer{}, false, err
	}
	return s.replay(cmd, k, true), true, nil
}

// begin claims the nonce and makes payment and transaction: one round trip, one
// commit. It returns nil if the nonce is taken.
func (s *Service) begin(ctx context.Context, cmd Command, p providers.Provider) (*run, error) {
	n := newPayment{
		AccountID: cmd.AccountID, PaymentID: uuid.Must(uuid.NewV7()), TransactionID: uuid.Must(uuid.NewV7()),
		Mode: cmd.Mode, Nonce: cmd.Nonce, Policy: cmd.Policy.Name, Operation: cmd.Operation, Print: cmd.Print, Retention: cmd.Retention,
		Request: cmd.Request, Provider: p.Name(), Holder: uuid.New(), Instance: s.instance, Terms: s.terms(p),
	}
	r, err := s.claim(ctx, cmd, p, n.TransactionID, n.Holder, func() (Transaction, clock, bool, error) { return s.store.begin(ctx, n) })
	if r == nil || err != nil {
		return nil, err
	}
	r.payment, r.deliver = n.payment(r.tx.CreatedAt), cmd.charge(n.TransactionID)
	return r, nil
}

// claim has the nonce claimed for a new transaction, and makes its holder's run. It
// returns nil if insert says that nothing was claimed.
func (s *Service) claim(ctx context.Context, cmd Command, p providers.Provider, transaction, holder uuid.UUID,
	insert func() (Transaction, clock, bool, error),
) (*run, error) {
	started := time.Now()
	faultpoint.Reach(faultpoint.BeginBefore, cmd.Nonce)
	tx, c, claimed, err := insert()
	if postgres.IsOutcomeUnknown(err) {
		tx, c, claimed, err = s.stillOurs(ctx, err, cmd.AccountID, transaction, 1, holder)
	}
	if err != nil || !claimed {
		return nil, err
	}
	faultpoint.Reach(faultpoint.BeginAfter, cmd.Nonce)
	r := s.newRun(tx, c, started, p, byRequest)
	r.requestID = cmd.RequestID
	return r, nil
}

// stillOurs asks, after the answer to a COMMIT was lost, whether it took place,
// and goes on only if the fence and the holder are still ours: somebody else may
// have reached the same fence by the same step. cause is what is reported if not.
func (s *Service) stillOurs(ctx context.Context, cause error, account, transaction uuid.UUID, fence int64, holder uuid.UUID) (Transaction, clock, bool, error) {
	tx, c, found, err := s.store.holding(ctx, account, transaction)
	if err != nil || !found || tx.Fence != fence || tx.LeaseHolder != holder || tx.LeaseUntil == nil {
		return Transaction{}, clock{}, false, unavailable(cause)
	}
	return tx, c, true, nil
}

// meet is what happens to a request whose nonce is taken. done is false if the
// nonce changed meanwhile: look again.
func (s *Service) meet(ctx context.Context, cmd Command, k keyRecord) (a Answer, done bool, err error) {
	differs, policy := !cmd.Print.Is(k.Fingerprint), s.policies.Of(k.Policy)
	refused := differs && !policy.IgnoreRetryBody
	answered := k.ResponseStatus != nil
	a = Answer{TransactionID: k.ID, Provider: k.Provider}
	switch {
	case k.Operation != cmd.Operation:
		a.Verdict, err = idem.Mismatch, cmd.Policy.Reused("for another operation")
	case refused && (answered || policy.MismatchFirst):
		a.Verdict, err = idem.Mismatch, cmd.Policy.Reused("with another body")
	case answered:
		return s.replay(cmd, k, differs), true, nil
	case k.ParkedAt != nil:
		a.Verdict, err = idem.InProcess, idem.ErrInProcess().Retry(retryParked)
	case k.LeaseOver != nil && !*k.LeaseOver && !k.HolderGone:
		a.Verdict, err = idem.InProcess, policy.InFlight()
	case refused:
		a.Verdict, err = idem.Mismatch, cmd.Policy.Reused("with another body")
	default:
		return s.resume(ctx, cmd, k, differs)
	}
	s.arrive(cmd, a.Verdict, k.ID, differs, k.differsIn(cmd))
	return a, true, err
}

func (s *Service) replay(cmd Command, k keyRecord, differs bool) Answer {
	s.arrive(cmd, idem.Replayed, k.ID, differs, k.differsIn(cmd))
	return Answer{
		Status: *k.ResponseStatus, Body: k.ResponseBody, Policy: s.policies.Of(k.Policy), Verdict: idem.Replayed, BodyDiffers: differs,
		TransactionID: k.ID, Provider: k.Provider,
	}
}

// resume takes an unresolved transaction over. With the same body the card is
// here again, so the same reference may be resent to a provider that still
// recognises it; with another body one can only ask.
func (s *Service) resume(ctx context.Context, cmd Command, k keyRecord, differs bool) (Answer, bool, error) {
	p, ok := s.providers.Named(k.Provider)
	if !ok {
		return Answer{}, true, apierr.New(apierr.ProviderUnavailable, "the provider of this payment is not configured").Retry(retryParked)
	}
	t := s.terms(p)
	maySend := !differs && s.mayResend(k, p.Traits()) && (cmd.Action != nil || cmd.Request.chargeable())
	faultpoint.Reach(faultpoint.ResumeBefore, cmd.Nonce)
	holder, started := uuid.New(), time.Now()
	tx, c, won, err := s.store.takeOver(ctx, k.Transaction, byRequest, holder, s.instance, t, maySend)
	if postgres.IsOutcomeUnknown(err) {
		tx, c, won, err = s.stillOurs(ctx, err, k.AccountID, k.ID, k.Fence+1, holder)
	}
	if err != nil || !won {
		return Answer{}, false, err
	}
	faultpoint.Reach(faultpoint.ResumeAfter, cmd.Nonce)
	s.arrive(cmd, idem.Resumed, tx.ID, differs, k.differsIn(cmd))
	r := s.newRun(tx, c, started, p, byRequest)
	r.requestID = cmd.RequestID
	if r.payment, err = s.store.payment(ctx, tx.AccountID, tx.PaymentID); err != nil {
		return Answer{}, true, err
	}
	if maySend {
		if cmd.Action != nil {
			r.deliver = r.operate()
		} else {
			cmd.Request.Amount, cmd.Request.Currency = tx.Amount, tx.Currency // a session may say something else by now
			r.deliver = cmd.charge(tx.ID)
		}
		if until, ends := recognisedUntil(tx, p.Traits()); ends {
			// started is before the database's reading, so the window never looks longer
			// than it is, however long what comes before the wire may take.
			r.window = min(r.window, until.Sub(c.at))
		}
	}
	result, proven, _ := s.settle(ctx, r) // what could not be read leaves it unclear
	a, err := s.conclude(ctx, r, result, proven)
	a.Verdict = idem.Resumed
	a.BodyDiffers = differs
	return a, true, err
}

// mayResend says whether a provider would still recognise the reference of this
// transaction. A resend that was refused once is never tried again in this life:
// otherwise a provider that keeps refusing would put the proof off for ever.
func (s *Service) mayResend(k keyRecord, t providers.Traits) bool {
	if !t.Idempotent || k.ResendRefused {
		return false
	}
	until, ends := recognisedUntil(k.Transaction, t)
	return !ends || k.Now.Before(until)
}

// recognisedUntil is the last moment at which a resend of tx, however slow, still
// reaches a provider that knows its reference.
func recognisedUntil(tx Transaction, t providers.Traits) (until time.Time, ends bool) {
	return tx.CreatedAt.Add(t.IdempotentFor - t.Timeout - t.Settle), t.IdempotentFor != 0
}

// delivery is one attempt on the wire.
type delivery func(ctx context.Context, p providers.Provider, may providers.MaySend) providers.Result

// charge is how a provider is asked for the payment.
func (c Command) charge(transaction uuid.UUID) delivery {
	r := c.Request
	charge := providers.Charge{
		Order: providers.Order{
			Reference: transaction.String(), AccountID: c.AccountID.String(), Mode: c.Mode, MerchantOrderID: r.MerchantOrderID,
		},
		Amount: r.Amount, Currency: r.Currency, Country: r.Country,
		Description: r.Description, Capture: r.Capture, Verify: r.Verify,
		ReturnURL: cmp.Or(r.ReturnURL, r.CallbackURL), Token: r.instrument().ProviderToken, Card: r.Handed.Card,
	}
	return func(ctx context.Context, p providers.Provider, may providers.MaySend) providers.Result {
		return p.Charge(ctx, charge, may)
	}
}

func (s *Service) arrive(cmd Command, v idem.Verdict, tx uuid.UUID, differs bool, names []string) {
	s.arrivals.Record(idem.Arrival{
		AccountID: cmd.AccountID, Mode: cmd.Mode, Nonce: cmd.Nonce, Verdict: v,
		TransactionID: orNone(tx), RequestID: cmd.RequestID,
		BodyDiffers: differs, Differs: names, At: cmd.ArrivedAt,
	})
}

// unavailable is what a caller is told when the database did not do its part. The
// nonce is as it was, or will be resumed: retrying with it is always right.
func unavailable(cause error) error {
	return fmt.Errorf("%w (%w)", apierr.New(apierr.ServiceUnavailable, "the service could not record the outcome; "+retrySame).Retry(retryInProcess), cause)
}

// secondsUntil is a wait in whole seconds, at least one.
func secondsUntil(d time.Duration) int { return max(1, int(math.Ceil(d.Seconds()))) }
