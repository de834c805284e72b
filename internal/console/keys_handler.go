package console

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/merchants"
)

const (
	routeKeys = routeMerchant + "/keys"
	routeKey  = routeKeys + "/:key_id"
)

func keyPath(account, id uuid.UUID) string { return merchantPath(account) + "/keys/" + id.String() }

func (h *Handler) mountKeys(e *echo.Echo) {
	e.GET(routeKeys, h.refreshKeys)
	e.POST(routeKeys, h.createKey)
	e.GET(routeKey, h.showKey)
	e.GET(routeKey+"/state", h.refreshKey)
	e.POST(routeKey+"/rotate", h.rotateKey)
	e.POST(routeKey+"/revoke", h.revokeKey)
	e.POST(routeKey+"/restrict", h.restrictKey)
}

// keyLine is a key as a page shows it.
type keyLine struct {
	merchants.Key
	Left string // how long an expiring key is good for; "": it does not expire
}

// Path is where the key is.
func (k keyLine) Path() string { return keyPath(k.AccountID, k.ID) }

// Expiring reports whether the key ends by itself.
func (k keyLine) Expiring() bool { return k.Status == merchants.Expiring }

// Revoked reports whether nothing can be done with the key any more.
func (k keyLine) Revoked() bool { return k.Status == merchants.Revoked }

// From says from where the key may be used.
func (k keyLine) From() string {
	switch {
	case k.Networks == nil:
		return "anywhere"
	case len(k.Networks) == 0: // what is kept cannot be read, and lets nobody in
		return "nowhere"
	}
	return strings.Join(textsOf(k.Networks), ", ")
}

func keyLineOf(k merchants.Key, now time.Time) keyLine {
	line := keyLine{Key: k}
	if line.Expiring() {
		line.Left = countdown(k.ExpiresAt.Sub(now))
	}
	return line
}

// keyList is a merchant's keys, the newest first.
type keyList struct {
	Keys    []keyLine
	Refresh string // where the list is asked for again
	Older   string // where it goes on; "": it ends
}

// Live reports whether there is anything to count down.
func (l keyList) Live() bool {
	for _, k := range l.Keys {
		if k.Expiring() {
			return true
		}
	}
	return false
}

func (h *Handler) keyList(c echo.Context, account uuid.UUID) (keyList, error) {
	after, err := cursorOf(c, "after")
	if err != nil {
		return keyList{}, err
	}
	ks, more, err := h.o.Merchants.Keys(c.Request().Context(), account, after, listLimit)
	if err != nil {
		return keyList{}, err
	}
	l := keyList{Refresh: merchantPath(account) + "/keys"}
	if after != uuid.Nil {
		l.Refresh += "?after=" + after.String()
	}
	now := h.o.Merchants.DatabaseTime()
	for _, k := range ks {
		l.Keys = append(l.Keys, keyLineOf(k, now))
	}
	if more {
		l.Older = merchantPath(account) + "?after=" + ks[len(ks)-1].ID.String() + "#keys"
	}
	return l, nil
}

// refreshKeys is GET /merchants/{account_id}/keys, the table of a merchant's page. Whoever
// opens it by hand is shown the whole.
func (h *Handler) refreshKeys(c echo.Context) error {
	account, err := merchantOf(c)
	if err != nil {
		return err
	}
	if !fromScript(c) {
		return c.Redirect(http.StatusSeeOther, merchantPath(account)+"#keys")
	}
	l, err := h.keyList(c, account)
	if err != nil {
		return err
	}
	return h.showPart(c, "merchant", "refreshed", page{Data: l})
}

// keyForm is the form by which a key is made.
type keyForm struct{ Problem, Mode, Networks string }

