package checkout

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/transactions"
)

// change is one request that makes or changes something and moves no money.
type change struct {
	// target is what the path names, "" for nothing: what is done to one thing is another
	// operation than the same done to the next, so their nonces are never taken for each
	// other's.
	target string
	// read reads the body. What it refuses has touched nothing, and leaves the nonce free.
	// nil: there is no body.
	read func(body jsontree.Value) error
	// prepare does what must not be done in a database transaction, such as asking a
	// provider. It is left out where the nonce has its answer, and done again by a retry if
	// what follows fails: it must move nothing. nil: there is nothing to prepare.
	prepare func(ctx context.Context) error
	// work does the rest, in the database transaction that keeps its answer, which is
	// encoded as JSON.
	work func(tx postgres.Tx) (status int, answer any, err error)
}

// changes adds a backends' route that takes a nonce and moves no money.
func (h *Handler) changes(e *echo.Echo, r idem.Route, begin func(c echo.Context) (change, error)) {
	e.Add(r.Method, r.Path, h.changing(r, begin), h.backend())
}

// changing handles a route that takes a nonce and moves no money. What it answers is kept
// and told again, so begin says what is to be done and leaves the answering to once. Who
// the caller is has been found out before.
func (h *Handler) changing(r idem.Route, begin func(c echo.Context) (change, error)) echo.HandlerFunc {
	r.Produces = echo.MIMEApplicationJSON
	if err := r.Check(); err != nil {
		panic(err) // a programmer's mistake, caught by the first test that mounts it
	}
	return func(c echo.Context) error {
		ch, err := begin(c)
		if err != nil {
			return err
		}
		return h.once(c, r, ch)
	}
}

// once carries a change out, at most once if the request has a nonce, in the manner of the
// caller's policy. Who the caller is has been found out before.
func (h *Handler) once(c echo.Context, r idem.Route, ch change) error {
	caller := merchants.CallerOf(c)
	o := ongoing{h: h, change: ch, cmd: idem.OnceCommand{
		AccountID: caller.AccountID, Mode: caller.Mode, Policy: h.service.policies.Of(merchants.PolicyOf(c)),
		Operation: strings.TrimSpace(r.Method + " " + r.Path + " " + ch.target),
	}}
	var err error
	if o.cmd.Key, err = o.cmd.Policy.Key(c.Request().Header, r, caller.Mode == merchants.Live); err != nil {
		return err
	}
	if _, browser := merchants.BrowserOf(c); browser && o.cmd.Protected() {
		if err = transactions.DrawnByBrowser(o.cmd.Sent); err != nil {
			return err
		}
	}
	switch {
	case !o.cmd.Protected():
		httpapi.LineOf(c).Unprotected = true
		httpapi.SetAdvice(c, "look whether it is there before you send it again")
	case o.cmd.Policy.Echo:
		c.Response().Header().Set(o.cmd.Policy.Headers[0], o.cmd.Sent)
	}
	var body jsontree.Value
	if ch.read != nil {
		body, err = httpapi.Body(c)
	}
	if err == nil {
		o.cmd.Print = h.service.prints.Of(r.Method, r.Path, ch.target, body)
		if ch.read != nil {
			err = ch.read(body)
		}
	}
	if err != nil {
		return o.invalid(c, err)
	}
	a, err := o.carryOut(c.Request().Context())
	return o.respond(c, a, err)
}

// ongoing is a change that somebody waits for.
type ongoing struct {
	h *Handler
	change
	cmd idem.OnceCommand
}

// carryOut prepares and works, or finds the answer.
func (o ongoing) carryOut(ctx context.Context) (idem.OnceAnswer, error) {
	db := o.h.service.store.db
	if o.prepare != nil {
		a, found, err := idem.OnceAnswered(ctx, db, o.cmd)
		if found || err != nil {
			return a, err
		}
		if err := o.prepare(ctx); err != nil {
			return idem.OnceAnswer{}, err
		}
	}
	return idem.Once(ctx, db, o.cmd, func(tx postgres.Tx) (int, []byte, error) {
		status, answer, err := o.work(tx)
		if err != nil {
			return 0, nil, err
		}
		body, err := encode(answer)
		return status, body, err
	})
}

// invalid answers a request that is not valid: with the first answer, if the nonce has one
// and the policy ignores retries' bodies. A body that was too large, or not JSON at all by
// its type, is refused even then.
func (o ongoing) invalid(c echo.Context, invalid error) error {
	if e, ok := apierr.From(invalid); ok && e.Status == http.StatusBadRequest && o.cmd.Policy.IgnoreRetryBody {
		// A body that ended early cancels the request, but whoever shut down only their own
		// half of the connection still listens.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request().Context()), answeredWithin)
		defer cancel()
		a, found, err := idem.OnceAnswered(ctx, o.h.service.store.db, o.cmd)
		if _, told := apierr.From(err); found || err != nil && !told {
			return o.respond(c, a, err)
		}
	}
	return o.respond(c, idem.OnceAnswer{}, invalid)
}

// answeredWithin bounds the look for an answer by a request that has been cancelled.
const answeredWithin = 5 * time.Second

// respond answers, and notes what the request met.
func (o ongoing) respond(c echo.Context, a idem.OnceAnswer, err error) error {
	o.arrive(c, a, err)
	if err != nil {
		return err
	}
	if name := o.cmd.Policy.ReplayHeader; name != "" && a.Replayed {
		c.Response().Header().Set(name, "true")
	}
	if name := o.cmd.Policy.MismatchHeader; name != "" && a.BodyDiffers {
		c.Response().Header().Set(name, "true")
	}
	return httpapi.JSON(c, a.Status, a.Body)
}

// arrive notes what a request with a nonce met. What failed for another reason than its
// nonce or its body met nothing.
func (o ongoing) arrive(c echo.Context, a idem.OnceAnswer, err error) {
	if !o.cmd.Protected() {
		return
	}
	verdict := idem.New
	if a.Replayed {
		verdict = idem.Replayed
	}
	if err != nil {
		e, told := apierr.From(err)
		switch {
		case told && e.Code == apierr.RequestInProcess:
			verdict = idem.InProcess
		case told && e.Code == apierr.IdempotencyKeyReused:
			verdict = idem.Mismatch
		case told && e.Status < http.StatusInternalServerError:
			verdict = idem.Rejected
		default:
			return
		}
	}
	httpapi.LineOf(c).Verdict = string(verdict)
}

// encode is an answer as it goes over the wire.
func encode(answer any) ([]byte, error) {
	b, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("encode the answer: %T", answer) // the cause may quote what is in it
	}
	return append(b, '\n'), nil
}
