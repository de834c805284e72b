package operators

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/postgres"
)

// CreateToken makes an API token. Its secret is in the answer and nowhere else. life is from
// MinTokenLife to MaxTokenLife. Whoever made it may lose their role or leave: the token goes
// on until it ends or an admin revokes it, as programs depend on it.
func (s *Service) CreateToken(ctx context.Context, name string, scope Role, life time.Duration) (t Token, secret string, err error) {
	if err := validateToken(name, scope, life); err != nil {
		return Token{}, "", err
	}
	secret = TokenPrefix + newSecret()
	err = s.write(ctx, func(tx postgres.Tx) error {
		if err := s.store.lock(tx); err != nil {
			return err
		}
		n, err := s.store.activeTokens(tx)
		if err != nil {
			return err
		}
		if n >= maxTokens {
			return apierr.New(apierr.InvalidState, fmt.Sprintf("there are %d tokens that are taken, which is the most: revoke one first", maxTokens))
		}
		made := Token{ID: uuid.Must(uuid.NewV7()), Name: name, Scope: scope, CreatedBy: audit.ActorOf(ctx).Name}
		if t, err = s.store.insertToken(tx, secret, made, life); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "token.created", Target: tokenTarget(t.ID), Details: map[string]string{
			"name": t.Name, "scope": string(t.Scope), "expires_at": t.ExpiresAt.UTC().Format(time.RFC3339),
		}})
	})
	if err != nil {
		return Token{}, "", err
	}
	return t, secret, nil
}

// ErrToken is what whoever brings no good token is told.
func ErrToken() *apierr.Error {
	return apierr.New(apierr.InvalidCredentials, "Authorization must be Bearer and the admin token, or an API token")
}

// ByToken says who brings a token, and what they may do, which is its scope. One that is
// unknown, revoked or past its time is INVALID_CREDENTIALS. The database is asked each time,
// so what was revoked is refused at once, by all instances.
func (s *Service) ByToken(ctx context.Context, bearer string) (Principal, error) {
	if !strings.HasPrefix(bearer, TokenPrefix) {
		return Principal{}, ErrToken()
	}
	tx := s.store.db.Conn(ctx)
	r, ok, err := s.store.byToken(tx, bearer)
	if err != nil {
		return Principal{}, err
	}
	if !ok {
		return Principal{}, ErrToken()
	}
	if r.Stale {
		if err := s.store.tokenUsed(tx, r.ID); err != nil {
			return Principal{}, err
		}
	}
	return Principal{Kind: audit.KindToken, ID: r.ID, Name: r.Name, Role: r.Scope}, nil
}

// Tokens reads a page of tokens, the newest first; after is uuid.Nil on the first page, and
// the last one's ID on the next.
func (s *Service) Tokens(ctx context.Context, after uuid.UUID, limit int) ([]Token, error) {
	return s.store.tokens(ctx, after, limit)
}

// RevokeToken ends a token, if it is not revoked yet, and returns it as it is now.
func (s *Service) RevokeToken(ctx context.Context, id uuid.UUID) (t Token, err error) {
	err = s.write(ctx, func(tx postgres.Tx) error {
		ended, err := s.store.revokeToken(tx, id)
		if err != nil {
			return err
		}
		if t, err = s.store.token(tx, id); err != nil || !ended {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "token.revoked", Target: tokenTarget(id), Details: map[string]string{"name": t.Name, "scope": string(t.Scope)}})
	})
	return t, err
}

func tokenTarget(id uuid.UUID) string { return "token/" + id.String() }
