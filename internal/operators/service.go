package operators

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/postgres"
)

// Options are what a Service needs beside the database.
type Options struct {
	// Secret is what known browsers are recognized with. All instances are to have the same,
	// of 32 random bytes or more; another one makes every browser unknown, and no more.
	// Without one each process draws its own, so that it knows only those that it has met.
	Secret []byte
}

// Service lets people and programs in, and looks after them. What it does is done in the
// name of the context's actor (audit.By), and is in the audit log.
type Service struct {
	store   store
	hasher  *hasher
	devices []byte // the key that known browsers are recognized with
}

// NewService makes one.
func NewService(db *postgres.DB, o Options) *Service {
	secret := o.Secret
	if len(secret) == 0 {
		secret = random(sha256.Size)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("oncepay/operators/devices/1")) // the secret may have other uses, whose values are no devices
	return &Service{store: store{db}, hasher: newHasher(), devices: mac.Sum(nil)}
}

// write runs f in one database transaction. Who was in the way of it may try again.
func (s *Service) write(ctx context.Context, f func(tx postgres.Tx) error) error {
	err := s.store.db.InTx(ctx, f)
	if postgres.IsContention(err) {
		return apierr.New(apierr.ServiceUnavailable, "somebody else is changing the same; try again").Retry(1)
	}
	return err
}

// targetAll is what the first operator's link is about in the audit log: nobody in particular,
// whatever the name that is chosen.
const targetAll = "operators"

// target is an operator as the audit log names one.
func target(name string) string { return "operator/" + name }

// List reads a page of operators, the newest first; after is uuid.Nil on the first page, and
// the last one's ID on the next.
func (s *Service) List(ctx context.Context, after uuid.UUID, limit int) ([]Person, error) {
	return s.store.page(ctx, after, limit)
}

// Get finds an operator, or returns NOT_FOUND.
func (s *Service) Get(ctx context.Context, name string) (Person, error) {
	r, err := s.store.byName(s.store.db.Conn(ctx), normalName(name))
	return r.person(), err
}

// Update changes somebody's role, or whether they may sign in, and returns them as they are
// now. What changed holds at once, and ends all of their sessions; being disabled also ends
// the link by which they could choose another password. The last admin who may sign in stays
// one: that is INVALID_STATE.
func (s *Service) Update(ctx context.Context, name string, u Update) (p Person, err error) {
	if u.Role == nil && u.Disabled == nil {
		return Person{}, apierr.New(apierr.MissingParameters, "$.role or $.disabled is required")
	}
	if u.Role != nil {
		if err := validateRole("$.role", *u.Role); err != nil {
			return Person{}, err
		}
	}
	err = s.write(ctx, func(tx postgres.Tx) error {
		if err := s.store.lock(tx); err != nil {
			return err
		}
		was, err := s.store.byName(tx, normalName(name))
		if err != nil {
			return err
		}
		role, disabled := was.Role, was.DisabledAt != nil
		if u.Role != nil {
			role = *u.Role
		}
		if u.Disabled != nil {
			disabled = *u.Disabled
		}
		p, err = s.update(ctx, tx, was, role, disabled)
		return err
	})
	return p, err
}

func (s *Service) update(ctx context.Context, tx postgres.Tx, was personRow, role Role, disabled bool) (Person, error) {
	wasDisabled := was.DisabledAt != nil
	if role == was.Role && disabled == wasDisabled {
		return was.person(), nil
	}
	if was.Role == Admin && !wasDisabled && (role != Admin || disabled) {
		n, err := s.store.admins(tx)
		if err != nil {
			return Person{}, err
		}
		if n <= 1 {
			return Person{}, apierr.New(apierr.InvalidState, "this is the last admin who may sign in: make somebody else an admin first")
		}
	}
	if err := s.store.update(tx, was.ID, role, disabled); err != nil {
		return Person{}, err
	}
	if _, err := s.store.endSessions(tx, was.ID); err != nil {
		return Person{}, err
	}
	if disabled && !wasDisabled {
		// Whoever may have their mail must not come back with them.
		if _, err := s.store.endInvitations(tx, was.Name); err != nil {
			return Person{}, err
		}
	}
	is, err := s.store.byName(tx, was.Name)
	if err != nil {
		return Person{}, err
	}
	if role != was.Role {
		e := audit.Entry{Action: "operator.role_changed", Target: target(was.Name), Details: map[string]string{"role_before": string(was.Role), "role": string(role)}}
		if err := audit.Append(ctx, tx, e); err != nil {
			return Person{}, err
		}
	}
	if disabled != wasDisabled {
		e := audit.Entry{Action: "operator.enabled", Target: target(was.Name)}
		if disabled {
			e.Action = "operator.disabled"
		}
		if err := audit.Append(ctx, tx, e); err != nil {
			return Person{}, err
		}
	}
	return is.person(), nil
}

const (
	// failureRetention is how long wrong passwords are remembered after the last one: a
	// guess a day is no guessing.
	failureRetention = day
	// invitationRetention is how long a link's row stays after it was used or has expired,
	// for whoever wonders. Its secret is of no use any more.
	invitationRetention = 30 * day
	// purgeBatch keeps each statement's locks short.
	purgeBatch = 500
)

// Purge removes one batch of what is past its time: sessions, wrong passwords and links. It
// returns how many rows went. Nothing depends on it.
func (s *Service) Purge(ctx context.Context) (int, error) {
	total := 0
	for _, step := range []struct {
		query string
		age   time.Duration
	}{
		{sqlPurgeSessions, 0},
		{sqlPurgeFailures, failureRetention},
		{sqlPurgeInvitations, invitationRetention},
	} {
		n, err := s.store.purge(ctx, step.query, step.age)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// as is the context of what somebody does who has only just been let in.
func as(ctx context.Context, p Principal) context.Context {
	from := audit.ActorOf(ctx)
	return audit.By(ctx, p.Actor(from.Address, from.RequestID))
}

func count(n int64) string { return strconv.FormatInt(n, 10) }
