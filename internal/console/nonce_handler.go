package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/transactions"
)

func (h *Handler) mountNonces(e *echo.Echo) {
	e.GET("/nonces", h.noncePage)
	e.GET("/nonces/*", h.noncePage)
}

const (
	// maxNonceShown bounds what is looked for, in bytes: as much as a header can bring.
	maxNonceShown = 8 << 10
	// maxNonceKept is, in bytes, the longest nonce that is kept as it is, and no shorter than what is
	// kept of a longer one: see package idem.
	maxNonceKept = 255
)

// nonceOfPath reads the nonce from the path as it was sent, because it may hold / and %, or
// from ?nonce=. What is kept of one that is too long is found as well: pages lead there.
func nonceOfPath(c echo.Context) (string, error) {
	nonce := c.QueryParam("nonce")
	if escaped, inPath := strings.CutPrefix(c.Request().URL.EscapedPath(), "/nonces/"); inPath {
		var err error
		if nonce, err = url.PathUnescape(escaped); err != nil {
			return "", apierr.New(apierr.InvalidParameters, "the nonce in the path must be percent-encoded")
		}
	}
	switch {
	case nonce == "":
		return "", apierr.New(apierr.MissingParameters, "nonce is required")
	case !findableNonce(nonce):
		return "", apierr.New(apierr.InvalidParameters, "nonce must have only printable ASCII characters")
	}
	return nonce, nil
}

// findableNonce says whether anything may be known of it: as a client sent it, or as what is
// kept of one that is too long.
func findableNonce(nonce string) bool {
	sent := len(nonce) <= maxNonceShown && idem.ValidNonce(nonce)
	return sent || len(nonce) <= maxNonceKept && utf8.ValidString(nonce) && !strings.ContainsFunc(nonce, unicode.IsControl)
}

// noncePage is GET /nonces/{nonce}, or ?nonce=: what became of it, in everybody's lives.
// ?print=1 is the page as a file for a dispute.
func (h *Handler) noncePage(c echo.Context) error {
	ctx := c.Request().Context()
	nonce, err := nonceOfPath(c)
	if err != nil {
		return err
	}
	_, after, err := httpapi.Page(c)
	if err != nil {
		return err
	}
	found, err := h.o.Payments.Lookup(ctx, transactions.Scope{}, nonce, after)
	if err != nil {
		return err
	}
	if len(found.Lives) == 0 && after == uuid.Nil {
		return apierr.New(apierr.NotFound, "nothing is known of this nonce; nonces are case-sensitive, and a request that was refused as invalid leaves nothing behind")
	}
	names, err := h.namesOf(ctx, found.Lives)
	if err != nil {
		return err
	}
	requests, err := h.requestsOf(ctx, nonce, found.Lives)
	if err != nil {
		return err
	}
	now := h.o.Merchants.DatabaseTime()
	v := viewNonce(found, h.o.BaseURL(), now,
		func(l transactions.Life) string { return names[l.AccountID] },
		func(l transactions.Life) string { return requests[l.Transaction.ID] }).from(after)
	p := page{Title: "Nonce " + nonce, Query: nonce, Data: v}
	if c.QueryParam("print") == "" {
		return h.show(c, http.StatusOK, "nonce", p)
	}
	p.Data = v.onPaper(now)
	return h.showPart(c, "nonce", "print", p)
}

// namesOf are the names of the lives' merchants, by their accounts.
func (h *Handler) namesOf(ctx context.Context, lives []transactions.Life) (map[string]string, error) {
	names := map[string]string{}
	for _, l := range lives {
		account, err := uuid.Parse(l.AccountID)
		if _, known := names[l.AccountID]; known || err != nil {
			continue
		}
		m, err := h.o.Merchants.Merchant(ctx, account)
		if err != nil {
			return nil, err
		}
		names[l.AccountID] = m.Name
	}
	return names, nil
}

// requestsOf are the requests once more, by their transactions, of those lives that a request
// with this nonce would still meet: each merchant and mode has at most one.
func (h *Handler) requestsOf(ctx context.Context, nonce string, lives []transactions.Life) (map[string]string, error) {
	requests := map[string]string{}
	base := h.o.BaseURL()
	if base == "" || !idem.ValidNonce(nonce) {
		return requests, nil
	}
	policies, err := idem.NewPolicies(idem.Presets(idem.Options{})...)
	if err != nil {
		return nil, err
	}
	for _, l := range lives {
		payment, err := uuid.Parse(l.PaymentID)
		if err != nil || !taken(l.KeyState) {
			continue
		}
		file, err := h.o.Payments.File(ctx, payment)
		if err != nil {
			return nil, err
		}
		for _, tx := range file.Transactions {
			if tx.ID.String() != l.Transaction.ID {
				continue
			}
			request, err := sendCurl(base, policies.Of(l.Policy), file, tx, nonce)
			if err != nil && !errors.Is(err, errNotKept) {
				return nil, err
			}
			requests[l.Transaction.ID] = request
		}
	}
	return requests, nil
}
