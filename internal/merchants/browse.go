package merchants

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
)

// Merchants reads a page of merchants, the newest first: as many as limit says at most, which
// must be positive, behind after, or from the newest if after is uuid.Nil. more says whether
// there are others behind them.
func (s *Service) Merchants(ctx context.Context, after uuid.UUID, limit int) (ms []Merchant, more bool, err error) {
	ms, err = s.store.merchants(ctx, after, limit+1)
	ms, more = firstOf(ms, limit)
	return ms, more, err
}

// Merchant reads one; NOT_FOUND if there is none.
func (s *Service) Merchant(ctx context.Context, account uuid.UUID) (Merchant, error) {
	return s.store.merchant(s.store.db.Conn(ctx), account)
}

// Keys reads a page of a merchant's keys as Merchants does, the revoked ones included;
// NOT_FOUND if there is no such merchant.
func (s *Service) Keys(ctx context.Context, account, after uuid.UUID, limit int) (ks []Key, more bool, err error) {
	if _, err := s.Merchant(ctx, account); err != nil {
		return nil, false, err
	}
	ks, err = s.store.keys(ctx, account, after, limit+1)
	ks, more = firstOf(ks, limit)
	return ks, more, err
}

// Key reads one of a merchant's keys; NOT_FOUND if they have none with this id.
func (s *Service) Key(ctx context.Context, account, id uuid.UUID) (Key, error) {
	return s.store.key(s.store.db.Conn(ctx), account, id)
}

// firstOf is a page of what was read, which is one more where there is more.
func firstOf[T any](read []T, limit int) (first []T, more bool) {
	if len(read) > limit {
		return read[:limit], true
	}
	return read, false
}

// Policies are the names of the idempotency policies that there are. The first is that of a
// merchant who chose none.
func (s *Service) Policies() []string { return slices.Clone(s.policies) }

// DatabaseTime is the database's clock, by which keys end, as far as it is known without
// asking: carried on from the last refresh that worked. Before the first it is this machine's.
func (s *Service) DatabaseTime() time.Time {
	s.mu.RLock()
	defer s.mu.RUnlock()
	now := s.now()
	if s.asOf.database.IsZero() {
		return now
	}
	return s.asOf.databaseTime(now)
}

// ParseNetworks reads a key's list: 1 to 50 networks such as 203.0.113.0/24, or addresses,
// which are networks of one. They come back in their order, each once. The error says which
// is none, by its place in the list.
func ParseNetworks(texts []string) ([]netip.Prefix, error) {
	if len(texts) < 1 || len(texts) > maxNetworks {
		return nil, errNetworks()
	}
	networks := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		n, ok := parseNetwork(text)
		if !ok {
			return nil, apierr.New(apierr.InvalidParameters,
				fmt.Sprintf("$.allowed_networks[%d] must be a network such as 203.0.113.0/24 or 2001:db8::/32, or an address", i))
		}
		networks[i] = n
	}
	return normal(networks), nil
}

func errNetworks() error {
	return apierr.New(apierr.InvalidParameters, fmt.Sprintf("$.allowed_networks must be a list of 1 to %d networks, or null", maxNetworks))
}
