package merchants

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/postgres"
)

// writeTimeout bounds what an operator changes. A refresh goes by the date of a
// change, which is older than its commit; whoever is told that something is done must
// be able to rely on a refresh finding it, so it is told in time or not at all. See
// overlap, which is longer.
const writeTimeout = 10 * time.Second

// Service makes, rotates and ends keys, and authenticates requests from a directory
// in memory. The directory is complete at all times: a key that is not in it does not
// exist, so the database is never asked.
type Service struct {
	store    store
	policies []string         // the names of all; the first is the default
	maxAge   time.Duration    // 0: a directory of any age is good
	now      func() time.Time // a test's clock runs as it likes

	mu     sync.RWMutex
	dir    directory
	asOf   asOf
	parted []*entry // have left the directory, and their use is not written yet

	refreshing sync.Mutex // one refresh at a time; it holds the next two
	readUntil  time.Time  // the database's clock at the last reading
	completed  time.Time  // when everything was read last, or was to be

	flushing sync.Mutex // one flush at a time
}

// NewService returns a service with an empty directory: call Refresh before
// serving. policies are the names of the idempotency policies that there are, at least
// one. The first is that of a merchant who chose none.
func NewService(db *postgres.DB, policies []string) *Service {
	return &Service{store: store{db}, policies: policies, now: time.Now, dir: newDirectory()}
}

// write runs f in one database transaction, and lets this instance know at once what
// it did. Who was in the way of it may try again.
func (s *Service) write(ctx context.Context, f func(tx postgres.Tx) error) error {
	limited, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := s.store.db.InTx(limited, f)
	if postgres.IsContention(err) {
		return apierr.New(apierr.ServiceUnavailable, "this merchant is being changed by somebody else; try again").Retry(1)
	}
	if err != nil {
		return err
	}
	_, _ = s.Refresh(ctx) // if that fails the loop will do it, so the caller need not hear of it
	return nil
}

// Create makes a merchant with its first pair of keys, for test mode. The secret
// is in the answer and nowhere else. Without origins, no page of others may call for it.
func (s *Service) Create(ctx context.Context, name, policy string, origins ...string) (Merchant, KeyPair, error) {
	if err := validateName(name); err != nil {
		return Merchant{}, KeyPair{}, err
	}
	if policy == "" {
		policy = s.policies[0]
	}
	if err := validatePolicy(policy, s.policies); err != nil {
		return Merchant{}, KeyPair{}, err
	}
	if err := validateOrigins(origins); err != nil {
		return Merchant{}, KeyPair{}, err
	}
	m := Merchant{AccountID: uuid.Must(uuid.NewV7()), Name: name, IdempotencyPolicy: policy, Origins: origins}
	pair := newKeyPair(Test)
	err := s.write(ctx, func(tx postgres.Tx) error {
		if err := s.store.insertMerchant(tx, m); err != nil {
			return err
		}
		if err := s.store.insertKey(tx, m.AccountID, pair, nil); err != nil {
			return err
		}
		return note(ctx, tx, merchantCreated(m), keyCreated(m.AccountID, pair, nil))
	})
	if err != nil {
		return Merchant{}, KeyPair{}, err
	}
	return m, pair, nil
}

// CreateKey makes another pair of keys for a merchant; without networks it may be used
// from everywhere.
func (s *Service) CreateKey(ctx context.Context, account uuid.UUID, mode string, networks ...netip.Prefix) (KeyPair, error) {
	if err := validateMode(mode); err != nil {
		return KeyPair{}, err
	}
	pair := newKeyPair(mode)
	err := s.write(ctx, func(tx postgres.Tx) error {
		if err := s.store.lockMerchant(tx, account); err != nil {
			return err
		}
		if err := s.store.insertKey(tx, account, pair, networks); err != nil {
			return err
		}
		return note(ctx, tx, keyCreated(account, pair, networks))
	})
	if err != nil {
		return KeyPair{}, err
	}
	return pair, nil
}

// Rotate makes a key's successor, with the same mode and networks, and lets the key
// end when the overlap is over: at once if it is 0. The key's own time is never
// prolonged, so one that is expiring cannot be rotated again.
func (s *Service) Rotate(ctx context.Context, account, id uuid.UUID, overlap time.Duration) (successor KeyPair, old Key, err error) {
	if err := validateOverlap(overlap); err != nil {
		return KeyPair{}, Key{}, err
	}
	err = s.write(ctx, func(tx postgres.Tx) error {
		if err := s.store.lockMerchant(tx, account); err != nil {
			return err
		}
		var err error
		if old, err = s.store.expireKey(tx, account, id, overlap); err != nil {
			return err
		}
		successor = newKeyPair(old.Mode)
		if err := s.store.insertKey(tx, account, successor, old.Networks); err != nil {
			return err
		}
		return note(ctx, tx, keyRotated(old, successor), keyCreated(account, successor, old.Networks))
	})
	if err != nil {
		return KeyPair{}, Key{}, err
	}
	return successor, old, nil
}

