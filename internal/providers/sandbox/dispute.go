package sandbox

import (
	"crypto/rand"
	"errors"
	"net/http"
	"slices"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/providers"
)

// stages are how far a dispute can come; it moves only to a higher number.
var stages = map[providers.DisputeStage]int{
	providers.DisputeReceived: 1, providers.DisputePending: 2, providers.DisputeWon: overStage, providers.DisputeLost: overStage,
}

// overStage is the number of the stages that end a dispute.
const overStage = 3

// dispute is a payer's demand for their money back. At most one dispute of a booked
// thing is not over; until it is won its amount counts like a refund's, so that nobody
// gets their money back twice.
type dispute struct {
	key              refKey
	stage            providers.DisputeStage
	amount, currency string
}

// disputeRequest opens a dispute or, with its id, moves one.
type disputeRequest struct {
	Reference   string                 `json:"reference"`
	AccountID   string                 `json:"account_id"`
	Mode        string                 `json:"mode"`
	Stage       providers.DisputeStage `json:"stage"`
	Amount      string                 `json:"amount"`
	ID          string                 `json:"id"`
	CallbackURL string                 `json:"callback_url"`
}

func (q *disputeRequest) order() order {
	return order{Reference: q.Reference, AccountID: q.AccountID, Mode: q.Mode}
}

func (q *disputeRequest) problem() string {
	o := q.order()
	if p := o.problem(); p != "" {
		return p
	}
	switch {
	case stages[q.Stage] == 0:
		return "stage: must be received, pending_review, won or lost"
	case q.Amount != "" && !positive(q.Amount):
		return "amount: must be a positive decimal string with at most 4 places, at most 9999999999.9999"
	case q.ID != "" && !validID(q.ID):
		return "id: must be 1 to 64 visible ASCII characters"
	case q.ID != "" && q.Amount != "":
		return "amount: cannot be changed"
	}
	return callbackProblem(q.CallbackURL)
}

// postDispute opens a dispute or moves it.
func (s *Server) postDispute(w http.ResponseWriter, r *http.Request) {
	var q disputeRequest
	if !s.read(w, r, &q) {
		return
	}
	problem := q.problem()
	var told disputeBody
	if problem == "" {
		var err error
		if told, problem, err = s.dispute(&q); err != nil {
			s.fail(w)
			return
		}
	}
	if problem != "" {
		s.give(w, r, refused(echo(q.Reference), problem))
		return
	}
	writeJSON(w, http.StatusOK, told)
}

// dispute journals what the request asks for, and calls back. To move a dispute to
// where it is already changes nothing and says nothing.
func (s *Server) dispute(q *disputeRequest) (told disputeBody, problem string, err error) {
	if err := s.ledger.Err(); err != nil {
		return disputeBody{}, "", err
	}
	o := q.order()
	// Like an operation: what is left of the charge must not change meanwhile.
	release, _ := s.ledger.roots.take(o.key(), nil)
	defer release()
	r, moves, problem := s.ledger.disputeRecord(q)
	if problem != "" {
		return disputeBody{}, problem, nil
	}
	told = disputeBody{ID: r.Dispute, Stage: q.Stage, Amount: r.Amount, Currency: r.Currency}
	if !moves {
		return told, "", nil
	}
	if err := s.ledger.append(r); err != nil {
		return disputeBody{}, "", err
	}
	s.dispatch(r.Message)
	return told, "", nil
}

// disputeRecord is what the journal would have to say, or what is wrong. moves is
// false if the dispute is where it is to be.
func (l *Ledger) disputeRecord(q *disputeRequest) (r record, moves bool, problem string) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	o := q.order()
	e, booked := l.entry(o.key())
	if !booked {
		return record{}, false, "reference: nothing is booked under it"
	}
	r = record{Kind: kindDispute, AccountID: q.AccountID, Mode: q.Mode, Reference: q.Reference, MerchantOrderID: e.MerchantOrderID,
		Dispute: q.ID, Stage: string(q.Stage), Amount: q.Amount, Currency: e.Currency, CallbackURL: q.CallbackURL}
	if r.CallbackURL == "" {
		r.CallbackURL = e.callbackURL
	}
	if r.CallbackURL != "" {
		r.Message = newMessageID()
	}
	if q.ID == "" {
		if q.Stage != providers.DisputeReceived {
			return record{}, false, "stage: a dispute begins as received"
		}
		r.Dispute = "sbxdis_" + rand.Text()
		if r.Amount == "" {
			r.Amount = l.disputable(o.key()).String()
		}
		return r, true, l.disputeProblem(o.key(), r)
	}
	d := l.disputes[q.ID]
	if d == nil || d.key != o.key() {
		return record{}, false, "id: the reference has no such dispute"
	}
	r.Amount = d.amount
	if d.stage == q.Stage {
		return r, false, ""
	}
	return r, true, l.disputeProblem(o.key(), r)
}

// disputable is what is left of a booked thing to be disputed: what the payer has not
// got back.
func (l *Ledger) disputable(key refKey) decimal.Decimal {
	left := decimal.RequireFromString(l.standings[key].amount)
	if s := l.sums[key]; s != nil {
		left = left.Sub(s.given())
	}
	return left
}

// disputeProblem says why a dispute cannot be opened or moved like that. The caller
// has l.mu.
func (l *Ledger) disputeProblem(key refKey, r record) string {
	st, stage := l.standings[key], providers.DisputeStage(r.Stage)
	d := l.disputes[r.Dispute]
	switch {
	case st.status != statusApproved || !slices.Contains(actsOn[typeRefund], st.kind):
		return "reference: only a purchase or a capture can be disputed"
	case d != nil && (d.key != key || d.amount != r.Amount || d.currency != r.Currency):
		return "id: is that of another dispute"
	case d != nil && stages[stage] <= stages[d.stage]:
		return "stage: a dispute only moves forward"
	case d != nil:
		return ""
	case stage != providers.DisputeReceived:
		return "stage: a dispute begins as received"
	case l.sums[key] != nil && l.sums[key].disputed.IsPositive():
		return "reference: has a dispute that is not over"
	case !positive(r.Amount) || decimal.RequireFromString(r.Amount).GreaterThan(l.disputable(key)) || r.Currency != st.currency:
		return "amount: must be above zero and at most what was neither refunded nor lost"
	}
	return ""
}

func (l *Ledger) applyDispute(key refKey, r record) error {
	if l.disputeProblem(key, r) != "" {
		return errors.New("a dispute that cannot be")
	}
	d := l.disputes[r.Dispute]
	if d == nil {
		d = &dispute{key: key, amount: r.Amount, currency: r.Currency}
		l.disputes[r.Dispute] = d
	}
	d.stage = providers.DisputeStage(r.Stage)
	s, amount := l.sumsOf(key), decimal.RequireFromString(d.amount)
	s.disputed = amount
	if stages[d.stage] == overStage {
		s.disputed = decimal.Zero
	}
	if d.stage == providers.DisputeLost {
		s.lost = s.lost.Add(amount)
	}
	if r.CallbackURL != "" {
		l.outbox[letterKey{r.Message, 1}] = letter{url: r.CallbackURL, copy: 1, due: r.At, message: message{
			ID: r.Message, Type: aboutDispute, order: orderOfRecord(r), CreatedAt: r.At,
			Dispute: &disputeBody{ID: r.Dispute, Stage: d.stage, Amount: d.amount, Currency: d.currency},
		}}
	}
	return nil
}
