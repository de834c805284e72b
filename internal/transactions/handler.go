package transactions

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
)

// Handler is the payments API as merchants see it.
type Handler struct {
	service *Service
	auth    *merchants.Service
	lookups *httpapi.Limiter // by account; nil: no limit
	// base is where browsers reach us; nil: nowhere.
	base func(c echo.Context) string
}

// NewHandler makes the merchants' handler.
func NewHandler(s *Service, auth *merchants.Service) *Handler {
	return &Handler{service: s, auth: auth}
}

// LimitLookups limits how often each account may look nonces up, found or not: who
// tries nonces out should get nowhere. Call it before Mount.
func (h *Handler) LimitLookups(l *httpapi.Limiter) { h.lookups = l }

// Mount adds the routes to e.
func (h *Handler) Mount(e *echo.Echo) {
	// Route by route: a group's middleware would also catch its unknown methods, and
	// call them unknown paths.
	h.moves(e, idem.Route{Path: "/v1/payments", Creates: true}, h.create)
	h.moves(e, idem.Route{Path: "/v1/payments/:payment_id/transactions/:transaction_id/capture"}, act(RouteCapture))
	h.moves(e, idem.Route{Path: "/v1/payments/:payment_id/transactions/:transaction_id/cancel"}, act(RouteCancel))
	h.moves(e, idem.Route{Path: "/v1/payments/:payment_id/transactions/:transaction_id/refund"}, act(RouteRefund))
	h.moves(e, idem.Route{Path: "/v1/payments/:payment_id/transactions/:transaction_id/cancel-or-refund"}, act(RouteCancelOrRefund))
	h.moves(e, idem.Route{Path: "/v1/payments/:payment_id/cancel-or-refund"}, act(RouteCancelOrRefund))
	e.GET("/v1/payments", h.list, h.authenticate())
	e.GET("/v1/payments/:payment_id", h.get, h.authenticate())
	e.GET("/v1/idempotency-keys", h.lookup, h.authenticate())
	e.GET("/v1/idempotency-keys/*", h.lookup, h.authenticate())
}

// ErrorStyle is how errors look that a request's client can read: by the merchant whose
// public key it shows, before anybody has looked whether it is theirs.
func (h *Handler) ErrorStyle(r *http.Request) apierr.Style {
	return h.service.StyleOf(h.auth.PolicyOfKey(r.Header.Get(merchants.HeaderPublicKey)))
}

// order is what a request asks for: target is what its path names, "" for nothing, and
// parse reads the body into the command.
type order struct {
	target string
	parse  func(cmd *Command, body jsontree.Value) error
}

// moves adds a route that moves money. What it answers is kept and told again, so a
// handler says what is to be done and leaves the answering to execute.
func (h *Handler) moves(e *echo.Echo, r idem.Route, read func(c echo.Context) (order, error)) {
	r.Method, r.MovesMoney, r.Produces = http.MethodPost, true, echo.MIMEApplicationJSON
	if err := r.Check(); err != nil {
		panic(err) // a programmer's mistake, caught by the first test that mounts it
	}
	e.Add(r.Method, r.Path, func(c echo.Context) error {
		o, err := read(c)
		if err != nil {
			return err
		}
		return h.execute(c, r, o)
	}, h.authenticate())
}

// authenticate lets merchants' backends in.
func (h *Handler) authenticate() echo.MiddlewareFunc {
	return merchants.Authenticate(h.auth, h.service.StyleOf)
}

// StyleOf is how errors look under a policy.
func (s *Service) StyleOf(policy string) apierr.Style { return s.policies.Of(policy).Errors }

// create is POST /v1/payments.
func (h *Handler) create(c echo.Context) (order, error) {
	caller := merchants.CallerOf(c)
	return order{parse: func(cmd *Command, body jsontree.Value) (err error) {
		cmd.Request, err = parseRequest(body, h.service.rulesFor(caller))
		if r := &cmd.Request; r.Session != uuid.Nil && h.base != nil {
			r.ReturnURL = cmp.Or(r.CallbackURL, h.base(c)+PayPage+r.Session.String()) // its page waits there
		}
		return err
	}}, nil
}

// act is a capture, a cancellation or a refund, by its route.
func act(route Route) func(c echo.Context) (order, error) {
	return func(c echo.Context) (order, error) {
		target, transaction := c.Param("payment_id"), uuid.Nil
		payment, known := fields.ParseID(target)
		if !known {
			return order{}, apierr.New(apierr.PaymentNotFound, "there is no payment with this id")
		}
		if id := c.Param("transaction_id"); id != "" {
			if transaction, known = fields.ParseID(id); !known || transaction == uuid.Nil { // Nil stands for none
				return order{}, apierr.New(apierr.TransactionNotFound, "there is no transaction with this id in the payment")
			}
			target += "/" + id
		}
		return order{strings.ToLower(target), func(cmd *Command, body jsontree.Value) error {
			a, err := parseAction(body, route)
			a.PaymentID, a.TargetID = payment, transaction
			cmd.Action = &a
			return err
		}}, nil
	}
}

