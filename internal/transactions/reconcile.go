package transactions

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/providers"
)

// Finding is what a comparison with a provider's books came to, for one reference.
type Finding string

// The closed set of findings. All but FoundMatched and FoundOpen are differences.
const (
	FoundMatched       Finding = "matched"        // both sides say the same
	FoundMissingHere   Finding = "missing_here"   // they booked what nobody here stands by
	FoundMissingThere  Finding = "missing_there"  // we stand by what they have not booked
	FoundAmountDiffers Finding = "amount_differs" // another amount, or another currency
	FoundOpen          Finding = "open"           // not decided yet, on either side
)

// Findings are all of them, in the order in which they are told.
var Findings = []Finding{FoundMatched, FoundMissingHere, FoundMissingThere, FoundAmountDiffers, FoundOpen}

// Reversal is what was done about a difference.
type Reversal string

// The closed set of reversals. ReversalFailed is written before anything is sent, so it
// also stands for a reversal whose end is not known yet.
const (
	NotReversed    Reversal = ""
	Reversed       Reversal = "reversed"
	ReversalFailed Reversal = "reversal_failed"
)

// Reversals are all of them.
var Reversals = []Reversal{NotReversed, Reversed, ReversalFailed}

// counterpart is a transaction of ours, as it is held against a provider's books.
type counterpart struct {
	Now             time.Time // when it was read, by the database's clock
	MerchantOrderID string
	Looks           int  // a watched one's: how often it was looked at
	Lapsed          bool // an authorization that had succeeded before it expired
	TakenBack       bool // its late charge has been reversed
	Transaction     `gorm:"embedded"`
}

// stands says whether what is booked under its reference is what we stand by, or did.
func (c counterpart) stands() bool { return c.Status == Succeeded || c.Lapsed }

// late says whether a booking under its reference came too late, and can be reversed:
// nobody here stands by it, and nobody ever will, because a transaction that has ended
// without effect has no move left.
func (c counterpart) late() bool {
	return c.Status.Terminal() && !c.stands() && !c.TakenBack && (c.Type == Purchase || c.Type == Authorize || c.Type == Capture)
}

// finding compares it with what the provider says of its reference.
func (c counterpart) finding(r providers.Result) Finding {
	switch r.Outcome {
	case providers.Approved:
		switch {
		case !c.Status.Terminal():
			return FoundOpen
		case c.stands() && r.Currency != "" && (r.Currency != c.Currency || !r.Amount.Equal(c.Amount)):
			return FoundAmountDiffers
		case c.stands(), c.TakenBack, c.Type == Verify: // the last moved nothing
			return FoundMatched
		}
		return FoundMissingHere
	case providers.NotFound, providers.Declined:
		switch {
		case !c.Status.Terminal():
			return FoundOpen
		case c.Status == Succeeded:
			return FoundMissingThere
		}
		return FoundMatched // a hold that has lapsed may be forgotten there, too
	case providers.Pending:
		if c.Status == Succeeded {
			return FoundMissingThere
		}
		return FoundOpen
	case providers.Refused, providers.NotReached, providers.Unclear, providers.Voided: // it told nothing
	}
	return FoundOpen
}

// difference describes a finding about it, for whoever has to look.
func (c counterpart) difference(f Finding, r providers.Result) Difference {
	d := Difference{
		Provider: c.Provider, AccountID: c.AccountID.String(), Reference: c.ID.String(), Finding: f,
		OurStatus: string(c.Status), OurAmount: fitting(c.Amount), ProviderStatus: string(r.Outcome), Currency: c.Currency,
	}
	if r.Currency != "" {
		d.ProviderAmount = fitting(r.Amount)
		if r.Currency != c.Currency {
			d.Currency += "/" + r.Currency
		}
	}
	return d
}

// Difference is one difference between our books and a provider's. AccountID and
// Reference are the provider's words: they may be nobody's here.
type Difference struct {
	Provider       string
	AccountID      string
	Reference      string
	Finding        Finding
	OurStatus      string              // "": no such transaction here
	OurAmount      decimal.NullDecimal // major units
	ProviderStatus string              // an outcome
	ProviderAmount decimal.NullDecimal // major units; null where the provider does not say it
	Currency       string              // ISO 4217; ours, a slash and theirs where they differ
	Action         Reversal
	FirstSeenAt    time.Time // zero before it is kept
	LastSeenAt     time.Time
}

