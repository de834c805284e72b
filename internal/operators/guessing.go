package operators

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/postgres"
)

// Guessing is slowed by counting wrong passwords in a row, in the database, so that all
// instances count together. What is counted for is either a browser that somebody has signed
// in with before, or, for all others together, the name. So strangers who guess make each
// other wait, and the person whose name it is goes on in the browser that they use. (OWASP
// describes it as device cookies.)
//
// A try is counted before the password is looked at, and the count is taken back if it was
// right, or not looked at after all: of a hundred tries at once, five are looked at.
const (
	// freeFailures in a row cost no time: people mistype.
	freeFailures = 5
	// maxWait bounds the wait after a failure, which begins with a second and doubles. At
	// this rate a name is tried 96 times a day.
	maxWait = 15 * time.Minute
	// reportEvery bounds what failures write to the audit log: one is written down if there
	// was none for the same name or browser for as long.
	reportEvery = time.Minute
	// afterwards bounds what is written about a try whose sender may have gone: a few
	// statements, and a wait for whoever holds the row.
	afterwards = 5 * time.Second
)

// try is a try at a password that has been counted.
type try struct {
	subject []byte
	// failures in a row, with this one.
	failures int
	// at is when it was counted, before when the last one was; at, if it is the first.
	at, before time.Time
	// report says that this one goes to the audit log, should it be wrong.
	report bool
}

// begin counts a try, or refuses it with RATE_LIMITED if it comes too early.
func (s *Service) begin(ctx context.Context, name, device string) (t try, err error) {
	subject := s.subject(name, device)
	var wait time.Duration
	err = s.write(ctx, func(tx postgres.Tx) error {
		var err error
		t, wait, err = s.store.countTry(tx, subject)
		return err
	})
	if err != nil {
		return try{}, err
	}
	if wait > 0 {
		return try{}, httpapi.TooMany("too many wrong passwords were given; wait for Retry-After", wait)
	}
	return t, nil
}

// subject is what a try is counted for.
func (s *Service) subject(name, device string) []byte {
	if id, known := s.deviceOf(name, device); known {
		return digest("device\x00" + name + "\x00" + id)
	}
	return digest("name\x00" + name)
}

// excuse takes a try back that failed with err for another reason than what was given: nobody
// is to wait because the machine was busy. It returns err.
func (s *Service) excuse(ctx context.Context, t try, err error) error {
	if e, told := apierr.From(err); err == nil || told && e.Code == apierr.InvalidCredentials {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	return errors.Join(err, s.write(ctx, func(tx postgres.Tx) error { return s.store.takeBack(tx, t) }))
}

// failed tells the audit log of a try that was wrong, but not of each, whether whoever made it
// waits for the answer or not. What was given for a name that nobody has is never written
// down: now and then it is a password in the wrong field, and anybody could fill the log with
// it. It costs a commit all the same, so that the time it takes tells nothing; and it leaves
// the count as it is, as it does for a name that somebody has, so that the wait tells nothing.
func (s *Service) failed(ctx context.Context, t try, p personRow, known bool, action string) error {
	if !t.report {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	return s.write(ctx, func(tx postgres.Tx) error {
		if !known {
			return s.store.touch(tx, t.subject)
		}
		return audit.Append(ctx, tx, audit.Entry{
			Action: action, Target: target(p.Name), Details: map[string]string{"failures_in_a_row": count(int64(t.failures))},
		})
	})
}

// Recognizes reports whether a browser that shows device is one that somebody has signed in
// with by that name. It asks nobody, and so costs next to nothing.
func (s *Service) Recognizes(name, device string) bool {
	_, known := s.deviceOf(normalName(name), device)
	return known
}

// device is what a browser is known by: an id, and the proof that we gave it to whoever
// signed in with that name.
func (s *Service) device(name, id string) string { return id + "." + s.proof(name, id) }

// deviceOf is the id in what a browser is known by, if it is known by it as that name's.
func (s *Service) deviceOf(name, device string) (id string, known bool) {
	id, proof, _ := strings.Cut(device, ".")
	return id, name != "" && hmac.Equal([]byte(proof), []byte(s.proof(name, id)))
}

// keepDevice is what a browser is known by from now on: as before, if it was known as that
// name's, so that its failures go on being counted.
func (s *Service) keepDevice(name, device string) string {
	if _, known := s.deviceOf(name, device); known {
		return device
	}
	return s.device(name, newSecret())
}

// proof is an HMAC. A name has no zero byte in it, so no two pairs of name and id have the
// same one.
func (s *Service) proof(name, id string) string {
	mac := hmac.New(sha256.New, s.devices)
	mac.Write([]byte(name + "\x00" + id))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// errWrongPassword is the same for an unknown name, a wrong password and somebody who is
// disabled.
func errWrongPassword() error {
	return apierr.New(apierr.InvalidCredentials, "the name or the password is wrong")
}
