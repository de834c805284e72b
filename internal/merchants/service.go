package merchants

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"sync"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/postgres"
)

// Service makes merchants and keys, and authenticates requests from a directory
// in memory. The directory is complete at all times (a key that is not in it does
// not exist, so the database is never asked) and at most one refresh old.
type Service struct {
	store         store
	policyKnown   func(name string) bool
	defaultPolicy string

	mu        sync.RWMutex
	keys      map[string]entry     // by public key
	policies  map[uuid.UUID]string // by account
	refreshed marker

	refreshing sync.Mutex // one refresh at a time
}

type entry struct {
	caller Caller
	hash   [sha256.Size]byte
}

// NewService returns a service with an empty directory: call Refresh before
// serving. policyKnown says which idempotency policies there are, defaultPolicy
// which a merchant has who chose none.
func NewService(db *postgres.DB, defaultPolicy string, policyKnown func(name string) bool) *Service {
	return &Service{
		store: store{db}, policyKnown: policyKnown, defaultPolicy: defaultPolicy,
		keys: map[string]entry{}, policies: map[uuid.UUID]string{},
	}
}

// Refresh brings the directory up to date with what changed since the last time,
// on whatever instance. It returns the number of changes.
func (s *Service) Refresh(ctx context.Context) (int, error) {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	changes, err := s.store.changes(ctx, s.refreshed)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := 0
	for _, c := range changes.rows {
		s.policies[c.AccountID] = c.IdempotencyPolicy
		if c.PublicAPIKey == nil {
			continue
		}
		if c.Revoked {
			delete(s.keys, *c.PublicAPIKey)
			continue
		}
		if _, known := s.keys[*c.PublicAPIKey]; !known {
			fresh++
		}
		s.keys[*c.PublicAPIKey] = entry{
			caller: Caller{AccountID: c.AccountID, Mode: *c.Mode, Policy: c.IdempotencyPolicy},
			hash:   [sha256.Size]byte(c.SecretHash),
		}
	}
	s.refreshed = changes.until
	return fresh, nil
}

// Authenticate says whom a pair of keys speaks for. An unknown key and a wrong
// secret take the same path and get the same answer, INVALID_CREDENTIALS.
func (s *Service) Authenticate(publicKey, secret string) (Caller, error) {
	s.mu.RLock()
	e, known := s.keys[publicKey] // unknown: a hash of zeros, which no secret has
	s.mu.RUnlock()
	hash := hashSecret(secret)
	if subtle.ConstantTimeCompare(hash[:], e.hash[:]) != 1 || !known {
		return Caller{}, apierr.New(apierr.InvalidCredentials, "public-api-key and private-secret-key must be a valid pair")
	}
	return e.caller, nil
}

// PolicyOf is the name of an account's idempotency policy, also for work that no
// request began.
func (s *Service) PolicyOf(account uuid.UUID) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p, ok := s.policies[account]; ok {
		return p
	}
	return s.defaultPolicy
}

// Create makes a merchant with its first pair of keys, for test mode. The secret
// is in the answer and nowhere else.
func (s *Service) Create(ctx context.Context, name, policy string) (Merchant, KeyPair, error) {
	if err := validateName(name); err != nil {
		return Merchant{}, KeyPair{}, err
	}
	if policy == "" {
		policy = s.defaultPolicy
	}
	if !s.policyKnown(policy) {
		return Merchant{}, KeyPair{}, apierr.New(apierr.InvalidParameters, "$.idempotency_policy must be the name of a policy, such as "+s.defaultPolicy)
	}
	m := Merchant{AccountID: uuid.Must(uuid.NewV7()), Name: name, IdempotencyPolicy: policy}
	pair := newKeyPair(Test)
	err := s.store.db.InTx(ctx, func(tx postgres.Tx) error {
		if err := s.store.insertMerchant(tx, m); err != nil {
			return err
		}
		return s.store.insertKey(tx, m.AccountID, pair)
	})
	if err != nil {
		return Merchant{}, KeyPair{}, err
	}
	s.refreshAfterWrite(ctx)
	return m, pair, nil
}

// CreateKey makes another pair of keys for a merchant.
func (s *Service) CreateKey(ctx context.Context, account uuid.UUID, mode string) (KeyPair, error) {
	if err := validateMode(mode); err != nil {
		return KeyPair{}, err
	}
	pair := newKeyPair(mode)
	if err := s.store.insertKey(s.store.db.Conn(ctx), account, pair); err != nil {
		return KeyPair{}, err
	}
	s.refreshAfterWrite(ctx)
	return pair, nil
}

// Ensure makes a merchant with exactly these keys unless they are there already.
// It serves `payments dev`, which keeps its keys beside its data.
func (s *Service) Ensure(ctx context.Context, m Merchant, pairs ...KeyPair) error {
	err := s.store.db.InTx(ctx, func(tx postgres.Tx) error {
		if err := s.store.insertMerchant(tx, m); err != nil {
			return err
		}
		for _, p := range pairs {
			if err := s.store.insertKey(tx, m.AccountID, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !postgres.IsUniqueViolation(err) {
		return err
	}
	s.refreshAfterWrite(ctx)
	return nil
}

// NewKeyPair draws a pair for Ensure.
func NewKeyPair(mode string) KeyPair { return newKeyPair(mode) }

// refreshAfterWrite lets this instance know at once what it has just written. If
// that fails the loop will do it, so the caller need not hear of it.
func (s *Service) refreshAfterWrite(ctx context.Context) {
	_, _ = s.Refresh(ctx)
}
