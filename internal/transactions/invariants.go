package transactions

import (
	"context"
	"errors"
	"time"

	"github.com/oncepay/oncepay/internal/postgres"
)

// What must hold at any moment, whoever is at work and whatever has just died. The
// database's constraints look at one row as it is written, and the code at one payment;
// these checks look at everything that is there, and trust neither: each works out from
// the rows below what the rows above must be.

const (
	// invariantLimit is how long one check may take. Each reads one or two tables as a
	// whole, so it grows with the database.
	invariantLimit = 5 * time.Minute

	// InvariantsLimit is how long all checks together may take: as long as the snapshot
	// lives, VACUUM has to leave everything that was changed since.
	InvariantsLimit = 15 * time.Minute
)

// Invariants is what became of all checks, in the order in which they were made.
type Invariants struct {
	// OK says that every check was finished, and found nothing.
	OK     bool        `json:"ok"`
	Checks []Invariant `json:"checks"`
}

// Invariant is what became of one check.
type Invariant struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Violations counts the rows that break the rule, or is nil if that could not be
	// found out in time.
	Violations *int64 `json:"violations"`
}

// Invariants makes every check over all merchants and modes, in one snapshot of the
// database. One that is violated, or takes too long, does not stand in the way of the
// others. An error means that the database could not be asked.
func (s *Service) Invariants(ctx context.Context) (Invariants, error) {
	var found Invariants
	err := s.store.db.Snapshot(ctx, invariantLimit, func(db postgres.Tx) (err error) {
		found, err = s.checkAll(ctx, db)
		return err
	})
	if err != nil {
		return Invariants{}, wrap("check the invariants", err)
	}
	return found, nil
}

// checkAll makes every check in one database transaction.
func (s *Service) checkAll(ctx context.Context, db postgres.Tx) (Invariants, error) {
	found := Invariants{OK: true, Checks: make([]Invariant, 0, len(invariants))}
	for _, c := range invariants {
		n, failed, err := s.store.violations(db, c)
		if failed != nil {
			s.log.ErrorContext(ctx, "an invariant could not be checked", "invariant", c.name, "error", postgres.Describe(failed))
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return Invariants{}, err
		}
		i := Invariant{Name: c.name, OK: failed == nil && n == 0}
		if failed == nil {
			i.Violations = &n
		}
		if !i.OK {
			found.OK = false
		}
		if n > 0 {
			s.log.ErrorContext(ctx, "an invariant is violated", "invariant", c.name, "violations", n)
		}
		found.Checks = append(found.Checks, i)
	}
	return found, nil
}
