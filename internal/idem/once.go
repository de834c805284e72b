package idem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/postgres"
)

const (
	// maxLooks is how often a request looks at a nonce that changes under its eyes.
	maxLooks = 3
	// confirmWithin bounds the look at a nonce whose COMMIT was not answered. The request
	// may have run out of time by then, and its client still wants to know.
	confirmWithin = 5 * time.Second
)

// OnceCommand is one request for an operation without a provider, such as making a
// customer: claim, work and answer are one database transaction, so there is never one
// without the other, and nothing to resume.
type OnceCommand struct {
	AccountID uuid.UUID
	Mode      string
	Policy    Policy // the merchant's, which decides about another body
	Key              // without a nonce the work is done each time
	Operation string // method, route and target: what the nonce names
	Print     Print
}

// OnceAnswer is what a request is told.
type OnceAnswer struct {
	Status      int
	Body        []byte // as it was told first, byte for byte
	Replayed    bool
	BodyDiffers bool // and the answer is the first request's
}

// Work does an operation in the database transaction that keeps its answer. It calls no
// provider. If it fails, nothing of it stays and the nonce is free.
type Work func(tx postgres.Tx) (status int, body []byte, err error)

// errTaken ends a claim of a nonce that somebody has.
var errTaken = errors.New("the nonce is taken")

// Once has work done at most once for a nonce and its life, or tells again what it
// answered. It fails as work does; with IDEMPOTENCY_KEY_REUSED, where the nonce stands for
// something else; with REQUEST_IN_PROCESS, where another request is at work on it; and
// with SERVICE_UNAVAILABLE, where the database did not say whether the work was kept.
func Once(ctx context.Context, db *postgres.DB, cmd OnceCommand, work Work) (OnceAnswer, error) {
	s := store{db}
	for range maxLooks {
		a, done, err := s.once(ctx, cmd, work)
		if done || err != nil {
			return a, err
		}
		k, found, err := s.readKey(ctx, cmd)
		switch {
		case err != nil:
			return OnceAnswer{}, err
		case !found: // given back, or purged, meanwhile
		case !k.Over:
			return cmd.meet(k)
		default:
			if err := s.endLife(ctx, cmd, k); err != nil {
				return OnceAnswer{}, cmd.orInFlight(err)
			}
		}
	}
	return OnceAnswer{}, cmd.Policy.InFlight()
}

// OnceAnswered looks for the answer that a nonce has, and changes nothing: for a request
// that need not be read any further if there is one. It fails as Once does where the nonce
// stands for something else.
func OnceAnswered(ctx context.Context, db *postgres.DB, cmd OnceCommand) (a OnceAnswer, found bool, err error) {
	if !cmd.Protected() {
		return OnceAnswer{}, false, nil
	}
	k, found, err := store{db}.readKey(ctx, cmd)
	if err != nil || !found || k.Over {
		return OnceAnswer{}, false, err
	}
	a, err = cmd.meet(k)
	return a, err == nil, err
}

// once claims the nonce, works and keeps the answer, all or nothing. It is not done if
// the nonce is taken.
func (s store) once(ctx context.Context, cmd OnceCommand, work Work) (a OnceAnswer, done bool, err error) {
	worked := false
	err = s.db.ConfirmedTx(ctx, func(tx postgres.Tx) error {
		if cmd.Protected() {
			if err := s.claim(tx, cmd); err != nil {
				return err
			}
		}
		status, body, err := work(tx)
		if err == nil && cmd.Protected() {
			err = s.answer(tx, cmd, status, body)
		}
		a, worked = OnceAnswer{Status: status, Body: body}, err == nil
		return err
	})
	switch {
	case err == nil:
		return a, true, nil
	case errors.Is(err, errTaken):
		return OnceAnswer{}, false, nil
	case !worked || !postgres.IsOutcomeUnknown(err): // nothing was committed
		return OnceAnswer{}, false, err
	case s.kept(ctx, cmd, a):
		return a, true, nil
	}
	return OnceAnswer{}, false, cmd.unconfirmed(err)
}

// kept says whether an answer is the nonce's, after the answer to its COMMIT was lost.
func (s store) kept(ctx context.Context, cmd OnceCommand, a OnceAnswer) bool {
	if !cmd.Protected() {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmWithin)
	defer cancel()
	k, found, err := s.confirmKey(ctx, cmd)
	return err == nil && found && k.answers(cmd) && *k.ResponseStatus == a.Status && bytes.Equal(k.ResponseBody, a.Body)
}

// answers says whether a nonce has the answer to such a request. A nonce of a payment has
// none, whatever it names.
func (k onceKey) answers(cmd OnceCommand) bool {
	return k.Operation == cmd.Operation && !k.TransactionID.Valid && k.ResponseStatus != nil
}

// meet is what happens to a request whose nonce is taken.
func (cmd OnceCommand) meet(k onceKey) (OnceAnswer, error) {
	differs := !cmd.Print.Is(k.Fingerprint)
	switch {
	case !k.answers(cmd):
		return OnceAnswer{}, cmd.Policy.Reused("for another operation")
	case differs && !cmd.Policy.IgnoreRetryBody:
		return OnceAnswer{}, cmd.Policy.Reused("with another body")
	}
	return OnceAnswer{Status: *k.ResponseStatus, Body: k.ResponseBody, Replayed: true, BodyDiffers: differs}, nil
}

// orInFlight is err, unless that is of having waited for whoever has the nonce.
func (cmd OnceCommand) orInFlight(err error) error {
	if postgres.IsLockTimeout(err) {
		return fmt.Errorf("%w (%w)", cmd.Policy.InFlight(), err)
	}
	return err
}

// unconfirmed is told when nobody knows whether the work was kept. With a nonce, asking
// again is always right.
func (cmd OnceCommand) unconfirmed(cause error) error {
	e := apierr.New(apierr.ServiceUnavailable, "the service could not confirm what it did; look whether it is there before you send it again")
	if cmd.Protected() {
		e = apierr.New(apierr.ServiceUnavailable, "the service could not confirm what it did; retry with the same key").Retry(retryInFlight)
	}
	return fmt.Errorf("%w (%w)", e, cause)
}