// MarshalJSON is the difference on the wire.
func (d Difference) MarshalJSON() ([]byte, error) {
	amount := func(a decimal.NullDecimal) json.RawMessage {
		if !a.Valid {
			return nil
		}
		return money.JSONNumber(a.Decimal)
	}
	at := func(t time.Time) *string {
		if t.IsZero() {
			return nil
		}
		s := httpapi.Timestamp(t)
		return &s
	}
	return json.Marshal(struct {
		Provider       string          `json:"provider"`
		AccountID      string          `json:"account_id"`
		Reference      string          `json:"reference"`
		Finding        Finding         `json:"finding"`
		OurStatus      string          `json:"our_status"`
		OurAmount      json.RawMessage `json:"our_amount"`
		ProviderStatus string          `json:"provider_status"`
		ProviderAmount json.RawMessage `json:"provider_amount"`
		Currency       string          `json:"currency"`
		Action         Reversal        `json:"action"`
		FirstSeenAt    *string         `json:"first_seen_at,omitempty"`
		LastSeenAt     *string         `json:"last_seen_at,omitempty"`
	}{
		d.Provider, d.AccountID, d.Reference, d.Finding, d.OurStatus, amount(d.OurAmount), d.ProviderStatus, amount(d.ProviderAmount),
		d.Currency, d.Action, at(d.FirstSeenAt), at(d.LastSeenAt),
	})
}

// maxKept is more than a kept amount may be, and keptDecimals how exact it is: the
// columns' type, numeric(14,4).
var maxKept = decimal.New(1, 10)

const keptDecimals = 4

// fitting is an amount as it can be kept; null if it cannot, because a provider may say
// anything.
func fitting(a decimal.Decimal) decimal.NullDecimal {
	fits := a.Abs().LessThan(maxKept) && a.Equal(a.Truncate(keptDecimals))
	return decimal.NullDecimal{Decimal: a, Valid: fits}
}

// Reconciler holds our books against the providers': it looks again at the references
// under which something may arrive late, and goes through what was booked, window by
// window. It changes no payment and no transaction. What it can do about a difference is
// to reverse a charge that nobody here stands by.
type Reconciler struct {
	service *Service
	found   func(Finding, Reversal)
}

// NewReconciler makes the reconciler of an installation. found is told of each finding;
// it may be nil.
func NewReconciler(s *Service, found func(Finding, Reversal)) *Reconciler {
	if found == nil {
		found = func(Finding, Reversal) {}
	}
	return &Reconciler{service: s, found: found}
}

// RunOnce is one round of the reconciliation loop: a window of each provider's books, if
// there is one to compare, and then the references that are due for a look. It returns
// how much more there is to do at once.
//
// Several instances share the work: each window and each look is somebody's for a few
// minutes. If two do the same all the same, nothing happens twice.
func (r *Reconciler) RunOnce(ctx context.Context) (int, error) {
	var (
		more int
		errs []error
	)
	for _, p := range r.providers() {
		behind, err := r.advance(ctx, p)
		errs = append(errs, err)
		if behind {
			more++
		}
	}
	n, err := r.watched(ctx)
	if n == watchBatch {
		more++
	}
	return more, errors.Join(append(errs, err)...)
}

// providers are those that can be compared with, by name.
func (r *Reconciler) providers() []providers.Provider {
	ps := slices.DeleteFunc(r.service.providers.All(), func(p providers.Provider) bool { return !reconcilable(p) })
	slices.SortFunc(ps, func(a, b providers.Provider) int { return cmp.Compare(a.Name(), b.Name()) })
	return ps
}

// reconcilable says whether a provider shows its books, or can be asked about each reference.
func reconcilable(p providers.Provider) bool {
	_, lists := p.(providers.Lister)
	return lists || p.Traits().Queryable
}

// begin makes the run of somebody who only wants to know, or to undo.
func (r *Reconciler) begin(c counterpart, read time.Time, p providers.Provider) *run {
	x := r.service.newRun(c.Transaction, clock{at: c.Now, before: read, after: read}, time.Now(), p, byReconciliation)
	x.payment.MerchantOrderID = c.MerchantOrderID
	return x
}

// byReconciliation takes nothing over.
const byReconciliation taker = "reconciliation"

// ask inquires about a reference.
func (x *run) ask(ctx context.Context, reference string) providers.Result {
	order := x.order()
	order.Reference = reference
	return x.exchange(ctx, "inquire", func(ctx context.Context) providers.Result { return x.provider.Inquire(ctx, order) })
}

// reversalSuffix makes the reference of a reversal out of that of what it reverses: the
// same however often, and by whomever, it is sent, and known again in the provider's
// books. With it a reference has 40 characters.
const reversalSuffix = "-rev"

func reversalOf(id uuid.UUID) string { return id.String() + reversalSuffix }