// Revoke ends a key, if it has not ended, and returns it as it is now. Another
// instance knows when its next refresh has worked.
func (s *Service) Revoke(ctx context.Context, account, id uuid.UUID) (Key, error) {
	return s.change(ctx, account, id, "key.revoked", func(tx postgres.Tx, _ Key) error { return s.store.revokeKey(tx, account, id) })
}

// Restrict says which networks may use a key; nil are all.
func (s *Service) Restrict(ctx context.Context, account, id uuid.UUID, networks []netip.Prefix) (Key, error) {
	return s.change(ctx, account, id, "key.restricted", func(tx postgres.Tx, was Key) error {
		if was.Status == Revoked {
			return errRevoked()
		}
		return s.store.restrictKey(tx, account, id, networks)
	})
}

// change changes a key, which nobody else does meanwhile, and returns it as it is now. f is
// given the key as it was.
func (s *Service) change(ctx context.Context, account, id uuid.UUID, action string, f func(tx postgres.Tx, was Key) error) (k Key, err error) {
	err = s.write(ctx, func(tx postgres.Tx) error {
		was, err := s.store.lockKey(tx, account, id)
		if err != nil {
			return err
		}
		if err = f(tx, was); err != nil {
			return err
		}
		if k, err = s.store.key(tx, account, id); err != nil {
			return err
		}
		return note(ctx, tx, keyChanged(action, was, k))
	})
	return k, err
}

// Update changes a merchant and returns it as it is now, disabled or not. Another
// instance goes by the new policy and the new origins when its next refresh has worked; a
// nonce's life that has begun keeps the policy that it began with.
func (s *Service) Update(ctx context.Context, account uuid.UUID, u Update) (m Merchant, err error) {
	if err := u.validate(s.policies); err != nil {
		return Merchant{}, err
	}
	err = s.write(ctx, func(tx postgres.Tx) error {
		was, err := s.lockedMerchant(tx, account)
		if err != nil {
			return err
		}
		if m, err = s.store.updateMerchant(tx, account, u); err != nil {
			return err
		}
		return note(ctx, tx, merchantUpdated(was, m))
	})
	return m, err
}

// lockedMerchant is a merchant as it is until the database transaction changes it.
func (s *Service) lockedMerchant(tx postgres.Tx, account uuid.UUID) (Merchant, error) {
	if err := s.store.lockMerchant(tx, account); err != nil {
		return Merchant{}, err
	}
	return s.store.merchant(tx, account)
}

// SetDisabled says whether a merchant's keys are refused, all of them in both modes,
// and returns the merchant as it is now. What was begun goes on: an unresolved payment
// is settled whatever became of its merchant.
func (s *Service) SetDisabled(ctx context.Context, account uuid.UUID, disabled bool) (m Merchant, err error) {
	err = s.write(ctx, func(tx postgres.Tx) error {
		was, err := s.lockedMerchant(tx, account)
		if err != nil {
			return err
		}
		if err = s.store.disableMerchant(tx, account, disabled); err != nil {
			return err
		}
		if m, err = s.store.merchant(tx, account); err != nil {
			return err
		}
		return note(ctx, tx, merchantDisabled(was, m))
	})
	return m, err
}

// Ensure makes a merchant with exactly these keys unless they are there already.
// It serves `payments dev`, which keeps its keys beside its data.
func (s *Service) Ensure(ctx context.Context, m Merchant, pairs ...KeyPair) error {
	err := s.write(ctx, func(tx postgres.Tx) error {
		if err := s.store.insertMerchant(tx, m); err != nil {
			return err
		}
		entries := []audit.Entry{merchantCreated(m)}
		for _, p := range pairs {
			if p.ID == uuid.Nil { // a pair that was kept somewhere without it
				p.ID = uuid.Must(uuid.NewV7())
			}
			if err := s.store.insertKey(tx, m.AccountID, p, nil); err != nil {
				return err
			}
			entries = append(entries, keyCreated(m.AccountID, p, nil))
		}
		return note(ctx, tx, entries...)
	})
	if postgres.IsUniqueViolation(err) {
		_, _ = s.Refresh(ctx) // they may have been made by another instance; the loop tries again
		return nil
	}
	if err != nil {
		return fmt.Errorf("make the merchant: %w", err)
	}
	return nil
}

// NewKeyPair draws a pair for Ensure.
func NewKeyPair(mode string) KeyPair { return newKeyPair(mode) }
