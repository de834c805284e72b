package console

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/merchants"
)

const (
	pathMerchants = "/merchants"
	routeMerchant = pathMerchants + "/:account_id"

	// listLimit is how many lines a list of merchants, keys, operators or tokens shows.
	listLimit = 50
)

func merchantPath(account uuid.UUID) string { return pathMerchants + "/" + account.String() }

func (h *Handler) mountMerchants(e *echo.Echo) {
	e.GET(pathMerchants, h.listMerchants)
	e.POST(pathMerchants, h.createMerchant)
	e.GET(routeMerchant, h.showMerchant)
	e.POST(routeMerchant, h.updateMerchant)
	e.POST(routeMerchant+"/disable", h.disableMerchant)
	e.POST(routeMerchant+"/enable", h.enableMerchant)
}

// merchantForm is a merchant as somebody has it on their screen.
type merchantForm struct {
	Problem               string // why it was refused
	Name, Policy, Origins string
	// Shown is the digest of what the form was filled with, so that whoever changes a
	// merchant does not undo what somebody else has changed since.
	Shown string
}

// Lines is how many lines the field for the origins has.
func (f merchantForm) Lines() int { return min(max(3, strings.Count(f.Origins, "\n")+2), 12) }

// merchantFormOf is filled with a merchant as it is.
func merchantFormOf(m merchants.Merchant) merchantForm {
	return merchantForm{Name: m.Name, Policy: m.IdempotencyPolicy, Origins: strings.Join(m.Origins, "\n"), Shown: merchantDigest(m)}
}

