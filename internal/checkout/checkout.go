// Package checkout is what a merchant's backend and a shopper's browser have in common:
// customers and the cards they keep, sessions that say what is to be paid, one-time tokens
// that stand for a card, payment links, and the page that people pay on.
//
// A browser is believed in nothing. It shows a public key, which is no secret, and knows a
// session, which cannot be guessed; what is paid, in which currency and for which order is
// the session's. That a session is paid once is kept by package transactions, where the
// payment begins and ends:
//
//	backend ──► session ──► browser ──► one-time token ──► payment ──► declined: another try
//	                                                          └──────► all else: the session's
package checkout

import (
	"time"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/transactions"
)

// sessionLife is how long a session, and what is made in it, is good for: the contract's,
// by the database's clock.
const sessionLife = 5 * time.Hour

// Options are what a Service needs.
type Options struct {
	DB       *postgres.DB
	Payments *transactions.Service
	Auth     *merchants.Service
	// Policies, Prints and Arrivals are those that payments go by.
	Policies idem.Policies
	Prints   *idem.Fingerprinter
	Arrivals *idem.Arrivals
}

// Service keeps customers, sessions, tokens, cards and links.
type Service struct {
	store    store
	payments *transactions.Service
	auth     *merchants.Service
	policies idem.Policies
	prints   *idem.Fingerprinter
	arrivals *idem.Arrivals
}

// NewService makes a Service.
func NewService(o Options) *Service {
	return &Service{store: store{o.DB}, payments: o.Payments, auth: o.Auth, policies: o.Policies, prints: o.Prints, arrivals: o.Arrivals}
}

// store keeps what the package's nouns are; each has a file of its own.
type store struct{ db *postgres.DB }
