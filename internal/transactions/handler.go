package transactions

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
)

// Headers of a replay.
const (
	headerReplayed = "Idempotent-Replayed"
	headerMismatch = "Idempotency-Body-Mismatch"
)

// Handler is the payments API as merchants see it.
type Handler struct {
	service *Service
	auth    *merchants.Service
	lookups *httpapi.Limiter // by account; nil: no limit
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
	e.POST("/v1/payments", h.create, h.authenticate)
	e.POST("/v1/payments/:payment_id/transactions/:transaction_id/capture", h.act(RouteCapture), h.authenticate)
	e.POST("/v1/payments/:payment_id/transactions/:transaction_id/cancel", h.act(RouteCancel), h.authenticate)
	e.POST("/v1/payments/:payment_id/transactions/:transaction_id/refund", h.act(RouteRefund), h.authenticate)
	e.POST("/v1/payments/:payment_id/transactions/:transaction_id/cancel-or-refund", h.act(RouteCancelOrRefund), h.authenticate)
	e.POST("/v1/payments/:payment_id/cancel-or-refund", h.act(RouteCancelOrRefund), h.authenticate)
	e.GET("/v1/payments", h.list, h.authenticate)
	e.GET("/v1/payments/:payment_id", h.get, h.authenticate)
	e.GET("/v1/idempotency-keys", h.lookup, h.authenticate)
	e.GET("/v1/idempotency-keys/*", h.lookup, h.authenticate)
}

const keyCaller = "oncepay.caller"

// authenticate asks the directory in memory, before anything is read.
func (h *Handler) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		header := c.Request().Header
		from, _ := netip.ParseAddr(c.RealIP()) // what is none is on nobody's list
		caller, err := h.auth.Authenticate(header.Get("public-api-key"), header.Get("private-secret-key"), from)
		if err != nil {
			return err
		}
		line := httpapi.LineOf(c)
		line.AccountID, line.Mode = caller.AccountID.String(), caller.Mode
		c.Set(keyCaller, caller)
		return next(c)
	}
}

func callerOf(c echo.Context) merchants.Caller {
	caller, _ := c.Get(keyCaller).(merchants.Caller)
	return caller
}

// create is POST /v1/payments.
func (h *Handler) create(c echo.Context) error {
	caller := callerOf(c)
	return h.execute(c, "", func(cmd *Command, body jsontree.Value) (err error) {
		cmd.Request, err = parseRequest(body, h.service.rulesFor(caller))
		return err
	})
}

// act is a capture, a cancellation or a refund, by its route.
func (h *Handler) act(route Route) echo.HandlerFunc {
	return func(c echo.Context) error {
		target, transaction := c.Param("payment_id"), uuid.Nil
		payment, known := idOf(target)
		if !known {
			return apierr.New(apierr.PaymentNotFound, "there is no payment with this id")
		}
		if id := c.Param("transaction_id"); id != "" {
			if transaction, known = idOf(id); !known || transaction == uuid.Nil { // Nil stands for none
				return apierr.New(apierr.TransactionNotFound, "there is no transaction with this id in the payment")
			}
			target += "/" + id
		}
		return h.execute(c, strings.ToLower(target), func(cmd *Command, body jsontree.Value) error {
			a, err := parseAction(body, route)
			a.PaymentID, a.TargetID = payment, transaction
			cmd.Action = &a
			return err
		})
	}
}

// idOf reads an id in the one form in which we write it.
func idOf(s string) (uuid.UUID, bool) {
	id, err := uuid.Parse(s)
	return id, err == nil && len(s) == len(id.String())
}

// execute reads a request that moves money and has it carried out. target is what its
// path names, "" for nothing.
func (h *Handler) execute(c echo.Context, target string, parse func(cmd *Command, body jsontree.Value) error) error {
	ctx, caller, route := c.Request().Context(), callerOf(c), c.Path()
	cmd := Command{
		AccountID: caller.AccountID, Mode: caller.Mode, Policy: h.service.policyOf(caller.AccountID),
		Operation: strings.TrimSpace(http.MethodPost + " " + route + " " + target), RequestID: httpapi.RequestID(c), ArrivedAt: time.Now(),
	}
	var err error
	if cmd.Nonce, err = idem.NonceFrom(c.Request().Header); err != nil {
		return err
	}
	body, err := httpapi.Body(c)
	if err == nil {
		cmd.Fingerprint = h.service.prints.Request(http.MethodPost, route, target, body)
		cmd.FingerprintByOther = h.service.prints.RequestByOther(http.MethodPost, route, target, body)
		err = parse(&cmd, body)
	}
	if err != nil {
		return h.invalid(c, cmd, err)
	}
	a, err := h.service.Execute(ctx, cmd)
	faultpoint.Reach(faultpoint.AnswerBefore, cmd.Nonce)
	return respond(c, a, err)
}

// rulesFor are the rules that depend on who is asking.
func (s *Service) rulesFor(caller merchants.Caller) rules {
	live := caller.Mode == merchants.Live
	return rules{
		accountID: caller.AccountID.String(), luhn: live, rawCards: !live || s.rawLive,
		cardFingerprint: s.prints.Card, cardByOther: s.prints.CardByOther,
	}
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
	if a.Verdict == idem.Replayed {
		c.Response().Header().Set(headerReplayed, "true")
	}
	if a.BodyDiffers {
		c.Response().Header().Set(headerMismatch, "true")
	}
	return httpapi.JSON(c, a.Status, a.Body)
}

// get is GET /v1/payments/{payment_id}. Another merchant's payment is not found.
func (h *Handler) get(c echo.Context) error {
	id, known := idOf(c.Param("payment_id"))
	if !known {
		return apierr.New(apierr.PaymentNotFound, "there is no payment with this id")
	}
	v, err := viewOf(c)
	if err != nil {
		return err
	}
	caller := callerOf(c)
	p, err := h.service.store.payment(c.Request().Context(), caller.AccountID, id)
	if err == nil && p.Mode != caller.Mode {
		err = apierr.New(apierr.PaymentNotFound, "there is no payment with this id")
	}
	if err != nil {
		return err
	}
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
	caller, order := callerOf(c), c.QueryParam("merchant_order_id")
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
	caller := callerOf(c)
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
		return "", apierr.New(apierr.InvalidParameters, "nonce must be 1 to 64 visible ASCII characters without a comma")
	}
	return nonce, nil
}