// merchantDigest is the same as long as nothing was changed that the form has.
func merchantDigest(m merchants.Merchant) string {
	text, _ := json.Marshal(append([]string{m.Name, m.IdempotencyPolicy}, m.Origins...)) // texts always can be
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

func merchantFormSent(c echo.Context) merchantForm {
	return merchantForm{
		Name: c.FormValue("name"), Policy: c.FormValue("policy"), Origins: strings.ReplaceAll(c.FormValue("origins"), "\r\n", "\n"),
		Shown: c.FormValue("shown"),
	}
}

// merchantsPage is what the list of merchants shows.
type merchantsPage struct {
	Merchants []merchants.Merchant
	Policies  []string
	Older     string // where the list goes on; "": it ends
	Form      merchantForm
}

// listMerchants is GET /merchants.
func (h *Handler) listMerchants(c echo.Context) error {
	return h.merchantsPage(c, http.StatusOK, merchantForm{Policy: h.o.Merchants.Policies()[0]})
}

func (h *Handler) merchantsPage(c echo.Context, status int, f merchantForm) error {
	after, err := cursorOf(c, "after")
	if err != nil {
		return err
	}
	ms, more, err := h.o.Merchants.Merchants(c.Request().Context(), after, listLimit)
	if err != nil {
		return err
	}
	p := merchantsPage{Merchants: ms, Policies: h.o.Merchants.Policies(), Form: f}
	if more {
		p.Older = pathMerchants + "?after=" + ms[len(ms)-1].AccountID.String()
	}
	return h.show(c, status, "merchants", page{Title: "Merchants", Section: pathMerchants, Data: p})
}

// createMerchant is POST /merchants. The answer shows the secret of the first key.
func (h *Handler) createMerchant(c echo.Context) error {
	f := merchantFormSent(c)
	m, pair, err := h.o.Merchants.Create(c.Request().Context(), f.Name, f.Policy, linesOf(f.Origins)...)
	if r, ok := refused(err); ok {
		f.Problem = r.Words
		return h.merchantsPage(c, r.Status, f)
	}
	if err != nil {
		return err
	}
	httpapi.LineOf(c).AccountID = m.AccountID.String()
	return h.showOnce(c, pathMerchants, shownOnce{
		Title: "The merchant was made",
		Says: []string{
			"Here is the first pair of keys, for test mode. Bring it to the merchant's backend.",
			"It is known on every instance within a second or two.",
		},
		Values:   append([]shownValue{{"Account id", m.AccountID.String(), false}}, keyValues(pair)...),
		Next:     merchantPath(m.AccountID),
		NextName: "To the merchant",
	})
}

// merchantPage is what the page of one merchant shows.
type merchantPage struct {
	merchants.Merchant
	Notice   string
	Policies []string
	Edit     merchantForm
	NewKey   keyForm
	Keys     keyList
}

// Path is where the merchant is.
func (p merchantPage) Path() string { return merchantPath(p.AccountID) }

// showMerchant is GET /merchants/{account_id}.
func (h *Handler) showMerchant(c echo.Context) error {
	return h.merchantPage(c, http.StatusOK, func(*merchantPage) {})
}

// merchantPage shows a merchant as it is now; fill puts a form back that was refused.
func (h *Handler) merchantPage(c echo.Context, status int, fill func(p *merchantPage)) error {
	account, err := merchantOf(c)
	if err != nil {
		return err
	}
	m, err := h.o.Merchants.Merchant(c.Request().Context(), account)
	if err != nil {
		return err
	}
	keys, err := h.keyList(c, account)
	if err != nil {
		return err
	}
	p := merchantPage{
		Merchant: m, Notice: notices[c.QueryParam("done")], Policies: h.o.Merchants.Policies(), Edit: merchantFormOf(m),
		NewKey: keyForm{Mode: merchants.Test}, Keys: keys,
	}
	fill(&p)
	return h.show(c, status, "merchant", page{Title: m.Name, Section: pathMerchants, Data: p})
}

// updateMerchant is POST /merchants/{account_id}. It changes what is different, and nothing
// at all if somebody else has changed the merchant since the page was shown.
func (h *Handler) updateMerchant(c echo.Context) error {
	account, err := merchantOf(c)
	if err != nil {
		return err
	}
	ctx, f := c.Request().Context(), merchantFormSent(c)
	m, err := h.o.Merchants.Merchant(ctx, account)
	if err != nil {
		return err
	}
	u, done := f.changes(m), "merchant-unchanged"
	switch {
	case f.Shown != merchantDigest(m):
		err = apierr.New(apierr.InvalidState,
			"somebody else has changed this merchant since the page was shown; compare with what is above, and save again what you still want")
		f.Shown = merchantDigest(m)
	case u.Name != nil || u.IdempotencyPolicy != nil || u.Origins != nil:
		_, err = h.o.Merchants.Update(ctx, account, u)
		done = "merchant-updated"
	}
	if r, ok := refused(err); ok {
		f.Problem = r.Words
		return h.merchantPage(c, r.Status, func(p *merchantPage) { p.Edit = f })
	}
	if err != nil {
		return err
	}
	return seeOther(c, merchantPath(account)+"?done="+done)
}

// changes are those of a form's fields that are not what the merchant has.
func (f merchantForm) changes(m merchants.Merchant) merchants.Update {
	var u merchants.Update
	if f.Name != m.Name {
		u.Name = &f.Name
	}
	if f.Policy != m.IdempotencyPolicy {
		u.IdempotencyPolicy = &f.Policy
	}
	if origins := linesOf(f.Origins); !slices.Equal(origins, m.Origins) {
		u.Origins = origins
	}
	return u
}

// disableMerchant is POST /merchants/{account_id}/disable.
func (h *Handler) disableMerchant(c echo.Context) error { return h.setMerchantDisabled(c, true) }

// enableMerchant is POST /merchants/{account_id}/enable.
func (h *Handler) enableMerchant(c echo.Context) error { return h.setMerchantDisabled(c, false) }

func (h *Handler) setMerchantDisabled(c echo.Context, disabled bool) error {
	account, err := merchantOf(c)
	if err != nil {
		return err
	}
	if _, err := h.o.Merchants.SetDisabled(c.Request().Context(), account, disabled); err != nil {
		return err
	}
	done := "merchant-enabled"
	if disabled {
		done = "merchant-disabled"
	}
	return seeOther(c, merchantPath(account)+"?done="+done)
}

// merchantOf is the merchant in the path.
func merchantOf(c echo.Context) (uuid.UUID, error) {
	account, err := uuid.Parse(c.Param("account_id"))
	if err != nil {
		return uuid.Nil, apierr.New(apierr.NotFound, "there is no merchant with this account_id")
	}
	httpapi.LineOf(c).AccountID = account.String()
	return account, nil
}

// cursorOf is where a list goes on, by a parameter; uuid.Nil where it begins.
func cursorOf(c echo.Context, param string) (uuid.UUID, error) {
	text := c.QueryParam(param)
	if text == "" {
		return uuid.Nil, nil
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return uuid.Nil, apierr.New(apierr.InvalidParameters, param+" must be an id from the list's own link")
	}
	return id, nil
}

// shownOnce is what an answer shows that nothing shows again.
type shownOnce struct {
	Title    string
	Says     []string
	Values   []shownValue
	Next     string // where to go on
	NextName string
}

// shownValue is one of the values to copy.
type shownValue struct {
	Name, Value string
	Secret      bool
}

// showOnce answers a form with what it has made. There is no way back to this page: the
// secret is in no URL, and no browser keeps the answer.
func (h *Handler) showOnce(c echo.Context, sectionPath string, s shownOnce) error {
	return h.show(c, http.StatusCreated, "secret", page{Title: s.Title, Section: sectionPath, Data: s})
}
