package oracle

import (
	"testing"

	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/record"
)

// sold is an ordinary run in which shoppers have paid a session with a token, and another
// one's card was declined.
func (s *scene) sold() (sold, unsold *record.Session) {
	s.t.Helper()
	s.ordinary()
	for i := range s.run.Ops {
		if o := &s.run.Ops[i]; o.Nonce == purchase.nonce() {
			o.Session, o.Token, o.Browser, o.Replayed = "sold", "token", true, i > 0
		}
	}
	s.run.Sessions = []record.Session{
		{
			Account: shop, ID: "sold", Order: purchase.order(), Seamless: true, Value: "45.670",
			Payment: purchase.payment(), Status: string(transactions.Succeeded),
		},
		{
			Account: other, ID: "unsold", Order: declined.order(), Seamless: true, Value: "20",
			Payment: declined.payment(), Status: string(transactions.Declined),
		},
	}
	return &s.run.Sessions[0], &s.run.Sessions[1]
}

func TestNobodyComplainsOfSessionsThatWerePaidOnceOrNot(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(sold, unsold *record.Session){
		"ordinary": func(_, _ *record.Session) {},
		"changed":  func(sold, _ *record.Session) { sold.Value, sold.Changed, sold.Change = "1", "45.67", record.WasChanged },
		"perhaps changed": func(sold, _ *record.Session) {
			sold.Value, sold.Changed, sold.Change = "1", "45.67", record.MaybeChanged
		},
		"perhaps not":              func(sold, _ *record.Session) { sold.Changed, sold.Change = "1", record.MaybeChanged },
		"not changed":              func(sold, _ *record.Session) { sold.Changed = "1" },
		"the backend's own amount": func(sold, _ *record.Session) { sold.Value, sold.Seamless = "1", false },
		"lost with its primary": func(_, unsold *record.Session) {
			unsold.Doubtful, unsold.Payment, unsold.Status, unsold.Unpaid = true, "", "", "no card was taken"
		},
		"tried by nobody": func(_, unsold *record.Session) { unsold.Payment, unsold.Status = "", "" },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			change(s.sold())
			violations, figures := s.judge()
			if len(violations) > 0 {
				t.Errorf("violations: %+v", violations)
			}
			if figures.Sessions != 2 || figures.SessionsPaid != 1 || figures.SessionNonces != 1 {
				t.Errorf("figures: %+v", figures)
			}
		})
	}
}

// Every case tampers with one thing. The oracles named must complain, the first in these
// words, and no other may.
func TestOraclesComplainOfSessions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		oracles []string
		words   string
		tamper  func(s *scene, sold, unsold *record.Session)
	}{
		{"charged twice", []string{SessionPaidOnce, OneCharge, TokenOnce, ChargeAndPayment, Amounts}, "session sold, order order-purchase: 2 charges", func(s *scene, _, _ *record.Session) {
			s.run.Ledger = append(s.run.Ledger, *s.entry(purchase))
		}},
		{"a token for two", []string{TokenOnce}, "token token of account " + shop + " was charged 2 times", func(s *scene, _, _ *record.Session) {
			for i := range s.run.Ops {
				if s.run.Ops[i].Nonce == authorise.nonce() {
					s.run.Ops[i].Token = "token"
				}
			}
		}},
		{"charged, and says that it was declined", []string{SessionTruth}, `is told as "DECLINED", and the ledger has 1 charges`, func(_ *scene, sold, _ *record.Session) {
			sold.Status = string(transactions.Declined)
		}},
		{"not charged, and says that it was", []string{SessionTruth}, `is told as "SUCCEEDED", and the ledger has 0 charges`, func(_ *scene, _, unsold *record.Session) {
			unsold.Status = string(transactions.Succeeded)
		}},
		{"charged, and knows no payment", []string{SessionTruth}, "and the session tells \"\"", func(_ *scene, sold, _ *record.Session) { sold.Payment = "" }},
		{"a browser that heard of another payment", []string{SessionTruth}, "was told at", func(s *scene, _, _ *record.Session) {
			s.run.Ops[len(s.run.Ops)-2].Session = "sold" // the nonce with two lives
		}},
		{"another amount", []string{SessionTruth}, "45.67 was charged, and it asked for [45.66]", func(_ *scene, sold, _ *record.Session) { sold.Value = "45.66" }},
		{"the amount before the change", []string{SessionTruth}, "45.67 was charged, and it asked for [50]", func(_ *scene, sold, _ *record.Session) {
			sold.Changed, sold.Change = "50", record.WasChanged
		}},
		{"neither amount", []string{SessionTruth}, "it asked for [1 50]", func(_ *scene, sold, _ *record.Session) {
			sold.Value, sold.Changed, sold.Change = "1", "50", record.MaybeChanged
		}},
		{"free for nobody", []string{SessionFree}, "cannot be paid although nothing was paid: no card was taken", func(_ *scene, _, unsold *record.Session) {
			unsold.Unpaid = "no card was taken"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			sold, unsold := s.sold()
			c.tamper(s, sold, unsold)
			s.complained(c.oracles, c.words)
		})
	}
}

// A browser keeps to the default policy, whatever its merchant's backend knows: nothing that
// it is told as an error is its nonce's answer.
func TestBrowsersAreJudgedByTheDefaultPolicy(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.run.Policy, _ = record.PolicyNamed("ietf")
	again := purchase
	s.paid(again, transactions.Succeeded)
	s.op(again, record.Op{Kind: record.Pay, Status: 201, Body: again.body(transactions.Succeeded), OtherBody: true, Replayed: true})
	for i := range s.run.Ops {
		s.run.Ops[i].Browser = true
	}
	if violations, _ := s.judge(); len(violations) > 0 {
		t.Errorf("violations: %+v", violations)
	}
	for i := range s.run.Ops {
		s.run.Ops[i].Browser = false
	}
	s.complained([]string{KeptAnswer}, "another body was answered as well")
}
