package sandbox

import (
	"context"
	"time"

	"github.com/oncepay/oncepay/internal/providers"
)

// The response codes of what is pending, as the contract has them.
const (
	codeChallenge = "CHALLENGE_REQUIRED"
	codePending   = "PENDING_PROVIDER_CONFIRMATION"
	// codePendingDeclined is how `sandbox:pending-then-decline` ends.
	codePendingDeclined = "DECLINED_BY_BANK"
)

// maxDeciding bounds how many of those that are due are decided at once. After a
// restart that may be very many; as many share one fsync.
const maxDeciding = 64

// verdict is how what is pending ends.
type verdict string

const (
	thenApprove   verdict = "approve"
	thenDecline   verdict = "decline"
	thenChallenge verdict = "challenge" // as the payer answers it
)

// pendingCode is the response code of what waits for a verdict.
func pendingCode(then verdict) string {
	if then == thenChallenge {
		return codeChallenge
	}
	return codePending
}

// pend accepts a booking now, to be decided later: by a challenge, or after the wait,
// and then to be told in as many copies as that. The amount of an operation is
// reserved until then.
func (h *hold) pend(b booking, then verdict, wait time.Duration, copies int) (standing, error) {
	release := h.root(&b)
	defer release()
	if b.responseCode != "" {
		return h.decline(b) // what it acts on does not allow it, now or later
	}
	r := b.record(kindPending)
	r.Then, r.ReturnURL = then, b.returnURL
	if then == thenChallenge {
		r.Challenge = newSecret()
	} else {
		r.Due = now().Add(wait)
	}
	if b.callbackURL != "" {
		r.Message, r.Copies = newMessageID(), copies
	}
	return h.decide(r)
}

// conclude ends what is pending, with the response code that it comes to. Its amount
// is reserved, so nothing else has to be held.
func (h *hold) conclude(p record, code string) (standing, error) {
	b := booking{order: p.MerchantOrderID, kind: p.Type, amount: p.Amount, currency: p.Currency, target: p.Target,
		callbackURL: p.CallbackURL, id: p.ID, responseCode: code, fault: p.Fault}
	if class, _ := providers.ClassOf(code); class != providers.ClassSucceeded {
		return h.decline(b)
	}
	return h.book(b)
}

// pending is what waits under a reference, if anything does.
func (l *Ledger) pending(key refKey) (record, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	r, ok := l.undecided[key]
	return r, ok
}

// due are the references that are pending and that time will decide, with when.
func (l *Ledger) due() map[refKey]time.Time {
	l.mu.RLock()
	defer l.mu.RUnlock()
	all := map[refKey]time.Time{}
	for key, r := range l.undecided {
		if r.Then != thenChallenge {
			all[key] = r.Due
		}
	}
	return all
}

// pend makes a charge or an operation wait, and makes an appointment to decide it.
func (s *Server) pend(h *hold, b booking, f fault) (standing, error) {
	b.fault, b.responseCode = f.word, ""
	st, err := h.pend(b, f.verdict, f.wait, f.copies)
	if p, ok := s.ledger.pending(h.key); err == nil && ok && p.Then != thenChallenge {
		s.decisions.add(p.Due, h.key)
	}
	return st, err
}

// decide ends what is pending under a reference, unless that has ended already. If
// the ledger cannot be written, the next process decides.
func (s *Server) decide(ctx context.Context, key refKey) {
	p, ok := s.ledger.pending(key)
	if !ok || p.Then == thenChallenge {
		return
	}
	code := succeeded
	if p.Then == thenDecline {
		code = codePendingDeclined
	}
	_, _ = s.conclude(ctx, key, code)
}

// conclude ends what is pending under a reference with a response code, and calls
// back. ended is false if it was not pending any more.
func (s *Server) conclude(ctx context.Context, key refKey, code string) (ended bool, err error) {
	h, err := s.ledger.hold(ctx, key)
	if err != nil {
		return false, err
	}
	defer h.release()
	p, ok := s.ledger.pending(key)
	if !ok {
		return false, nil
	}
	if _, err := h.conclude(p, code); err != nil {
		return false, err
	}
	s.dispatch(p.Message)
	return true, nil
}