// createKey is POST /merchants/{account_id}/keys. The answer shows the secret.
func (h *Handler) createKey(c echo.Context) error {
	account, err := merchantOf(c)
	if err != nil {
		return err
	}
	f := keyForm{Mode: c.FormValue("mode"), Networks: c.FormValue("networks")}
	networks, err := networksSent(f.Networks)
	var pair merchants.KeyPair
	if err == nil {
		pair, err = h.o.Merchants.CreateKey(c.Request().Context(), account, f.Mode, networks...)
	}
	if r, ok := refused(err); ok {
		f.Problem = r.Words
		return h.merchantPage(c, r.Status, func(p *merchantPage) { p.NewKey = f })
	}
	if err != nil {
		return err
	}
	return h.showOnce(c, pathMerchants, shownOnce{
		Title: "The key was made",
		Says: []string{
			"This pair is for " + pair.Mode + " mode. Bring it to the merchant's backend.",
			"It is known on every instance within a second or two, so wait that long before the first request.",
		},
		Values: keyValues(pair), Next: keyPath(account, pair.ID), NextName: "To the key",
	})
}

// keyValues are what is shown once of a pair of keys.
func keyValues(p merchants.KeyPair) []shownValue {
	return []shownValue{{"Public API key", p.PublicAPIKey, false}, {"Private secret key", p.PrivateSecretKey, true}}
}

// networksSent reads a text field with a network a line; empty, it is nil, all of them.
func networksSent(text string) ([]netip.Prefix, error) {
	if lines := linesOf(text); len(lines) > 0 {
		return merchants.ParseNetworks(lines)
	}
	return nil, nil
}

// overlaps are those that the page offers, in the order in which it does: for a key that has
// leaked, for a deployment that is under way, for a day, and for a merchant who is slow.
var overlaps = []struct {
	Name string
	time.Duration
}{
	{"At once", 0}, {"In 1 hour", time.Hour}, {"In 24 hours", merchants.DefaultOverlap}, {"In 7 days", 7 * 24 * time.Hour},
}

// overlapChoice is one of the overlaps.
type overlapChoice struct {
	Seconds int
	Name    string
	Chosen  bool
}

// overlapChoices say until when the old key would be good, if it were rotated now.
func overlapChoices(now time.Time, chosen time.Duration) []overlapChoice {
	var all []overlapChoice
	for _, o := range overlaps {
		choice := overlapChoice{int(o.Seconds()), o.Name, o.Duration == chosen}
		if o.Duration > 0 {
			choice.Name += ", at " + formatTime(now.Add(o.Duration)) + " UTC"
		}
		all = append(all, choice)
	}
	return all
}

// keyPage is what the page of one key shows.
type keyPage struct {
	keyLine
	Merchant merchants.Merchant
	Notice   string
	Overlaps []overlapChoice
	Entered  string // the networks in the form, one a line
	// Problem is why the form was refused that Failed names: rotate, revoke or restrict. It is
	// above all forms, because by now there may be none like that.
	Failed, Problem string
}

// showKey is GET /merchants/{account_id}/keys/{key_id}.
func (h *Handler) showKey(c echo.Context) error {
	return h.keyPage(c, http.StatusOK, func(*keyPage) {})
}

// refreshKey is GET /merchants/{account_id}/keys/{key_id}/state, the part of a key's page
// that changes. Whoever opens it by hand is shown the whole.
func (h *Handler) refreshKey(c echo.Context) error {
	account, id, err := keyOf(c)
	if err != nil {
		return err
	}
	if !fromScript(c) {
		return c.Redirect(http.StatusSeeOther, keyPath(account, id))
	}
	k, err := h.o.Merchants.Key(c.Request().Context(), account, id)
	if err != nil {
		return err
	}
	return h.showPart(c, "key", "refreshed", page{Data: keyPage{keyLine: keyLineOf(k, h.o.Merchants.DatabaseTime())}})
}