// execute reads a request that moves money and has it carried out.
func (h *Handler) execute(c echo.Context, r idem.Route, o order) error {
	caller := merchants.CallerOf(c)
	cmd := Command{
		AccountID: caller.AccountID, Mode: caller.Mode, Policy: h.service.policies.Of(merchants.PolicyOf(c)),
		Operation: strings.TrimSpace(r.Method + " " + r.Path + " " + o.target), RequestID: httpapi.RequestID(c), ArrivedAt: time.Now(),
	}
	var err error
	if cmd.Key, err = cmd.Policy.Key(c.Request().Header, r, caller.Mode == merchants.Live); err != nil {
		return err
	}
	switch {
	case !cmd.Protected():
		httpapi.LineOf(c).Unprotected = true
		httpapi.SetAdvice(c, lookUp+" you send it again")
	case cmd.Policy.Echo:
		c.Response().Header().Set(cmd.Policy.Headers[0], cmd.Sent)
	}
	body, err := httpapi.Body(c)
	if err == nil {
		cmd.Print = h.service.prints.Of(r.Method, r.Path, o.target, body)
		err = o.parse(&cmd, body)
	}
	if err != nil {
		return h.invalid(c, cmd, err)
	}
	a, err := h.service.Execute(c.Request().Context(), cmd)
	faultpoint.Reach(faultpoint.AnswerBefore, cmd.Nonce)
	if !cmd.Protected() {
		err = unprotected(err)
	}
	return respond(c, a, err)
}

// unprotected is err for a caller who cannot ask with the same key, having sent none: it
// must not lead them into a second payment.
func unprotected(err error) error {
	e, ok := apierr.From(err)
	if !ok {
		return err
	}
	told, next := *e, "send it again"
	if e.Status >= http.StatusInternalServerError && e.Code != apierr.ProviderUnavailable { // of which nothing has moved
		told.RetryAfter, next = 0, lookUp+" you send it again"
	}
	told.Messages = slices.Clone(e.Messages)
	for i, m := range told.Messages {
		told.Messages[i] = strings.Replace(m, retrySame, next, 1)
	}
	return fmt.Errorf("%w (%w)", &told, err)
}

// rulesFor are the rules that depend on who is asking.
func (s *Service) rulesFor(caller merchants.Caller) rules {
	return rules{caller.AccountID, s.CardRules(caller.Mode == merchants.Live)}
}

// invalid answers a request that is not valid: with the first answer, if the nonce
// has one and the policy ignores retry bodies. A body that was too large, or not
// JSON at all by its type, is refused even then.
func (h *Handler) invalid(c echo.Context, cmd Command, invalid error) error {
	if e, ok := apierr.From(invalid); ok && (e.Status == http.StatusBadRequest || e.Code == apierr.InvalidToken) {
		a, found, err := h.service.Replay(c.Request().Context(), cmd)
		if err != nil || found {
			return respond(c, a, err)
		}
	}
	httpapi.LineOf(c).Verdict = string(idem.Rejected)
	h.service.arrive(cmd, idem.Rejected, uuid.Nil, false, nil)
	return invalid
}

func respond(c echo.Context, a Answer, err error) error {
	line := httpapi.LineOf(c)
	line.Verdict, line.Provider, line.ProviderTime = string(a.Verdict), a.Provider, a.ProviderTime
	if a.TransactionID != uuid.Nil {
		line.TransactionID = a.TransactionID.String()
	}
	if err != nil {
		return err
	}
	if name := a.Policy.ReplayHeader; name != "" && a.Verdict == idem.Replayed {
		c.Response().Header().Set(name, "true")
	}
	if name := a.Policy.MismatchHeader; name != "" && a.BodyDiffers {
		c.Response().Header().Set(name, "true")
	}
	if a.Status >= http.StatusBadRequest {
		line.Code = string(a.Code)
		return httpapi.Failure(c, a.Status, a.Policy.Errors, a.Body)
	}
	return httpapi.JSON(c, a.Status, a.Body)
}

// get is GET /v1/payments/{payment_id}. Another merchant's payment is not found.
func (h *Handler) get(c echo.Context) error {
	id, known := fields.ParseID(c.Param("payment_id"))
	if !known {
		return apierr.New(apierr.PaymentNotFound, "there is no payment with this id")
	}
	v, err := viewOf(c)
	if err != nil {
		return err
	}
	caller := merchants.CallerOf(c)
	p, err := h.service.store.payment(c.Request().Context(), caller.AccountID, id)
	if err == nil && p.Mode != caller.Mode {
		err = apierr.New(apierr.PaymentNotFound, "there is no payment with this id")
	}
	if err != nil {
		return err
	}
	return h.show(c, caller, v, p)
}

