package operators

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/postgres"
)

// maxInvitations bounds the links that can be used at a time: each lets somebody in.
const maxInvitations = 100

// FirstInvitation makes the link by which the first operator, an admin, chooses a name and a
// password. It is not needed, and made, once there is an operator. It replaces the one that
// was made before, and works for FirstInvitationLife, as long as there is nobody.
func (s *Service) FirstInvitation(ctx context.Context) (l Link, needed bool, err error) {
	if found, err := s.store.found(s.store.db.Conn(ctx)); err != nil || found {
		return Link{}, false, err
	}
	err = s.write(ctx, func(tx postgres.Tx) error {
		if err := s.store.lock(tx); err != nil {
			return err
		}
		found, err := s.store.found(tx)
		if err != nil || found {
			return err
		}
		needed = true
		if l, err = s.link(tx, Invitation{Kind: First, Role: Admin}, uuid.Nil, FirstInvitationLife); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "operator.invited", Target: targetAll, Details: map[string]string{"role": string(Admin)}})
	})
	if err != nil || !needed {
		return Link{}, false, err
	}
	return l, true, nil
}

// Invite makes a link by which somebody new chooses a password. It replaces an unused one
// with the same name, and works for InvitationLife. A name that an operator has already is
// INVALID_STATE.
func (s *Service) Invite(ctx context.Context, name string, role Role) (l Link, err error) {
	if name, err = validateName("$.name", name); err != nil {
		return Link{}, err
	}
	if err := validateRole("$.role", role); err != nil {
		return Link{}, err
	}
	err = s.write(ctx, func(tx postgres.Tx) error {
		if err := s.store.lock(tx); err != nil {
			return err
		}
		_, err := s.store.byName(tx, name)
		if err == nil {
			return errNameTaken()
		}
		if _, missing := apierr.From(err); !missing {
			return err
		}
		if l, err = s.link(tx, Invitation{Kind: New, Name: name, Role: role}, uuid.Nil, InvitationLife); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "operator.invited", Target: target(name), Details: map[string]string{"role": string(role)}})
	})
	return l, err
}

// ResetPassword makes a link by which an operator chooses another password. It replaces an
// unused one of theirs and works for ResetLife; the password they have goes on until it is
// used, and so do their sessions. Somebody who is disabled is INVALID_STATE.
func (s *Service) ResetPassword(ctx context.Context, name string) (l Link, err error) {
	err = s.write(ctx, func(tx postgres.Tx) error {
		if err := s.store.lock(tx); err != nil {
			return err
		}
		p, err := s.store.byName(tx, normalName(name))
		if err != nil {
			return err
		}
		if p.DisabledAt != nil {
			return apierr.New(apierr.InvalidState, "the operator is disabled: enable them first")
		}
		if l, err = s.link(tx, Invitation{Kind: Forgot, Name: p.Name, Role: p.Role}, p.ID, ResetLife); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "operator.password_reset_sent", Target: target(p.Name)})
	})
	return l, err
}

// link makes a link in place of those with the same name that nobody has used.
func (s *Service) link(tx postgres.Tx, i Invitation, id uuid.UUID, life time.Duration) (Link, error) {
	if _, err := s.store.endInvitations(tx, i.Name); err != nil {
		return Link{}, err
	}
	l := Link{Invitation: i, Secret: newSecret()}
	var err error
	l.ExpiresAt, err = s.store.insertInvitation(tx, l.Secret, i.Name, i.Role, id, life)
	return l, err
}

// Invitations are the links that can be used, the newest first: at most 100.
func (s *Service) Invitations(ctx context.Context) ([]Invitation, error) {
	return s.store.invitations(ctx)
}

// Withdraw ends the link with a name that nobody has used. If there is none it is NOT_FOUND.
func (s *Service) Withdraw(ctx context.Context, name string) error {
	if name = normalName(name); !plainName.MatchString(name) {
		return errNothingToWithdraw()
	}
	return s.write(ctx, func(tx postgres.Tx) error {
		n, err := s.store.endInvitations(tx, name)
		if err != nil {
			return err
		}
		if n == 0 {
			return errNothingToWithdraw()
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "operator.invitation_withdrawn", Target: target(name)})
	})
}

func errNothingToWithdraw() error {
	return apierr.New(apierr.NotFound, "there is no link for this name that nobody has used")
}

// Invitation says what a link is for. One that was used or replaced, or whose time is over,
// is NOT_FOUND.
func (s *Service) Invitation(ctx context.Context, secret string) (Invitation, error) {
	r, err := s.store.invitation(s.store.db.Conn(ctx), secret)
	return r.invitation(), err
}

// Accept uses a link: whoever has it chooses a password, and has a session from then on. name
// is what the first operator wants to be called; the others have their name already. Of
// several who come at once, with one link or with several for the first operator, one is
// let in. A name or a password that cannot be one is INVALID_PARAMETERS, and the link can be
// used again. A password that was forgotten takes all sessions with it.
func (s *Service) Accept(ctx context.Context, secret, name, password, device string) (SignedIn, error) {
	i, err := s.Invitation(ctx, secret) // before a hash is made for whoever has none
	if err != nil {
		return SignedIn{}, err
	}
	if i.Kind != First {
		name = i.Name
	}
	if name, err = validateName("the name", name); err != nil {
		return SignedIn{}, err
	}
	if err := validatePassword(password, name); err != nil {
		return SignedIn{}, err
	}
	hash, err := s.hasher.hash(ctx, recognized, password)
	if err != nil {
		return SignedIn{}, err
	}
	var in SignedIn
	err = s.write(ctx, func(tx postgres.Tx) error {
		if err := s.store.lock(tx); err != nil {
			return err
		}
		r, err := s.store.useInvitation(tx, secret)
		if err != nil {
			return err
		}
		p := Principal{Kind: audit.KindOperator, ID: r.OperatorID.UUID, Name: name, Role: r.Role}
		if r.OperatorID.Valid {
			in, err = s.acceptOther(ctx, tx, p, hash, device)
		} else {
			in, err = s.acceptFirst(ctx, tx, p, hash, device)
		}
		if err != nil {
			return err
		}
		return s.entered(ctx, tx, in.Principal, 0)
	})
	return in, err
}

// acceptOther gives an operator another password. Their role is the one they have by now.
func (s *Service) acceptOther(ctx context.Context, tx postgres.Tx, p Principal, hash, device string) (SignedIn, error) {
	is, err := s.store.byName(tx, p.Name)
	if err != nil {
		return SignedIn{}, err
	}
	return s.choose(ctx, tx, is.principal(), hash, device)
}

// acceptFirst makes somebody an operator.
func (s *Service) acceptFirst(ctx context.Context, tx postgres.Tx, p Principal, hash, device string) (SignedIn, error) {
	p.ID = uuid.Must(uuid.NewV7())
	if err := s.store.insert(tx, p.ID, p.Name, p.Role, hash); err != nil {
		return SignedIn{}, err
	}
	in, err := s.enter(tx, p, device)
	if err != nil {
		return SignedIn{}, err
	}
	e := audit.Entry{Action: "operator.created", Target: target(p.Name), Details: map[string]string{"role": string(p.Role)}}
	return in, audit.Append(as(ctx, p), tx, e)
}
