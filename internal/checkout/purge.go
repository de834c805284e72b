package checkout

import (
	"context"
	"time"
)

const (
	// tokenRetention is how long a one-time token stays after it was made: its life, and a
	// day for whoever finds out then why it was refused. One whose payment is not resolved
	// stays, because a retry of that payment may need it.
	tokenRetention = sessionLife + 24*time.Hour
	// sessionRetention is how long a session stays that nobody has paid: as long as the
	// timeline of a nonce. One with a payment stays with it.
	sessionRetention = 90 * 24 * time.Hour
	// purgeBatch keeps each statement's locks short.
	purgeBatch = 500
)

// Purge removes one batch of what is past its time: one-time tokens, sessions that nobody
// has paid, and customers' sessions. It returns how many rows went. Nothing depends on it.
func (s *Service) Purge(ctx context.Context) (int, error) {
	total := 0
	for _, step := range []struct {
		what, query string
		age         time.Duration
	}{
		{"purge tokens", sqlPurgeTokens, tokenRetention},
		{"purge sessions", sqlPurgeSessions, sessionRetention},
		{"purge customers' sessions", sqlPurgeCustomerSessions, tokenRetention},
	} {
		n, err := s.store.purge(ctx, step.query, step.age)
		total += n
		if err != nil {
			return total, wrap(step.what, err)
		}
	}
	return total, nil
}