// show answers with one payment.
func (h *Handler) show(c echo.Context, caller merchants.Caller, v view, p Payment) error {
	views, err := h.present(c, caller, v, p)
	if err != nil {
		return err
	}
	body, err := encode(views[0])
	if err != nil {
		return err
	}
	return httpapi.JSON(c, http.StatusOK, body)
}

// list is GET /v1/payments?merchant_order_id=, the newest first.
func (h *Handler) list(c echo.Context) error {
	caller, order := merchants.CallerOf(c), c.QueryParam("merchant_order_id")
	if order == "" {
		return apierr.New(apierr.MissingParameters, "merchant_order_id is required")
	}
	if !utf8.ValidString(order) || strings.ContainsFunc(order, unicode.IsControl) { // no payment has one, and PostgreSQL knows no U+0000
		return apierr.New(apierr.InvalidParameters, "merchant_order_id must be UTF-8 without control characters")
	}
	limit, after, err := httpapi.Page(c)
	if err != nil {
		return err
	}
	ps, err := h.service.store.paymentsByOrder(c.Request().Context(), caller.AccountID, caller.Mode, order, orNone(after), limit+1)
	if err != nil {
		return err
	}
	if len(ps) > limit {
		ps = ps[:limit]
		httpapi.LinkNext(c, ps[limit-1].ID.String())
	}
	views, err := h.present(c, caller, view{}, ps...)
	if err != nil {
		return err
	}
	body, err := encode(views)
	if err != nil {
		return err
	}
	return httpapi.JSON(c, http.StatusOK, body)
}

// viewOf reads what a reader wants to see.
func viewOf(c echo.Context) (view, error) {
	var v view
	var wrong []string
	for _, p := range []struct {
		name string
		into *bool
	}{{"transactions_history", &v.history}, {"raw_response", &v.raw}} {
		values, given := c.QueryParams()[p.name]
		switch {
		case !given, len(values) == 1 && values[0] == "false":
		case len(values) == 1 && values[0] == "true":
			*p.into = true
		default:
			wrong = append(wrong, p.name+" must be true or false")
		}
	}
	if wrong != nil {
		return v, apierr.New(apierr.InvalidParameters, wrong...)
	}
	return v, nil
}

// present reads the payments' transactions and shapes them all.
func (h *Handler) present(c echo.Context, caller merchants.Caller, show view, ps ...Payment) ([]wirePayment, error) {
	views := make([]wirePayment, 0, len(ps))
	ids := make([]uuid.UUID, len(ps))
	for i, p := range ps {
		ids[i] = p.ID
	}
	ts, err := h.service.store.transactionsOf(c.Request().Context(), caller.AccountID, ids...)
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		v, err := presentPayment(p, ts[p.ID], show)
		if err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	return views, nil
}

// lookup is GET /v1/idempotency-keys/{nonce}, or ?nonce=: the merchant's own
// lives, in the mode of the key.
func (h *Handler) lookup(c echo.Context) error {
	caller := merchants.CallerOf(c)
	if wait := h.lookups.Take(caller.AccountID.String()); wait > 0 {
		return httpapi.TooMany("this account has looked up too many nonces within a minute; wait for Retry-After", wait)
	}
	return h.service.serveLookup(c, Scope{AccountID: caller.AccountID, Mode: caller.Mode})
}

// serveLookup answers what became of a nonce, within a scope.
func (s *Service) serveLookup(c echo.Context, scope Scope) error {
	nonce, err := nonceParam(c)
	if err != nil {
		return err
	}
	_, after, err := httpapi.Page(c)
	if err != nil {
		return err
	}
	found, err := s.Lookup(c.Request().Context(), scope, nonce, after)
	if err != nil {
		return err
	}
	if len(found.Lives) == 0 && after == uuid.Nil {
		return apierr.New(apierr.NotFound, "nothing is known of this idempotency key")
	}
	if found.Next != "" {
		httpapi.LinkNext(c, found.Next)
	}
	body, err := encode(found)
	if err != nil {
		return err
	}
	return httpapi.JSON(c, http.StatusOK, body)
}

// nonceParam reads the nonce from ?nonce= or from the path as it was sent: a nonce
// may hold / and %, so Echo's own decoding won't do.
func nonceParam(c echo.Context) (string, error) {
	nonce := c.QueryParam("nonce")
	if route, isPath := strings.CutSuffix(c.Path(), "*"); isPath {
		escaped, _ := strings.CutPrefix(c.Request().URL.EscapedPath(), route)
		decoded, err := url.PathUnescape(escaped)
		if err != nil {
			return "", apierr.New(apierr.InvalidParameters, "the nonce in the path must be percent-encoded")
		}
		nonce = decoded
	}
	switch {
	case nonce == "":
		return "", apierr.New(apierr.MissingParameters, "nonce is required")
	case !idem.ValidNonce(nonce):
		return "", apierr.New(apierr.InvalidParameters, "nonce must have only printable ASCII characters")
	}
	return nonce, nil
}
