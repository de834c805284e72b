package operators

import (
	"context"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/postgres"
)

// errSessionEnded is what a browser hears that shows a session that there is not.
func errSessionEnded() error {
	return apierr.New(apierr.InvalidCredentials, "nobody is signed in here, or the session has ended: sign in")
}

// SignIn begins a session for whoever gives the right password. A wrong one, a name that
// nobody has and somebody who is disabled take the same path and get the same answer,
// INVALID_CREDENTIALS. After five wrong ones in a row, who comes too early gets
// RATE_LIMITED with Retry-After, and the password is not looked at. device is what the
// browser is known by; "" if it is not known. Where too many are waiting it is
// SERVICE_UNAVAILABLE, which does not count as a wrong one.
func (s *Service) SignIn(ctx context.Context, name, password, device string) (SignedIn, error) {
	name = normalName(name)
	by := stranger
	if s.Recognizes(name, device) {
		by = recognized
	}
	c, err := s.check(ctx, by, name, password, device, "operator.sign_in_failed")
	if err != nil {
		return SignedIn{}, err
	}
	anew := ""
	if c.outdated {
		if anew, err = s.hasher.hash(ctx, by, password); err != nil {
			return SignedIn{}, s.excuse(ctx, c.try, err)
		}
	}
	in, err := s.signIn(ctx, c, anew, device)
	return in, s.excuse(ctx, c.try, err)
}

// signIn begins a session for whoever has given the right password. anew is the password's
// new hash; "" leaves it as it is.
func (s *Service) signIn(ctx context.Context, c checked, anew, device string) (in SignedIn, err error) {
	err = s.write(ctx, func(tx postgres.Tx) error {
		if anew != "" {
			if err := s.store.lock(tx); err != nil { // before the row that is to be written
				return err
			}
		}
		if err := s.store.still(tx, c.person); err != nil {
			return err
		}
		if anew != "" {
			if err := s.store.rehash(tx, c.person.ID, anew); err != nil {
				return err
			}
		}
		if err := s.store.forgive(tx, c.try.subject); err != nil {
			return err
		}
		var err error
		if in, err = s.enter(tx, c.person.principal(), device); err != nil {
			return err
		}
		return s.entered(ctx, tx, in.Principal, int64(c.try.failures-1))
	})
	return in, err
}

// enter begins a session. The browser stays known, or is from now on.
func (s *Service) enter(tx postgres.Tx, p Principal, device string) (in SignedIn, err error) {
	in = SignedIn{Principal: p, Session: newSecret(), Device: s.keepDevice(p.Name, device)}
	in.ExpiresAt, err = s.store.insertSession(tx, p.ID, in.Session)
	return in, err
}

// entered writes down that somebody has begun a session, after so many wrong passwords.
func (s *Service) entered(ctx context.Context, tx postgres.Tx, p Principal, failures int64) error {
	e := audit.Entry{Action: "operator.signed_in", Target: target(p.Name)}
	if failures > 0 {
		e.Details = map[string]string{"failures_before": count(failures)}
	}
	return audit.Append(as(ctx, p), tx, e)
}

func (r personRow) principal() Principal {
	return Principal{Kind: audit.KindOperator, ID: r.ID, Name: r.Name, Role: r.Role}
}

// checked is a password that was right.
type checked struct {
	person   personRow
	try      try
	outdated bool // its hash is to be made anew
}

// check counts a try and looks at the password. by is who waits for it, and action is what
// the audit log calls a wrong one.
func (s *Service) check(ctx context.Context, by asker, name, password, device, action string) (checked, error) {
	t, err := s.begin(ctx, name, device)
	if err != nil {
		return checked{}, err
	}
	r, known, err := s.find(ctx, name)
	if err != nil {
		return checked{}, s.excuse(ctx, t, err)
	}
	hash := s.hasher.nobodys
	if known {
		hash = r.PasswordHash
	}
	ok, outdated, err := s.hasher.matches(ctx, by, hash, password)
	if err != nil {
		return checked{}, s.excuse(ctx, t, err)
	}
	if !ok || !known || r.DisabledAt != nil {
		if err := s.failed(ctx, t, r, known, action); err != nil {
			return checked{}, err
		}
		return checked{}, errWrongPassword()
	}
	return checked{person: r, try: t, outdated: outdated}, nil
}

// find finds somebody by a name that may be anything.
func (s *Service) find(ctx context.Context, name string) (r personRow, known bool, err error) {
	r, err = s.store.byName(s.store.db.Conn(ctx), name)
	if _, told := apierr.From(err); told {
		return personRow{}, false, nil
	}
	return r, err == nil, err
}

// BySession says who has a session, and what they may do at this moment. One that has ended,
// or of somebody who may not sign in any more, is INVALID_CREDENTIALS. A session ends when
// it has not been used for SessionIdle, and after SessionLife in any case.
func (s *Service) BySession(ctx context.Context, session string) (Principal, error) {
	return s.bySession(ctx, session, true)
}