// keyPage shows a key as it is now; fill puts a form back that was refused.
func (h *Handler) keyPage(c echo.Context, status int, fill func(p *keyPage)) error {
	account, id, err := keyOf(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	m, err := h.o.Merchants.Merchant(ctx, account)
	if err != nil {
		return err
	}
	k, err := h.o.Merchants.Key(ctx, account, id)
	if err != nil {
		return err
	}
	now := h.o.Merchants.DatabaseTime()
	p := keyPage{
		keyLine: keyLineOf(k, now), Merchant: m, Notice: notices[c.QueryParam("done")],
		Overlaps: overlapChoices(now, merchants.DefaultOverlap), Entered: strings.Join(textsOf(k.Networks), "\n"),
	}
	fill(&p)
	return h.show(c, status, "key", page{Title: "Key of " + m.Name, Section: pathMerchants, Data: p})
}

// refuseKey shows a key with the form that was refused, if err says that one was.
func (h *Handler) refuseKey(c echo.Context, form string, err error, fill func(p *keyPage)) error {
	r, ok := refused(err)
	if !ok {
		return err
	}
	return h.keyPage(c, r.Status, func(p *keyPage) {
		p.Failed, p.Problem = form, r.Words
		fill(p)
	})
}

// rotateKey is POST /merchants/{account_id}/keys/{key_id}/rotate. The answer shows the
// successor's secret.
func (h *Handler) rotateKey(c echo.Context) error {
	account, id, err := keyOf(c)
	if err != nil {
		return err
	}
	seconds, err := strconv.Atoi(c.FormValue("overlap_seconds"))
	if err != nil || seconds < 0 || seconds > int(merchants.MaxOverlap.Seconds()) {
		seconds = -1 // what is refused, without what a multiplication may make of it
	}
	overlap := time.Duration(seconds) * time.Second
	successor, old, err := h.o.Merchants.Rotate(c.Request().Context(), account, id, overlap)
	if err != nil {
		return h.refuseKey(c, "rotate", err, func(p *keyPage) { p.Overlaps = overlapChoices(h.o.Merchants.DatabaseTime(), overlap) })
	}
	until := "The old key has ended. Within 5 seconds no instance takes it any more."
	if old.Status == merchants.Expiring {
		until = "The old key is good until " + formatTime(*old.ExpiresAt) + " UTC, and then ends by itself."
	}
	return h.showOnce(c, pathMerchants, shownOnce{
		Title: "The key was rotated",
		Says: []string{
			"This is its successor, for " + successor.Mode + " mode and the same networks. Bring it to the merchant's backend.", until,
			"Retries with the new key find what the old one began: neither charges twice.",
		},
		Values: keyValues(successor), Next: merchantPath(account) + "#keys", NextName: "To the merchant's keys",
	})
}

// revokeKey is POST /merchants/{account_id}/keys/{key_id}/revoke.
func (h *Handler) revokeKey(c echo.Context) error {
	account, id, err := keyOf(c)
	if err != nil {
		return err
	}
	if _, err := h.o.Merchants.Revoke(c.Request().Context(), account, id); err != nil {
		return h.refuseKey(c, "revoke", err, func(*keyPage) {})
	}
	return seeOther(c, keyPath(account, id)+"?done=key-revoked")
}

// restrictKey is POST /merchants/{account_id}/keys/{key_id}/restrict.
func (h *Handler) restrictKey(c echo.Context) error {
	account, id, err := keyOf(c)
	if err != nil {
		return err
	}
	text := c.FormValue("networks")
	networks, err := networksSent(text)
	if err == nil {
		_, err = h.o.Merchants.Restrict(c.Request().Context(), account, id, networks)
	}
	if err != nil {
		return h.refuseKey(c, "restrict", err, func(p *keyPage) { p.Entered = text })
	}
	return seeOther(c, keyPath(account, id)+"?done=key-restricted")
}

func textsOf(networks []netip.Prefix) []string {
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	return texts
}

// keyOf is the key in the path, and whose it is said to be.
func keyOf(c echo.Context) (account, id uuid.UUID, err error) {
	if account, err = merchantOf(c); err != nil {
		return uuid.Nil, uuid.Nil, err
	}
	if id, err = uuid.Parse(c.Param("key_id")); err != nil {
		return uuid.Nil, uuid.Nil, apierr.New(apierr.NotFound, "this merchant has no key with this id")
	}
	return account, id, nil
}
