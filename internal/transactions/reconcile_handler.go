package transactions

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/jsontree"
)

// ReconciliationHandler is how an operator compares our books with a provider's, and
// reads what differs.
type ReconciliationHandler struct{ reconciler *Reconciler }

// NewReconciliationHandler makes the handler of a reconciler.
func NewReconciliationHandler(r *Reconciler) *ReconciliationHandler {
	return &ReconciliationHandler{reconciler: r}
}

// Mount adds the routes to g, which is authenticated already.
func (h *ReconciliationHandler) Mount(g *echo.Group) {
	g.POST("/reconciliations", h.reconcile)
	g.GET("/differences", h.differences)
}

// reconcile is POST /admin/v1/reconciliations: one step.
func (h *ReconciliationHandler) reconcile(c echo.Context) error {
	body, err := httpapi.Body(c)
	if err != nil {
		return err
	}
	w, err := parseWish(body)
	if err != nil {
		return err
	}
	_, known := h.reconciler.service.providers.Named(w.Provider)
	if w.After == "" && (known || w.Provider == "") { // later steps are of the same order, and nobody's books of none
		if err := h.note(c.Request().Context(), w); err != nil {
			return err
		}
	}
	told, err := h.reconciler.Step(c.Request().Context(), w)
	if err != nil {
		return err
	}
	httpapi.LineOf(c).Provider = told.Provider
	answer, err := encode(told)
	if err != nil {
		return err
	}
	return httpapi.JSON(c, http.StatusOK, answer)
}

// note writes into the audit log that somebody ordered this: what it finds may be reversed.
func (h *ReconciliationHandler) note(ctx context.Context, w wish) error {
	e := audit.Entry{Action: "reconciliation.ordered", Target: "reconciliation", Details: map[string]string{"provider": cmp.Or(w.Provider, "all")}}
	if w.Ago > 0 {
		e.Details["since"] = w.Ago.String() + " ago"
	} else {
		e.Details["since"] = httpapi.Timestamp(w.Since)
	}
	if !w.Until.IsZero() {
		e.Details["until"] = httpapi.Timestamp(w.Until)
	}
	return audit.Log{DB: h.reconciler.service.store.db}.Append(ctx, e)
}

// Limits of what an operator may ask for.
const (
	maxProviderName = 64  // the names that we give have some twenty characters
	maxCursor       = 512 // one that we made is shorter
)

func parseWish(body jsontree.Value) (wish, error) {
	if body.Kind() != jsontree.Object {
		return wish{}, apierr.New(apierr.InvalidRequest, "$ must be an object")
	}
	v := &checker{}
	w := wish{After: v.Text(body.Get("after"), 1, maxCursor), Provider: v.Text(body.Get("provider"), 1, maxProviderName)}
	if since := body.Get("since"); w.After == "" && v.Required(since) {
		text, _ := since.Text()
		ago, err := time.ParseDuration(text)
		if err == nil && ago > 0 {
			w.Ago = ago
		} else {
			w.Since = v.moment(since, "must be a time such as 2026-11-22T08:00:00Z, or how long ago, such as 24h")
		}
	}
	if until := body.Get("until"); until.Given() {
		w.Until = v.moment(until, "must be a time such as 2026-11-22T08:00:00Z")
	}
	return w, v.Err()
}

// moment reads a time of RFC 3339.
func (v *checker) moment(at jsontree.Value, rule string) time.Time {
	text, _ := at.Text()
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.Year() < 2000 || t.Year() > 9999 { // PostgreSQL's times end elsewhere
		v.Invalid(at, rule)
	}
	return t
}

// differences is GET /admin/v1/differences, the last seen first.
func (h *ReconciliationHandler) differences(c echo.Context) error {
	limit, after, err := differencesPage(c)
	if err != nil {
		return err
	}
	ds, err := h.reconciler.service.store.differences(c.Request().Context(), after, limit+1)
	if err != nil {
		return err
	}
	if len(ds) > limit {
		ds = ds[:limit]
		httpapi.LinkNext(c, ds[limit-1].cursor())
	}
	answer, err := encode(append([]Difference{}, ds...))
	if err != nil {
		return err
	}
	return httpapi.JSON(c, http.StatusOK, answer)
}

// The pages of the list of differences. They are those of httpapi, but for the cursor: a
// difference has no id of ours.
const (
	defaultDifferences = 20
	maxDifferences     = 100
	// maxDifferenceCursor is more than the longest one has: two texts of 255 bytes, each
	// escaped and encoded, and some shorter ones.
	maxDifferenceCursor = 6000
)

func differencesPage(c echo.Context) (limit int, after Difference, err error) {
	limit = defaultDifferences
	if s := c.QueryParam("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > maxDifferences {
			return 0, after, apierr.New(apierr.InvalidParameters, "limit must be a whole number from 1 to 100")
		}
	}
	s := c.QueryParam("after")
	if s == "" {
		return limit, after, nil
	}
	malformed := apierr.New(apierr.InvalidParameters, "after must be a cursor from a Link header")
	if len(s) > maxDifferenceCursor {
		return 0, after, malformed
	}
	var parts [5]string
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &parts)
	}
	after = Difference{AccountID: parts[1], Provider: parts[2], Reference: parts[3], Finding: Finding(parts[4])}
	if err == nil {
		after.LastSeenAt, err = time.Parse(time.RFC3339Nano, parts[0])
	}
	for _, text := range parts {
		if err != nil || text != plain(text) || after.LastSeenAt.Year() < 2000 {
			return 0, after, malformed
		}
	}
	return limit, after, nil
}

// cursor is where the page behind d begins.
func (d Difference) cursor() string {
	b, err := json.Marshal([5]string{d.LastSeenAt.UTC().Format(time.RFC3339Nano), d.AccountID, d.Provider, d.Reference, string(d.Finding)})
	if err != nil {
		panic(err) // five texts
	}
	return base64.RawURLEncoding.EncodeToString(b)
}