// Watching is BySession for what a page asks by itself: it is no use of the session, which
// ends in time although the page is open.
func (s *Service) Watching(ctx context.Context, session string) (Principal, error) {
	return s.bySession(ctx, session, false)
}

func (s *Service) bySession(ctx context.Context, session string, used bool) (Principal, error) {
	if session == "" {
		return Principal{}, errSessionEnded()
	}
	tx := s.store.db.Conn(ctx)
	r, ok, err := s.store.bySession(tx, session)
	if err != nil {
		return Principal{}, err
	}
	if !ok {
		return Principal{}, errSessionEnded()
	}
	if r.Stale && used {
		if err := s.store.seen(tx, session); err != nil {
			return Principal{}, err
		}
	}
	return Principal{Kind: audit.KindOperator, ID: r.ID, Name: r.Name, Role: r.Role}, nil
}

// SignOut ends a session, if there is one.
func (s *Service) SignOut(ctx context.Context, session string) error {
	return s.write(ctx, func(tx postgres.Tx) error {
		name, err := s.store.endSession(tx, session)
		if err != nil || name == "" {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "operator.signed_out", Target: target(name)})
	})
}

// SignOutEverywhere ends all sessions of somebody and returns how many there were.
func (s *Service) SignOutEverywhere(ctx context.Context, name string) (n int64, err error) {
	err = s.write(ctx, func(tx postgres.Tx) error {
		r, err := s.store.byName(tx, normalName(name))
		if err != nil {
			return err
		}
		if n, err = s.store.endSessions(tx, r.ID); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Action: "operator.signed_out", Target: target(r.Name), Details: map[string]string{"sessions": count(n)}})
	})
	return n, err
}

// Confirm looks at the password again of somebody who has a session, before something that
// a browser left alone must not do. A wrong one is INVALID_CREDENTIALS, and counts as it
// does when signing in; so does RATE_LIMITED. Only an operator has a password.
func (s *Service) Confirm(ctx context.Context, p Principal, password, device string) error {
	c, err := s.confirm(ctx, p, password, device)
	if err != nil {
		return err
	}
	return s.store.forgive(s.store.db.Conn(ctx), c.try.subject)
}

func (s *Service) confirm(ctx context.Context, p Principal, password, device string) (checked, error) {
	if p.Kind != audit.KindOperator {
		return checked{}, apierr.New(apierr.InvalidCredentials, "only somebody who has signed in can give their password again")
	}
	c, err := s.check(ctx, recognized, p.Name, password, device, "operator.confirmation_failed")
	if e, told := apierr.From(err); told && e.Code == apierr.InvalidCredentials {
		return checked{}, apierr.New(apierr.InvalidCredentials, "the password is wrong")
	}
	return c, err
}

// ChangePassword gives somebody another password who knows the one they have. It ends all of
// their sessions and begins a new one.
func (s *Service) ChangePassword(ctx context.Context, p Principal, current, password, device string) (SignedIn, error) {
	if err := validatePassword(password, p.Name); err != nil {
		return SignedIn{}, err
	}
	c, err := s.confirm(ctx, p, current, device)
	if err != nil {
		return SignedIn{}, err
	}
	hash, err := s.hasher.hash(ctx, recognized, password)
	if err != nil {
		return SignedIn{}, s.excuse(ctx, c.try, err)
	}
	in, err := s.change(ctx, c, hash, device)
	return in, s.excuse(ctx, c.try, err)
}

// change gives somebody another password who has given the one they have.
func (s *Service) change(ctx context.Context, c checked, hash, device string) (in SignedIn, err error) {
	err = s.write(ctx, func(tx postgres.Tx) error {
		if err := s.store.lock(tx); err != nil {
			return err
		}
		if err := s.store.still(tx, c.person); err != nil {
			return err
		}
		if err := s.store.forgive(tx, c.try.subject); err != nil {
			return err
		}
		if in, err = s.choose(ctx, tx, c.person.principal(), hash, device); err != nil {
			return err
		}
		return s.entered(ctx, tx, in.Principal, 0)
	})
	return in, err
}

// choose sets a password of somebody, ends what they had begun with another one, and begins a
// session.
func (s *Service) choose(ctx context.Context, tx postgres.Tx, p Principal, hash, device string) (SignedIn, error) {
	if err := s.store.setPassword(tx, p.ID, hash, errNoInvitation); err != nil {
		return SignedIn{}, err
	}
	ended, err := s.store.endSessions(tx, p.ID)
	if err != nil {
		return SignedIn{}, err
	}
	if _, err := s.store.endInvitations(tx, p.Name); err != nil {
		return SignedIn{}, err
	}
	in, err := s.enter(tx, p, device)
	if err != nil {
		return SignedIn{}, err
	}
	e := audit.Entry{Action: "operator.password_changed", Target: target(p.Name), Details: map[string]string{"sessions_ended": count(ended)}}
	return in, audit.Append(as(ctx, p), tx, e)
}
